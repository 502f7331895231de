//! Checks that a real API server accepts and keeps the objects for Gloo. The CRDs are those of the testbed.

use serde_json::{Value, json};

use super::{Outcome, Scenario, ensure};
use flagger_rs::snapshot::Kind;

/// The weights of the primary and the canary in the first route of a RouteTable.
fn weights(table: &Value) -> Value {
    let to = &table["spec"]["routes"][0]["routeAction"]["multi"]["destinations"];
    json!([to[0]["weight"], to[1]["weight"]])
}

pub async fn gloo_shares_traffic_between_upstreams_with_the_users_settings(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50, "maxWeight": 50}));
    canary["spec"]["analysis"]["metrics"] = json!([]);
    canary["spec"]["provider"] = json!("gloo");
    canary["spec"]["upstreamRef"] =
        json!({"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "name": "config"});
    s.apply(&canary).await?;
    s.event("upstreams.gloo.solo.io \"config\" not found")
        .await?;
    let settings = json!({"useHttp2": true, "loadBalancerConfig": {"healthyPanicThreshold": 10}});
    s.apply(&json!({"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "metadata": {"name": "config"}, "spec": settings}))
        .await?;
    s.phase("Initialized").await?;
    let upstream = format!("{}-podinfo-canaryupstream-9898", s.ns);
    let ours = s.get(Kind::GlooUpstream, &upstream).await?;
    let balanced = &ours["spec"]["loadBalancerConfig"];
    ensure(*balanced == settings["loadBalancerConfig"], &ours)?;
    ensure(
        ours["spec"]["kube"]["serviceName"] == "podinfo-canary",
        &ours,
    )?;
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    let table = s.get(Kind::GlooRouteTable, "podinfo").await?;
    ensure(weights(&table) == json!([50, 50]), &table)?;
    s.phase("Succeeded").await?;
    let table = s.get(Kind::GlooRouteTable, "podinfo").await?;
    ensure(weights(&table) == json!([100, null]), &table)?;
    // It is created; then come one step, and all traffic to the primary.
    ensure(table["metadata"]["generation"] == 3, &table)?;
    let ours = s.get(Kind::GlooUpstream, &upstream).await?;
    ensure(ours["metadata"]["generation"] == 1, &ours)
}
