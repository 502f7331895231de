//! The pictures of the documents: a list of canaries, and a release that failed.

use flagger_rs::{api::release::RunEvidence, records::pack};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{chromium::Browser, dashboard::Dashboard, many_users::ManyUsers};

const WIDTH: u32 = 1200;
const REASON: &str = "2 failed checks reached the threshold of 2. In the last one, request-duration was 812 ms, above the maximum 500 ms.";

const IMAGE_OLD: &str = "registry.example.com/shop/checkout:3.1.0";
const IMAGE_NEW: &str = "registry.example.com/shop/checkout:3.2.0";

/// So many minutes ago.
fn ago(minutes: i64) -> Timestamp {
    Timestamp::now() - SignedDuration::from_mins(minutes)
}

/// A canary with a status since some minutes.
fn put(server: &ManyUsers, (namespace, name): (&str, &str), status: Value, minutes: i64) {
    let failed = status.get("failedChecks").cloned();
    server.set(namespace, name, status);
    server.edit(namespace, name, |canary| {
        canary["status"]["failedChecks"] = failed.unwrap_or(json!(0));
        canary["status"]["lastTransitionTime"] = json!(ago(minutes));
        let metrics = json!([{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
            {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}]);
        let analysis = &mut canary["spec"]["analysis"];
        analysis["threshold"] = json!(2);
        analysis["metrics"] = metrics;
    });
}

fn verdict(phase: &str, weight: i64, code: &str, sentence: &str) -> Value {
    json!({"phase": phase, "canaryWeight": weight, "conditions": [
        {"type": "Verdict", "status": "True", "reason": code, "message": sentence}]})
}

/// A cluster in the middle of a day.
async fn cluster() -> ManyUsers {
    let server = ManyUsers::start().await;
    let quiet = |phase: &str, weight: i64| json!({"phase": phase, "canaryWeight": weight});
    let halted = "Failed check 1 of 2: request-success-rate was 98.2 %, below the minimum 99 %.";
    let waits = "Waits for the gate sign-off of the webhook at hooks.search, which answered 403.";
    let mut halted = verdict("Progressing", 20, "Threshold", halted);
    halted["failedChecks"] = json!(1);
    for (place, status, minutes) in [
        (
            ("shop", "checkout"),
            verdict("Failed", 0, "Threshold", REASON),
            4,
        ),
        (("shop", "cart"), quiet("Progressing", 30), 0),
        (("shop", "frontend"), quiet("Succeeded", 0), 95),
        (("billing", "invoices"), halted, 0),
        (("billing", "accounts"), quiet("Succeeded", 0), 60 * 26),
        (
            ("search", "index"),
            verdict("WaitingPromotion", 50, "Gate", waits),
            0,
        ),
        (("search", "suggest"), quiet("Succeeded", 0), 60 * 5),
        (("media", "encoder"), quiet("Promoting", 0), 0),
        (("secret", "ledger"), quiet("Initialized", 0), 60 * 70),
    ] {
        put(&server, place, status, minutes);
    }
    failed(&server);
    server
}

/// The objects of the release of `shop/checkout` that failed.
fn failed(server: &ManyUsers) {
    for (name, image) in [("checkout", IMAGE_NEW), ("checkout-primary", IMAGE_OLD)] {
        let container = json!({"name": "app", "image": image});
        server.answer(
            &format!("/deployments/{name}"),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
                "spec": {"selector": {"matchLabels": {"app": name}}, "template": {"spec": {"containers": [container]}}}}),
        );
    }
    let list =
        |items: Value| json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": ago(60 * 24 * 3)},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"restartCount": 0, "state": {"running": {}}}]}})
    };
    let pods = [
        "checkout-primary-7f9c4b-q8l2m",
        "checkout-primary-7f9c4b-x2x9z",
    ]
    .map(pod);
    server.answer("labelSelector=app%3Dcheckout-primary", list(json!(pods)));
    let event = |minutes: i64, kind: &str, message: &str| {
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": format!("e{minutes}"), "namespace": "shop"},
            "type": kind, "message": message, "reason": "Synced", "lastTimestamp": ago(minutes), "count": 1,
            "involvedObject": {"kind": "Canary", "name": "checkout", "namespace": "shop", "uid": "uid-checkout"}})
    };
    let events = json!([
        event(9, "Normal", "Advance checkout.shop canary weight 30"),
        event(
            6,
            "Warning",
            "Halt checkout.shop advancement request duration 530ms > 500ms"
        ),
        event(
            5,
            "Warning",
            "Halt checkout.shop advancement request duration 812ms > 500ms"
        ),
        event(
            4,
            "Warning",
            "Rolling back checkout.shop failed checks threshold reached 2"
        ),
    ]);
    server.answer("/events", list(events));
    server.answer("/releases", list(json!([record()])));
}

