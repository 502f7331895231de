//! Sweeps: every scenario runs once undisturbed, and then once for each possible fault or crash. Every run must have the same outcome as
//! the undisturbed one, and no violations.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    faults::{Fault, Rule, Which},
    invariants,
    resources::RESOURCES,
    rig::Rig,
    scenario::Scenario,
    server::{Model, Received},
    store::Key,
};

const OPERATOR: &str = "operator";

/// The result of one run.
struct Run {
    outcome: Value,
    /// How often each alert and hook was received.
    received: BTreeMap<String, usize>,
    /// The numbers of writes and reads of the API server, and of answers of other servers.
    writes: usize,
    reads: usize,
    answers: usize,
    /// The number of changes of each kind.
    changes: BTreeMap<&'static str, usize>,
    wrong: Vec<String>,
    transcript: String,
}

/// The disturbance of one run.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// The n-th request of a class has this fault.
    Fault(Which, usize, Fault),
    /// The operator is killed at the n-th answer of a hook, chat or metrics server.
    DieAtAnswer(usize),
    /// The watch events of a kind are this many seconds late.
    Late(&'static str, u64),
    /// Each watch event of a kind is sent twice.
    Twice(&'static str),
    /// The n-th watch event of a kind is lost.
    Lost(&'static str, usize),
    /// At the operator's n-th write a user deletes this object and creates it again.
    Recreated(&'static str, &'static str, usize),
}

#[test]
fn a_release_ends_the_same_wherever_the_operator_is_killed() {
    sweep(|_, reference| {
        let answers = (1..=reference.answers).map(Disturbance::DieAtAnswer);
        let writes = at_each(
            Which::Writes,
            reference.writes,
            &[Fault::DieBefore, Fault::DieAfter],
        );
        writes.into_iter().chain(answers).collect()
    });
}

#[test]
fn a_release_ends_the_same_whatever_fault_a_write_has() {
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
        // The answer to a write that the client has sent twice.
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
fn a_release_ends_the_same_whatever_fault_a_read_has() {
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
fn a_release_ends_the_same_with_late_repeated_and_lost_events() {
    sweep(|scenario, reference| {
        let late = RESOURCES.iter().flat_map(|resource| {
            [1, 5, 60].map(|seconds| Disturbance::Late(resource.plural, seconds))
        });
        // After a minute the version is promoted, and its pods are ready again.
        let is_useful = |plan: &Disturbance| {
            scenario != Scenario::WithoutPods
                || !matches!(plan, Disturbance::Late("deployments", 60))
        };
        let twice = RESOURCES
            .iter()
            .map(|resource| Disturbance::Twice(resource.plural));
        let lost = reference
            .changes
            .iter()
            .flat_map(|(plural, changes)| (1..=*changes).map(|nth| Disturbance::Lost(plural, nth)));
        late.filter(is_useful).chain(twice).chain(lost).collect()
    });
}

/// The kinds whose objects the sweep of recreated objects leaves alone: workloads and their input, and kinds that carry no traffic.
const NOT_RECREATED: [&str; 10] = [
    "configmaps",
    "secrets",
    "events",
    "deployments",
    "daemonsets",
    "leases",
    "canaries",
    "metrictemplates",
    "alertproviders",
    "destinationrules",
];

#[test]
fn a_release_ends_the_same_when_a_user_recreates_objects() {
    sweep(|scenario, reference| {
        let objects = [
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
            (1..=reference.writes).map(move |nth| Disturbance::Recreated(plural, name, nth))
        };
        // Recreating a target, or its primary, means deleting all its pods.
        let is_workload = |plural: &str, name: &str| {
            scenario == Scenario::Service && plural == "services" && name != "podinfo-canary"
        };
        let exists = |(plural, name): &(&str, &str)| {
            reference.changes.contains_key(plural) && !is_workload(plural, name)
        };
        for resource in &RESOURCES {
            let is_recreated = objects.iter().any(|(plural, _)| *plural == resource.plural);
            assert!(
                is_recreated || NOT_RECREATED.contains(&resource.plural),
                "the sweep neither recreates {} nor lists it as not recreated",
                resource.plural
            );
        }
        objects.into_iter().filter(exists).flat_map(each).collect()
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
    let recreation = tokio::spawn(recreate(rig.model.clone(), canary, nth));
    rig.start(OPERATOR);
    rig.walkthrough(json!({"analysis": {"interval": "10s", "stepWeight": 25}}));
    rig.until_phase("Initialized").await;
    rig.image("3.1.1");
    let is_over = |rig: &Rig| {
        let outcome = rig.outcome();
        let is_idle = matches!(outcome["phase"].as_str(), Some("Initialized" | "Succeeded"));
        is_idle && outcome["primary"] == "podinfo:3.1.1" && outcome["replicas"] == 0
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
    let shares = rig.outcome()["route"]["http"][0]["route"].clone();
    if shares[0]["weight"] != 100 || !is_over(&rig) {
        wrong.push(format!(
            "ends with {}:\n{}",
            rig.outcome(),
            rig.transcript()
        ));
    }
    Some(wrong)
}

fn at_each(which: Which, requests: usize, faults: &[Fault]) -> Vec<Disturbance> {
    let at = |nth| {
        let with = move |fault: &Fault| Disturbance::Fault(which, nth, *fault);
        faults.iter().map(with)
    };
    (1..=requests).flat_map(at).collect()
}

fn sweep(plans: impl Fn(Scenario, &Run) -> Vec<Disturbance>) {
    let begin = Instant::now();
    let (mut runs, mut failures) = (0, Vec::new());
    for scenario in Scenario::ALL {
        let reference = run(scenario, None);
        assert_eq!(
            reference.wrong,
            Vec::<String>::new(),
            "{scenario:?} undisturbed:\n{}",
            reference.transcript
        );
        if let Some(end) = scenario.final_alert() {
            let is_sent = reference.received.keys().any(|what| what.contains(end));
            assert!(
                is_sent,
                "{scenario:?} undisturbed: {:?}",
                reference.received
            );
        }
        let plans = plans(scenario, &reference);
        assert!(!plans.is_empty(), "{scenario:?} has no disturbances");
        runs += plans.len();
        let tried = |plan: &Disturbance| {
            let wrong = match std::panic::catch_unwind(|| run(scenario, Some(*plan))) {
                Ok(disturbed) => compare(&reference, &disturbed, *plan),
                Err(_) => vec!["the run panicked, see above".to_owned()],
            };
            (!wrong.is_empty())
                .then(|| format!("{scenario:?}, {plan:?}:\n    {}", wrong.join("\n    ")))
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

/// The differences from the undisturbed run. Alerts and hooks may be sent twice.
fn compare(reference: &Run, disturbed: &Run, plan: Disturbance) -> Vec<String> {
    // Until the event of a newer version arrives, the earlier version takes steps.
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
    for (what, times) in &reference.received {
        let count = disturbed.received.get(what).copied().unwrap_or(0);
        if count < *times || count > times + more {
            wrong.push(format!("sent {count} times, not {times}: {what}"));
        }
    }
    // A hook may be called for one more step of the earlier version, but every alert must also be sent in the undisturbed run.
    let alerts = disturbed
        .received
        .keys()
        .filter(|what| !what.contains("://"));
    let unexpected = alerts.filter(|what| !reference.received.contains_key(*what));
    wrong.extend(unexpected.map(|what| format!("sent only in the disturbed run: {what}")));
    wrong
}

/// Runs a future on a new runtime with a virtual clock.
fn on_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(run)
}

fn run(scenario: Scenario, disturbance: Option<Disturbance>) -> Run {
    on_virtual_time(async {
        let mut rig = Rig::new().await;
        if let Some(disturbance) = disturbance {
            disturb(&rig, disturbance);
        }
        rig.start(OPERATOR);
        scenario.play(&mut rig).await;
        // After a minute nothing is pending any more, and the operator must be idle.
        rig.pass(60).await;
        let idle = rig.model.now();
        rig.pass(120).await;
        let history = rig.model.history();
        let wrong = violations(&rig, scenario, disturbance, idle);
        let received = rig.model.received();
        let count = |writes: bool| {
            let of_operator = received.iter().filter(|request| request.by == OPERATOR);
            of_operator
                .filter(|request| request.verb.writes() == writes)
                .count()
        };
        let mut changes = BTreeMap::new();
        for change in &history {
            *changes.entry(change.key.plural).or_default() += 1;
        }
        Run {
            outcome: scenario.outcome(&rig),
            received: received_by_servers(&rig),
            writes: count(true),
            reads: count(false),
            answers: rig.servers.answered(),
            changes,
            wrong,
            transcript: rig.transcript(),
        }
    })
}

/// The violations of a run, without those that its scenario or disturbance allows.
fn violations(
    rig: &Rig,
    scenario: Scenario,
    disturbance: Option<Disturbance>,
    idle: Timestamp,
) -> Vec<String> {
    let history = rig.model.history();
    let mut wrong = invariants::violations(&history, rig.model.now());
    if scenario == Scenario::WithoutPods {
        // Pods become unready at once, so requests are lost until the operator reacts.
        let mut changes = history.iter().rev();
        let back = changes.find(|c| c.by == "user" && c.key.plural == "deployments");
        let back = back.map_or(0, |change| change.revision);
        let revision = |what: &str| what.split(' ').next()?.parse::<u64>().ok();
        let is_allowed = |what: &str| revision(what).is_some_and(|at| at <= back);
        wrong
            .retain(|what| !is_allowed(what) || !what.contains("reach no ready pod of the canary"));
    }
    match disturbance {
        // After a lost deletion event, the next list repairs the cache.
        Some(Disturbance::Lost("canaries", _)) => {
            wrong.retain(|what| !what.contains("was held"));
        }
        // Until the event of a newer version arrives, the earlier version takes steps, but is not promoted.
        Some(Disturbance::Lost("deployments", _) | Disturbance::Late("deployments", _)) => {
            wrong.retain(|what| !what.contains(invariants::INHERITED));
        }
        _ => {}
    }
    wrong.extend(invariants::dangling(&history));
    wrong.extend(invariants::changed_cookies(&history));
    wrong.extend(invariants::writes_since(&history, idle));
    wrong.extend(invariants::leaks(
        &history,
        &["http://slack/global", "http://events/all"],
    ));
    wrong
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
        Disturbance::DieAtAnswer(answer) => rig.servers.kill_at(answer),
        Disturbance::Late(plural, seconds) => {
            plan.late.insert(plural, Duration::from_secs(seconds));
        }
        Disturbance::Twice(plural) => drop(plan.twice.insert(plural)),
        Disturbance::Lost(plural, nth) => drop(plan.dropped.insert(plural, [nth].into())),
        Disturbance::Recreated(plural, name, nth) => {
            tokio::spawn(recreate(
                rig.model.clone(),
                Key::new(plural, "test", name),
                nth,
            ));
        }
    }
}

/// At the operator's n-th write, deletes an object and creates it again from its spec, labels and annotations.
async fn recreate(model: Model, key: Key, nth: usize) {
    let mut revisions = model.revisions();
    let writes = || {
        let of_operator = |request: &&Received| request.by == OPERATOR && request.verb.writes();
        model.received().iter().filter(of_operator).count()
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

/// The number of alerts and hooks by their content.
fn received_by_servers(rig: &Rig) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for request in rig.servers.received() {
        let what = match request.url.as_str() {
            "http://slack/global" => {
                let text = request.body["attachments"][0]["text"].to_string();
                // The number of ready pods in the text depends on timing.
                let end = text.find(" canary deployment").unwrap_or(text.len());
                text[..end].to_owned()
            }
            "http://events/all" => continue,
            // Gates are called at each tick.
            url if url.starts_with("http://gate/") => continue,
            url => format!(
                "{url} {} {}",
                request.body["phase"], request.body["metadata"]["type"]
            ),
        };
        *all.entry(what).or_default() += 1;
    }
    all
}
