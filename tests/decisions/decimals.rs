//! Releases with steps below one percent (`decimalStepWeights`).

use flagger_rs::{
    api::{
        canary::{CanaryPhase, CanaryStatus},
        percent::Percent,
    },
    providers,
    rollout::{
        self,
        plan::{Decision, Evidence},
    },
    snapshot::{Kind, Weights},
};
use serde_json::{Value, json};

use super::{
    comparison,
    routers::ROUTERS,
    routes::on,
    simulation::{Simulation, Traffic, release},
    transcript,
};

/// A release with these steps, beside which Flagger's fields stay.
fn stepping(steps: Value) -> Simulation {
    release(json!({"stepWeight": 20, "maxWeight": 60, "threshold": 2, "decimalStepWeights": steps}))
}

/// The fields of the status about the weight: rounded up, and exact.
fn recorded(sim: &Simulation) -> [Value; 2] {
    let status = serde_json::to_value(&sim.snapshot.canary.status).unwrap();
    ["canaryWeight", "canaryWeightDecimal"].map(|field| status[field].clone())
}

fn routed(sim: &Simulation) -> Weights {
    rollout::weights(&sim.snapshot).unwrap()
}

fn tenths(tenths: u64) -> Weights {
    Weights::canary(Percent::of_tenths(tenths))
}

/// Reconciles until the canary has this weight.
fn run_to(sim: &mut Simulation, weights: Weights) {
    for _ in 0..100 {
        if routed(sim) == weights {
            return;
        }
        sim.reconcile();
    }
    panic!("{weights:?} is not routed: {}", sim.transcript());
}

#[test]
fn a_release_begins_with_a_tenth_of_a_percent_and_its_status_has_flaggers_type() {
    let mut sim = stepping(json!([0.1, 1, 50]));
    let mut seen = vec![];
    while sim.snapshot.phase() != CanaryPhase::Promoting {
        sim.reconcile();
        seen.push((routed(&sim), recorded(&sim)));
    }
    seen.dedup();
    let null = || Value::Null;
    let expected = [
        (Weights::PRIMARY, [json!(0), null()]),
        (tenths(1), [json!(1), json!(0.1)]),
        (Weights::canary(1), [json!(1), null()]),
        (Weights::canary(50), [json!(50), null()]),
    ];
    assert_eq!(seen, expected, "{}", sim.transcript());
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(recorded(&sim), [json!(0), null()]);
    transcript("decimal-steps", &sim);
}

#[test]
fn a_bad_version_is_rolled_back_from_a_tenth_of_a_percent() {
    let mut sim = stepping(json!([0.1, 1, 50]));
    let name = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    let before = sim.snapshot.objects[&name]["spec"].clone();
    run_to(&mut sim, tenths(1));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.snapshot.objects[&name]["spec"], before);
    assert_eq!(recorded(&sim), [json!(0), Value::Null]);
}

#[test]
fn a_version_that_loses_its_pods_at_a_tenth_of_a_percent_gets_that_weight_back() {
    let mut sim = stepping(json!([0.1, 1, 50]));
    run_to(&mut sim, tenths(1));
    sim.dead = true;
    run_to(&mut sim, Weights::PRIMARY);
    sim.dead = false;
    run_to(&mut sim, tenths(1));
    assert_eq!(recorded(&sim), [json!(1), json!(0.1)]);
    sim.run_until(CanaryPhase::Succeeded);
}

/// The status may be older than a crash, or written by Flagger, which keeps no field that it does not know.
#[test]
fn a_weight_that_another_actor_wrote_beside_an_older_decimal_counts() {
    let status = |status: Value| -> CanaryStatus { serde_json::from_value(status).unwrap() };
    for (fields, weights) in [
        (
            json!({"canaryWeight": 1, "canaryWeightDecimal": 0.1}),
            tenths(1),
        ),
        (
            json!({"canaryWeight": 5, "canaryWeightDecimal": 0.1}),
            Weights::canary(5),
        ),
        (
            json!({"canaryWeight": 0, "canaryWeightDecimal": 0.1}),
            Weights::PRIMARY,
        ),
        (
            json!({"canaryWeight": 1, "canaryWeightDecimal": 0.15}),
            Weights::canary(1),
        ),
        (
            json!({"canaryWeight": 1, "canaryWeightDecimal": "x"}),
            Weights::canary(1),
        ),
        (json!({"canaryWeight": 1}), Weights::canary(1)),
    ] {
        assert_eq!(status(fields.clone()).weight(), weights.canary, "{fields}");
    }
}

/// The user adds the field in the middle of a run.
#[test]
fn a_run_goes_on_at_its_weight_when_the_steps_become_finer() {
    let mut sim = release(json!({"stepWeight": 20}));
    run_to(&mut sim, Weights::canary(20));
    let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
    analysis.decimal_step_weights = Some(vec![0.1, 20.5, 60.0]);
    run_to(&mut sim, tenths(205));
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [20, 21, 60, 0]);
}

/// A Canary of Flagger has no new field in its status, so that Flagger's CRDs keep all of it.
#[test]
fn a_release_in_whole_percents_writes_no_field_that_flagger_does_not_have() {
    let mut sim = release(json!({"stepWeights": [1, 10, 50]}));
    while sim.snapshot.phase() != CanaryPhase::Succeeded {
        sim.reconcile();
        assert_eq!(recorded(&sim)[1], Value::Null);
    }
}

