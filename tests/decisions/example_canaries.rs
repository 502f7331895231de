//! Checks that each Canary of the examples works, and that there is one for each router and strategy.

use std::collections::BTreeSet;

use flagger_rs::api::canary::{Canary, CanaryPhase, Strategy};
use serde_json::{Value, json};

use super::{
    files::example_canaries,
    routers::distinct,
    simulation::{Simulation, Traffic, release_of, scaled},
};

fn all() -> impl Iterator<Item = (Value, Canary)> {
    example_canaries().into_iter().map(|example| {
        let canary = serde_json::from_value(example.clone()).unwrap();
        (example["spec"].clone(), canary)
    })
}

/// A release of this example, under way.
fn begun(spec: &Value) -> Simulation {
    let mut sim = match spec["autoscalerRef"]["kind"].as_str() {
        Some("ScaledObject") => scaled(spec["analysis"].clone(), &json!({"minReplicaCount": 1})),
        _ => release_of(spec.clone()),
    };
    // The rollback webhook does not ask for a rollback.
    sim.closed
        .insert("http://flagger-loadtester.test/rollback/check");
    sim.traffic = Some(Traffic::of(500.0));
    sim
}

#[test]
fn there_is_an_example_for_each_router_and_strategy() {
    let shown: BTreeSet<_> = all()
        .map(|(_, canary)| {
            let provider = canary.spec.provider.clone();
            let provider = provider.unwrap_or_else(|| "istio".to_owned());
            (provider, canary.strategy().as_str())
        })
        .collect();
    let has = |is_shown: &dyn Fn(&str) -> bool, strategy: &str| {
        { shown.iter() }.any(|(provider, shown)| is_shown(provider) && *shown == strategy)
    };
    for row in distinct() {
        let provider = row.provider;
        // The example of Linkerd applies to the other versions of SMI, too.
        let is_smi = provider == "osm" || provider.starts_with("smi:");
        assert!(
            is_smi || has(&|shown| shown == provider, "canary"),
            "{provider}"
        );
        // One example of an A/B test is enough for all versions of a mesh.
        let mesh = provider.split(':').next().unwrap();
        let of_mesh = |shown: &str| shown.split(':').next() == Some(mesh);
        assert_eq!(row.tests(), has(&of_mesh, "ab-testing"), "{provider}");
    }
    assert!(has(&|shown| shown == "knative", "canary"));
    assert!(
        ["istio", "kubernetes"]
            .iter()
            .all(|name| has(&|shown| shown == *name, "blue-green"))
    );
    let copies = all().filter(|(spec, _)| spec["analysis"]["mirror"] == true);
    assert_eq!(copies.count(), 1);
}

#[test]
fn every_example_is_released() {
    for (spec, canary) in all() {
        let mut sim = begun(&spec);
        sim.run_until(CanaryPhase::Succeeded);
        let routed = &sim.routed;
        let shown = sim.transcript();
        let has_a_share = routed.iter().any(|weight| (1..100).contains(weight));
        match canary.strategy() {
            Strategy::Canary => assert!(has_a_share, "{shown}"),
            Strategy::AbTesting => assert!(routed.contains(&100) && !has_a_share, "{shown}"),
            Strategy::BlueGreen => assert!(!has_a_share, "{shown}"),
        }
        assert!(matches!(routed.last(), None | Some(0)), "{shown}");
        assert!(shown.contains("Promotion completed!"), "{shown}");
    }
}

#[test]
fn every_example_with_metrics_is_rolled_back() {
    let mut measured = 0;
    for (spec, _) in all().filter(|(spec, _)| spec["analysis"]["metrics"].is_array()) {
        let mut sim = begun(&spec);
        sim.metric = "42".to_owned();
        sim.traffic.as_mut().unwrap().canary_fails = 0.58;
        sim.run_until(CanaryPhase::Failed);
        let shown = sim.transcript();
        let is_compared = shown.contains("regression found request-success-rate");
        assert!(
            is_compared || shown.contains("failed checks threshold reached 5"),
            "{shown}"
        );
        assert!(matches!(sim.routed.last(), None | Some(0)), "{shown}");
        assert!(!shown.contains("Promoting"), "{shown}");
        measured += 1;
    }
    assert!(measured > 10, "{measured}");
}
