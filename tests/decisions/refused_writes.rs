//! The API server refuses a write that a release needs. The status has the reason, because events are limited and expire after an hour.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    rollout::{Decision, Evidence, decide},
    snapshot::{Kind, RefusedWrite},
};
use serde_json::json;

use super::simulation::{Simulation, release_of};

fn refused(sim: &mut Simulation, why: &str) {
    sim.snapshot.refused = Some(RefusedWrite {
        object: sim.snapshot.reference(Kind::VirtualService, "podinfo"),
        why: why.to_owned(),
        generation: None,
    });
}

/// The condition's message.
fn message(sim: &Simulation) -> Option<String> {
    let condition = sim
        .snapshot
        .status()
        .condition(ConditionType::WriteRefused)?;
    condition.message.clone()
}

#[test]
fn a_release_that_cannot_write_says_why_in_its_status() {
    for phase in [CanaryPhase::Initializing, CanaryPhase::Progressing] {
        let mut sim = match phase {
            CanaryPhase::Initializing => Simulation::new(
                json!({"analysis": {"interval": "10s", "threshold": 5, "stepWeight": 10}}),
            ),
            _ => release_of(
                json!({"analysis": {"interval": "10s", "threshold": 5, "stepWeight": 10}}),
            ),
        };
        sim.run_until_phase(phase);
        refused(&mut sim, "virtualservices is forbidden: request 1");
        sim.run(3);
        let expected = "The API server refuses the write of VirtualService podinfo: virtualservices is forbidden: request 1.";
        assert_eq!(
            message(&sim).as_deref(),
            Some(expected),
            "{}",
            sim.transcript()
        );
        // The next refusal has another text. The operator does not write the status again for it.
        refused(&mut sim, "virtualservices is forbidden: request 2");
        sim.run(1);
        assert_eq!(message(&sim).as_deref(), Some(expected));
        sim.snapshot.refused = None;
        sim.reconcile();
        assert_eq!(message(&sim), None, "{}", sim.transcript());
        let end = match phase {
            CanaryPhase::Initializing => CanaryPhase::Initialized,
            _ => CanaryPhase::Succeeded,
        };
        sim.run_until(end);
        assert_eq!(message(&sim), None);
    }
}

/// Between runs, the operator writes only repairs, and nothing waits for them.
#[test]
fn between_runs_a_refused_write_is_an_event_only() {
    let mut sim =
        release_of(json!({"analysis": {"interval": "10s", "threshold": 5, "stepWeight": 50}}));
    sim.run_until(CanaryPhase::Succeeded);
    refused(&mut sim, "forbidden");
    assert!(matches!(
        decide(&sim.snapshot, &Evidence::default()),
        Decision::Wait(..)
    ));
}
