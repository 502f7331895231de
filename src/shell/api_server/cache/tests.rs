use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::{
    shell::api_server::{
        Leadership,
        fake::{Answer, FakeApiServer, Request, refusal},
    },
    snapshot::{Action, Write},
};

fn object(kind: Kind, namespace: &str) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: namespace.to_owned(),
        name: "web".to_owned(),
    }
}

fn canary() -> ObjectRef {
    object(Kind::Canary, "shop")
}

type Channels = (
    mpsc::UnboundedReceiver<Kind>,
    mpsc::UnboundedReceiver<ObjectRef>,
);

fn cache(server: &FakeApiServer, namespace: Option<&str>) -> (Cache, Channels) {
    let (trigger, triggers) = mpsc::unbounded_channel();
    let needs = |_: &ObjectRef, _: &dyn Fn(&ObjectRef) -> Option<Value>| Needed::default();
    let cluster = server.cluster(Leadership::always());
    let watched = Watched {
        namespace: namespace.map(str::to_owned),
        shard: None,
    };
    let (cache, kinds) = Cache::new(cluster, watched, Box::new(needs), trigger);
    (cache, (kinds, triggers))
}

/// The kind is watched, and its list has ended. It does not contain the object.
fn watched(cache: &Cache, kind: Kind) {
    cache.index().list_started(kind);
    drop(cache.index().list_ended(kind));
}

/// Reads an object for the canary, and returns how many requests that took.
async fn reads(cache: &Cache, server: &FakeApiServer, object: &ObjectRef) -> usize {
    let held = &mut BTreeMap::new();
    let found = cache.read(&canary(), vec![object.clone()], held).await;
    assert_eq!(found.unwrap().len(), 1);
    server.take_lines().len()
}

#[tokio::test]
async fn a_secret_that_is_not_watched_is_read_each_time() {
    for (kind, first, then) in [
        ("helm.sh/release.v1", 1, 1),
        ("kubernetes.io/service-account-token", 1, 1),
        ("Opaque", 1, 0),
    ] {
        let secret =
            json!({"metadata": {"name": "web", "resourceVersion": "7"}, "type": kind, "data": {}});
        let server = FakeApiServer::answering(move |_| Some((200, secret.clone())));
        let (cache, _channels) = cache(&server, None);
        watched(&cache, Kind::Secret);
        let secret = object(Kind::Secret, "shop");
        assert_eq!(reads(&cache, &server, &secret).await, first, "{kind}");
        assert_eq!(reads(&cache, &server, &secret).await, then, "{kind}");
    }
}

