//! Checks that a real API server accepts and keeps the routes for Traefik. The CRD is that of the testbed.

use serde_json::{Value, json};

use super::{
    Outcome, PATIENCE, Scenario, ensure, inputs::a_step_costs_three_writes, routes::initialized,
    text,
};
use flagger_rs::snapshot::Kind;
use testbed::wait::until;

const PLURAL: &str = "traefikservices.traefik.io";

fn analysis() -> Value {
    json!({"stepWeight": 25, "maxWeight": 50, "metrics": []})
}

/// The names, weights and schemes of the entries.
async fn entries(s: &Scenario<'_>) -> Result<Value, String> {
    let route = s.get(Kind::TraefikService, "podinfo").await?;
    let entries = route["spec"]["weighted"]["services"].as_array();
    let entries = entries.into_iter().flatten();
    let part = |entry: &Value| json!([entry["name"], entry["weight"], entry["scheme"]]);
    Ok(entries.map(part).collect())
}

pub async fn traefik_shares_traffic_and_repairs_keep_the_weights(s: Scenario<'_>) -> Outcome {
    initialized(&s, "traefik", json!({}), analysis()).await?;
    a_step_costs_three_writes(&s, "traefikservices").await?;
    s.phase("Succeeded").await?;
    let route = s.get(Kind::TraefikService, "podinfo").await?;
    // Four writes: the creation, two steps, and the return of all traffic to the primary.
    ensure(route["metadata"]["generation"] == 4, &route)?;
    let primary = json!([["podinfo-primary", 100, null]]);
    ensure(entries(&s).await? == primary, &route)?;
    s.image("3.1.2").await?;
    s.line("Progressing 25").await?;
    let port =
        json!({"spec": {"weighted": {"services": [{"name": "podinfo-primary", "port": 1}]}}});
    s.patch(PLURAL, "podinfo", &port).await?;
    let both = json!([["podinfo-primary", 75, null], ["podinfo-canary", 25, null]]);
    until(PATIENCE, "the repair", async || {
        let entries = entries(&s).await?;
        ensure(entries == both, &entries)
    })
    .await
    .map_err(text)?;
    s.phase("Succeeded").await?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    let entries = entries(&s).await?;
    ensure(entries == primary, &entries)
}

pub async fn a_traefik_service_of_the_user_is_adopted_and_given_back(s: Scenario<'_>) -> Outcome {
    let own = json!({"name": "podinfo", "port": 9898, "scheme": "h2c"});
    let weighted = json!({"services": [own], "sticky": {"cookie": {"name": "lb"}}});
    let theirs = json!({"apiVersion": "traefik.io/v1alpha1", "kind": "TraefikService", "metadata": {"name": "podinfo"}, "spec": {"weighted": weighted}});
    s.apply(&theirs).await?;
    initialized(&s, "traefik", json!({}), analysis()).await?;
    let ours = s.get(Kind::TraefikService, "podinfo").await?;
    ensure(
        ours["spec"]["weighted"]["sticky"] == weighted["sticky"],
        &ours,
    )?;
    let led = entries(&s).await?;
    ensure(led == json!([["podinfo-primary", 100, "h2c"]]), &led)?;
    let revert = json!({"spec": {"revertOnDeletion": true}});
    s.patch("canary", "podinfo", &revert).await?;
    until(PATIENCE, "the finalizer", async || {
        let canary = s.get(Kind::Canary, "podinfo").await?;
        let metadata = &canary["metadata"];
        ensure(metadata["finalizers"].is_array(), metadata)
    })
    .await
    .map_err(text)?;
    s.delete("canary", "podinfo").await?;
    until(PATIENCE, "the user's Service", async || {
        let given_back = s.get(Kind::TraefikService, "podinfo").await?;
        ensure(given_back["spec"]["weighted"] == weighted, &given_back)
    })
    .await
    .map_err(text)
}
