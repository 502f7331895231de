//! The objects that pages show: a release that goes on, its records, and others with texts of an attacker.

use flagger_rs::{api::release::RunEvidence, records::pack};
use serde_json::{Value, json};

use super::many_users::ManyUsers;

/// A canary in a run: its status.
pub fn progressing(weight: i64) -> Value {
    json!({"phase": "Progressing", "canaryWeight": weight, "failedChecks": 1, "conditions": [
        {"type": "Verdict", "status": "True", "reason": "Threshold",
            "message": "Failed check 1 of 5: request-duration was 812 ms, above the maximum 500 ms."}]})
}

/// A server on which `shop/checkout` has all that a page can show, beside a canary that has failed.
pub async fn shop() -> ManyUsers {
    let server = ManyUsers::start().await;
    server.set("shop", "checkout", progressing(20));
    let aborted = "Aborted by jane@example.com: errors at the checkout.";
    server.set(
        "shop",
        "search",
        json!({"phase": "Failed", "canaryWeight": 0, "conditions": [
            {"type": "Verdict", "status": "True", "reason": "Aborted", "message": aborted}]}),
    );
    server.set(
        "shop",
        "cart",
        json!({"phase": "Succeeded", "canaryWeight": 0}),
    );
    server.edit("shop", "checkout", |canary| {
        canary["spec"]["analysis"]["metrics"] = json!([
            {"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"}]);
        canary["spec"]["analysis"]["webhooks"] =
            json!([{"name": "load-test", "url": "http://tester/"}]);
    });
    fill(
        &server,
        "checkout:3.1.1",
        "Halt checkout.shop advancement request duration 812ms > 500ms",
        "",
    );
    server
}

/// Fills the page of `shop/checkout`: workloads, pods, events and records with these texts.
pub fn fill(server: &ManyUsers, image: &str, message: &str, answer: &str) {
    for (name, image) in [("checkout", image), ("checkout-primary", "checkout:3.1.0")] {
        server.answer(
            &format!("/deployments/{name}"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"selector": {"matchLabels": {"app": name}},
                    "template": {"spec": {"containers": [{"name": "app", "image": image}]}}}}),
        );
    }
    let list =
        |items: Value| json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
    let pod = |name: &str, state: Value, ready: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-11-28T10:08:00Z"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [state]}})
    };
    let running = json!({"restartCount": 0, "state": {"running": {}}});
    let crashing = json!({"restartCount": 6, "state": {"waiting": {"reason": "CrashLoopBackOff"}}});
    server.answer(
        "/pods",
        list(json!([pod("checkout-6d5f7c-x2x9z", crashing, "False")])),
    );
    server.answer(
        "labelSelector=app%3Dcheckout-primary",
        list(json!([pod(
            "checkout-primary-7f9c4b-q8l2m",
            running,
            "True"
        )])),
    );
    server.answer(
        "/events",
        list(json!([{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "shop"}, "type": "Warning",
            "message": message, "reason": message, "lastTimestamp": "2026-11-28T10:11:37Z", "count": 2,
            "involvedObject": {"kind": "Canary", "name": "checkout", "namespace": "shop", "uid": "uid-checkout"}}])),
    );
    let records = json!([
        record("checkout-1", "Promoted", 1, (image, message, answer)),
        record("checkout-2", "Failed", 2, (image, message, answer)),
        record("checkout-3", "Running", 3, (image, message, answer)),
    ]);
    server.answer("/releases", list(records));
}

/// The record of a release. Its evidence has a metric with a threshold, and one that compares two versions.
fn record(
    name: &str,
    result: &str,
    day: u8,
    (image, message, answer): (&str, &str, &str),
) -> Value {
    let at = |minute: u32| format!("2026-11-0{day}T10:{minute:02}:00Z");
    let measurement = |minute: u32, value: f64| {
        let failure =
            (value > 500.0).then(|| format!("{value} ms is above the maximum 500 ms. {message}"));
        let compared = json!({"state": "undecided", "decides": true, "detail": "not decided yet", "requests": 1000 * minute,
            "bad": 10 * minute, "primaryRequests": 9000 * minute, "primaryBad": 9 * minute, "evidence": 0.5});
        json!({"at": at(minute), "weight": 10 * minute, "values": [
            {"metric": 0, "value": value, "failure": failure}, {"metric": 1, "comparison": compared}]})
    };
    let evidence: RunEvidence = serde_json::from_value(json!({
        "metrics": [
            {"name": "request-duration", "provider": "prometheus", "host": "prometheus:9090",
                "query": format!("histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket[1m])) by (le)) {answer}"),
                "window": "30s", "unit": "ms", "max": 500.0},
            {"name": "errors", "provider": "prometheus", "host": "prometheus:9090", "window": "1m"}],
        "measurements": [measurement(1, 120.0), measurement(2, 812.0), measurement(3, 240.0)],
        "hooks": [{"at": at(1), "name": "load-test", "kind": "rollout", "host": "tester", "status": 200, "answer": answer},
            {"at": at(2), "name": "acceptance", "kind": "pre-rollout", "host": "tester", "status": 500, "answer": answer}],
        "timeline": [{"at": at(0), "phase": "Progressing", "weight": 0}, {"at": at(1), "phase": "Progressing", "weight": 10}]}))
    .unwrap();
    let ended = (result != "Running").then(|| at(9));
    json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "Release", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"canary": "checkout", "revision": if day == 3 { "v1-b" } else { "v1-a" }, "from": "v1-a", "strategy": "canary",
            "result": result, "trigger": "argocd", "images": [{"name": "app", "from": "checkout:3.1.0", "to": image}],
            "configs": [{"name": "configmap/checkout", "from": "1a2b", "to": "3c4d"}],
            "cause": {"code": "Threshold", "sentence": message}, "startedAt": at(0), "endedAt": ended,
            "steps": 5, "reached": 2, "weight": 20, "evidence": pack(&evidence)}})
}

/// All pages, each with a name.
pub const PAGES: [(&str, &str); 8] = [
    ("fleet", "/"),
    ("none", "/?q=nothing"),
    ("release", "/c/shop/checkout"),
    ("failed", "/c/shop/search"),
    ("record", "/c/shop/checkout/r/checkout-2"),
    (
        "history",
        "/c/shop/checkout/history?a=checkout-1&b=checkout-2",
    ),
    ("setup", "/setup"),
    ("frame", "/c/shop/checkout?embed=1"),
];
