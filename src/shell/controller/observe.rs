//! Gathers everything that a decision about one canary needs into a [`Snapshot`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{
    reconcile_state::ReconcileState,
    requeue::{jitter, unjittered},
};
use crate::{
    api::{
        canary::{Canary, CanaryPhase},
        status::ConditionType,
    },
    providers, rollout,
    routers::own_routes,
    shell::{
        api_server::{
            ClusterError,
            cache::{Cache, Needed, version_of},
        },
        clock,
        lock::lock,
        random,
        telemetry::logs::canary_name,
    },
    snapshot::{Conflict, Kind, ObjectRef, Settings, Snapshot},
    workload::config,
};

/// The reason why a canary could not be observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    /// A field of the Canary has a wrong type.
    #[error("canary cannot be read: {error}")]
    Invalid {
        /// The field and the expected type.
        error: serde_json::Error,
        /// The metadata of the Canary.
        metadata: Box<ObjectMeta>,
    },
    /// The API server did not return an object.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Observes a canary. Returns `None` if it does not exist. Parts of the `last` snapshot that are still current are not read again.
///
/// # Errors
/// The Canary is invalid, or the API server does not return an object.
pub async fn observe(
    cache: &Cache,
    settings: &Arc<Settings>,
    reference: &ObjectRef,
    state: &Mutex<ReconcileState>,
    last: Option<Snapshot>,
) -> Result<Option<Snapshot>, ObserveError> {
    let workloads = cache.workloads(&reference.namespace);
    let mut snapshot = match last {
        // This is the usual case after answers have arrived.
        Some(last) if is_current(cache, reference, &last) => Snapshot { workloads, ..last },
        last => {
            let Some(mut snapshot) = gather(cache, settings, reference, last).await? else {
                return Ok(None);
            };
            if let Some(status) = &mut snapshot.canary.status {
                lock(state).future_times.clamp(status, clock::now());
            }
            fetch_full_configs(cache, reference, &mut snapshot, state).await?;
            snapshot.workloads = workloads;
            let version = rollout::new_version(&snapshot);
            let progress = rollout::progress(&snapshot);
            let mut state = lock(state);
            snapshot.changed = state.changed(version, clock::now());
            snapshot.stalled = state.stalled(progress, clock::now());
            drop(state);
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
    let now = unjittered(snapshot.now, snapshot.jitter);
    let mut state = lock(state);
    if !snapshot.canary.spec.suspend {
        snapshot.tick = state.tick(transition, snapshot.canary.interval(), now);
    }
    snapshot.recently_written = state.recently_written(transition, snapshot.canary.interval(), now);
    let generation = snapshot.canary.metadata.generation;
    let refused = state.refused.as_ref();
    snapshot.refused = refused
        .filter(|refused| refused.generation == generation)
        .cloned();
    snapshot.paused = state.repeated_writes.paused(snapshot.now);
    snapshot.undone = state.repeated_writes.undone();
    drop(state);
    Ok(Some(snapshot))
}

/// Whether every object of a snapshot is still current.
fn is_current(cache: &Cache, reference: &ObjectRef, last: &Snapshot) -> bool {
    let objects = last.seen.iter().filter(|object| *object != reference);
    let seen = objects.map(|object| (object, last.objects.get(object).map(version_of)));
    cache.are_at(seen.chain([(reference, Some(canary_version(&last.canary)))]))
}

/// Reads the canary and the objects that it needs.
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
    let is_current = |canary: &Canary| cache.are_at([(reference, Some(canary_version(canary)))]);
    let canary = match last.filter(is_current) {
        Some(canary) => canary,
        None => {
            let itself = cache.read(reference, vec![reference.clone()], held).await?;
            let itself: Result<Vec<_>, _> = itself.into_iter().map(|(_, canary)| canary).collect();
            let Some(canary) = itself?.into_iter().flatten().next() else {
                cache.subscribe_only(reference, &BTreeSet::new());
                return Ok(None);
            };
            parse(canary)?
        }
    };
    let mut snapshot = empty_snapshot(canary, reference, settings);
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
            match value {
                Ok(value) => snapshot.objects.extend(value.map(|value| (object, value))),
                // The rights for a route of the user may be taken away at any time, and the Canary must remain deletable.
                Err(forbidden) if rollout::users_routes(&snapshot).contains(&object) => {
                    snapshot.forbidden.insert(object, forbidden.to_string());
                }
                Err(forbidden) => return Err(forbidden.into()),
            }
        }
    }
    cache.subscribe_only(reference, &snapshot.seen);
    Ok(Some(snapshot))
}

fn canary_version(canary: &Canary) -> &str {
    canary
        .metadata
        .resource_version
        .as_deref()
        .unwrap_or_default()
}

/// Returns the objects that a canary needs, as far as they are known from the cache, in which `peek` looks them up.
pub fn needs(
    reference: &ObjectRef,
    settings: &Arc<Settings>,
    peek: &dyn Fn(&ObjectRef) -> Option<Value>,
) -> Needed {
    let canary = peek(reference).map(parse);
    let Some(Ok(canary)) = canary else {
        return Needed::default();
    };
    let mut snapshot = empty_snapshot(canary, reference, settings);
    loop {
        let objects = rollout::needs(&snapshot);
        let missing: Vec<_> = objects.difference(&snapshot.seen).cloned().collect();
        if missing.is_empty() {
            return Needed {
                objects,
                is_active: is_active(&snapshot),
            };
        }
        for object in missing {
            let value = peek(&object);
            snapshot
                .objects
                .extend(value.map(|value| (object.clone(), value)));
            snapshot.seen.insert(object);
        }
    }
}

