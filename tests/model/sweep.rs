//! Faults and crashes at every write of a release, generated from an undisturbed run: the same end, and nothing that must not be.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    call::Verb,
    faults::{Fault, Rule, Which},
    invariants,
    resources::RESOURCES,
    rig::Rig,
};

const OPERATOR: &str = "operator";

/// Alerts of which nothing is on record yet when they are owed: a crash between the status and the chat loses them today. The list
/// is to become empty.
const MAY_BE_LOST: [&str; 2] = ["initialization completed", "progressing canary analysis"];

/// What came of one run.
struct Run {
    outcome: Value,
    /// What hooks and chats were told, and how often.
    told: BTreeMap<String, usize>,
    writes: usize,
    wrong: Vec<String>,
    story: String,
}

/// The stories that are swept.
#[derive(Clone, Copy, Debug)]
enum Story {
    /// A good version of two steps.
    Promotion,
    /// A version whose requests fail.
    Rollback,
}

/// What is wrong in one run.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// The n-th of the requests that are alike meets with this.
    Fault(Which, usize, Fault),
    /// The news of a kind is so many seconds late.
    Late(&'static str, u64),
}

#[test]
fn a_release_ends_the_same_wherever_the_operator_is_stopped() {
    sweep(|reference| at_each_write(reference, &[Fault::DieBefore, Fault::DieAfter]));
}

#[test]
fn a_release_ends_the_same_whatever_becomes_of_a_write() {
    let faults = [
        Fault::Status(409),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::DoneBut(504),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Hang,
        Fault::Truncated,
    ];
    sweep(|reference| at_each_write(reference, &faults));
}

#[test]
fn a_release_ends_the_same_with_stale_news_and_a_bad_start() {
    sweep(|_| {
        let late = RESOURCES.iter().flat_map(|resource| {
            [1, 5, 60].map(|seconds| Disturbance::Late(resource.plural, seconds))
        });
        let start = (1..=12).map(|nth| Disturbance::Fault(Which::Any, nth, Fault::ResetBefore));
        let gone = [Verb::List, Verb::Watch]
            .map(|verb| Disturbance::Fault(Which::Of(verb, "canaries"), 1, Fault::Status(410)));
        late.chain(start).chain(gone).collect()
    });
}

fn at_each_write(reference: &Run, faults: &[Fault]) -> Vec<Disturbance> {
    let at = |nth| {
        faults
            .iter()
            .map(move |fault| Disturbance::Fault(Which::Writes, nth, *fault))
    };
    (1..=reference.writes).flat_map(at).collect()
}

fn sweep(plans: impl Fn(&Run) -> Vec<Disturbance>) {
    let begin = Instant::now();
    let (mut runs, mut failures) = (0, Vec::new());
    for story in [Story::Promotion, Story::Rollback] {
        let reference = run(story, None);
        assert_eq!(
            reference.wrong,
            Vec::<String>::new(),
            "{story:?} undisturbed:\n{}",
            reference.story
        );
        let plans = plans(&reference);
        runs += plans.len();
        let tried = |plan: &Disturbance| {
            let wrong = match std::panic::catch_unwind(|| run(story, Some(*plan))) {
                Ok(disturbed) => compare(&reference, &disturbed),
                Err(_) => vec!["it has no end, see above".to_owned()],
            };
            (!wrong.is_empty())
                .then(|| format!("{story:?}, {plan:?}:\n    {}", wrong.join("\n    ")))
        };
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let parts = plans.chunks(plans.len().div_ceil(threads));
            let parts: Vec<_> = parts
                .map(|part| scope.spawn(move || part.iter().filter_map(tried).collect::<Vec<_>>()))
                .collect();
            failures.extend(parts.into_iter().flat_map(|part| part.join().unwrap()));
        });
    }
    println!(
        "{runs} runs in {:.1} s, violations: {}",
        begin.elapsed().as_secs_f64(),
        failures.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What is not as in the undisturbed run: alerts and hooks may come twice.
fn compare(reference: &Run, disturbed: &Run) -> Vec<String> {
    let mut wrong = disturbed.wrong.clone();
    if disturbed.outcome != reference.outcome {
        wrong.push(format!(
            "ends with {}, not with {}",
            disturbed.outcome, reference.outcome
        ));
    }
    for (what, times) in &reference.told {
        let told = disturbed.told.get(what).copied().unwrap_or(0);
        let least = if MAY_BE_LOST.iter().any(|text| what.contains(text)) {
            0
        } else {
            *times
        };
        if told < least || told > times + 1 {
            wrong.push(format!("told {told} times, not {times}: {what}"));
        }
    }
    wrong
}

/// A run on a runtime of its own, whose clock is virtual.
fn run(story: Story, disturbance: Option<Disturbance>) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut rig = Rig::new().await;
        match disturbance {
            Some(Disturbance::Fault(which, nth, fault)) => rig.model.plan().add(Rule {
                by: OPERATOR,
                which,
                nth,
                fault,
            }),
            Some(Disturbance::Late(plural, seconds)) => {
                rig.model
                    .plan()
                    .late
                    .insert(plural, Duration::from_secs(seconds));
            }
            None => {}
        }
        rig.start(OPERATOR);
        rig.walkthrough(json!({"interval": "10s", "stepWeight": 25, "threshold": 2}));
        rig.phase("Initialized").await;
        if matches!(story, Story::Rollback) {
            rig.outside.measure(10.0);
        }
        rig.image("3.1.1");
        rig.phase("Progressing").await;
        rig.phase(match story {
            Story::Promotion => "Succeeded",
            Story::Rollback => "Failed",
        })
        .await;
        // What was under way comes to its end; from then on nothing moves.
        rig.rest(60).await;
        let rest = rig.model.now();
        rig.rest(120).await;
        let history = rig.model.history();
        let mut wrong = invariants::violations(&history, rig.model.now());
        wrong.extend(invariants::moves_since(&history, rest));
        wrong.extend(invariants::leaks(
            &history,
            &["http://slack/global", "http://events/all"],
        ));
        Run {
            outcome: rig.outcome(),
            told: told(&rig),
            writes: rig
                .model
                .asked()
                .iter()
                .filter(|asked| asked.by == OPERATOR && asked.verb.writes())
                .count(),
            wrong,
            story: rig.story(),
        }
    })
}

/// Alerts and hooks by what they say; a load test is told at every step anew.
fn told(rig: &Rig) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for told in rig.outside.told() {
        let what = match told.url.as_str() {
            "http://slack/global" => told.body["attachments"][0]["text"].to_string(),
            "http://events/all" => continue,
            url => format!(
                "{url} {} {}",
                told.body["phase"], told.body["metadata"]["type"]
            ),
        };
        *all.entry(what).or_default() += 1;
    }
    all
}
