//! Steps below one percent in routes of the user: the sum of both weights stays, so each step must be a whole number in it.

use super::*;

#[test]
fn a_tenth_of_a_percent_is_one_of_a_thousand_of_the_user() {
    let mut sim = new(json!({"analysis": {"decimalStepWeights": [0.1, 50]}}));
    for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
        set(&mut sim, kind, [1000, 0]);
    }
    sim.run_until(CanaryPhase::Initialized);
    sim.image("podinfo:2");
    while weights(&sim, Kind::HttpRoute)[1] == 0 {
        sim.reconcile();
    }
    sim.reconcile();
    assert_eq!(weights(&sim, Kind::HttpRoute), [999, 1]);
    assert_eq!(weights(&sim, Kind::GrpcRoute), [999, 1]);
    let exact = sim.snapshot.status().canary_weight_decimal;
    assert_eq!(exact.map(|exact| exact.to_string()).as_deref(), Some("0.1"));
    // The status shows the progress of the release, and not the route.
    set(&mut sim, Kind::HttpRoute, [990, 10]);
    sim.reconcile();
    assert_eq!(
        weights(&sim, Kind::HttpRoute),
        [999, 1],
        "{}",
        sim.transcript()
    );
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(weights(&sim, Kind::HttpRoute), [1000, 0]);
    assert_eq!(weights(&sim, Kind::GrpcRoute), [1000, 0]);
}

/// The version would get ten times the requests that its user wants, or none.
#[test]
fn a_sum_that_does_not_fit_is_reported_and_no_run_begins_until_the_user_corrects_it() {
    let mut sim = new(json!({"analysis": {"stepWeight": 20}}));
    sim.run_until(CanaryPhase::Initialized);
    let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
    analysis.decimal_step_weights = Some(vec![0.1, 50.0]);
    sim.image("podinfo:2");
    sim.run(60);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Initialized,
        "{}",
        sim.transcript()
    );
    assert_eq!(weights(&sim, Kind::HttpRoute), [100, 0]);
    let why = "HTTPRoute web.test has weights in rule api that add up to 100 for both versions, of which 0.1 % is no whole number: let them add up to 1000";
    assert!(sim.count_notified(why) > 0, "{}", sim.transcript());
    for kind in [Kind::HttpRoute, Kind::GrpcRoute] {
        set(&mut sim, kind, [1000, 0]);
    }
    sim.run_until(CanaryPhase::Succeeded);
}
