//! The primary keeps its pods while it serves: a promotion takes no capacity.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::{Value, json};

use super::simulation::{Simulation, release, release_of};

fn replicas(sim: &Simulation) -> i64 {
    let primary = sim.snapshot.primary().unwrap();
    primary["spec"]["replicas"].as_i64().unwrap()
}

/// Sets the replicas of a workload, as a manifest does, or through the subresource `scale`, as an autoscaler and `kubectl scale` do.
fn scale(sim: &mut Simulation, name: &str, replicas: i64, subresource: &str) {
    let name = sim.snapshot.reference(Kind::Deployment, name);
    let workload = sim.snapshot.objects.get_mut(&name).unwrap();
    workload["spec"]["replicas"] = json!(replicas);
    workload["metadata"]["managedFields"] = json!([{"manager": "other", "operation": "Update", "subresource": subresource,
        "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
}

/// Runs a release in which the primary serves with 12 pods and the target has 2. Returns the fewest pods of the primary during the run, and
/// those after it.
fn promoted(primary: &str, target: &str, provider: &str) -> (i64, i64) {
    let analysis = json!({"stepWeight": 10, "maxWeight": 20, "iterations": Value::Null});
    let mut sim = release_of(json!({"provider": provider, "analysis": analysis}));
    scale(&mut sim, "podinfo-primary", 12, primary);
    sim.run_until_phase(CanaryPhase::Progressing);
    sim.reconcile();
    scale(&mut sim, "podinfo", 2, target);
    let mut fewest = replicas(&sim);
    while sim.snapshot.phase() != CanaryPhase::Succeeded {
        fewest = fewest.min(replicas(&sim));
        sim.reconcile();
    }
    sim.run_until(CanaryPhase::Succeeded);
    assert!(sim.outcome().contains("podinfo:2"), "{}", sim.outcome());
    (fewest, replicas(&sim))
}

/// fluxcd/flagger#1347: the user has an autoscaler for each of both sides, and no `autoscalerRef`.
#[test]
fn a_promotion_leaves_a_primary_that_an_autoscaler_scales_its_size() {
    for provider in ["istio", "kubernetes"] {
        assert_eq!(promoted("scale", "scale", provider), (12, 12), "{provider}");
        assert_eq!(promoted("scale", "", provider), (12, 12), "{provider}");
    }
}

/// The canary's autoscaler has scaled the target for the target's traffic. The primary's own autoscaler may not have reacted yet.
#[test]
fn a_promotion_leaves_a_primary_with_an_autoscaler_its_size() {
    let autoscaler = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    let analysis = json!({"stepWeight": 10, "maxWeight": 20, "iterations": Value::Null});
    for (target, by) in [(4, "scale"), (2, "")] {
        let mut sim = release_of(json!({"autoscalerRef": autoscaler, "analysis": analysis}));
        scale(&mut sim, "podinfo-primary", 3, by);
        sim.run_until_phase(CanaryPhase::Progressing);
        sim.reconcile();
        scale(&mut sim, "podinfo", target, by);
        sim.run_until(CanaryPhase::Succeeded);
        assert!(sim.outcome().contains("podinfo:2"), "{}", sim.outcome());
        assert_eq!(replicas(&sim), 3, "{by} {target}");
    }
}

/// The target's autoscaler has scaled the target to its minimum, because the target has had few requests.
#[test]
fn replicas_that_an_autoscaler_gave_the_target_are_no_wish_for_the_primary() {
    assert_eq!(promoted("", "scale", "istio"), (12, 12));
}

/// A user who asks for fewer replicas gets them when the promotion has ended.
#[test]
fn a_primary_gets_fewer_replicas_only_when_its_promotion_has_ended() {
    assert_eq!(promoted("", "", "istio"), (12, 2));
}

fn with_strategy(analysis: &Value, strategy: &Value) -> Simulation {
    let mut sim = release(analysis.clone());
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    sim.snapshot.objects.get_mut(&target).unwrap()["spec"]["strategy"] = strategy.clone();
    sim
}

/// A promotion with the strategy Recreate stops all pods of the primary, which still gets most requests.
#[test]
fn traffic_moves_to_the_canary_before_a_promotion_that_stops_all_pods_of_the_primary() {
    let weights = json!({"stepWeight": 20, "maxWeight": 40});
    let rolling = |unavailable: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}});
    for (strategy, routed) in [
        (json!({"type": "Recreate"}), [20, 40, 100, 0].as_slice()),
        (rolling(json!("100%")), &[20, 40, 100, 0]),
        (rolling(json!(9)), &[20, 40, 100, 0]),
        (rolling(json!(0)), &[20, 40, 0]),
        (rolling(json!("25%")), &[20, 40, 0]),
    ] {
        let mut sim = with_strategy(&weights, &strategy);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.routed, routed, "{strategy}");
    }
}

