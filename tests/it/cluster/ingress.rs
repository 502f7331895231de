//! Checks that a real API server accepts and keeps the routes for Contour, NGINX and SMI.

use serde_json::{Value, json};

use super::{Outcome, Scenario, ensure, equal, routes::initialized};
use flagger_rs::snapshot::Kind;

/// How often a route was written. If a default of the API server looked like drift, the operator would write it without end.
fn writes(route: &Value) -> i64 {
    route["metadata"]["generation"].as_i64().unwrap_or(-1)
}

/// The weights of the first route of an HTTPProxy, if it has any.
fn weights(proxy: &Value) -> [Option<i64>; 2] {
    [0, 1].map(|side| proxy["spec"]["routes"][0]["services"][side]["weight"].as_i64())
}

pub async fn contour_copies_requests_and_shares_them(s: Scenario<'_>) -> Outcome {
    // The API server adds a default count to a retry.
    let service = json!({"timeout": "15s", "retries": {"perTryTimeout": "5s", "retryOn": "5xx,reset"}, "match": [{"uri": {"prefix": "/api"}}]});
    let analysis = json!({"stepWeight": 50, "maxWeight": 50, "mirror": true, "mirrorWeight": 20, "metrics": []});
    initialized(&s, "contour", service, analysis).await?;
    let seen = s.table().len();
    s.release("3.1.1").await?;
    let steps = [
        "Progressing 0",
        "Progressing 0",
        "Progressing 50",
        "Promoting 50",
        "Finalising 0",
        "Succeeded 0",
    ];
    let mut table = s.table()[seen..].to_vec();
    table.dedup();
    equal("the table", &table, &[&steps[..1], &steps[2..]].concat())?;
    let proxy = s.get(Kind::HttpProxy, "podinfo").await?;
    ensure(weights(&proxy) == [Some(100), None], &proxy)?;
    // Four writes: the creation, copies of requests, a share of the traffic, and the return of all traffic to the primary.
    ensure(writes(&proxy) == 4, &proxy)?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    let proxy = s.get(Kind::HttpProxy, "podinfo").await?;
    ensure(weights(&proxy) == [Some(100), None], &proxy)
}

pub async fn contour_routes_matching_requests_to_the_canary(s: Scenario<'_>) -> Outcome {
    let test = json!([{"headers": {"x-user": {"exact": "insider"}, "x-team": {"prefix": "a"}}}, {"headers": {"cookie": {"suffix": "canary"}}}]);
    let analysis = json!({"iterations": 2, "match": test, "metrics": []});
    initialized(&s, "contour", json!({}), analysis).await?;
    s.image("3.1.1").await?;
    s.event("Advance podinfo").await?;
    let during = s.get(Kind::HttpProxy, "podinfo").await?;
    let routes = during["spec"]["routes"].as_array().map(Vec::len);
    ensure(
        weights(&during) == [None, Some(100)] && routes == Some(3),
        &during,
    )?;
    s.phase("Succeeded").await?;
    let after = s.get(Kind::HttpProxy, "podinfo").await?;
    ensure(
        weights(&after) == [Some(100), None] && writes(&after) == 3,
        &after,
    )
}

pub async fn nginx_shares_traffic_by_a_second_ingress(s: Scenario<'_>) -> Outcome {
    behind_ingress(&s, "nginx").await?;
    let weight = async || -> Result<String, String> {
        let ours = s.get(Kind::Ingress, "web-canary").await?;
        let key = "nginx.ingress.kubernetes.io/canary-weight";
        Ok(ours["metadata"]["annotations"][key].to_string())
    };
    ensure(weight().await? == "\"0\"", "nothing yet")?;
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    ensure(weight().await? == "\"50\"", "half of it")?;
    s.phase("Succeeded").await?;
    ensure(weight().await? == "\"0\"", "all to the primary")?;
    let ours = s.get(Kind::Ingress, "web-canary").await?;
    ensure(writes(&ours) == 1, &ours)
}

pub async fn skipper_shares_traffic_by_a_second_ingress(s: Scenario<'_>) -> Outcome {
    // The user's Ingress has no annotations. Flagger crashes in this case.
    behind_ingress(&s, "skipper").await?;
    let annotation = async |name: &str| -> Result<String, String> {
        let ours = s.get(Kind::Ingress, "web-canary").await?;
        let value = &ours["metadata"]["annotations"][format!("zalando.org/{name}")];
        Ok(value.as_str().unwrap_or_default().to_owned())
    };
    let weights = |canary: u8| {
        format!(
            r#"{{"podinfo-canary":{canary},"podinfo-primary":{}}}"#,
            100 - canary
        )
    };
    let is = async |canary: u8, predicate: &str| -> Outcome {
        let now = (
            annotation("backend-weights").await?,
            annotation("skipper-predicate").await?,
        );
        ensure(
            now == (weights(canary), predicate.to_owned()),
            format!("{now:?}"),
        )
    };
    is(0, "Weight(100)").await?;
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    is(50, "Weight(100)").await?;
    s.phase("Succeeded").await?;
    is(0, "False()").await?;
    let ours = s.get(Kind::Ingress, "web-canary").await?;
    ensure(writes(&ours) == 1, &ours)
}

pub async fn a_traffic_split_is_written_in_each_version(s: Scenario<'_>) -> Outcome {
    let analysis = json!({"stepWeight": 50, "maxWeight": 50, "metrics": []});
    initialized(&s, "linkerd", json!({"hosts": []}), analysis).await?;
    let backends = async |kind| -> Result<Value, String> {
        Ok(s.get(kind, "podinfo").await?["spec"]["backends"].clone())
    };
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    let half = json!([{"service": "podinfo-canary", "weight": "50"}, {"service": "podinfo-primary", "weight": "50"}]);
    let routed = backends(Kind::TrafficSplitV1Alpha1).await?;
    ensure(routed == half, &routed)?;
    s.phase("Succeeded").await?;
    let split = s.get(Kind::TrafficSplitV1Alpha1, "podinfo").await?;
    ensure(writes(&split) == 3, &split)?;
    // In the old API version, weights are strings. This is no drift.
    s.patch(
        "canary",
        "podinfo",
        &json!({"spec": {"provider": "smi:v1alpha3"}}),
    )
    .await?;
    s.image("3.1.2").await?;
    s.phase("Progressing").await?;
    s.phase("Succeeded").await?;
    let all = json!([{"service": "podinfo-canary", "weight": 0}, {"service": "podinfo-primary", "weight": 100}]);
    let routed = backends(Kind::TrafficSplitV1Alpha3).await?;
    ensure(routed == all, &routed)?;
    let split = s.get(Kind::TrafficSplitV1Alpha3, "podinfo").await?;
    ensure(writes(&split) == 5, &split)
}

/// Initializes a Canary of this provider whose Ingress is missing at first, and then leads to another Service.
async fn behind_ingress(s: &Scenario<'_>, provider: &str) -> Outcome {
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50, "maxWeight": 50}));
    canary["spec"]["analysis"]["metrics"] = json!([]);
    canary["spec"]["provider"] = json!(provider);
    canary["spec"]["ingressRef"] =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"});
    s.apply(&canary).await?;
    s.event("ingresses.networking.k8s.io \"web\" not found")
        .await?;
    let ingress = |backend: &str| {
        let backend = json!({"service": {"name": backend, "port": {"number": 9898}}});
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": {"ingressClassName": provider,
            "rules": [{"host": "app.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}})
    };
    s.apply(&ingress("another")).await?;
    s.event("backend podinfo not found in ingress web").await?;
    s.apply(&ingress("podinfo")).await?;
    s.phase("Initialized").await
}
