//! Properties of every release, with any target, router, strategy and webhooks.

use flagger_rs::{
    api::{
        canary::{CanaryCondition, CanaryPhase, CanaryStatus},
        percent::Percent,
    },
    providers,
    rollout::{self, Decision},
    snapshot::Weights,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    routers::ROUTERS,
    simulation::{Simulation, release_of},
};

/// No release of these tests needs more reconciles than this.
const BOUND: usize = 2000;

pub fn targets() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"}),
        json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"}),
    ])
}

/// All providers whose routers are supported.
pub fn providers() -> impl Strategy<Value = &'static str> {
    let mut providers = providers::routed();
    // Knative needs another kind of target. `knative.rs` has its releases.
    providers.retain(|provider| *provider != "knative");
    prop::sample::select(providers)
}

/// Whether a provider can split traffic by tenths of a percent.
fn splits_tenths(provider: &str) -> bool {
    let row = ROUTERS.iter().find(|row| row.provider == provider).unwrap();
    row.splits_tenths
}

/// Whether a provider can send only matching requests to the canary. Without a mesh, the version is analysed behind its own Service.
fn can_test(provider: &str) -> bool {
    let row = ROUTERS.iter().find(|row| row.provider == provider).unwrap();
    row.rules.is_none() || row.tests()
}

fn strategies() -> impl Strategy<Value = Value> {
    let test = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
    prop_oneof![
        (1_i64..=100, 0_i64..=100, 0_i64..=60).prop_map(|(step, max, back)| {
            json!({"stepWeight": step, "maxWeight": max, "stepWeightPromotion": back})
        }),
        prop::collection::btree_set(1_i64..=100, 1..5)
            .prop_map(|steps| json!({"stepWeights": steps})),
        (prop::collection::btree_set(1_u64..=1000, 1..5), 0_i64..=60).prop_map(|(steps, back)| {
            let steps: Vec<_> = steps.into_iter().map(Percent::of_tenths).collect();
            json!({"decimalStepWeights": steps, "stepWeightPromotion": back})
        }),
        (1_i64..4).prop_map(|all| json!({"iterations": all})),
        (1_i64..4).prop_map(move |all| json!({"iterations": all, "match": test})),
    ]
}

fn hooks() -> impl Strategy<Value = Value> {
    let kinds = [
        "confirm-rollout",
        "pre-rollout",
        "rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "post-rollout",
    ];
    prop::sample::subsequence(kinds.to_vec(), 0..=kinds.len()).prop_map(|kinds| {
        let hook = |kind: &&str| json!({"name": kind, "type": kind, "url": "http://hooks/open"});
        kinds.iter().map(hook).collect()
    })
}

/// A Canary's spec.
fn specs() -> impl Strategy<Value = Value> {
    let more = (any::<bool>(), any::<bool>(), any::<bool>());
    (targets(), providers(), strategies(), hooks(), more).prop_map(
        |(target, provider, mut analysis, hooks, (mirror, affinity, skip))| {
            if !can_test(provider) {
                analysis["match"] = json!([]);
            }
            if !splits_tenths(provider) && analysis.get("decimalStepWeights").is_some() {
                analysis["decimalStepWeights"] = json!([7, 50]);
            }
            analysis["webhooks"] = hooks;
            analysis["threshold"] = json!(2);
            if mirror {
                analysis["mirror"] = json!(true);
            }
            if affinity {
                analysis["sessionAffinity"] =
                    json!({"cookieName": "canary", "primaryCookieName": "primary"});
            }
            let gateways = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"}]);
            let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"});
            json!({"targetRef": target, "provider": provider, "ingressRef": ingress, "routeRef": {"name": "web"}, "analysis": analysis, "skipAnalysis": skip,
                "service": {"port": 9898, "meshName": "global", "gatewayRefs": gateways}})
        },
    )
}

fn reaches(sim: &mut Simulation, end: CanaryPhase) -> bool {
    reaches_with(sim, end, |_| true)
}

