//! Two operators share the canaries by a label. A canary that moves from one to the other, at whatever write, loses no step.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    faults::{OPERATORS, is_operator},
    rig::{NAMESPACE, Rig, patch_as_user},
    server::{Model, Received},
    store::{Change, Key},
    sweep::on_virtual_time,
};

const LABEL: &str = "sharding.fluxcd.io/key";
/// The operator of the labelled canaries, and that of all others.
const SHARDS: [(&str, &str); 2] = [
    (OPERATORS[0], "sharding.fluxcd.io/key=one"),
    (OPERATORS[1], "!sharding.fluxcd.io/key"),
];

/// The end of a release, and its steps.
#[derive(Debug, PartialEq)]
struct Released {
    phase: Value,
    primary: String,
    route: Value,
    record: Vec<Value>,
    /// The phase and the weight after each step.
    steps: Vec<String>,
}

#[test]
fn a_canary_that_moves_to_another_shard_at_any_write_loses_no_step() {
    let (undisturbed, _) = on_virtual_time(release(None, 0));
    assert_eq!(undisturbed.phase, "Succeeded");
    let weights = ["0", "25", "50", "50", "0"];
    let found: Vec<_> = { undisturbed.steps.iter() }
        .filter_map(|step| step.split_once(' '))
        .map(|(_, weight)| weight)
        .collect();
    assert!(
        weights.iter().all(|weight| found.contains(weight)),
        "{found:?}"
    );
    for late in [0, 15] {
        let mut nth = 1;
        loop {
            let (moved, is_moved) = on_virtual_time(release(Some(nth), late));
            assert_eq!(
                moved, undisturbed,
                "moved at write {nth}, watches are {late} s late"
            );
            if !is_moved {
                break;
            }
            nth += 1;
        }
        assert!(nth > 20, "the operators write {nth} times only");
    }
}

/// Plays a release. At the operators' n-th write the canary gets another operator. Watches report changes of Canaries `late` by these
/// seconds. Also returns whether there were so many writes.
async fn release(moved_at: Option<usize>, late: u64) -> (Released, bool) {
    let mut rig = Rig::new().await;
    let late = Duration::from_secs(late);
    rig.model.plan().late.insert("canaries", late);
    rig.target("podinfo");
    rig.canary(
        "podinfo",
        json!({"analysis": {"interval": "10s", "stepWeight": 25}}),
    );
    label(&rig.model, Some("one"));
    for (name, selector) in SHARDS {
        rig.start_shard(name, selector);
    }
    let moving = moved_at.map(|nth| tokio::spawn(moved(rig.model.clone(), nth)));
    rig.until_phase("Initialized").await;
    rig.image("3.1.1");
    rig.until_phase("Progressing").await;
    rig.until_phase("Succeeded").await;
    rig.pass(60).await;
    let is_moved = moving.is_some_and(|moving| moving.is_finished());
    assert_each_operator_wrote_what_is_its_own(&rig, late);
    let mut steps: Vec<String> = Vec::new();
    for change in rig.model.history() {
        let after = change.after.as_deref().cloned().unwrap_or_default();
        let status = &after["status"];
        let step = format!("{} {}", status["phase"], status["canaryWeight"]);
        if change.key.plural == "canaries" && steps.last().is_none_or(|last| *last != step) {
            steps.push(step);
        }
    }
    let records = rig.all("releases").into_iter();
    let released = Released {
        phase: rig.get("canaries", "podinfo")["status"]["phase"].clone(),
        primary: rig.image_of("podinfo-primary"),
        route: rig.get("virtualservices", "podinfo")["spec"]["http"].clone(),
        record: records
            .map(|record| record["spec"]["result"].clone())
            .collect(),
        steps,
    };
    (released, is_moved)
}

/// The second operator writes nothing before the move. The first one writes nothing as soon as it knows of the move: from a watch, or because
/// the API server refuses to change the status of a Canary that has changed.
fn assert_each_operator_wrote_what_is_its_own(rig: &Rig, late: Duration) {
    let history = rig.model.history();
    let is_move = |change: &&Change| {
        let is_labelled = |canary: &Option<Arc<Value>>| {
            canary
                .as_deref()
                .is_some_and(|canary| canary["metadata"]["labels"][LABEL].is_string())
        };
        change.key.plural == "canaries"
            && is_labelled(&change.before)
            && !is_labelled(&change.after)
    };
    let moved = history.iter().find(is_move).map(|change| change.at);
    let received = rig.model.received();
    let is_refused = |request: &&Received| {
        request.by == SHARDS[0].0
            && request.resource == "canaries/status"
            && Some(request.at) > moved
    };
    let refused = received.iter().find(is_refused).map(|request| request.at);
    let known = moved.map(|moved| refused.unwrap_or(Timestamp::MAX).min(moved + late));
    for change in history.iter().filter(|change| is_operator(&change.by)) {
        let may_write = if change.by == SHARDS[0].0 {
            known.is_none_or(|known| change.at <= known)
        } else {
            moved.is_some_and(|moved| change.at >= moved)
        };
        assert!(
            may_write,
            "{} wrote {} {} at {}, moved at {moved:?}:\n{}",
            change.by,
            change.key.plural,
            change.key.name,
            change.at,
            rig.transcript()
        );
    }
}

/// Removes the label at the operators' n-th write.
async fn moved(model: Model, nth: usize) {
    let mut revisions = model.revisions();
    let writes = || {
        let of_operator = |request: &&Received| is_operator(&request.by) && request.verb.writes();
        model.received().iter().filter(of_operator).count()
    };
    while writes() < nth {
        if revisions.changed().await.is_err() {
            return;
        }
    }
    label(&model, None);
}

fn label(model: &Model, value: Option<&str>) {
    let key = Key::new("canaries", NAMESPACE, "podinfo");
    patch_as_user(
        model,
        key.plural,
        &key.name,
        &json!({"metadata": {"labels": {LABEL: value}}}),
    );
}
