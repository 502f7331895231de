//! The requests of an A/B test: no other request reaches the canary.

use flagger_rs::{api::canary::CanaryPhase, rollout, snapshot::Kind};
use serde_json::{Value, json};

use super::simulation::{Simulation, release_of};

/// An A/B test on Istio, whose service has the path `/chat`.
fn chat(test: Value) -> Simulation {
    let service = json!({"port": 80, "gateways": ["public/gateway"], "hosts": ["app.example.com"],
        "match": [{"uri": {"prefix": "/chat"}}]});
    let analysis = json!({"threshold": 5, "iterations": 6, "match": test});
    release_of(json!({"service": service, "analysis": analysis}))
}

/// fluxcd/flagger#880: Flagger drops the parameter, and the canary gets all requests to the path.
#[test]
fn an_ab_test_by_query_parameters_sends_nobody_else_to_the_canary() {
    let mut sim = chat(json!([{"queryParams": {"beta": {"exact": "yes"}}}]));
    let route = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    let mut tested = 0;
    while sim.snapshot.phase() != CanaryPhase::Succeeded {
        sim.reconcile();
        let Some(live) = sim.snapshot.objects.get(&route) else {
            continue;
        };
        for rule in live["spec"]["http"].as_array().unwrap() {
            let mut routes = rule["route"].as_array().unwrap().iter();
            let has_share =
                |to: &Value| to["weight"] != 0 && to.to_string().contains("podinfo-canary");
            if routes.any(has_share) {
                tested += 1;
                let only = json!([{"uri": {"prefix": "/chat"}, "queryParams": {"beta": {"exact": "yes"}}}]);
                assert_eq!(rule["match"], only);
            }
        }
    }
    assert!(tested > 0, "{}", sim.transcript());
}

/// An event has the reason of the refusal. The canary starts as soon as the user corrects the conditions.
#[test]
fn conditions_that_exclude_each_other_are_reported_and_no_version_is_released() {
    let mut sim = chat(json!([{"uri": {"prefix": "/beta"}}]));
    sim.run(60);
    assert_eq!(rollout::weights(&sim.snapshot), None, "no route was made");
    let why = "spec.analysis.match and spec.service.match have different values of uri";
    assert!(
        sim.notified.iter().any(|line| line.contains(why)),
        "{:?}",
        sim.notified
    );
    sim.snapshot.canary.spec.service.match_ = None;
    sim.run_until_phase(CanaryPhase::Initialized);
    sim.image("podinfo:3");
    sim.run_until(CanaryPhase::Succeeded);
}