fn reaches_with(
    sim: &mut Simulation,
    end: CanaryPhase,
    holds: impl Fn(&Simulation) -> bool,
) -> bool {
    (0..BOUND).any(|_| {
        sim.reconcile();
        let status = sim.snapshot.canary.status.as_ref();
        // A failed canary keeps its verdict.
        let stays = |condition: &CanaryCondition| condition.type_ == "Verdict";
        let is_idle = |status: &CanaryStatus| {
            let passing = status.conditions.iter().flatten().filter(|it| !stays(it));
            passing.count() == 1
        };
        status.is_some_and(|status| status.phase == end && is_idle(status)) && holds(sim)
    })
}

fn is_idle_from_now_on(sim: &mut Simulation) -> bool {
    let writes = sim.writes;
    sim.run(100);
    sim.writes == writes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Besides, the simulation audits each plan and every prefix of it, and fails if the operator repeats a question.
    #[test]
    fn a_good_version_is_promoted_step_by_step_and_then_the_canary_is_idle(spec in specs()) {
        let mut sim = release_of(spec);
        prop_assert!(reaches(&mut sim, CanaryPhase::Succeeded), "{}", sim.transcript());
        prop_assert!(sim.analysed.is_sorted(), "{:?}\n{}", sim.analysed, sim.transcript());
        let weights = rollout::weights(&sim.snapshot).unwrap();
        prop_assert_eq!(weights, Weights::PRIMARY);
        prop_assert!(sim.outcome().contains("podinfo:2") || sim.snapshot.primary().unwrap()["spec"]["selector"]["app"] == "podinfo:2");
        prop_assert!(is_idle_from_now_on(&mut sim), "{}", sim.transcript());
    }

    #[test]
    fn a_bad_version_is_rolled_back_and_then_the_canary_is_idle(spec in specs()) {
        prop_assume!(spec["skipAnalysis"] == false);
        let mut sim = release_of(spec);
        sim.metric = "1".to_owned();
        prop_assert!(reaches(&mut sim, CanaryPhase::Failed), "{}", sim.transcript());
        let weights = rollout::weights(&sim.snapshot).unwrap();
        prop_assert_eq!(weights, Weights::PRIMARY);
        prop_assert!(is_idle_from_now_on(&mut sim), "{}", sim.transcript());
    }

    /// The operator completes its work after a crash, with the same outcome.
    #[test]
    fn a_crash_does_not_change_the_outcome(spec in specs(), crash in 1_usize..40) {
        let mut undisturbed = release_of(spec.clone());
        prop_assert!(reaches(&mut undisturbed, CanaryPhase::Succeeded));
        let mut sim = release_of(spec);
        sim.crash_after = Some(crash);
        prop_assert!(reaches(&mut sim, CanaryPhase::Succeeded), "{}", sim.transcript());
        prop_assert_eq!(sim.outcome(), undisturbed.outcome(), "{}", sim.transcript());
    }

    /// In the middle of any release the spec changes to any other spec.
    #[test]
    fn an_edit_at_any_moment_leads_to_a_safe_end(spec in specs(), other in specs(), moment in 1_usize..80, metric in prop::sample::select(vec!["1", "100"])) {
        let mut sim = release_of(spec.clone());
        sim.run(moment);
        for (key, value) in other.as_object().unwrap() {
            // A Canary with another target or router would be another Canary.
            if key != "targetRef" && key != "provider" {
                sim.edit(key, value);
            }
        }
        sim.metric = metric.to_owned();
        for _ in 0..BOUND / 2 { sim.reconcile(); }
        let Decision::Wait(_, notifications) = rollout::decide(&sim.snapshot, &rollout::Evidence::new()) else {
            return Err(TestCaseError::fail(sim.transcript()));
        };
        let phase = sim.snapshot.phase();
        // The operator refuses a match that the router cannot express, and reports it.
        let is_refused = format!("{notifications:?}").contains("use another provider");
        let is_at_an_end = matches!(phase, CanaryPhase::Succeeded | CanaryPhase::Failed | CanaryPhase::Initialized);
        prop_assert!(is_at_an_end || is_refused, "{phase}\n{}", sim.transcript());
    }

    /// Users set versions at any moment, versions fail and are reverted, and one of them cannot run as the primary.
    #[test]
    fn the_last_of_many_versions_is_released_in_the_end(
        spec in specs(),
        versions in prop::collection::vec((1_usize..60, prop::sample::select(vec!["podinfo:1", "podinfo:2", "podinfo:3"]), prop::sample::select(vec!["1", "100"])), 0..4),
        broken in any::<bool>(),
        crash in prop::option::of(1_usize..60),
    ) {
        let mut sim = release_of(spec);
        sim.broken = broken.then_some("podinfo:2");
        sim.crash_after = crash;
        for (moment, image, metric) in versions {
            sim.run(moment);
            metric.clone_into(&mut sim.metric);
            sim.image(image);
        }
        sim.run(30);
        "100".clone_into(&mut sim.metric);
        sim.image("podinfo:4");
        // An earlier version may succeed first.
        let is_last = |sim: &Simulation| sim.outcome().contains("podinfo:4") || sim.snapshot.primary().unwrap()["spec"]["selector"]["app"] == "podinfo:4";
        prop_assert!(reaches_with(&mut sim, CanaryPhase::Succeeded, is_last), "{}", sim.transcript());
        let weights = rollout::weights(&sim.snapshot).unwrap();
        prop_assert_eq!(weights, Weights::PRIMARY);
        prop_assert!(is_idle_from_now_on(&mut sim), "{}", sim.transcript());
    }

    /// After a deletion at any moment, even with a crash, the target has its pods and the Canary no finalizer.
    #[test]
    fn a_deletion_at_any_moment_restores_the_target(
        spec in specs(),
        moment in 1_usize..80,
        metric in prop::sample::select(vec!["1", "100"]),
        crash in prop::option::of(1_usize..40),
        suspend in any::<bool>(),
    ) {
        let mut spec = spec;
        spec["revertOnDeletion"] = json!(true);
        let mut sim = release_of(spec);
        metric.clone_into(&mut sim.metric);
        sim.crash_after = crash;
        sim.run(moment);
        sim.snapshot.canary.spec.suspend = suspend;
        sim.delete();
        for _ in 0..BOUND { sim.reconcile(); if sim.is_gone() { break; } }
        prop_assert!(sim.is_gone(), "{}", sim.transcript());
        let target = sim.snapshot.target().unwrap();
        prop_assert_ne!(&target["spec"]["replicas"], &json!(0), "{}", sim.transcript());
        prop_assert_eq!(target.pointer("/spec/template/spec/nodeSelector"), None);
    }

    /// A release that is suspended at any moment, and resumed, has the same outcome.
    #[test]
    fn a_suspension_at_any_moment_does_not_change_the_outcome(
        spec in specs(),
        moment in 1_usize..80,
        metric in prop::sample::select(vec!["1", "100"]),
    ) {
        let mut undisturbed = release_of(spec.clone());
        metric.clone_into(&mut undisturbed.metric);
        let end = if metric == "1" && spec["skipAnalysis"] == false { CanaryPhase::Failed } else { CanaryPhase::Succeeded };
        prop_assert!(reaches(&mut undisturbed, end), "{}", undisturbed.transcript());
        let mut sim = release_of(spec);
        metric.clone_into(&mut sim.metric);
        sim.run(moment);
        sim.snapshot.canary.spec.suspend = true;
        sim.run(100);
        sim.snapshot.canary.spec.suspend = false;
        prop_assert!(reaches(&mut sim, end), "{}", sim.transcript());
        prop_assert_eq!(sim.outcome(), undisturbed.outcome(), "{}", sim.transcript());
    }
}
