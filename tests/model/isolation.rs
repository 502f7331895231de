//! Isolation of canaries: the faults of another canary do not change the instants at which a release takes its steps.
//! (The tests of `shell::controller::schedule` cover a reconciliation that panics.)

use std::time::Duration;

use serde_json::json;

use super::{
    fake_servers::SLOW,
    rig::{Rig, patch_as_user},
    server::Model,
};

/// The other canary's fault.
#[derive(Clone, Copy, Debug)]
enum Neighbour {
    Idle,
    /// It cannot be decoded: a field has a wrong type.
    Invalid,
    /// Its gate and its event webhook answer after ten minutes.
    Slow,
    /// Its target changes a thousand times within a second, every four seconds.
    Restless,
}

/// The milliseconds since the new version, and the phase and weight from then on.
type Step = (i128, String);

#[tokio::test(start_paused = true)]
async fn a_neighbour_changes_no_step_of_a_release() {
    let undisturbed = steps(Neighbour::Idle).await;
    assert_eq!(undisturbed.len(), 9, "{undisturbed:?}");
    for neighbour in [Neighbour::Invalid, Neighbour::Slow, Neighbour::Restless] {
        let disturbed = steps(neighbour).await;
        let mut pairs = disturbed.iter().zip(&undisturbed);
        // The clock of the tests has steps of a millisecond, and starts between two of them.
        let alike = disturbed.len() == undisturbed.len() && { pairs }
            .all(|((at, is), (then, was))| is == was && at.abs_diff(*then) <= 2);
        assert!(
            alike,
            "{neighbour:?}: {disturbed:?}, undisturbed {undisturbed:?}"
        );
    }
}

/// The steps of a release beside this neighbour.
async fn steps(neighbour: Neighbour) -> Vec<Step> {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": {"interval": "10s", "stepWeight": 10}}));
    rig.until_phase("Initialized").await;
    let analysis = match neighbour {
        Neighbour::Idle | Neighbour::Restless => json!({}),
        Neighbour::Invalid => json!({"metrics": "many"}),
        Neighbour::Slow => json!({"interval": "10s", "webhooks": [
            {"name": "gate", "type": "confirm-rollout", "url": SLOW},
            {"name": "events", "type": "event", "url": SLOW}]}),
    };
    let service = json!({"hosts": ["neighbour.example.com"]});
    rig.target("neighbour");
    rig.canary(
        "neighbour",
        json!({"service": service, "analysis": analysis}),
    );
    rig.pass(60).await;
    let busy = match neighbour {
        Neighbour::Slow => {
            rig.release("deployments", "neighbour", "3.1.1");
            rig.pass(30).await;
            None
        }
        Neighbour::Restless => Some(tokio::spawn(restless(rig.model.clone()))),
        Neighbour::Idle | Neighbour::Invalid => None,
    };
    rig.image("3.1.1");
    let begin = rig.model.now();
    rig.until_phase("Progressing").await;
    rig.until_phase("Succeeded").await;
    if let Some(busy) = busy {
        busy.abort();
    }
    assert!(
        fault_has_happened(&rig, neighbour),
        "{neighbour:?}:\n{}",
        rig.transcript()
    );
    let mut steps: Vec<Step> = Vec::new();
    for change in rig.model.history() {
        let after = change.after.as_deref().cloned().unwrap_or_default();
        let is_step = change.key.plural == "canaries" && change.key.name == "podinfo";
        let status = &after["status"];
        let step = format!("{} {}", status["phase"], status["canaryWeight"]);
        if is_step && change.at >= begin && steps.last().is_none_or(|last| last.1 != step) {
            steps.push((change.at.duration_since(begin).as_millis(), step));
        }
    }
    steps
}

/// Whether the neighbour really had its fault.
fn fault_has_happened(rig: &Rig, neighbour: Neighbour) -> bool {
    let transcript = rig.transcript();
    match neighbour {
        Neighbour::Idle => true,
        Neighbour::Invalid => transcript.contains("canary cannot be read"),
        Neighbour::Slow => rig
            .servers
            .received()
            .iter()
            .any(|request| request.url == SLOW),
        Neighbour::Restless => transcript.matches("write  deployments neighbour ").count() > 10_000,
    }
}

/// Changes the neighbour's target a thousand times in a second, again and again.
async fn restless(model: Model) {
    for change in 0_u64.. {
        let pause = if change % 1000 == 0 { 3000 } else { 1 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let touched = json!({"metadata": {"annotations": {"touched": change.to_string()}}});
        patch_as_user(&model, "deployments", "neighbour", &touched);
    }
}
