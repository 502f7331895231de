//! Checks that a real API server accepts and keeps the objects for Gloo. The CRDs are those of the testbed.

use serde_json::{Value, json};

use super::{Outcome, PATIENCE, Scenario, ensure, inputs::a_step_costs_three_writes, text};
use flagger_rs::snapshot::Kind;
use testbed::wait::until;

fn analysis() -> Value {
    json!({"stepWeight": 25, "maxWeight": 50, "metrics": []})
}

/// The weights of the primary and the canary in the first route of a RouteTable.
fn weights(table: &Value) -> Value {
    let to = &table["spec"]["routes"][0]["routeAction"]["multi"]["destinations"];
    json!([to[0]["weight"], to[1]["weight"]])
}

/// An Upstream of the user with settings for both sides.
fn config(threshold: u8) -> Value {
    let spec =
        json!({"useHttp2": true, "loadBalancerConfig": {"healthyPanicThreshold": threshold}});
    json!({"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "metadata": {"name": "config"}, "spec": spec})
}

pub async fn gloo_shares_traffic_between_upstreams_with_the_users_settings(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", analysis());
    canary["spec"]["provider"] = json!("gloo");
    canary["spec"]["upstreamRef"] =
        json!({"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "name": "config"});
    s.apply(&canary).await?;
    s.event("upstreams.gloo.solo.io \"config\" not found")
        .await?;
    s.apply(&config(10)).await?;
    s.phase("Initialized").await?;
    s.event("Initialization done").await?;
    let names = ["primary", "canary"].map(|side| format!("{}-podinfo-{side}upstream-9898", s.ns));
    let ours = s.get(Kind::GlooUpstream, &names[1]).await?;
    let service = &ours["spec"]["kube"]["serviceName"];
    ensure(service == "podinfo-canary", &ours)?;
    a_step_costs_three_writes(&s, "routetables").await?;
    s.phase("Succeeded").await?;
    let table = s.get(Kind::GlooRouteTable, "podinfo").await?;
    // Four writes: the creation, two steps, and the return of all traffic to the primary.
    ensure(table["metadata"]["generation"] == 4, &table)?;
    ensure(weights(&table) == json!([100, null]), &table)?;
    s.image("3.1.2").await?;
    s.line("Progressing 25").await?;
    s.apply(&config(20)).await?;
    for name in &names {
        until(PATIENCE, "the user's edit in our Upstream", async || {
            let ours = s.get(Kind::GlooUpstream, name).await?;
            let threshold = &ours["spec"]["loadBalancerConfig"]["healthyPanicThreshold"];
            ensure(
                *threshold == 20 && ours["metadata"]["generation"] == 2,
                &ours,
            )
        })
        .await
        .map_err(text)?;
    }
    s.phase("Succeeded").await?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    let table = s.get(Kind::GlooRouteTable, "podinfo").await?;
    ensure(weights(&table) == json!([100, null]), &table)
}

pub async fn a_route_table_with_other_routes_is_adopted_only_if_its_user_says_so(
    s: Scenario<'_>,
) -> Outcome {
    let route =
        json!({"matchers": [{"methods": ["GET"]}], "directResponseAction": {"status": 200}});
    let theirs = json!({"apiVersion": "gateway.solo.io/v1", "kind": "RouteTable", "metadata": {"name": "podinfo"}, "spec": {"weight": 7, "routes": [route]}});
    s.apply(&theirs).await?;
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", analysis());
    canary["spec"]["provider"] = json!("gloo");
    s.apply(&canary).await?;
    s.event("RouteTable podinfo").await?;
    let kept = s.get(Kind::GlooRouteTable, "podinfo").await?;
    ensure(kept["spec"] == theirs["spec"], &kept)?;
    let adopt = json!({"metadata": {"annotations": {"flagger-rs.github.io/adopt": "true"}}});
    s.patch("routetables.gateway.solo.io", "podinfo", &adopt)
        .await?;
    s.phase("Initialized").await?;
    let ours = s.get(Kind::GlooRouteTable, "podinfo").await?;
    ensure(ours["spec"]["weight"] == 7, &ours)?;
    ensure(weights(&ours) == json!([100, null]), &ours)
}
