use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::core::ObjectMeta;
use tokio::{sync::watch, time::Instant};

use super::*;
use crate::shell::api_server::fake::{FakeApiServer, refusal};

fn object(kind: Kind) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
    }
}

fn write(kind: Kind, action: Action) -> Write {
    Write {
        object: object(kind),
        action,
        failure: String::new(),
    }
}

fn service() -> Value {
    json!({"metadata": {"name": "web", "namespace": "shop", "resourceVersion": "7"}, "spec": {"clusterIP": "None"}})
}

/// A patch of an object that was observed in generation 3.
fn patch() -> Value {
    json!([{"op": "test", "path": "/metadata/generation", "value": 3}, {"op": "replace", "path": "/spec/replicas", "value": 2}])
}

fn actions() -> [Action; 3] {
    [
        Action::Create(service()),
        Action::Replace(service()),
        Action::Patch(patch()),
    ]
}

/// An API server that accepts everything.
fn accepting() -> FakeApiServer {
    FakeApiServer::answering(|_| Some((200, service())))
}

fn event() -> ObjectMeta {
    ObjectMeta {
        name: Some("web.1".to_owned()),
        namespace: Some("shop".to_owned()),
        ..ObjectMeta::default()
    }
}

#[tokio::test]
async fn a_process_that_does_not_lead_reads_and_sends_no_write() {
    let server = accepting();
    let cluster = server.cluster(Leadership::never());
    let not_leader = |result: Result<(), ClusterError>| {
        assert!(matches!(result, Err(ClusterError::NotLeader)), "{result:?}");
    };
    for action in actions() {
        let applied = cluster.apply(&write(Kind::Deployment, action)).await;
        not_leader(applied.map(drop));
    }
    let canary = object(Kind::Canary);
    not_leader(cluster.commit(&canary, "7", json!({})).await.map(drop));
    let existing = event();
    let counted = cluster.count_event(&existing, 2, Timestamp::UNIX_EPOCH);
    not_leader(counted.await.map(drop));
    let created = Event {
        metadata: event(),
        ..Event::default()
    };
    not_leader(cluster.create_event(&created).await.map(drop));
    assert!(!cluster.may_write());
    assert_eq!(server.take_lines(), [""; 0]);

    assert!(cluster.get(&canary).await.unwrap().is_some());
    assert_eq!(server.take_lines().len(), 1);
}

#[tokio::test]
async fn the_failure_of_a_write_is_the_lost_lease_if_the_lease_is_lost_by_then() {
    let (lease, right) = watch::channel(Instant::now() + Duration::from_secs(3600));
    let server = FakeApiServer::answering(move |_| {
        lease.send_replace(Instant::now());
        refusal(409)
    });
    let cluster = server.cluster(Leadership::until(right));
    let written = cluster
        .apply(&write(Kind::Service, Action::Replace(service())))
        .await;
    assert!(matches!(written, Err(ClusterError::NotLeader)));
}

#[tokio::test]
async fn each_write_is_sent_on_condition_of_what_was_observed() {
    let server = accepting();
    let cluster = server.cluster(Leadership::always());
    let path = "/apis/apps/v1/namespaces/shop/deployments";
    let (json, json_patch) = ("application/json", "application/json-patch+json");
    let expected = [
        (format!("POST {path}?"), json, service()),
        (format!("PUT {path}/web?"), json, service()),
        (format!("PATCH {path}/web?"), json_patch, patch()),
    ];
    for (action, (line, content_type, body)) in actions().into_iter().zip(expected) {
        let applied = cluster.apply(&write(Kind::Deployment, action)).await;
        assert_eq!(applied.unwrap().version(), "7", "the object as it is then");
        let [request] = server.take().try_into().unwrap();
        assert_eq!((&request.line, request.body), (&line, body));
        assert_eq!(request.content_type, content_type, "{line}");
    }
    let status = json!({"phase": "Failed", "trackedConfigs": null});
    let canary = object(Kind::Canary);
    let committed = cluster.commit(&canary, "7", status.clone());
    committed.await.unwrap();
    let [request] = server.take().try_into().unwrap();
    let line = "PATCH /apis/flagger.app/v1beta1/namespaces/shop/canaries/web/status?";
    assert_eq!(request.line, line);
    assert_eq!(request.content_type, "application/merge-patch+json");
    let conditional = json!({"metadata": {"resourceVersion": "7"}, "status": status});
    assert_eq!(request.body, conditional);
}

/// The category of the error of each write, if the API server refuses it with this status.
async fn categories(code: u16) -> [&'static str; 4] {
    let server = FakeApiServer::answering(move |_| refusal(code));
    let cluster = server.cluster(Leadership::always());
    let mut categories = Vec::new();
    for action in actions() {
        let refused = cluster.apply(&write(Kind::Deployment, action)).await;
        categories.push(refused.unwrap_err().category());
    }
    let refused = cluster.commit(&object(Kind::Canary), "7", json!({})).await;
    categories.push(refused.unwrap_err().category());
    categories.try_into().unwrap()
}

