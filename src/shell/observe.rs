//! What there is to see of one canary, gathered into a [`World`].

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
    workload::config,
    world::{ObjectRef, Settings, World, revision::digest},
};

/// The longest that a canary's instants come after the multiples of its interval.
const SPREAD: Duration = Duration::from_secs(5);

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
    last: Option<World>,
) -> Result<Option<World>, ObserveError> {
    let lock = || memory.lock().unwrap_or_else(PoisonError::into_inner);
    let mut world = match last {
        // While answers were waited for, as a rule.
        Some(last) if is_still_so(cache, reference, &last) => last,
        last => {
            let Some(mut world) = gather(cache, settings, reference, last).await? else {
                return Ok(None);
            };
            fetch_wholes(cache, reference, &mut world, memory).await?;
            world.changed = lock().changed(rollout::new_version(&world), clock::now());
            world
        }
    };
    world.rival = rival(cache, reference, &world).await?;
    world.now = clock::now();
    let transition = world
        .canary
        .status
        .as_ref()
        .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
    world.spread = spread(&world.canary);
    let now = before(world.now, world.spread);
    let mut memory = lock();
    if !world.canary.spec.suspend {
        world.due = memory.due(transition, world.canary.interval(), now);
    }
    world.mended = memory.mended(transition, world.canary.interval(), now);
    drop(memory);
    Ok(Some(world))
}

/// Whether all that was seen in a look is known to be as it was.
fn is_still_so(cache: &Cache, reference: &ObjectRef, last: &World) -> bool {
    let objects = last.seen.iter().filter(|object| *object != reference);
    let seen = objects.map(|object| (object, last.objects.get(object).map(text_version)));
    cache.are_at(seen.chain([(reference, Some(version_of(&last.canary)))]))
}

/// The canary and the objects that it looks at.
async fn gather(
    cache: &Cache,
    settings: &Arc<Settings>,
    reference: &ObjectRef,
    last: Option<World>,
) -> Result<Option<World>, ObserveError> {
    let (last, mut held) = last.map(|world| (world.canary, world.objects)).unzip();
    let held = held.get_or_insert_default();
    let is_so = |canary: &Canary| cache.are_at([(reference, Some(version_of(canary)))]);
    let canary = match last.filter(is_so) {
        Some(canary) => canary,
        None => {
            let itself = cache.read(reference, vec![reference.clone()], held).await?;
            let Some(canary) = itself.into_iter().find_map(|(_, canary)| canary) else {
                cache.look_only(reference, &BTreeSet::new());
                return Ok(None);
            };
            parse(canary)?
        }
    };
    let mut world = world(canary, reference, settings);
    loop {
        let missing: Vec<_> = rollout::needs(&world)
            .difference(&world.seen)
            .cloned()
            .collect();
        if missing.is_empty() {
            break;
        }
        for (object, value) in cache.read(reference, missing, held).await? {
            world.seen.insert(object.clone());
            world.objects.extend(value.map(|value| (object, value)));
        }
    }
    cache.look_only(reference, &world.seen);
    Ok(Some(world))
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
    let mut world = world(canary, reference, settings);
    loop {
        let objects = rollout::needs(&world);
        let missing: Vec<_> = objects.difference(&world.seen).cloned().collect();
        if missing.is_empty() {
            return Needed {
                objects,
                is_at_work: is_at_work(&world),
            };
        }
        for object in missing {
            let value = cache.peek(&object);
            world
                .objects
                .extend(value.map(|value| (object.clone(), value)));
            world.seen.insert(object);
        }
    }
}

/// Whether something is under way with a canary, or owed.
fn is_at_work(world: &World) -> bool {
    use CanaryPhase as P;
    let conditions = world
        .canary
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    // Of a settled one there is one, of a promotion that failed a second.
    !matches!(world.phase(), P::Initialized | P::Succeeded | P::Failed)
        || conditions.is_some_and(|conditions| conditions.len() > 1)
        || world.canary.metadata.deletion_timestamp.is_some()
}

/// How long after a multiple of its interval a canary has its instants, always the same: so that not all that began in one second are
/// looked at in one breath.
pub fn spread(canary: &Canary) -> SignedDuration {
    let most = (canary.interval() / 4).min(SPREAD);
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
pub fn world(canary: Canary, reference: &ObjectRef, settings: &Arc<Settings>) -> World {
    World {
        canary,
        objects: BTreeMap::new(),
        seen: [reference.clone()].into(),
        now: Timestamp::UNIX_EPOCH,
        due: None,
        changed: None,
        mended: BTreeSet::new(),
        rival: None,
        spread: SignedDuration::ZERO,
        nonce: nonce(),
        settings: settings.clone(),
    }
}

/// Of configs only the checksums are kept; where the content matters it is read, once for each version and for as long as it matters.
async fn fetch_wholes(
    cache: &Cache,
    reference: &ObjectRef,
    world: &mut World,
    memory: &Mutex<Memory>,
) -> Result<(), ClusterError> {
    let lock = || memory.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wholes = std::mem::take(&mut lock().wholes);
    let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
    let wanted = rollout::whole(world);
    wholes.retain(|object, _| wanted.contains(object));
    for object in wanted {
        let Some(kept) = world.objects.get(&object).filter(|o| !config::is_whole(o)) else {
            continue;
        };
        let whole = match wholes
            .remove(&object)
            .filter(|w| version(w) == version(kept))
        {
            Some(whole) => Some(whole),
            None => cache.fetch(reference, &object).await?,
        };
        match whole {
            Some(whole) => {
                wholes.insert(object.clone(), whole.clone());
                world.objects.insert(object, whole);
            }
            None => drop(world.objects.remove(&object)),
        }
    }
    lock().wholes = wholes;
    Ok(())
}

/// The older canary with the same target, of those that are known to look at it.
async fn rival(
    cache: &Cache,
    reference: &ObjectRef,
    world: &World,
) -> Result<Option<String>, ClusterError> {
    let target = &world.canary.spec.target_ref;
    let Some(kind) = crate::world::TargetKind::of(&world.canary) else {
        return Ok(None);
    };
    let mut others = Vec::new();
    for other in cache.looking_at(&world.reference(kind.kind(), &target.name)) {
        if other.name != world.name() {
            others.extend(cache.know(reference, &other).await?);
        }
    }
    let others = others.into_iter().filter_map(|other| parse(other).ok());
    Ok(rival_among(world, others))
}

/// The older canary with the same target, among others of its namespace.
pub fn rival_among(world: &World, others: impl Iterator<Item = Canary>) -> Option<String> {
    let target = &world.canary.spec.target_ref;
    let age = |canary: &Canary| {
        let created = canary.metadata.creation_timestamp.clone();
        (created.map(|time| time.0), canary.metadata.name.clone())
    };
    others
        .filter(|other| {
            let theirs = &other.spec.target_ref;
            theirs.kind == target.kind
                && theirs.name == target.name
                && age(other) < age(&world.canary)
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