/// The record: the longest answers become slower with each step, and the success rate stays.
fn record() -> Value {
    let measured = [
        (12, 10, 212.0, 99.96),
        (11, 10, 224.0, 99.97),
        (10, 20, 268.0, 99.94),
        (9, 20, 301.0, 99.95),
        (8, 30, 384.0, 99.91),
        (7, 30, 431.0, 99.93),
        (6, 40, 530.0, 99.90),
        (5, 40, 812.0, 99.87),
    ];
    let measurements = measured.map(|(minutes, weight, duration, rate)| {
        let failure = (duration > 500.0)
            .then(|| format!("request-duration was {duration} ms, above the maximum 500 ms"));
        json!({"at": ago(minutes), "weight": weight, "values": [
            {"metric": 0, "value": duration, "failure": failure}, {"metric": 1, "value": rate}]})
    });
    let metric = |name: &str, unit: &str, query: &str| json!({"name": name, "provider": "prometheus", "host": "prometheus:9090", "window": "1m", "unit": unit, "query": query});
    let mut metrics = [
        metric("request-duration", "ms", "histogram_quantile(0.99, …)"),
        metric(
            "request-success-rate",
            "%",
            "sum(rate(istio_requests_total{…}[1m])) …",
        ),
    ];
    metrics[0]["max"] = json!(500.0);
    metrics[1]["min"] = json!(99.0);
    let moment = |minutes: i64, phase: &str, weight: i64| json!({"at": ago(minutes), "phase": phase, "weight": weight});
    let evidence: RunEvidence = serde_json::from_value(json!({
        "metrics": metrics, "measurements": measurements,
        "hooks": [{"at": ago(13), "name": "acceptance-test", "kind": "pre-rollout", "host": "tester", "status": 200, "answer": "12 tests passed"}],
        "timeline": [moment(13, "Progressing", 0), moment(12, "Progressing", 10), moment(10, "Progressing", 20),
            moment(8, "Progressing", 30), moment(6, "Progressing", 40), moment(4, "Failed", 0)]}))
    .unwrap();
    json!({"apiVersion": "flagger-rs.github.io/v1alpha1", "kind": "Release", "metadata": {"name": "checkout-7", "namespace": "shop"},
        "spec": {"canary": "checkout", "revision": "v1-b", "from": "v1-a", "strategy": "canary", "result": "Failed", "trigger": "argocd",
            "images": [{"name": "app", "from": IMAGE_OLD, "to": IMAGE_NEW}],
            "cause": {"code": "Threshold", "sentence": REASON}, "startedAt": ago(13), "endedAt": ago(4),
            "steps": 5, "reached": 4, "weight": 40, "evidence": pack(&evidence)}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pictures_of_the_documents_show_a_fleet_and_a_failed_release() {
    let server = cluster().await;
    let dashboard = Dashboard::start(&server.kubeconfig("of-admin"), &[]);
    let browser = Browser::start().await;
    browser.resize(WIDTH, 300).await;
    // The picture of the release ends below its first chart.
    for (name, path, texts, end) in [
        ("fleet", "/", ["shop/checkout", "sign-off"], "table.fleet"),
        (
            "release",
            "/c/shop/checkout",
            [REASON, "812 ms"],
            "p.legend",
        ),
    ] {
        browser.open(&dashboard.at(path)).await;
        browser.is_live().await;
        for text in texts {
            browser.shows(text).await;
        }
        for scheme in ["light", "dark"] {
            browser.show_on("screen", scheme).await;
            browser
                .picture_to(end, &format!("document-{name}-{scheme}"))
                .await;
        }
    }
    browser.end(&[]).await;
}