#[tokio::test]
async fn a_conflict_is_decided_anew_and_other_refusals_are_reported() {
    for (code, expected) in [
        (409, ["lost"; 4]),
        (404, ["refused", "lost", "lost", "lost"]),
        (403, ["refused"; 4]),
        (429, ["unreachable"; 4]),
        (500, ["unreachable"; 4]),
        (503, ["unreachable"; 4]),
    ] {
        assert_eq!(categories(code).await, expected, "{code}");
    }
}

#[tokio::test]
async fn a_refused_patch_is_lost_only_if_the_object_is_not_as_it_was_observed() {
    for (now, category) in [
        (
            Some((200, json!({"metadata": {"generation": 3}}))),
            "refused",
        ),
        (Some((200, json!({"metadata": {"generation": 4}}))), "lost"),
        (Some((200, json!({"metadata": {}}))), "lost"),
        (refusal(404), "lost"),
        (refusal(500), "unreachable"),
    ] {
        let answer = now.clone();
        let server = FakeApiServer::answering(move |request| {
            let is_read = request.line.starts_with("GET ");
            if is_read { now.clone() } else { refusal(422) }
        });
        let cluster = server.cluster(Leadership::always());
        let patched = cluster
            .apply(&write(Kind::Deployment, Action::Patch(patch())))
            .await;
        assert_eq!(patched.unwrap_err().category(), category, "{answer:?}");
    }
}

#[tokio::test]
async fn a_missing_object_is_none_and_a_refused_read_is_an_error() {
    let read = async |code| {
        let server = FakeApiServer::answering(move |_| refusal(code));
        let cluster = server.cluster(Leadership::never());
        cluster.get(&object(Kind::Service)).await
    };
    assert!(read(404).await.unwrap().is_none());
    assert_eq!(read(403).await.unwrap_err().to_string(), "refused with 403");
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_is_given_up() {
    let server = FakeApiServer::answering(|_| None);
    let cluster = server.cluster(Leadership::always());
    let start = Instant::now();
    let read = cluster.get(&object(Kind::Service)).await.unwrap_err();
    assert_eq!(
        read.to_string(),
        "API server unreachable: no answer within 10 s"
    );
    assert_eq!(start.elapsed().as_secs(), 10);
    let start = Instant::now();
    let committed = cluster.commit(&object(Kind::Canary), "7", json!({})).await;
    assert_eq!(committed.unwrap_err().category(), "unreachable");
    assert_eq!(start.elapsed().as_secs(), 4);
}

#[tokio::test]
async fn requests_are_counted_by_verb_and_kind() {
    let server = accepting();
    let cluster = server.cluster(Leadership::always());
    for action in actions() {
        let write = write(Kind::Service, action);
        drop(cluster.apply(&write).await.unwrap());
    }
    let canary = object(Kind::Canary);
    for _ in 0..2 {
        drop(cluster.get(&canary).await.unwrap());
    }
    let commit = cluster.commit(&canary, "7", json!({}));
    drop(commit.await.unwrap());
    let text = server.metrics();
    for (kind, verb, count) in [
        ("Service", "create", 1),
        ("Service", "update", 1),
        ("Service", "patch", 1),
        ("Canary", "get", 2),
        ("Canary", "patch", 1),
    ] {
        let line =
            format!("flagger_rs_api_requests_total{{kind=\"{kind}\",verb=\"{verb}\"}} {count}");
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

/// The record of a release names the tool that started it. The API server lists managers in no order.
#[tokio::test]
async fn the_manager_of_an_object_is_the_one_that_wrote_it_last() {
    let entry = |manager: &str, second: u8, subresource: Option<&str>| {
        json!({"manager": manager, "operation": "Update", "apiVersion": "apps/v1", "time": format!("2026-01-01T00:00:{second:02}Z"),
            "subresource": subresource})
    };
    let helm = entry("helm", 1, None);
    let kubectl = entry("kubectl-set", 7, None);
    let argocd = entry("argocd", 4, None);
    let scales = entry("kube-controller-manager", 9, Some("status"));
    let own = |second| entry(MANAGER, second, None);
    for (entries, last, last_other) in [
        (
            json!([helm, kubectl, argocd]),
            Some("kubectl-set"),
            Some("kubectl-set"),
        ),
        (
            json!([kubectl, helm, scales, argocd]),
            Some("kubectl-set"),
            Some("kubectl-set"),
        ),
        (json!([own(8), kubectl, helm]), None, Some("kubectl-set")),
        (
            json!([own(5), kubectl, argocd]),
            Some("kubectl-set"),
            Some("kubectl-set"),
        ),
        (json!([helm, own(2)]), None, Some("helm")),
        (json!([own(2), scales]), None, None),
        (json!([]), None, None),
    ] {
        let case = entries.to_string();
        let object_of =
            json!({"metadata": {"name": "web", "namespace": "shop", "managedFields": entries}});
        let server = FakeApiServer::answering(move |_| Some((200, object_of.clone())));
        let cluster = server.cluster(Leadership::never());
        let web = object(Kind::Deployment);
        let found = cluster.other_manager(&web).await.unwrap();
        assert_eq!(found.as_deref(), last, "{case}");
        let found = cluster.last_other_manager(&web).await.unwrap();
        assert_eq!(found.as_deref(), last_other, "{case}");
    }
}