/// If no traffic can move away from the primary, the primary's update keeps pods running. Afterwards the primary has the target's strategy.
#[test]
fn no_promotion_takes_all_pods_of_a_primary_that_serves() {
    let weights = json!({"stepWeight": 20, "maxWeight": 40, "iterations": Value::Null});
    let blue_green = json!({"iterations": 2, "stepWeight": Value::Null});
    let matches = json!([{"headers": {"cookie": {"exact": "insider"}}}]);
    let ab = json!({"iterations": 2, "stepWeight": Value::Null, "match": matches});
    let rolling = |update: Value| json!({"type": "RollingUpdate", "rollingUpdate": update});
    for strategy in [
        json!({"type": "Recreate"}),
        rolling(json!({"maxUnavailable": "100%", "maxSurge": 1})),
        rolling(json!({"maxUnavailable": 2, "maxSurge": 1})),
    ] {
        for provider in ["istio", "contour", "kubernetes"] {
            for analysis in [&weights, &blue_green, &ab] {
                for skips in [false, true] {
                    let mut sim = release_of(
                        json!({"provider": provider, "analysis": analysis, "skipAnalysis": skips}),
                    );
                    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
                    let target = sim.snapshot.objects.get_mut(&target).unwrap();
                    target["spec"]["strategy"] = strategy.clone();
                    let case = format!("{strategy} {provider} {analysis} {skips}");
                    keeps_pods(sim, &strategy, &case);
                }
            }
        }
    }
}

/// Runs a release. The primary has pods during its promotion, or no traffic, and the strategy of the target at the end.
fn keeps_pods(mut sim: Simulation, strategy: &Value, case: &str) {
    let primary = |sim: &Simulation| sim.snapshot.primary().unwrap().clone();
    let image = "/spec/template/spec/containers/0/image";
    let old = primary(&sim).pointer(image).cloned();
    let is_ab = !sim
        .snapshot
        .canary
        .spec
        .analysis
        .as_ref()
        .unwrap()
        .match_
        .is_empty();
    let splits = sim.snapshot.canary.spec.provider.as_deref() != Some("kubernetes");
    while primary(&sim).pointer(image) == old.as_ref() {
        sim.reconcile();
    }
    let live = primary(&sim);
    let is_called = !splits || is_ab || sim.canary_weight() < 100;
    let unavailable = live.pointer("/spec/strategy/rollingUpdate/maxUnavailable");
    assert!(
        !is_called || unavailable == Some(&json!(0)),
        "{case}: {live}"
    );
    sim.run_until(CanaryPhase::Succeeded);
    sim.run(3);
    assert_eq!(primary(&sim)["spec"]["strategy"], *strategy, "{case}");
}

