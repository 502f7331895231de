//! What becomes of one canary changes nothing for another: whatever its neighbour does, a release takes its steps at the same instants.
//! (A neighbour whose look panics is a story of `shell::controller::schedule`.)

use std::time::Duration;

use serde_json::json;

use super::{
    outside::SLOW,
    rig::{Rig, patch_as_user},
    server::Model,
};

/// What is wrong with the neighbour.
#[derive(Clone, Copy, Debug)]
enum Neighbour {
    Rests,
    /// It has a field that no Canary can have.
    Poison,
    /// Its gate takes ten minutes for each answer, and so does its event webhook.
    Slow,
    /// Its target changes a thousand times within a second, every four seconds.
    Restless,
}

/// An instant in milliseconds since the new version, and what stood in the status from then on.
type Step = (i128, String);

#[tokio::test(start_paused = true)]
async fn a_neighbour_changes_no_step_of_a_release() {
    let undisturbed = steps(Neighbour::Rests).await;
    assert_eq!(undisturbed.len(), 9, "{undisturbed:?}");
    for neighbour in [Neighbour::Poison, Neighbour::Slow, Neighbour::Restless] {
        let disturbed = steps(neighbour).await;
        let mut pairs = disturbed.iter().zip(&undisturbed);
        // The clock of the tests goes by milliseconds, and its start is between two.
        let alike = disturbed.len() == undisturbed.len() && { pairs }
            .all(|((at, is), (then, was))| is == was && at.abs_diff(*then) <= 2);
        assert!(
            alike,
            "{neighbour:?}: {disturbed:?}, undisturbed {undisturbed:?}"
        );
    }
}

/// The steps of a release beside such a neighbour.
async fn steps(neighbour: Neighbour) -> Vec<Step> {
    let mut rig = Rig::new().await;
    rig.start("operator");
    rig.walkthrough(json!({"analysis": {"interval": "10s", "stepWeight": 10}}));
    rig.phase("Initialized").await;
    let analysis = match neighbour {
        Neighbour::Rests | Neighbour::Restless => json!({}),
        Neighbour::Poison => json!({"metrics": "many"}),
        Neighbour::Slow => json!({"interval": "10s", "webhooks": [
            {"name": "gate", "type": "confirm-rollout", "url": SLOW},
            {"name": "news", "type": "event", "url": SLOW}]}),
    };
    let service = json!({"hosts": ["neighbour.example.com"]});
    rig.target("neighbour");
    rig.canary(
        "neighbour",
        json!({"service": service, "analysis": analysis}),
    );
    rig.rest(60).await;
    let busy = match neighbour {
        Neighbour::Slow => {
            rig.release("deployments", "neighbour", "3.1.1");
            rig.rest(30).await;
            None
        }
        Neighbour::Restless => Some(tokio::spawn(restless(rig.model.clone()))),
        Neighbour::Rests | Neighbour::Poison => None,
    };
    rig.image("3.1.1");
    let begin = rig.model.now();
    rig.phase("Progressing").await;
    rig.phase("Succeeded").await;
    if let Some(busy) = busy {
        busy.abort();
    }
    assert!(is_met(&rig, neighbour), "{neighbour:?}:\n{}", rig.story());
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

/// Whether the neighbour was as it was to be.
fn is_met(rig: &Rig, neighbour: Neighbour) -> bool {
    let story = rig.story();
    match neighbour {
        Neighbour::Rests => true,
        Neighbour::Poison => story.contains("canary cannot be read"),
        Neighbour::Slow => rig.outside.told().iter().any(|told| told.url == SLOW),
        Neighbour::Restless => story.matches("write  deployments neighbour ").count() > 10_000,
    }
}

/// The neighbour's target changes a thousand times in a second, again and again.
async fn restless(model: Model) {
    for change in 0_u64.. {
        let pause = if change % 1000 == 0 { 3000 } else { 1 };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let touched = json!({"metadata": {"annotations": {"touched": change.to_string()}}});
        patch_as_user(&model, "deployments", "neighbour", &touched);
    }
}
