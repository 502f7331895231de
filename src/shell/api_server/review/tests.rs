use crate::snapshot::Kind;
use serde_json::json;

use super::*;
use crate::shell::api_server::{Leadership, fake::FakeApiServer};

#[tokio::test]
async fn all_pages_of_canaries_are_listed() {
    let server = FakeApiServer::answering(|request| {
        let page = |name: &str, token: &str| {
            json!({"apiVersion": "flagger.app/v1beta1", "kind": "CanaryList", "metadata": {"continue": token},
                "items": [{"metadata": {"name": name}}]})
        };
        let is_second = request.line.contains("continue=more");
        let page = if is_second {
            page("b", "")
        } else {
            page("a", "more")
        };
        Some((200, page))
    });
    let cluster = server.cluster(Leadership::never());
    for (namespace, path) in [
        (
            Some("shop"),
            "GET /apis/flagger.app/v1beta1/namespaces/shop/canaries?",
        ),
        (None, "GET /apis/flagger.app/v1beta1/canaries?"),
    ] {
        let canaries = cluster.list(Kind::Canary, namespace, None).await.unwrap();
        let names: Vec<_> = canaries.iter().map(|c| &c["metadata"]["name"]).collect();
        assert_eq!(names, ["a", "b"]);
        let lines = server.take_lines();
        assert!(lines.iter().all(|line| line.starts_with(path)), "{lines:?}");
        assert_eq!(lines.len(), 2);
    }
}

#[tokio::test]
async fn a_right_is_there_only_if_the_api_server_says_that_it_is() {
    for (status, expected) in [
        (json!({"allowed": true}), true),
        (json!({"allowed": false, "reason": "no role"}), false),
        (json!(null), false),
    ] {
        let server = FakeApiServer::answering(move |_| {
            Some((201, json!({"metadata": {}, "spec": {}, "status": status})))
        });
        let cluster = server.cluster(Leadership::never());
        let right = ResourceAttributes {
            group: Some("apps".to_owned()),
            namespace: Some("shop".to_owned()),
            resource: Some("deployments".to_owned()),
            verb: Some("patch".to_owned()),
            ..ResourceAttributes::default()
        };
        assert_eq!(cluster.is_allowed(right).await.unwrap(), expected);
        let [request] = server.take().try_into().unwrap();
        let asked = json!({"group": "apps", "namespace": "shop", "resource": "deployments", "verb": "patch"});
        assert_eq!(request.body["spec"], json!({"resourceAttributes": asked}));
    }
}
