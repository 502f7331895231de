//! Faults and crashes at every write of a release, generated from an undisturbed run: the same end, and nothing that must not be.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    faults::{Fault, Rule, Which},
    invariants,
    resources::RESOURCES,
    rig::Rig,
    server::{Asked, Model},
    store::Key,
    story::Story,
};

const OPERATOR: &str = "operator";

/// What came of one run.
struct Run {
    outcome: Value,
    /// What hooks and chats were told, and how often.
    told: BTreeMap<String, usize>,
    /// How many requests changed something, and how many did not.
    writes: usize,
    reads: usize,
    answers: usize,
    /// How often each kind changed.
    changes: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
    story: String,
}

/// What is wrong in one run.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// The n-th of the requests that are alike meets with this.
    Fault(Which, usize, Fault),
    /// The operator dies of the n-th answer that it gets from a server.
    DieOf(usize),
    /// The news of a kind is so many seconds late.
    Late(&'static str, u64),
    /// Each change of a kind is told twice.
    Twice(&'static str),
    /// The n-th change of a kind is not told.
    Untold(&'static str, usize),
    /// At the operator's n-th write a user deletes this and makes it again.
    Again(&'static str, &'static str, usize),
}

#[test]
fn a_release_ends_the_same_wherever_the_operator_is_stopped() {
    sweep(|_, reference| {
        let answers = (1..=reference.answers).map(Disturbance::DieOf);
        let writes = at_each(
            Which::Writes,
            reference.writes,
            &[Fault::DieBefore, Fault::DieAfter],
        );
        writes.into_iter().chain(answers).collect()
    });
}

#[test]
fn a_release_ends_the_same_whatever_becomes_of_a_write() {
    let faults = [
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(404),
        Fault::Status(409),
        Fault::Status(422),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::DoneBut(504),
        // As of a write that was sent again.
        Fault::DoneBut(409),
        Fault::ResetBefore,
        Fault::ResetAfter,
        Fault::Hang,
        Fault::Late,
        Fault::Truncated,
    ];
    sweep(|_, reference| at_each(Which::Writes, reference.writes, &faults));
}

#[test]
fn a_release_ends_the_same_whatever_becomes_of_a_read() {
    let faults = [
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(404),
        Fault::Status(410),
        Fault::Status(429),
        Fault::Status(500),
        Fault::Status(503),
        Fault::ResetBefore,
        Fault::Hang,
        Fault::Truncated,
    ];
    sweep(|_, reference| at_each(Which::Reads, reference.reads, &faults));
}

#[test]
fn a_release_ends_the_same_with_stale_news() {
    sweep(|story, reference| {
        let late = RESOURCES.iter().flat_map(|resource| {
            [1, 5, 60].map(|seconds| Disturbance::Late(resource.plural, seconds))
        });
        // A minute later the version is promoted, and its pods are back.
        let is_told = |plan: &Disturbance| {
            story != Story::WithoutPods || !matches!(plan, Disturbance::Late("deployments", 60))
        };
        let twice = RESOURCES
            .iter()
            .map(|resource| Disturbance::Twice(resource.plural));
        let untold = reference.changes.iter().flat_map(|(plural, changes)| {
            (1..=*changes).map(|nth| Disturbance::Untold(plural, nth))
        });
        late.filter(is_told).chain(twice).chain(untold).collect()
    });
}

#[test]
fn a_release_ends_the_same_when_a_user_makes_things_again() {
    sweep(|story, reference| {
        let things = [
            ("services", "podinfo"),
            ("services", "podinfo-primary"),
            ("services", "podinfo-canary"),
            ("virtualservices", "podinfo"),
            ("httproutes", "podinfo"),
            ("httpproxies", "podinfo"),
            ("trafficsplits", "podinfo"),
            ("ingresses", "web"),
            ("ingresses", "web-canary"),
            ("scaledobjects", "podinfo"),
            ("scaledobjects", "podinfo-primary"),
            ("horizontalpodautoscalers", "podinfo"),
            ("horizontalpodautoscalers", "podinfo-primary"),
        ];
        let each = |(plural, name)| {
            (1..=reference.writes).map(move |nth| Disturbance::Again(plural, name, nth))
        };
        // Who deletes a Service that is released, or its primary, deletes all its pods.
        let is_workload = |plural: &str, name: &str| {
            story == Story::Service && plural == "services" && name != "podinfo-canary"
        };
        let there = |(plural, name): &(&str, &str)| {
            reference.changes.contains_key(plural) && !is_workload(plural, name)
        };
        things.into_iter().filter(there).flat_map(each).collect()
    });
}

/// With a Canary goes what was made for it. One that takes its place begins anew, with the version that there is.
#[test]
fn a_canary_that_is_deleted_and_made_again_at_any_time_begins_anew() {
    let (mut nth, mut wrong) = (1, Vec::new());
    while let Some(found) = on_virtual_time(begin_anew(nth)) {
        wrong.extend(found.into_iter().map(|what| format!("write {nth}: {what}")));
        nth += 1;
    }
    println!("{} runs, violations: {}", nth - 1, wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong in the end when the Canary is made again at the operator's n-th write; `None` if there are not as many.
async fn begin_anew(nth: usize) -> Option<Vec<String>> {
    let mut rig = Rig::new().await;
    let canary = Key::new("canaries", "test", "podinfo");
    let made_again = tokio::spawn(again(rig.model.clone(), canary, nth));
    rig.start(OPERATOR);
    rig.walkthrough(json!({"analysis": {"interval": "10s", "stepWeight": 25}}));
    rig.phase("Initialized").await;
    rig.image("3.1.1");
    let is_over = |rig: &Rig| {
        let outcome = rig.outcome();
        let is_settled = matches!(outcome["phase"].as_str(), Some("Initialized" | "Succeeded"));
        is_settled && outcome["primary"] == "podinfo:3.1.1" && outcome["replicas"] == 0
    };
    rig.until("the end", is_over).await;
    // The last writes are those after it.
    rig.rest(60).await;
    if !made_again.is_finished() {
        return None;
    }
    let rest = rig.model.now();
    rig.rest(120).await;
    let history = rig.model.history();
    let mut wrong = invariants::moves_since(&history, rest);
    wrong.extend(invariants::dangling(&history));
    let shares = rig.outcome()["route"]["http"][0]["route"].clone();
    if shares[0]["weight"] != 100 || !is_over(&rig) {
        wrong.push(format!("ends with {}:\n{}", rig.outcome(), rig.story()));
    }
    Some(wrong)
}

fn at_each(which: Which, requests: usize, faults: &[Fault]) -> Vec<Disturbance> {
    let at = |nth| {
        let met = move |fault: &Fault| Disturbance::Fault(which, nth, *fault);
        faults.iter().map(met)
    };
    (1..=requests).flat_map(at).collect()
}

fn sweep(plans: impl Fn(Story, &Run) -> Vec<Disturbance>) {
    let begin = Instant::now();
    let (mut runs, mut failures) = (0, Vec::new());
    for story in Story::ALL {
        let reference = run(story, None);
        assert_eq!(
            reference.wrong,
            Vec::<String>::new(),
            "{story:?} undisturbed:\n{}",
            reference.story
        );
        if let Some(end) = story.told_at_its_end() {
            let told = reference.told.keys().any(|what| what.contains(end));
            assert!(told, "{story:?} undisturbed: {:?}", reference.told);
        }
        let plans = plans(story, &reference);
        runs += plans.len();
        let tried = |plan: &Disturbance| {
            let wrong = match std::panic::catch_unwind(|| run(story, Some(*plan))) {
                Ok(disturbed) => compare(&reference, &disturbed, *plan),
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
fn compare(reference: &Run, disturbed: &Run, plan: Disturbance) -> Vec<String> {
    // Until late news of a newer version arrives, the one before takes its steps.
    let more = match plan {
        Disturbance::Late(_, seconds) => 1 + usize::try_from(seconds).unwrap() / 10,
        _ => 1,
    };
    let mut wrong = disturbed.wrong.clone();
    if disturbed.outcome != reference.outcome {
        wrong.push(format!(
            "ends with {}, not with {}",
            disturbed.outcome, reference.outcome
        ));
    }
    for (what, times) in &reference.told {
        let told = disturbed.told.get(what).copied().unwrap_or(0);
        if told < *times || told > times + more {
            wrong.push(format!("told {told} times, not {times}: {what}"));
        }
    }
    // A hook may be called for one more step of the version before; but no chat is told of what was not.
    let alerts = disturbed.told.keys().filter(|what| !what.contains("://"));
    let unheard = alerts.filter(|what| !reference.told.contains_key(*what));
    wrong.extend(unheard.map(|what| format!("told, and not undisturbed: {what}")));
    wrong
}

/// On a runtime of its own, whose clock is virtual.
fn on_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(run)
}

fn run(story: Story, disturbance: Option<Disturbance>) -> Run {
    on_virtual_time(async {
        let mut rig = Rig::new().await;
        if let Some(disturbance) = disturbance {
            disturb(&rig, disturbance);
        }
        rig.start(OPERATOR);
        story.play(&mut rig).await;
        // What was under way comes to its end; from then on nothing moves.
        rig.rest(60).await;
        let rest = rig.model.now();
        rig.rest(120).await;
        let history = rig.model.history();
        let mut wrong = invariants::violations(&history, rig.model.now());
        if story == Story::WithoutPods {
            // They go without a word, and come when no request is for them any more.
            let mut changes = history.iter().rev();
            let back = changes.find(|c| c.by == "user" && c.key.plural == "deployments");
            let back = back.map_or(0, |change| change.revision);
            let revision = |what: &str| what.split(' ').next()?.parse::<u64>().ok();
            let is_excused = |what: &str| revision(what).is_some_and(|at| at <= back);
            wrong.retain(|what| !is_excused(what) || !what.contains("meet no pod of the canary"));
        }
        match disturbance {
            // Of a deletion that no news tells of, the next list tells.
            Some(Disturbance::Untold("canaries", _)) => {
                wrong.retain(|what| !what.contains("was held"));
            }
            // Until news of a newer version is here, the one before takes its steps; but it is not promoted.
            Some(Disturbance::Untold("deployments", _) | Disturbance::Late("deployments", _)) => {
                wrong.retain(|what| !what.contains(invariants::INHERITED));
            }
            _ => {}
        }
        wrong.extend(invariants::dangling(&history));
        wrong.extend(invariants::changed_cookies(&history));
        wrong.extend(invariants::moves_since(&history, rest));
        wrong.extend(invariants::leaks(
            &history,
            &["http://slack/global", "http://events/all"],
        ));
        let asked = rig.model.asked();
        let asked = |writes: bool| {
            let of_operator = asked.iter().filter(|asked| asked.by == OPERATOR);
            of_operator
                .filter(|asked| asked.verb.writes() == writes)
                .count()
        };
        let mut changes = BTreeMap::new();
        for change in &history {
            *changes.entry(change.key.plural).or_default() += 1;
        }
        Run {
            outcome: story.outcome(&rig),
            told: told(&rig),
            writes: asked(true),
            reads: asked(false),
            answers: rig.outside.answered(),
            changes,
            wrong,
            story: rig.story(),
        }
    })
}

fn disturb(rig: &Rig, disturbance: Disturbance) {
    let mut plan = rig.model.plan();
    match disturbance {
        Disturbance::Fault(which, nth, fault) => plan.add(Rule {
            by: OPERATOR,
            which,
            nth,
            fault,
        }),
        Disturbance::DieOf(answer) => rig.outside.last(answer),
        Disturbance::Late(plural, seconds) => {
            plan.late.insert(plural, Duration::from_secs(seconds));
        }
        Disturbance::Twice(plural) => drop(plan.twice.insert(plural)),
        Disturbance::Untold(plural, nth) => drop(plan.dropped.insert(plural, [nth].into())),
        Disturbance::Again(plural, name, nth) => {
            tokio::spawn(again(
                rig.model.clone(),
                Key::new(plural, "test", name),
                nth,
            ));
        }
    }
}

/// At the operator's n-th write, an object is deleted and made again as its owner's manifest has it.
async fn again(model: Model, key: Key, nth: usize) {
    let mut revisions = model.revisions();
    let writes = || {
        let of_operator = |asked: &&Asked| asked.by == OPERATOR && asked.verb.writes();
        model.asked().iter().filter(of_operator).count()
    };
    while writes() < nth {
        if revisions.changed().await.is_err() {
            return;
        }
    }
    model.write("user", |store, by| {
        let Ok(old) = store.get(&key) else {
            return;
        };
        let mut manifest = json!({"metadata": {"name": key.name}, "spec": old["spec"]});
        for field in ["labels", "annotations"] {
            manifest["metadata"][field] = old["metadata"][field].clone();
        }
        store
            .delete(&key, &json!({}), by)
            .unwrap_or_else(|refusal| panic!("{refusal:?}"));
        store.create(&key, manifest, by).unwrap();
    });
}

/// Alerts and hooks by what they say; a load test is told at every step anew.
fn told(rig: &Rig) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for told in rig.outside.told() {
        let what = match told.url.as_str() {
            "http://slack/global" => {
                let text = told.body["attachments"][0]["text"].to_string();
                // How far the pods came is told as it was heard.
                let end = text.find(" canary deployment").unwrap_or(text.len());
                text[..end].to_owned()
            }
            "http://events/all" => continue,
            // A gate is asked at each tick.
            url if url.starts_with("http://gate/") => continue,
            url => format!(
                "{url} {} {}",
                told.body["phase"], told.body["metadata"]["type"]
            ),
        };
        *all.entry(what).or_default() += 1;
    }
    all
}
