//! What there is to see of one canary, gathered into a [`World`].

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    clock,
    cluster::{Cluster, ClusterError},
    memory::Memory,
};
use crate::{
    api::canary::Canary,
    rollout,
    world::{Kind, ObjectRef, Settings, World},
};

/// How many objects of one canary are read at a time.
const PARALLEL_READS: usize = 8;

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

/// The canary and all that a decision about it looks at; `None` if it does not exist.
pub async fn observe(
    cluster: &Cluster,
    settings: &Arc<Settings>,
    reference: ObjectRef,
    rival: Option<String>,
    memory: &std::sync::Mutex<Memory>,
) -> Result<Option<World>, ObserveError> {
    debug_assert_eq!(reference.kind, Kind::Canary);
    let Some(canary) = cluster.get(&reference).await? else {
        return Ok(None);
    };
    let metadata = canary.get("metadata").cloned().unwrap_or_default();
    let canary: Canary = serde_json::from_value(canary).map_err(|error| ObserveError::Poison {
        error,
        metadata: Box::new(serde_json::from_value(metadata).unwrap_or_default()),
    })?;
    let mut world = World {
        canary,
        objects: BTreeMap::new(),
        seen: [reference].into(),
        now: clock::now(),
        due: None,
        changed: None,
        mended: BTreeSet::new(),
        rival,
        nonce: nonce(),
        settings: settings.clone(),
    };
    loop {
        let missing: Vec<_> = rollout::needs(&world)
            .difference(&world.seen)
            .cloned()
            .collect();
        if missing.is_empty() {
            break;
        }
        let found: Vec<_> = stream::iter(missing)
            .map(|object| async { Ok::<_, ClusterError>((cluster.get(&object).await?, object)) })
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        for (value, object) in found {
            world.seen.insert(object.clone());
            world.objects.extend(value.map(|value| (object, value)));
        }
    }
    world.now = clock::now();
    let mut memory = memory
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let transition = world
        .canary
        .status
        .as_ref()
        .and_then(|status| Some(status.last_transition_time.as_ref()?.0));
    if !world.canary.spec.suspend {
        world.due = memory.due(transition, world.canary.interval(), world.now);
    }
    world.mended = memory.mended(transition, world.canary.interval(), world.now);
    let (content, settled) = rollout::content(&world);
    world.changed = memory.changed(&content, settled, world.now);
    Ok(Some(world))
}

/// A number that nobody can guess: the standard library seeds its hash maps with such.
fn nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}
