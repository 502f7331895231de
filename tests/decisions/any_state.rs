//! Checks that there is a decision for a cluster in any state, and that each plan is safe.

use flagger_rs::rollout::{self, Decision};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::simulation::{AnyState, release};

fn phases() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "Initializing",
        "Initialized",
        "Waiting",
        "Progressing",
        "WaitingPromotion",
        "Promoting",
        "Finalising",
        "Succeeded",
        "Failed",
        "Terminating",
        "Terminated",
    ])
}

fn analyses() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"stepWeight": 20, "maxWeight": 50})),
        Just(json!({"stepWeights": [1, 10, 80]})),
        Just(json!({"iterations": 3})),
        Just(json!({"iterations": 2, "match": [{}]})),
        Just(json!({"stepWeight": -5, "threshold": -1, "interval": "nonsense"})),
        Just(json!({"stepWeight": 30, "mirror": true, "stepWeightPromotion": 20})),
        Just(json!({"iterations": 1, "mirror": true})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// For any state of the cluster there is a decision, and its plan is safe.
    #[test]
    fn every_state_has_a_decision_and_every_plan_is_safe(
        analysis in analyses(),
        phase in phases(),
        weight in -10_i64..120,
        iterations in -2_i64..6,
        failed in -1_i64..8,
        canary_ready in 0_i64..3,
        primary_ready in 0_i64..3,
        routed in 0_u8..=100,
        applied in prop::option::of("(v1-)?[a-f0-9]{4}"),
        gone in prop::collection::vec(0_usize..8, 0..4),
        condition in prop::option::of(prop::sample::select(vec!["RollingBack", "Reverting", "NoticePending", "Invalid", "TargetConflict"])),
        reason in "(FailedChecks|FailedPromotion|Promoted|Skipped|x)",
    ) {
        let mut sim = release(analysis);
        sim.run(6);
        sim.arrange(&AnyState {
            phase, weight, iterations, failed, canary_ready, primary_ready, routed, applied, gone, condition, reason,
        });
        for _ in 0..3 {
            match rollout::decide(&sim.snapshot, &rollout::Evidence::new()) {
                Decision::Do(plan) => prop_assert_eq!(rollout::audit(&sim.snapshot, &plan), Ok(()), "{:?}", plan),
                Decision::Ask(questions, _) => prop_assert!(!questions.is_empty()),
                Decision::Wait(..) => {}
            }
            sim.reconcile();
        }
    }
}
