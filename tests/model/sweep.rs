//! Sweeps: every scenario runs once undisturbed, and then once for each possible fault or crash. Every run must have the same outcome as
//! the undisturbed one, the same messages, and no violations.
//!
//! | question | file |
//! | --- | --- |
//! | which disturbances does a scenario have? | `disturbance.rs` |
//! | which of them are played? | `selection.rs` |
//! | which two disturbances are played at once? | `pairs.rs` |
//! | what did an undisturbed run do, and did it change? | `expected.rs`, and the files in `../expected` |
//! | which differences are violations? | `compare.rs`; `allowance.rs` has the differences that each disturbance justifies |
//!
//! | variable | effect |
//! | --- | --- |
//! | `SWEEP_SCENARIO=Promotion` | plays this scenario only |
//! | `SWEEP_ONLY='Fault(Writes, 7'` | plays all disturbances whose names contain this, and no others |
//! | `SWEEP_TRANSCRIPT=1` | prints the writes of each run that fails |
//! | `SWEEP_ALL=1` | plays every disturbance, instead of a part that is drawn by seed |
//! | `SWEEP_PAIRS=5000` | plays this number of pairs for each scenario |
//! | `SWEEP_SEED=71` | draws other disturbances and pairs |

mod allowance;
mod compare;
mod disturbance;
mod expected;
mod messages;
mod pairs;
mod random;
mod run;
mod selection;

use std::time::Instant;

use serde_json::json;

use super::{faults::OPERATORS, invariants, rig::Rig, scenario::Scenario, store::Key};
use disturbance::{Disturbance, READ_FAULTS, WRITE_FAULTS};
pub use run::on_virtual_time;
use run::{Run, run};

