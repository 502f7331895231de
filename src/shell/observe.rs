//! What there is to see of one canary, gathered into a [`Snapshot`].

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{
    cache::{Cache, Needed, text_version},
    clock,
    cluster::ClusterError,
    memory::Memory,
};
use crate::{
    api::canary::{Canary, CanaryPhase},
    rollout,
    snapshot::{ObjectRef, Settings, Snapshot, revision::digest},
    workload::config,
};

/// The longest that a canary's instants come after the multiples of its interval.
const MAX_JITTER: Duration = Duration::from_secs(5);

/// Why a canary could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A field has a type that no Canary can have.
    #[error("canary cannot be read: {error}")]
    Poison {
        /// Which, and what it should be.
        error: serde_json::Error,
        /// Whose.
        metadata: Box<ObjectMeta>,
    },
    /// The API server did not give what was asked for.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// The canary and all that a decision about it looks at; `None` if it does not exist. What was seen in the `last` look is not read
/// again, as far as it is so still.
pub async fn observe(
    cache: &Cache,
    settings: &Arc<Settings>,
    reference: &ObjectRef,
    memory: &Mutex<Memory>,
    last: Option<Snapshot>,
) -> Result<Option<Snapshot>, ObserveError> {
    let lock = || memory.lock().unwrap_or_else(PoisonError::into_inner);
    let mut snapshot = match last {
        // While answers were waited for, as a rule.
        Some(last) if is_still_so(cache, reference, &last) => last,
        last => {
            let Some(mut snapshot) = gather(cache, settings, reference, last).await? else {
                return Ok(None);
            };
            fetch_full_configs(cache, reference, &mut snapshot, memory).await?;
            snapshot.changed = lock().changed(rollout::new_version(&snapshot), clock::now());
            snapshot
        }
    };
    snapshot.conflicting_canary = conflicting_canary(cache, reference, &snapshot).await?;
    snapshot.now = clock::now();
    let transition = snapshot
        .canary
        .status
        .as_ref()
        .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
    snapshot.jitter = jitter(&snapshot.canary);
    let now = before(snapshot.now, snapshot.jitter);
    let mut memory = lock();
    if !snapshot.canary.spec.suspend {
        snapshot.tick = memory.tick(transition, snapshot.canary.interval(), now);
    }
    snapshot.recently_written =
        memory.recently_written(transition, snapshot.canary.interval(), now);
    drop(memory);
    Ok(Some(snapshot))
}

/// Whether all that was seen in a look is known to be as it was.
fn is_still_so(cache: &Cache, reference: &ObjectRef, last: &Snapshot) -> bool {
    let objects = last.seen.iter().filter(|object| *object != reference);
    let seen = objects.map(|object| (object, last.objects.get(object).map(text_version)));
    cache.are_at(seen.chain([(reference, Some(version_of(&last.canary)))]))
}

/// The canary and the objects that it looks at.
async fn gather(
    cache: &Cache,
    settings: &Arc<Settings>,
    reference: &ObjectRef,
    last: Option<Snapshot>,
) -> Result<Option<Snapshot>, ObserveError> {
    let (last, mut held) = last
        .map(|snapshot| (snapshot.canary, snapshot.objects))
        .unzip();
    let held = held.get_or_insert_default();
    let is_so = |canary: &Canary| cache.are_at([(reference, Some(version_of(canary)))]);
    let canary = match last.filter(is_so) {
        Some(canary) => canary,
        None => {
            let itself = cache.read(reference, vec![reference.clone()], held).await?;
            let Some(canary) = itself.into_iter().find_map(|(_, canary)| canary) else {
                cache.subscribe_only(reference, &BTreeSet::new());
                return Ok(None);
            };
            parse(canary)?
        }
    };
    let mut snapshot = snapshot(canary, reference, settings);
    loop {
        let missing: Vec<_> = rollout::needs(&snapshot)
            .difference(&snapshot.seen)
            .cloned()
            .collect();
        if missing.is_empty() {
            break;
        }
        for (object, value) in cache.read(reference, missing, held).await? {
            snapshot.seen.insert(object.clone());
            snapshot.objects.extend(value.map(|value| (object, value)));
        }
    }
    cache.subscribe_only(reference, &snapshot.seen);
    Ok(Some(snapshot))
}

fn version_of(canary: &Canary) -> &str {
    canary
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default()
}

/// The objects that a canary looks at, as far as what is known already tells.
pub fn needs(cache: &Cache, settings: &Arc<Settings>, reference: &ObjectRef) -> Needed {
    let canary = cache.peek(reference).map(parse);
    let Some(Ok(canary)) = canary else {
        return Needed::default();
    };
    let mut snapshot = snapshot(canary, reference, settings);
    loop {
        let objects = rollout::needs(&snapshot);
        let missing: Vec<_> = objects.difference(&snapshot.seen).cloned().collect();
        if missing.is_empty() {
            return Needed {
                objects,
                is_at_work: is_at_work(&snapshot),
            };
        }
        for object in missing {
            let value = cache.peek(&object);
            snapshot
                .objects
                .extend(value.map(|value| (object.clone(), value)));
            snapshot.seen.insert(object);
        }
    }
}

