//! Checks that a real API server accepts and keeps the routes for APISIX. The CRD is that of the testbed.

use serde_json::{Value, json};

use super::{Outcome, PATIENCE, Scenario, ensure, inputs::a_step_costs_three_writes, text};
use flagger_rs::snapshot::Kind;
use testbed::wait::until;

const OURS: &str = "web-podinfo-canary";

/// The user's ApisixRoute. The API server adds a default to the plugin; `x-future` is a field that the operator does not know.
fn route(backend: &str, path: &str) -> Value {
    let backend =
        json!({"serviceName": backend, "servicePort": 9898, "resolveGranularity": "service"});
    let rule = json!({"name": "all", "match": {"hosts": ["app.example.com"], "paths": [path]}, "x-future": {"a": [1]},
        "plugins": [{"name": "prometheus", "config": {"prefer_name": true}}], "backends": [backend]});
    json!({"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "metadata": {"name": "web"}, "spec": {"http": [rule]}})
}

async fn rule(s: &Scenario<'_>) -> Result<Value, String> {
    let ours = s.get(Kind::ApisixRoute, OURS).await?;
    Ok(ours["spec"]["http"][0].clone())
}

fn weights(rule: &Value) -> [&Value; 2] {
    [0, 1].map(|side| &rule["backends"][side]["weight"])
}

pub async fn apisix_shares_traffic_by_a_second_route(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    let analysis = json!({"stepWeight": 25, "maxWeight": 50, "metrics": []});
    let mut canary = s.canary_named("podinfo", analysis);
    canary["spec"]["provider"] = json!("apisix");
    canary["spec"]["routeRef"] =
        json!({"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "web"});
    s.apply(&canary).await?;
    s.event("apisixroutes.apisix.apache.org \"web\" not found")
        .await?;
    s.apply(&route("another", "/*")).await?;
    s.event("Can not find podinfo backend on apisix route web")
        .await?;
    s.apply(&route("podinfo", "/*")).await?;
    s.phase("Initialized").await?;
    s.event("Initialization done").await?;
    let ours = rule(&s).await?;
    ensure(ours["x-future"] == json!({"a": [1]}), &ours)?;
    ensure(ours["priority"] == 10_000, &ours)?;
    a_step_costs_three_writes(&s, "apisixroutes").await?;
    s.phase("Succeeded").await?;
    let ours = s.get(Kind::ApisixRoute, OURS).await?;
    // Four writes: the creation, two steps, and the return of all traffic to the primary.
    ensure(ours["metadata"]["generation"] == 4, &ours)?;
    s.image("3.1.2").await?;
    s.line("Progressing 25").await?;
    s.apply(&route("podinfo", "/new/*")).await?;
    until(PATIENCE, "the user's edit in our rule", async || {
        let ours = rule(&s).await?;
        let is_edited = ours["match"]["paths"] == json!(["/new/*"]);
        ensure(is_edited && *weights(&ours)[1] != 0, &ours)
    })
    .await
    .map_err(text)?;
    s.phase("Succeeded").await?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    let ours = rule(&s).await?;
    ensure(weights(&ours) == [&json!(100), &json!(0)], &ours)
}
