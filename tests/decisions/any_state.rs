//! Checks that there is a decision for a cluster in any state, and that each plan is safe.

use std::{cell::RefCell, collections::BTreeMap, fmt::Debug};

use flagger_rs::{
    api::{canary::CanaryPhase, percent::Percent, status::ConditionType},
    rollout::{self, Decision, Evidence},
};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use serde_json::{Value, json};

use super::{
    properties::{providers, targets},
    simulation::{AnyState, Revision, Rollout, Simulation, release_of},
};

/// All phases, in the order of `place_of`.
pub const PHASES: [CanaryPhase; 12] = [
    CanaryPhase::New,
    CanaryPhase::Initializing,
    CanaryPhase::Initialized,
    CanaryPhase::Waiting,
    CanaryPhase::Progressing,
    CanaryPhase::WaitingPromotion,
    CanaryPhase::Promoting,
    CanaryPhase::Finalising,
    CanaryPhase::Succeeded,
    CanaryPhase::Failed,
    CanaryPhase::Terminating,
    CanaryPhase::Terminated,
];

/// All conditions but `Promoted`, which every status has, in the order of `place_of_condition`.
const CONDITIONS: [ConditionType; 19] = [
    ConditionType::RollingBack,
    ConditionType::Reverting,
    ConditionType::Draining,
    ConditionType::PromotionFailed,
    ConditionType::NotificationPending,
    ConditionType::Invalid,
    ConditionType::TargetConflict,
    ConditionType::PodsLost,
    ConditionType::ForeignObject,
    ConditionType::Action,
    ConditionType::Paused,
    ConditionType::SkipRequested,
    ConditionType::PromoteRequested,
    ConditionType::RetryRequested,
    ConditionType::Verdict,
    ConditionType::WriteRefused,
    ConditionType::Comparison,
    ConditionType::RouteRefs,
    ConditionType::GrpcRoute,
];

const ROLLOUTS: [Rollout; 5] = [
    Rollout::Ready,
    Rollout::Partly,
    Rollout::Waiting,
    Rollout::Stuck,
    Rollout::AtZero,
];

fn analyses() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => Just(json!({"stepWeight": 20, "maxWeight": 50})),
        2 => Just(json!({"stepWeights": [1, 10, 80]})),
        2 => Just(json!({"decimalStepWeights": [0.1, 9.9, 80]})),
        1 => Just(json!({"iterations": 3})),
        1 => Just(json!({"iterations": 2, "match": [{"headers": {"x-user": {"exact": "insider"}}}]})),
        1 => Just(json!({"stepWeight": -5, "threshold": -1, "interval": "nonsense"})),
        1 => Just(json!({"stepWeight": 30, "mirror": true, "stepWeightPromotion": 20})),
        1 => Just(json!({"iterations": 1, "mirror": true})),
    ]
}

fn revisions() -> impl Strategy<Value = Revision> {
    prop_oneof![
        1 => Just(Revision::None),
        5 => Just(Revision::Present),
        2 => Just(Revision::Promoted),
        2 => "(v1-)?[a-f0-9]{4}".prop_map(Revision::Other),
    ]
}

fn rollouts() -> impl Strategy<Value = Rollout> {
    prop_oneof![3 => Just(Rollout::Ready), 2 => prop::sample::select(ROLLOUTS.to_vec())]
}

fn states() -> impl Strategy<Value = AnyState> {
    let phase = prop_oneof![2 => prop::sample::select(PHASES.to_vec()), 1 => Just(CanaryPhase::Progressing)];
    let progress = (-10_i64..120, -2_i64..6, -1_i64..8, 0_u8..=100);
    let kinds = CONDITIONS.map(ConditionType::as_str).to_vec();
    // Most releases have no condition besides `Promoted`, and lack no object.
    let conditions = prop_oneof![Just(Vec::new()), prop::sample::subsequence(kinds, 1..3)];
    let gone = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(0_usize..8, 1..4)];
    let reason = "(FailedChecks|FailedPromotion|NotReady|Manual|Promoted|Skipped|Reverted|x)(WhileWaitingPromotion)?";
    let tick = prop::option::weighted(0.8, (0_i64..15, any::<bool>()));
    let times = (0_i64..30, tick, (0_i64..2000, 0_i64..2000));
    let versions = (revisions(), revisions(), rollouts(), rollouts());
    (phase, progress, (conditions, reason), gone, times, versions).prop_map(
        |(phase, progress, (conditions, reason), gone, (since, tick, changed), versions)| {
            AnyState {
                phase: phase.as_str(),
                weight: progress.0,
                iterations: progress.1,
                failed: progress.2,
                routed: progress.3,
                conditions,
                reason,
                gone,
                since,
                tick,
                changed,
                applied: versions.0,
                promoted: versions.1,
                canary: versions.2,
                primary: versions.3,
            }
        },
    )
}

/// How often the inputs of a run had each property.
#[derive(Default)]
struct Coverage(RefCell<BTreeMap<String, usize>>);

impl Coverage {
    fn count(&self, property: impl Debug) {
        *self
            .0
            .borrow_mut()
            .entry(format!("{property:?}"))
            .or_default() += 1;
    }

