//! The disturbances of a run: which ones a scenario has, and how they are brought about.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use super::super::{
    faults::{Fault, Rule, Which, is_operator},
    invariants::KNATIVE_SERVICES,
    resources::{RESOURCES, names_of_routers},
    rig::{NAMESPACE, Rig},
    scenario::Scenario,
    server::{Model, Received},
    store::{Key, Part},
};

/// A disturbance of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disturbance {
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

/// The numbers of an undisturbed run, which say at how many places it can be disturbed.
pub struct Counts {
    /// The writes and reads of the API server, and the answers of other servers.
    pub writes: usize,
    pub reads: usize,
    pub answers: usize,
    /// The changes of each kind.
    pub changes: BTreeMap<&'static str, usize>,
}

/// The faults of writes.
pub const WRITE_FAULTS: [Fault; 15] = [
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

/// The faults of reads.
pub const READ_FAULTS: [Fault; 10] = [
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

/// The kinds whose objects are not recreated: workloads, their versions and their input, and kinds that carry no traffic.
const NOT_RECREATED: [&str; 17] = [
    "configmaps",
    "secrets",
    "events",
    "grpcroutes",
    "tlsroutes",
    "tcproutes",
    "deployments",
    "daemonsets",
    "replicasets",
    "controllerrevisions",
    "revisions",
    "leases",
    "canaries",
    "metrictemplates",
    "alertproviders",
    "destinationrules",
    "releases",
];

/// The objects that a user recreates, besides those of routers.
const RECREATED: [(&str, &str); 7] = [
    ("services", "podinfo"),
    ("services", "podinfo-primary"),
    ("services", "podinfo-canary"),
    ("scaledobjects", "podinfo"),
    ("scaledobjects", "podinfo-primary"),
    ("horizontalpodautoscalers", "podinfo"),
    ("horizontalpodautoscalers", "podinfo-primary"),
];

/// The objects that a user recreates.
fn recreated() -> Vec<(&'static str, &'static str)> {
    let kinds = RESOURCES.iter().map(|resource| resource.plural);
    let kinds = kinds.filter(|plural| !NOT_RECREATED.contains(plural));
    let of_routers = kinds.flat_map(|plural| {
        names_of_routers(plural)
            .into_iter()
            .map(move |name| (plural, name))
    });
    RECREATED.into_iter().chain(of_routers).collect()
}

/// The operator is killed before and after each write, and at each answer.
pub fn deaths(counts: &Counts) -> Vec<Disturbance> {
    let mut deaths = at_each(
        Which::Writes,
        counts.writes,
        &[Fault::DieBefore, Fault::DieAfter],
    );
    deaths.extend((1..=counts.answers).map(Disturbance::DieAtAnswer));
    deaths
}

/// Each write has each fault, write by write.
pub fn write_faults(counts: &Counts) -> Vec<Disturbance> {
    at_each(Which::Writes, counts.writes, &WRITE_FAULTS)
}

/// Each read has each fault, read by read.
pub fn read_faults(counts: &Counts) -> Vec<Disturbance> {
    at_each(Which::Reads, counts.reads, &READ_FAULTS)
}

fn at_each(which: Which, requests: usize, faults: &[Fault]) -> Vec<Disturbance> {
    let at = |nth| {
        let with = move |fault: &Fault| Disturbance::Fault(which, nth, *fault);
        faults.iter().map(with)
    };
    (1..=requests).flat_map(at).collect()
}

/// Watch events are late, come twice, or are lost.
pub fn event_faults(scenario: Scenario, counts: &Counts) -> Vec<Disturbance> {
    let kinds = || counts.changes.keys().copied();
    let late = kinds().flat_map(|plural| [1, 5, 60].map(|late| Disturbance::Late(plural, late)));
    // After a minute the version is promoted, and its pods are ready again.
    let is_useful = |disturbance: &Disturbance| match scenario {
        Scenario::WithoutPods => !matches!(disturbance, Disturbance::Late("deployments", 60)),
        // An operator that learns of the deletion late takes another step before it.
        Scenario::OwnRouteDeletion => !matches!(
            disturbance,
            Disturbance::Late("canaries", 60) | Disturbance::Lost("canaries", _)
        ),
        _ => true,
    };
    let twice = kinds().map(Disturbance::Twice);
    let of_kind = |(plural, changes): (&&'static str, &usize)| {
        let plural = *plural;
        (1..=*changes).map(move |nth| Disturbance::Lost(plural, nth))
    };
    let lost = counts.changes.iter().flat_map(of_kind);
    late.chain(twice).chain(lost).filter(is_useful).collect()
}

/// A user recreates each object at each write of the operator.
pub fn recreations(scenario: Scenario, counts: &Counts) -> Vec<Disturbance> {
    let recreated = recreated();
    for resource in RESOURCES.iter() {
        let is_recreated = { recreated.iter() }.any(|(plural, _)| *plural == resource.plural);
        assert!(
            is_recreated || NOT_RECREATED.contains(&resource.plural),
            "the sweep neither recreates {} nor lists it as not recreated",
            resource.plural
        );
    }
    let each = |(plural, name)| {
        (1..=counts.writes).map(move |nth| Disturbance::Recreated(plural, name, nth))
    };
    // Recreating a target, or its primary, means deleting all its pods.
    let is_workload = |plural: &str, name: &str| {
        scenario == Scenario::Service && plural == "services" && name != "podinfo-canary"
    };
    let exists = |(plural, name): &(&str, &str)| {
        counts.changes.contains_key(plural) && !is_workload(plural, name)
    };
    let existing = recreated.into_iter().filter(exists);
    existing.flat_map(each).collect()
}

impl Disturbance {
    /// Whether the record of the run may lose its end. A refusal that looks permanent ends the record, and so do two requests that hang. A
    /// write that is executed late undoes a later one, because records are written without a condition.
    pub const fn may_end_a_record(self) -> bool {
        matches!(
            self,
            Self::Fault(
                _,
                _,
                Fault::Status(403 | 404 | 410 | 422) | Fault::Late | Fault::Hang
            )
        )
    }

    /// Prepares a run to be disturbed.
    pub fn prepare(self, rig: &Rig) {
        let mut plan = rig.model.plan();
        match self {
            Self::Fault(which, nth, fault) => plan.add(Rule { which, nth, fault }),
            Self::DieAtAnswer(answer) => rig.servers.kill_at(answer),
            Self::Late(plural, seconds) => {
                let late = plan.late.entry(plural).or_default();
                *late = (*late).max(Duration::from_secs(seconds));
            }
            Self::Twice(plural) => drop(plan.twice.insert(plural)),
            Self::Lost(plural, nth) => drop(plan.dropped.entry(plural).or_default().insert(nth)),
            Self::Recreated(plural, name, nth) => {
                let key = Key::new(plural, NAMESPACE, name);
                tokio::spawn(recreate(rig.model.clone(), key, nth));
            }
        }
    }
}

/// At the operator's n-th write, deletes an object and creates it again as it was, as `kubectl replace --force` does. A Knative Service
/// loses the operator's annotation instead.
pub async fn recreate(model: Model, key: Key, nth: usize) {
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
    model.write("user", |store, by| {
        let Ok(old) = store.get(&key) else {
            return;
        };
        if key.plural == KNATIVE_SERVICES {
            let mut manifest = (*old).clone();
            manifest["metadata"]["annotations"].take();
            store.update(&key, Part::Main, manifest, by).unwrap();
            return;
        }
        let mut manifest = json!({"metadata": {"name": key.name}, "spec": old["spec"]});
        for field in ["labels", "annotations", "ownerReferences"] {
            manifest["metadata"][field] = old["metadata"][field].clone();
        }
        store
            .delete(&key, &json!({}), by)
            .unwrap_or_else(|refusal| panic!("{refusal:?}"));
        store.create(&key, manifest, by).unwrap();
    });
}