/// Whether a run, a deletion or another action is under way.
fn is_active(snapshot: &Snapshot) -> bool {
    use CanaryPhase as P;
    let status = snapshot.canary.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    // An idle canary has one condition, and one more if it names routes of the user or has a GRPCRoute. A failed promotion adds a condition.
    let lasting = [
        ConditionType::Promoted,
        ConditionType::RouteRefs,
        ConditionType::GrpcRoute,
    ];
    let lasting = lasting.map(ConditionType::as_str);
    let mut conditions = conditions.into_iter().flatten();
    !matches!(snapshot.phase(), P::Initialized | P::Succeeded | P::Failed)
        || conditions.any(|it| !lasting.contains(&it.type_.as_str()))
        || snapshot.canary.metadata.deletion_timestamp.is_some()
}

/// Parses a Canary.
///
/// # Errors
/// A field has a wrong type.
pub fn parse(canary: Value) -> Result<Canary, ObserveError> {
    let metadata = canary.get("metadata").cloned().unwrap_or_default();
    serde_json::from_value(canary).map_err(|error| ObserveError::Invalid {
        error,
        metadata: Box::new(serde_json::from_value(metadata).unwrap_or_default()),
    })
}

/// Returns a snapshot of the canary alone.
pub fn empty_snapshot(canary: Canary, reference: &ObjectRef, settings: &Arc<Settings>) -> Snapshot {
    Snapshot {
        canary,
        objects: BTreeMap::new(),
        workloads: Arc::default(),
        seen: [reference.clone()].into(),
        now: Timestamp::UNIX_EPOCH,
        tick: None,
        changed: None,
        stalled: BTreeMap::new(),
        paused: BTreeMap::new(),
        undone: BTreeMap::new(),
        forbidden: BTreeMap::new(),
        recently_written: BTreeSet::new(),
        refused: None,
        conflicting_canary: None,
        jitter: SignedDuration::ZERO,
        nonce: random::nonce(),
        settings: settings.clone(),
    }
}

/// Replaces configs by their full contents where a decision needs them. The cache keeps only checksums of configs, so the contents are read
/// once for each version, and kept only as long as they are needed.
async fn fetch_full_configs(
    cache: &Cache,
    reference: &ObjectRef,
    snapshot: &mut Snapshot,
    state: &Mutex<ReconcileState>,
) -> Result<(), ClusterError> {
    let mut full_configs = std::mem::take(&mut lock(state).full_configs);
    let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    let wanted = rollout::needed_in_full(snapshot);
    full_configs.retain(|object, _| wanted.contains(object));
    for object in wanted {
        let Some(cached) = snapshot
            .objects
            .get(&object)
            .filter(|o| !config::is_complete(o))
        else {
            continue;
        };
        let full = match full_configs
            .remove(&object)
            .filter(|full| version(full) == version(cached))
        {
            Some(full) => Some(full),
            None => cache.fetch(reference, &object).await?,
        };
        match full {
            Some(full) => {
                full_configs.insert(object.clone(), full.clone());
                snapshot.objects.insert(object, full);
            }
            None => drop(snapshot.objects.remove(&object)),
        }
    }
    lock(state).full_configs = full_configs;
    Ok(())
}

/// Returns the conflict with an older canary, among the canaries that need an object which this one claims.
async fn conflicting_canary(
    cache: &Cache,
    reference: &ObjectRef,
    snapshot: &Snapshot,
) -> Result<Option<Conflict>, ClusterError> {
    let mut claims = rollout::claims(snapshot);
    claims.extend(providers::router(snapshot).objects(&snapshot.canary));
    let subscribers = claims.iter().flat_map(|claim| cache.subscribers(claim));
    let others: BTreeSet<_> = subscribers.filter(|other| **other != *reference).collect();
    let mut canaries = Vec::new();
    for other in others {
        canaries.extend(cache.peek_or_fetch(reference, &other).await?);
    }
    let others = canaries.into_iter().filter_map(|other| parse(other).ok());
    Ok(conflicting_among(snapshot, others))
}

/// Returns the conflict with the oldest canary that claims an object of this one, among `others` of the same namespace that are older.
pub fn conflicting_among(
    snapshot: &Snapshot,
    others: impl Iterator<Item = Canary>,
) -> Option<Conflict> {
    let age = |canary: &Canary| {
        let created = canary.metadata.creation_timestamp.clone();
        (created.map(|time| time.0), canary.metadata.name.clone())
    };
    let own = rollout::claims(snapshot);
    others
        .filter(|other| age(other) < age(&snapshot.canary))
        .filter_map(|other| {
            let object = shared(&own, &other, snapshot)?;
            Some((age(&other), canary_name(&other), object))
        })
        .min()
        .map(|(_, canary, object)| Conflict { canary, object })
}

/// Returns an object that another canary claims as well: the target, if both have the same; or a route of the user in which both would set
/// the weights of one rule.
fn shared(own: &BTreeSet<ObjectRef>, other: &Canary, snapshot: &Snapshot) -> Option<ObjectRef> {
    let reference = snapshot.reference(Kind::Canary, snapshot.name());
    let theirs = rollout::claims(&empty_snapshot(
        other.clone(),
        &reference,
        &snapshot.settings,
    ));
    let target = &snapshot.canary.spec.target_ref;
    let is_target =
        |object: &&ObjectRef| object.kind.name() == target.kind && object.name == target.name;
    let mut shared = own.intersection(&theirs);
    let same_target = shared.clone().find(is_target);
    let shared = same_target.or_else(|| shared.next()).cloned();
    shared.or_else(|| own_routes::shared_with(snapshot, other))
}

#[cfg(test)]
mod tests;