/// After the traffic has moved, the promotion waits an interval, in which requests under way end.
#[test]
fn the_primary_is_updated_an_interval_after_its_traffic_has_moved() {
    let mut sim = with_strategy(
        &json!({"stepWeight": 20, "maxWeight": 40, "stepWeightPromotion": 50}),
        &json!({"type": "Recreate"}),
    );
    while sim.canary_weight() < 100 {
        sim.reconcile();
    }
    let moved = sim.snapshot.now.as_second();
    let image = |sim: &Simulation| {
        let primary = sim.snapshot.primary().unwrap();
        primary["spec"]["template"]["spec"]["containers"][0]["image"].clone()
    };
    while image(&sim) != "podinfo:2" {
        assert_eq!(sim.canary_weight(), 100);
        sim.reconcile();
    }
    assert!(sim.snapshot.now.as_second() >= moved + 9);
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [20, 40, 100, 50, 0]);
}

#[test]
fn a_crash_between_the_route_and_the_status_of_a_promotion_that_stops_all_pods_loses_neither() {
    let weights = json!({"stepWeight": 20, "maxWeight": 40});
    for crash in 1..4 {
        let mut sim = with_strategy(&weights, &json!({"type": "Recreate"}));
        sim.run_until_phase(CanaryPhase::Promoting);
        sim.crash_after = Some(sim.writes + crash);
        while sim.canary_weight() != 0 {
            sim.reconcile();
            let status = sim.snapshot.canary.status.as_ref().unwrap();
            if sim
                .outcome()
                .contains("primary Some(String(\"podinfo:2\"))")
                && sim.canary_weight() != 0
            {
                assert_eq!(status.canary_weight, 100, "{}", sim.transcript());
            }
        }
        // A crash right after a status may lose the event of its step.
        let count = sim.count_notified("Routing all traffic to canary");
        assert!(count == 1 || crash == 2, "{crash}: {}", sim.transcript());
        sim.run_until(CanaryPhase::Succeeded);
    }
}

/// The primary is deleted during a run, so its version is lost. An event reports that the primary gets the version under analysis.
#[test]
fn a_primary_that_is_made_again_from_another_version_is_reported() {
    for (phase, is_reported) in [
        (CanaryPhase::Progressing, true),
        (CanaryPhase::Failed, true),
        (CanaryPhase::Succeeded, false),
    ] {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40, "threshold": 1}));
        if phase == CanaryPhase::Failed {
            sim.metric = "0".to_owned();
        }
        sim.run_until(phase);
        let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
        sim.snapshot.objects.remove(&primary);
        sim.reconcile();
        assert!(sim.snapshot.primary().is_some(), "{phase}");
        let count = sim.count_notified("podinfo-primary.test was deleted and its version is lost");
        assert_eq!(
            count,
            usize::from(is_reported),
            "{phase}: {:#?}",
            sim.notified
        );
        if phase == CanaryPhase::Progressing {
            sim.metric = "0".to_owned();
            sim.run_until(CanaryPhase::Failed);
            let text = "podinfo-primary.test has the failed version, too, because it was deleted";
            assert_eq!(sim.count_notified(text), 1, "{:#?}", sim.notified);
        }
    }
}

/// An autoscaler scales the primary to zero at night. A rollback and a promotion give the primary ready pods before its traffic returns.
#[test]
fn a_primary_at_zero_gets_pods_before_its_traffic_returns() {
    for (metric, end) in [("10", CanaryPhase::Failed), ("100", CanaryPhase::Succeeded)] {
        let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40, "threshold": 1}));
        while sim.canary_weight() < 40 {
            sim.reconcile();
        }
        scale(&mut sim, "podinfo-primary", 0, "scale");
        sim.metric = metric.to_owned();
        sim.run_until(end);
        assert!(replicas(&sim) > 0, "{}", sim.transcript());
        assert_eq!(
            sim.count_notified("podinfo-primary.test is scaled to zero: scaling it up"),
            // A promotion gives the primary the target's replicas anyway.
            usize::from(end == CanaryPhase::Failed),
            "{}",
            sim.transcript()
        );
    }
}