/// A router that knows whole percentages only would send no request to the version, or ten times as many.
#[test]
fn each_router_routes_a_tenth_of_a_percent_or_refuses_it_before_the_run() {
    for row in ROUTERS.iter().filter(|row| row.provider != "knative") {
        let mut sim = on(row.provider, json!({"stepWeight": 20}));
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.decimal_step_weights = Some(vec![0.1, 50.0]);
        if row.splits_tenths {
            run_to(&mut sim, tenths(1));
            sim.run_until(CanaryPhase::Succeeded);
            continue;
        }
        let writes = sim.writes;
        sim.run(30);
        let why = format!(
            "Warning [Initialized] invalid canary spec: spec.analysis.decimalStepWeights[0]: 0.1 % cannot be routed: {}",
            match row.rules {
                Some(_) => format!("the smallest step of the provider {} is 1 %", row.provider),
                None => format!("the provider {} does not split traffic", row.provider),
            }
        );
        assert_eq!(sim.notified, [why], "once");
        assert_eq!(
            sim.writes,
            writes + 1,
            "only the status: {}",
            sim.transcript()
        );
    }
}

/// The metric server counts requests of both versions; the share of the canary is exact.
#[test]
fn a_version_that_does_not_get_its_tenth_of_a_percent_waits_and_is_not_promoted() {
    for (ignores_weights, end) in [(false, CanaryPhase::Succeeded), (true, CanaryPhase::Failed)] {
        let mut traffic = Traffic::of(20_000.0);
        traffic.ignores_weights = ignores_weights;
        let mut sim =
            comparison::release(&["request-success-rate"], &json!({"compare": {}}), traffic);
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.decimal_step_weights = Some(vec![0.1, 50.0]);
        sim.run_until(end);
        let is_missed = comparison::verdict(&sim).starts_with("TrafficNotShifted");
        assert_eq!(is_missed, ignores_weights, "{}", sim.transcript());
    }
}

/// Whole numbers need no more of a router than `stepWeights`.
#[test]
fn whole_weights_are_routed_by_each_router() {
    for row in ROUTERS
        .iter()
        .filter(|row| row.rules.is_some() && row.provider != "knative")
    {
        let mut sim = on(row.provider, json!({"decimalStepWeights": [1, 50.0]}));
        sim.run_until(CanaryPhase::Succeeded);
        assert!(
            sim.analysed.ends_with(&[1, 50]),
            "{}: {:?}",
            row.provider,
            sim.analysed
        );
    }
}

/// Flagger's CRDs are applied in the middle of a run. They remove the exact weight from each status, too.
#[test]
fn a_run_whose_finer_steps_are_removed_goes_on_and_ends() {
    for provider in ["istio", "gatewayapi:v1"] {
        let mut sim = on(provider, json!({"stepWeight": 20, "maxWeight": 60}));
        let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
        analysis.decimal_step_weights = Some(vec![0.1, 10.5, 50.0]);
        run_to(&mut sim, tenths(1));
        let canary = &mut sim.snapshot.canary;
        let analysis = canary.spec.analysis.as_mut().unwrap();
        analysis.decimal_step_weights = None;
        let (before, writes) = (sim.routed.len(), sim.writes);
        while sim.snapshot.phase() != CanaryPhase::Succeeded {
            sim.snapshot
                .canary
                .status
                .as_mut()
                .unwrap()
                .canary_weight_decimal = None;
            sim.reconcile();
            assert!(sim.writes < writes + 100, "{}", sim.transcript());
        }
        assert_eq!(sim.routed[before..], [21, 41, 60, 0], "{provider}");
    }
}

/// In the middle of a run, a user names another provider, which knows whole percentages only.
#[test]
fn a_provider_without_fractions_gets_none_from_a_run_that_had_them() {
    let routers = ROUTERS
        .iter()
        .filter(|row| row.rules.is_some() && !row.splits_tenths);
    for row in routers.filter(|row| row.provider != "knative") {
        let mut sim = on(row.provider, json!({"stepWeight": 20, "maxWeight": 60}));
        run_to(&mut sim, Weights::canary(20));
        let status = sim.snapshot.canary.status.as_mut().unwrap();
        status.set_weight(Percent::of_tenths(205));
        for route in providers::router(&sim.snapshot).objects(&sim.snapshot.canary) {
            // The Ingress of the user stays.
            if route.name != "web" {
                sim.snapshot.objects.remove(&route);
            }
        }
        let decision = rollout::decide(&sim.snapshot, &Evidence::new());
        let Decision::Do(plan) = decision else {
            panic!("{}: {decision:?}", row.provider);
        };
        let writes = format!("{:?}", plan.writes);
        assert!(writes.contains("80") && writes.contains("20"), "{writes}");
        assert!(
            !writes.contains("20.5") && !writes.contains("205"),
            "{writes}"
        );
    }
}

/// Flagger reads each weight of a route as percentages, so a promotion in steps leaves it no tenths.
#[test]
fn a_promotion_in_steps_goes_on_in_whole_percents() {
    let mut sim = stepping(json!([0.1, 50.5]));
    let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
    analysis.step_weight_promotion = Some(30);
    let mut seen = vec![];
    while sim.snapshot.phase() != CanaryPhase::Succeeded {
        sim.reconcile();
        seen.push(routed(&sim).canary.to_string());
    }
    seen.dedup();
    assert_eq!(seen, ["0", "0.1", "50.5", "20", "0"]);
    assert_eq!(recorded(&sim), [json!(0), Value::Null]);
}
