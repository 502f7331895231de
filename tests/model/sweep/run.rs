//! One run of a scenario.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    super::{
        faults::{OPERATORS, is_operator},
        invariants::{self, Tolerance},
        rig::Rig,
        scenario::Scenario,
    },
    allowance,
    disturbance::{Counts, Disturbance},
    messages::{self, Message},
};

/// The result of one run.
pub struct Run {
    pub scenario: Scenario,
    /// The state of the cluster at the end.
    pub outcome: Value,
    /// The messages in order.
    pub messages: Vec<Message>,
    /// The virtual time from the beginning to the end of the scenario.
    pub length: Duration,
    pub counts: Counts,
    /// The violated invariants.
    pub wrong: Vec<String>,
    /// The writes, as text for the developer.
    pub transcript: String,
}

/// Runs a future on a new runtime with a virtual clock.
pub fn on_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(run)
}

/// Plays a scenario with these disturbances.
pub fn run(scenario: Scenario, disturbances: &[Disturbance]) -> Run {
    on_virtual_time(async {
        let mut rig = Rig::new().await;
        for disturbance in disturbances {
            disturbance.prepare(&rig);
        }
        let begin = rig.model.now();
        rig.start(OPERATORS[0]);
        scenario.play(&mut rig).await;
        let length = rig.model.now().duration_since(begin).unsigned_abs();
        // After a minute nothing is pending any more, and the operator must be idle.
        rig.pass(60).await;
        let idle = rig.model.now();
        rig.pass(120).await;
        Run {
            scenario,
            outcome: scenario.outcome(&rig),
            messages: messages::of_run(&rig),
            length,
            counts: counts(&rig),
            wrong: violations(&rig, scenario, disturbances, idle),
            transcript: rig.transcript(),
        }
    })
}

fn counts(rig: &Rig) -> Counts {
    let received = rig.model.received();
    let count = |writes: bool| {
        let of_operator = received.iter().filter(|request| is_operator(&request.by));
        of_operator
            .filter(|request| request.verb.writes() == writes)
            .count()
    };
    let mut changes = BTreeMap::new();
    for change in &rig.model.history() {
        *changes.entry(change.key.plural).or_default() += 1;
    }
    Counts {
        writes: count(true),
        reads: count(false),
        answers: rig.servers.answered(),
        changes,
    }
}

fn violations(
    rig: &Rig,
    scenario: Scenario,
    disturbances: &[Disturbance],
    idle: Timestamp,
) -> Vec<String> {
    let history = rig.model.history();
    let tolerance = tolerance(scenario, disturbances);
    let mut wrong = invariants::violations(&history, rig.model.now(), &tolerance);
    wrong.extend(invariants::dangling(&history));
    wrong.extend(invariants::cookies(&history));
    wrong.extend(invariants::writes_since(&history, idle));
    wrong.extend(invariants::leaks(
        &history,
        &["http://slack/global", "http://events/all"],
    ));
    wrong
}

/// The times for which the scenario and its disturbances justify what would be a violation otherwise.
fn tolerance(scenario: Scenario, disturbances: &[Disturbance]) -> Tolerance {
    let allowed = allowance::of(scenario, disturbances);
    let mut tolerance = Tolerance {
        stale_target: allowed.staleness,
        ..Tolerance::default()
    };
    tolerance.deletion += allowed.delay;
    if scenario == Scenario::WithoutPods {
        // Pods become unready at once, so requests are lost until the operator reacts.
        tolerance.lost_pods = Duration::from_secs(1) + allowed.delay;
    }
    tolerance
}