/// A disturbed run, before it is played.
struct Trial {
    disturbances: Vec<Disturbance>,
    /// The variables and the name of the test that repeat exactly this run of its scenario.
    repeat: (String, &'static str),
}

impl From<Disturbance> for Trial {
    fn from(only: Disturbance) -> Self {
        let disturbances = vec![only];
        Self {
            repeat: (
                format!("SWEEP_ONLY='{disturbances:?}'"),
                "a_release_ends_the_same",
            ),
            disturbances,
        }
    }
}

#[test]
fn a_release_ends_the_same_wherever_the_operator_is_killed() {
    sweep(|_, reference| each(disturbance::deaths(&reference.counts)));
}

#[test]
fn a_release_ends_the_same_whatever_fault_a_write_has() {
    sweep(|_, reference| {
        let all = disturbance::write_faults(&reference.counts);
        each(selection::of_writes(&all, WRITE_FAULTS.len()))
    });
}

#[test]
fn a_release_ends_the_same_whatever_fault_a_read_has() {
    sweep(|_, reference| {
        let all = disturbance::read_faults(&reference.counts);
        each(selection::of_reads(&all, READ_FAULTS.len()))
    });
}

#[test]
fn a_release_ends_the_same_with_late_repeated_and_lost_events() {
    sweep(|scenario, reference| each(disturbance::event_faults(scenario, &reference.counts)));
}

#[test]
fn a_release_ends_the_same_when_a_user_recreates_objects() {
    sweep(|scenario, reference| {
        let all = disturbance::recreations(scenario, &reference.counts);
        each(selection::of_recreations(&all))
    });
}

/// The objects created for a Canary are deleted with it. A new Canary of the same name starts over with the current version.
#[test]
fn a_canary_that_is_recreated_at_any_time_starts_over() {
    let (mut nth, mut wrong) = (1, Vec::new());
    while let Some(found) = on_virtual_time(start_over(nth)) {
        wrong.extend(found.into_iter().map(|what| format!("write {nth}: {what}")));
        nth += 1;
    }
    assert!(nth > 1, "the operator writes nothing");
    println!("{} runs, violations: {}", nth - 1, wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The violations when the Canary is recreated at the operator's n-th write. `None` if there are fewer writes.
async fn start_over(nth: usize) -> Option<Vec<String>> {
    let mut rig = Rig::new().await;
    let canary = Key::new("canaries", "test", "podinfo");
    let recreation = tokio::spawn(disturbance::recreate(rig.model.clone(), canary, nth));
    rig.start(OPERATORS[0]);
    rig.walkthrough(json!({"analysis": {"interval": "10s", "stepWeight": 25}}));
    rig.until_phase("Initialized").await;
    rig.image("3.1.1");
    let is_over = |rig: &Rig| {
        let status = &rig.get("canaries", "podinfo")["status"];
        let is_idle = matches!(status["phase"].as_str(), Some("Initialized" | "Succeeded"));
        is_idle
            && rig.image_of("podinfo-primary") == "podinfo:3.1.1"
            && rig.get("deployments", "podinfo")["spec"]["replicas"] == 0
    };
    rig.until("the end", is_over).await;
    // The last writes follow the promotion.
    rig.pass(60).await;
    if !recreation.is_finished() {
        return None;
    }
    let idle = rig.model.now();
    rig.pass(120).await;
    let history = rig.model.history();
    let mut wrong = invariants::writes_since(&history, idle);
    wrong.extend(invariants::dangling(&history));
    let route = rig.get("virtualservices", "podinfo");
    if route["spec"]["http"][0]["route"][0]["weight"] != 100 || !is_over(&rig) {
        wrong.push(format!(
            "ends with {}:\n{}",
            rig.outcome(),
            rig.transcript()
        ));
    }
    Some(wrong)
}

fn each(disturbances: Vec<Disturbance>) -> Vec<Trial> {
    disturbances.into_iter().map(Trial::from).collect()
}

/// The scenarios of this sweep: all, or the one that `SWEEP_SCENARIO` names.
fn scenarios() -> Vec<Scenario> {
    let only = std::env::var("SWEEP_SCENARIO").ok();
    let is_wanted = |scenario: &Scenario| {
        only.as_ref()
            .is_none_or(|only| *only == format!("{scenario:?}"))
    };
    let wanted: Vec<_> = Scenario::all().into_iter().filter(is_wanted).collect();
    assert!(!wanted.is_empty(), "there is no scenario {only:?}");
    wanted
}

fn sweep(trials: impl Fn(Scenario, &Run) -> Vec<Trial>) {
    let begin = Instant::now();
    let (mut runs, mut failures) = (0, Vec::new());
    for scenario in scenarios() {
        let reference = run(scenario, &[]);
        if !reference.wrong.is_empty() {
            let wrong = reference.wrong.join("\n    ");
            failures.push(format!(
                "{scenario:?} undisturbed:\n    {wrong}\n{}",
                reference.transcript
            ));
            continue;
        }
        let mut trials = trials(scenario, &reference);
        trials.retain(|trial| selection::is_wanted(&trial.disturbances));
        if trials.is_empty() {
            assert!(
                std::env::var_os("SWEEP_ONLY").is_some(),
                "{scenario:?} has no disturbances"
            );
            continue;
        }
        runs += trials.len();
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let parts = trials.chunks(trials.len().div_ceil(threads));
            let play = |trial: &Trial| failure(scenario, &reference, trial);
            let parts: Vec<_> = parts
                .map(|part| scope.spawn(move || part.iter().filter_map(play).collect::<Vec<_>>()))
                .collect();
            failures.extend(parts.into_iter().flat_map(|part| part.join().unwrap()));
        });
    }
    println!(
        "{runs} runs with SWEEP_SEED={} in {:.1} s, violations: {}",
        selection::seed(),
        begin.elapsed().as_secs_f64(),
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Plays a trial. `None` if it ends as it must.
fn failure(scenario: Scenario, reference: &Run, trial: &Trial) -> Option<String> {
    let disturbances = &trial.disturbances;
    let wrong = match std::panic::catch_unwind(|| run(scenario, disturbances)) {
        Ok(disturbed) => {
            let mut wrong = compare::differences(reference, &disturbed, disturbances);
            if !wrong.is_empty() && std::env::var_os("SWEEP_TRANSCRIPT").is_some() {
                wrong.push(disturbed.transcript);
            }
            wrong
        }
        Err(cause) => {
            let text = cause.downcast_ref::<String>().map_or("", String::as_str);
            let first = text.lines().next().unwrap_or_default();
            vec![format!("the run panicked, see above: {first}")]
        }
    };
    let (variables, test) = &trial.repeat;
    let wrong = wrong.join("\n    ");
    (!wrong.is_empty()).then(|| {
        format!(
            "{scenario:?}, {disturbances:?}:\n    {wrong}\n    repeat it: SWEEP_SCENARIO='{scenario:?}' {variables} \
             cargo test --test model -- {test} --nocapture"
        )
    })
}