/// Whether something is under way with a canary, or owed.
fn is_at_work(snapshot: &Snapshot) -> bool {
    use CanaryPhase as P;
    let conditions = snapshot
        .canary
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    // Of a settled one there is one, of a promotion that failed a second.
    !matches!(snapshot.phase(), P::Initialized | P::Succeeded | P::Failed)
        || conditions.is_some_and(|conditions| conditions.len() > 1)
        || snapshot.canary.metadata.deletion_timestamp.is_some()
}

/// How long after a multiple of its interval a canary has its instants, always the same: so that not all that began in one second are
/// looked at in one breath.
pub fn jitter(canary: &Canary) -> SignedDuration {
    let most = (canary.interval() / 4).min(MAX_JITTER);
    SignedDuration::try_from(most.mul_f64(part(canary))).unwrap_or_default()
}

/// A number from 0 to 1 that is a canary's own.
pub fn part(canary: &Canary) -> f64 {
    let uid = canary.metadata.uid.as_deref().unwrap_or_default();
    let part = u16::from_str_radix(&digest(uid, 2), 16).unwrap_or(0);
    f64::from(part) / f64::from(u16::MAX)
}

/// An instant so long before.
pub fn before(instant: Timestamp, by: SignedDuration) -> Timestamp {
    instant.saturating_sub(by).unwrap_or(instant)
}

/// The canary as an object has it.
pub fn parse(canary: Value) -> Result<Canary, ObserveError> {
    let metadata = canary.get("metadata").cloned().unwrap_or_default();
    serde_json::from_value(canary).map_err(|error| ObserveError::Poison {
        error,
        metadata: Box::new(serde_json::from_value(metadata).unwrap_or_default()),
    })
}

/// The canary, with nothing seen yet.
pub fn snapshot(canary: Canary, reference: &ObjectRef, settings: &Arc<Settings>) -> Snapshot {
    Snapshot {
        canary,
        objects: BTreeMap::new(),
        seen: [reference.clone()].into(),
        now: Timestamp::UNIX_EPOCH,
        tick: None,
        changed: None,
        recently_written: BTreeSet::new(),
        conflicting_canary: None,
        jitter: SignedDuration::ZERO,
        nonce: nonce(),
        settings: settings.clone(),
    }
}

/// Of configs only the checksums are kept; where the content matters it is read, once for each version and for as long as it matters.
async fn fetch_full_configs(
    cache: &Cache,
    reference: &ObjectRef,
    snapshot: &mut Snapshot,
    memory: &Mutex<Memory>,
) -> Result<(), ClusterError> {
    let lock = || memory.lock().unwrap_or_else(PoisonError::into_inner);
    let mut full_configs = std::mem::take(&mut lock().full_configs);
    let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    let wanted = rollout::needed_in_full(snapshot);
    full_configs.retain(|object, _| wanted.contains(object));
    for object in wanted {
        let Some(kept) = snapshot
            .objects
            .get(&object)
            .filter(|o| !config::is_whole(o))
        else {
            continue;
        };
        let whole = match full_configs
            .remove(&object)
            .filter(|w| version(w) == version(kept))
        {
            Some(whole) => Some(whole),
            None => cache.fetch(reference, &object).await?,
        };
        match whole {
            Some(whole) => {
                full_configs.insert(object.clone(), whole.clone());
                snapshot.objects.insert(object, whole);
            }
            None => drop(snapshot.objects.remove(&object)),
        }
    }
    lock().full_configs = full_configs;
    Ok(())
}

/// The older canary with the same target, of those that are known to look at it.
async fn conflicting_canary(
    cache: &Cache,
    reference: &ObjectRef,
    snapshot: &Snapshot,
) -> Result<Option<String>, ClusterError> {
    let target = &snapshot.canary.spec.target_ref;
    let Some(kind) = crate::snapshot::TargetKind::of(&snapshot.canary) else {
        return Ok(None);
    };
    let mut others = Vec::new();
    for other in cache.subscribers(&snapshot.reference(kind.kind(), &target.name)) {
        if other.name != snapshot.name() {
            others.extend(cache.know(reference, &other).await?);
        }
    }
    let others = others.into_iter().filter_map(|other| parse(other).ok());
    Ok(conflicting_among(snapshot, others))
}

/// The older canary with the same target, among others of its namespace.
pub fn conflicting_among(
    snapshot: &Snapshot,
    others: impl Iterator<Item = Canary>,
) -> Option<String> {
    let target = &snapshot.canary.spec.target_ref;
    let age = |canary: &Canary| {
        let created = canary.metadata.creation_timestamp.clone();
        (created.map(|time| time.0), canary.metadata.name.clone())
    };
    others
        .filter(|other| {
            let theirs = &other.spec.target_ref;
            theirs.kind == target.kind
                && theirs.name == target.name
                && age(other) < age(&snapshot.canary)
        })
        .min_by_key(age)
        .map(|older| super::telemetry::name(&older))
}

/// A number that nobody can guess: the standard library seeds its hash maps with such.
pub fn nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A duration that is not negative.
pub fn positive(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}
