//! The requests for external metrics of Kubernetes.

use serde_json::json;

use super::*;

/// Each row has a query, and the rest of the request's path, or the error.
#[test]
fn an_external_metric_has_a_namespace_a_name_and_a_selector() {
    let spec = serde_json::from_value(json!({"type": "externalmetrics"})).unwrap();
    let server = Server::of(&spec, None, None).unwrap();
    let form = "expected <namespace>/<metricName>?labelSelector=<urlencoded label selectors>, got";
    for (query, path) in [
        ("metric", "default/metric?timeout=5s"),
        ("/metric", "default/metric?timeout=5s"),
        ("shop/metric?labelSelector=", "shop/metric?timeout=5s"),
        (
            "a%2Fb?labelSelector=!c",
            "a/b?labelSelector=%21c&timeout=5s",
        ),
    ] {
        let url = request(&server, query).url.0;
        assert!(url.ends_with(&format!("/namespaces/{path}")), "{url}");
        assert!(server.queried(query).unwrap().unwrap().rights.is_some());
    }
    for (query, why) in [
        ("", "metric name cannot be empty".to_owned()),
        ("/", "metric name cannot be empty".to_owned()),
        ("namespaceonly/", "metric name cannot be empty".to_owned()),
        (
            "a/b/c",
            format!("malformed query string, too many slashes, {form} a/b/c"),
        ),
        (
            "../secrets",
            format!("malformed query string, {form} ../secrets"),
        ),
        (
            "a/%2E%2e",
            format!("malformed query string, {form} a/%2E%2e"),
        ),
    ] {
        let error = server.queried(query).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("error parsing metric query: {why}")
        );
    }
}

/// Otherwise a template with an address could get the operator's token, as it can in Flagger.
#[test]
fn external_metrics_elsewhere_get_the_token_of_the_template_and_need_no_right() {
    let spec = json!({"type": "externalmetrics", "address": "https://metrics:6443", "insecureSkipVerify": true});
    let spec = serde_json::from_value(spec).unwrap();
    let token = [("token".to_owned(), "t".to_owned())].into();
    for (secret, expected) in [(None, vec![]), (Some(&token), vec!["Bearer t"])] {
        let server = Server::of(&spec, secret, None).unwrap();
        let request = request(&server, "shop/metric");
        assert_eq!(
            (request.origin, request.insecure_skip_verify),
            (Origin::User, true)
        );
        assert!(
            request
                .url
                .0
                .starts_with("https://metrics:6443/apis/external")
        );
        let sent: Vec<_> = request
            .headers
            .iter()
            .map(|(_, value)| value.0.as_str())
            .collect();
        assert_eq!(sent, expected);
        assert_eq!(server.hosts(), ["metrics"]);
        assert_eq!(server.queried("shop/metric").unwrap().unwrap().rights, None);
        let words = json!({"kind": "Status", "message": "orders is forbidden"}).to_string();
        assert_eq!(
            server.value(&answer(403, &words)).unwrap_err().to_string(),
            "error querying external metrics API: orders is forbidden"
        );
    }
    let spec = serde_json::from_value(json!({"type": "externalmetrics"})).unwrap();
    let server = Server::of(&spec, Some(&token), None).unwrap();
    assert!(request(&server, "m").headers.is_empty());
    assert!(server.hosts().is_empty(), "the API server gets no Secret");
}