/// An API server without streamed lists, whose lists are empty and whose watches are silent.
fn empty(request: &Request) -> Answer {
    if request.line.contains("/version") {
        let version = json!({"major": "1", "minor": "30", "gitVersion": "", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": ""});
        return Some((200, version));
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []});
    (!request.line.contains("watch=true")).then_some((200, list))
}

/// The requests with which all kinds are listed and watched.
async fn watches(namespace: Option<&str>) -> Vec<String> {
    let server = FakeApiServer::answering(empty);
    let (cache, (kinds, _triggers)) = cache(&server, namespace);
    cache.subscribe(
        &canary(),
        Kind::ALL.iter().map(|kind| object(*kind, "shop")),
    );
    let running = timeout(Duration::from_secs(5), cache.run(kinds));
    assert!(running.await.is_err(), "it never ends");
    let mut lines = server.take_lines();
    lines.retain(|line| !line.contains("/version"));
    lines
}

#[tokio::test(start_paused = true)]
async fn every_kind_is_listed_and_watched_in_the_watched_namespace() {
    for (namespace, part) in [(Some("shop"), "/namespaces/shop/"), (None, "/")] {
        let lines = watches(namespace).await;
        for kind in Kind::ALL {
            let (_, version) = kind.group_version();
            let part = if kind.is_cluster_scoped() { "/" } else { part };
            let resource = format!("/{version}{part}{}?", kind.plural());
            let of_kind: Vec<_> = lines.iter().filter(|l| l.contains(&resource)).collect();
            let watches = of_kind.iter().filter(|line| line.contains("watch=true"));
            assert!(watches.count() >= 1, "{resource} {lines:?}");
            assert!(of_kind.len() >= 2, "{resource} {lines:?}");
        }
        let of_cluster = |line: &&String| line.contains("/trafficroutes?");
        let lines: Vec<_> = lines.iter().filter(|line| !of_cluster(line)).collect();
        let elsewhere = lines.iter().filter(|line| line.contains("/namespaces/"));
        let expected = if namespace.is_some() { lines.len() } else { 0 };
        assert_eq!(elsewhere.count(), expected, "{lines:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn exactly_the_secrets_that_are_not_cached_are_left_out_of_the_watch() {
    let lines = watches(None).await;
    let left_out = "fieldSelector=type%21%3Dhelm.sh%2Frelease.v1%2Ctype%21%3Dkubernetes.io%2Fservice-account-token";
    for line in lines {
        let is_of_secrets = line.contains("/secrets?");
        assert_eq!(line.contains(left_out), is_of_secrets, "{line}");
        assert_eq!(line.contains("fieldSelector"), is_of_secrets, "{line}");
    }
}

/// An API server that ends each watch after its first line, as a proxy may that does not know watches. With and without streamed lists.
#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_begin_again_with_growing_pauses() {
    const TOO_MANY: usize = 500;
    for minor in ["30", "36"] {
        let watches = AtomicUsize::new(0);
        let server = FakeApiServer::answering(move |request| {
            if request.line.contains("/version") {
                let (_, mut version) = empty(request)?;
                version["minor"] = json!(minor);
                return Some((200, version));
            }
            if !request.line.contains("watch=true") {
                return empty(request);
            }
            let bookmark = json!({"type": "BOOKMARK", "object": {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata":
                {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}}});
            // Requests without a pause would never end.
            (watches.fetch_add(1, Ordering::Relaxed) < TOO_MANY).then_some((200, bookmark))
        });
        let (cache, (kinds, _triggers)) = cache(&server, None);
        let half_an_hour = Duration::from_secs(1800);
        assert!(timeout(half_an_hour, cache.run(kinds)).await.is_err());
        let mut lines = server.take_lines();
        lines.retain(|line| line.contains("watch=true"));
        assert!((60..300).contains(&lines.len()), "{minor}: {}", lines.len());
        assert!(cache.index().failures(Kind::Canary) > 10, "{minor}");
    }
}

#[tokio::test]
async fn an_object_outside_the_watched_namespace_is_read_each_time() {
    let found = json!({"metadata": {"name": "web", "resourceVersion": "7"}});
    let server = FakeApiServer::answering(move |_| Some((200, found.clone())));
    let (cache, _channels) = cache(&server, Some("shop"));
    watched(&cache, Kind::MetricTemplate);
    for (namespace, then) in [("shop", 0), ("metrics", 1)] {
        let template = object(Kind::MetricTemplate, namespace);
        assert_eq!(reads(&cache, &server, &template).await, 1, "{namespace}");
        assert_eq!(reads(&cache, &server, &template).await, then, "{namespace}");
    }
}

/// Writes an object that is cached at version 7, and gets this answer. Returns how many requests the next read takes, the cached version
/// before that read, and whether the write was counted as a conflict.
async fn after_a_write(answer: Answer) -> (usize, String, bool) {
    let at = |version: &str| json!({"metadata": {"name": "web", "resourceVersion": version}});
    let server = FakeApiServer::answering(move |request| {
        let is_read = request.line.starts_with("GET ");
        if is_read {
            Some((200, at("7")))
        } else {
            answer.clone()
        }
    });
    let (cache, _channels) = cache(&server, None);
    watched(&cache, Kind::Service);
    let service = object(Kind::Service, "shop");
    assert_eq!(reads(&cache, &server, &service).await, 1);
    let write = Write {
        object: service.clone(),
        action: Action::Replace(at("7")),
        failure: String::new(),
    };
    let writing = cache.cluster.apply(&write);
    let written = cache.write(&canary(), &service, writing).await;
    drop(written);
    server.take_lines();
    let cached = cache.peek(&service).unwrap_or_default();
    let requests = reads(&cache, &server, &service).await;
    let is_conflict = server.metrics().contains("flagger_rs_conflicts_total 1\n");
    (requests, version_of(&cached).to_owned(), is_conflict)
}

#[tokio::test(start_paused = true)]
async fn an_object_is_read_after_a_write_only_if_the_write_did_not_show_its_state() {
    let written = json!({"metadata": {"name": "web", "resourceVersion": "9"}});
    for (answer, expected) in [
        (Some((200, written)), (0, "9", false)),
        (refusal(409), (1, "", true)),
        (refusal(500), (1, "", false)),
        (None, (1, "", false)),
        (refusal(403), (0, "7", false)),
    ] {
        let (requests, cached, is_conflict) = after_a_write(answer.clone()).await;
        let after = (requests, cached.as_str(), is_conflict);
        assert_eq!(after, expected, "{answer:?}");
    }
}