    fn requires(&self, property: impl Debug) {
        let seen = self.0.borrow();
        let seen = seen.get(&format!("{property:?}")).copied().unwrap_or(0);
        assert!(seen >= 3, "{property:?} was reached in {seen} states only");
    }
}

/// For any state of the cluster there is a decision, and the operator and the judge find its plan safe.
#[test]
fn every_state_has_a_decision_and_every_plan_is_safe() {
    let config = Config {
        cases: 1500,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        ..Config::default()
    };
    let hooks = [
        "confirm-rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "rollback",
    ];
    let hooks = hooks
        .map(|kind| json!({"name": kind, "type": kind, "url": format!("http://hooks/{kind}")}));
    let answers = (
        prop::sample::select(vec!["100", "1", "NaN", "x"]),
        any::<bool>(),
    );
    let inputs = (analyses(), targets(), providers(), states(), answers);
    let coverage = Coverage::default();
    let result = TestRunner::new(config).run(&inputs, |(mut analysis, target, provider, state, (metric, open))| {
        analysis["webhooks"] = json!(hooks);
        let gateways = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway"}]);
        let mut sim = release_of(json!({"targetRef": target, "provider": provider, "analysis": analysis,
            "service": {"port": 9898, "meshName": "global", "gatewayRefs": gateways}}));
        sim.closed.insert("rollback");
        sim.run(6);
        sim.arrange(&state);
        sim.metric = metric.to_owned();
        if !open {
            sim.closed.extend(["confirm-traffic-increase", "confirm-promotion", "confirm-rollout"]);
        }
        let routed = weight(&sim);
        for _ in 0..10 {
            if sim.frozen {
                let decision = rollout::decide(&sim.snapshot, &Evidence::new());
                let kind = match decision {
                    Decision::Do(_) => "do",
                    Decision::Ask(..) => "ask",
                    Decision::Wait(..) => "wait",
                };
                coverage.count((sim.snapshot.phase(), kind));
            }
            sim.reconcile();
        }
        for condition in &state.conditions {
            coverage.count(condition);
        }
        coverage.count(("canary", state.canary));
        coverage.count(("primary", state.primary));
        if matches!(state.applied, Revision::Present) && state.phase == "Progressing" && state.tick.is_some() {
            coverage.count(("analysed", state.canary, state.primary));
        }
        if weight(&sim) > routed {
            coverage.count("raised");
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
    reaches_everything(&coverage);
}

/// The canary's share, if the route can be read.
fn weight(sim: &Simulation) -> Percent {
    rollout::weights(&sim.snapshot).map_or(Percent::ZERO, |weights| weights.canary)
}

/// Does not compile if a phase has no place.
fn place_of(phase: CanaryPhase) -> usize {
    use CanaryPhase as P;
    match phase {
        P::New => 0,
        P::Initializing => 1,
        P::Initialized => 2,
        P::Waiting => 3,
        P::Progressing => 4,
        P::WaitingPromotion => 5,
        P::Promoting => 6,
        P::Finalising => 7,
        P::Succeeded => 8,
        P::Failed => 9,
        P::Terminating => 10,
        P::Terminated => 11,
    }
}

/// Does not compile if a condition has no place; `Promoted` has none in the list.
fn place_of_condition(condition: ConditionType) -> Option<usize> {
    use ConditionType as C;
    match condition {
        C::Promoted => None,
        C::RollingBack => Some(0),
        C::Reverting => Some(1),
        C::Draining => Some(2),
        C::PromotionFailed => Some(3),
        C::NotificationPending => Some(4),
        C::Invalid => Some(5),
        C::TargetConflict => Some(6),
        C::PodsLost => Some(7),
        C::ForeignObject => Some(8),
        C::Action => Some(9),
        C::Paused => Some(10),
        C::SkipRequested => Some(11),
        C::PromoteRequested => Some(12),
        C::RetryRequested => Some(13),
        C::Verdict => Some(14),
        C::WriteRefused => Some(15),
        C::Comparison => Some(16),
        C::RouteRefs => Some(17),
        C::GrpcRoute => Some(18),
    }
}

#[test]
fn the_lists_of_phases_and_conditions_are_complete() {
    assert_eq!(PHASES.map(place_of), std::array::from_fn(|place| place));
    assert_eq!(
        CONDITIONS.map(place_of_condition),
        std::array::from_fn(Some)
    );
}

/// Fails if the generated states lack a case, because the properties are not checked for that case.
fn reaches_everything(coverage: &Coverage) {
    for phase in PHASES {
        coverage.requires((
            phase,
            if phase == CanaryPhase::Terminated {
                "wait"
            } else {
                "do"
            },
        ));
    }
    for phase in [
        CanaryPhase::Progressing,
        CanaryPhase::WaitingPromotion,
        CanaryPhase::Succeeded,
    ] {
        coverage.requires((phase, "ask"));
    }
    for condition in CONDITIONS {
        coverage.requires(condition.as_str());
    }
    for rollout in ROLLOUTS {
        coverage.requires(("canary", rollout));
        coverage.requires(("primary", rollout));
        coverage.requires(("analysed", rollout, Rollout::Ready));
        coverage.requires(("analysed", Rollout::Ready, rollout));
    }
    coverage.requires("raised");
}

const SEEDS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/proptest-regressions/any_state.txt"
);
