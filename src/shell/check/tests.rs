use serde_json::json;

use super::*;
use crate::{
    cli,
    shell::api_server::{
        Leadership,
        fake::{Answer, FakeApiServer, Request, refusal},
    },
};

fn settings() -> Settings {
    let Ok(cli::Command::Run(config)) = cli::parse([], |_| None) else {
        panic!("the operator runs without arguments")
    };
    config.settings
}

fn watched(namespace: Option<&str>) -> Watched {
    Watched {
        namespace: namespace.map(str::to_owned),
        shard: None,
    }
}

fn canary(name: &str, target_port: i64) -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name, "namespace": "shop", "resourceVersion": "7"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "service": {"port": 80, "targetPort": target_port},
            "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10}},
        "status": {"phase": "Succeeded", "canaryWeight": 0, "failedChecks": 0, "iterations": 0}})
}

/// An API server with a Canary that can be read and one that cannot, and without targets. The account has all rights but these.
fn api_server(denied: &'static [(&str, &str)]) -> FakeApiServer {
    FakeApiServer::answering(move |request: &Request| -> Answer {
        if request.line.starts_with("POST ") {
            let asked = &request.body["spec"]["resourceAttributes"];
            let is = |field: &str, value: &str| asked[field] == value;
            let mut denied = denied.iter();
            let is_denied =
                denied.any(|(verb, resource)| is("verb", verb) && is("resource", resource));
            return Some((
                201,
                json!({"metadata": {}, "spec": {}, "status": {"allowed": !is_denied}}),
            ));
        }
        let (_, path) = request.line.split_once("v1beta1/").unwrap_or_default();
        match path.split('?').next() {
            Some("canaries" | "namespaces/shop/canaries") => {
                let items = [canary("web", 80), canary("broken", 99_999_999_999)];
                let list = json!({"apiVersion": "flagger.app/v1beta1", "kind": "CanaryList", "metadata": {}, "items": items});
                Some((200, list))
            }
            Some("namespaces/shop/canaries/web") => Some((200, canary("web", 80))),
            _ => refusal(404),
        }
    })
}

#[tokio::test]
async fn each_canary_has_a_row_and_each_missing_right_a_line() {
    let denied = &[("patch", "deployments"), ("update", "leases")];
    let server = api_server(denied);
    let cluster = server.cluster(Leadership::never());
    let report = check(
        cluster,
        Watched::default(),
        settings(),
        Some("kube-system"),
        true,
    )
    .await
    .unwrap();
    let rows: Vec<_> = report
        .canaries
        .iter()
        .map(|row| {
            (
                row.name.as_str(),
                row.namespace.as_str(),
                row.phase.as_str(),
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            ("web", "shop", "Succeeded"),
            ("broken", "shop", "Succeeded")
        ]
    );
    assert_ne!(report.canaries[0].preview.action, FirstAction::Unreadable);
    assert_eq!(report.canaries[1].preview.action, FirstAction::Unreadable);
    let missing: Vec<_> = report
        .missing
        .iter()
        .map(|(right, scope)| format!("{right} {scope}"))
        .collect();
    assert_eq!(missing.len(), 2, "{missing:?}");
    assert!(
        missing.iter().any(
            |line| line.starts_with("patch deployments") && line.ends_with("in namespace shop")
        ),
        "{missing:?}"
    );
    assert!(
        missing
            .iter()
            .any(|line| line.starts_with("update leases")
                && line.ends_with("in namespace kube-system")),
        "{missing:?}"
    );
    let lines = server.take_lines();
    let only_asks =
        |line: &String| line.starts_with("GET ") || line.contains("/selfsubjectaccessreviews?");
    assert!(lines.iter().all(only_asks), "{lines:?}");
}

#[tokio::test]
async fn the_rights_of_the_leader_election_are_needed_only_with_it() {
    let denied = &[
        ("update", "leases"),
        ("get", "leases"),
        ("create", "leases"),
    ];
    let cluster = api_server(denied).cluster(Leadership::never());
    let report = check(cluster, watched(Some("shop")), settings(), None, true)
        .await
        .unwrap();
    assert!(report.missing.is_empty(), "{:?}", report.missing);
}

#[tokio::test]
async fn a_right_in_the_watched_namespace_is_enough() {
    let server = FakeApiServer::answering(|request: &Request| -> Answer {
        if request.line.starts_with("POST ") {
            let namespace = &request.body["spec"]["resourceAttributes"]["namespace"];
            let is_allowed = *namespace == "shop";
            return Some((
                201,
                json!({"metadata": {}, "spec": {}, "status": {"allowed": is_allowed}}),
            ));
        }
        let is_list = request.line.contains("/canaries?");
        let items = [canary("web", 80)];
        let list = json!({"apiVersion": "flagger.app/v1beta1", "kind": "CanaryList", "metadata": {}, "items": items});
        if is_list {
            Some((200, list))
        } else {
            refusal(404)
        }
    });
    let cluster = server.cluster(Leadership::never());
    for (namespace, is_enough) in [(Some("shop"), true), (None, false)] {
        let report = check(cluster.clone(), watched(namespace), settings(), None, true).await;
        let missing = report.unwrap().missing;
        assert_eq!(missing.is_empty(), is_enough, "{namespace:?}: {missing:?}");
    }
}

#[tokio::test]
async fn an_operator_of_a_shard_checks_its_canaries_and_its_own_lease() {
    let server = api_server(&[("update", "leases")]);
    let watched = Watched {
        namespace: None,
        shard: Some(Shard::parse("!shard").unwrap()),
    };
    let cluster = server.cluster(Leadership::never());
    let report = check(cluster, watched.clone(), settings(), Some("flux"), true).await;
    let missing = report.unwrap().missing;
    let lease = lease::name(watched.shard.as_ref());
    let [(right, _)] = &missing[..] else {
        panic!("{missing:?}")
    };
    assert_eq!(right.name.as_ref(), Some(&lease));
    assert_ne!(lease, lease::name(None));
    let lines = server.take_lines();
    let lists = lines.iter().filter(|line| line.contains("/canaries?"));
    let lists: Vec<_> = lists
        .map(|line| line.contains("labelSelector=%21shard"))
        .collect();
    assert_eq!(lists, [true], "{lines:?}");
}
