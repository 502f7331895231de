//! Checks that a real API server accepts and keeps the routes for Kuma, which are in no namespace. The CRD is that of the testbed.

use serde_json::{Value, json};

use super::{
    Outcome, PATIENCE, Scenario, ensure, inputs::a_step_costs_three_writes, routes::initialized,
    text,
};
use flagger_rs::snapshot::Kind;
use testbed::wait::until;

/// The weights of the split, and the services that it leads to.
fn split(route: &Value) -> Value {
    let split = route["spec"]["conf"]["split"].as_array().into_iter();
    let one = |to: &Value| json!([to["destination"]["kuma.io/service"], to["weight"]]);
    split.flatten().map(one).collect()
}

pub async fn kuma_shares_traffic_by_an_object_of_the_cluster(s: Scenario<'_>) -> Outcome {
    let apex = format!("kuma-{}", s.ns);
    let service = json!({"name": apex});
    let analysis = json!({"stepWeight": 25, "maxWeight": 50, "metrics": []});
    initialized(&s, "kuma", service, analysis).await?;
    a_step_costs_three_writes(&s, "trafficroutes").await?;
    s.phase("Succeeded").await?;
    let tag = |side: &str| format!("{apex}{side}_{}_svc_9898", s.ns);
    let sides = |primary: u8| json!([[tag("-primary"), primary], [tag("-canary"), 100 - primary]]);
    let route = s.get(Kind::TrafficRoute, &apex).await?;
    ensure(split(&route) == sides(100), &route)?;
    // Four writes: the creation, two steps, and the return of all traffic to the primary.
    ensure(route["metadata"]["generation"] == 4, &route)?;
    ensure(route["mesh"] == "default", &route)?;
    s.image("3.1.2").await?;
    s.line("Progressing 25").await?;
    let drift = json!({"spec": {"conf": {"split": []}}});
    s.patch("trafficroutes.kuma.io", &apex, &drift).await?;
    until(PATIENCE, "the repair", async || {
        let route = s.get(Kind::TrafficRoute, &apex).await?;
        ensure(split(&route)[0][1].as_u64().is_some(), &route)
    })
    .await
    .map_err(text)?;
    s.phase("Succeeded").await?;
    let revert = json!({"spec": {"revertOnDeletion": true}});
    s.patch("canary", "podinfo", &revert).await?;
    s.delete("canary", "podinfo").await?;
    until(PATIENCE, "a route to the apex Service", async || {
        let route = s.get(Kind::TrafficRoute, &apex).await?;
        ensure(split(&route) == json!([[tag(""), 100]]), &route)
    })
    .await
    .map_err(text)?;
    s.delete("trafficroutes.kuma.io", &apex).await
}
