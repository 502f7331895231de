//! `flagger check`: reads all canaries once, decides what the operator would do first for each, and asks which rights are missing. Writes
//! nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{
    api_server::{
        Cluster, ClusterError,
        cache::{Cache, Needed},
        lease,
    },
    controller::{
        observe::{ObserveError, conflicting_among, empty_snapshot, observe, parse},
        reconcile_state::ReconcileState,
    },
};
use crate::{
    api::canary::Canary,
    check::{Report, Right, Row, Scope, Subject, rights},
    rollout::{self, FirstAction, Preview, preview},
    snapshot::{Kind, ObjectRef, Settings, Shard, Snapshot, Watched},
};

/// How many canaries are observed, and how many rights are asked for, at the same time.
const PARALLEL: usize = 8;

/// The reason why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The canaries cannot be listed.
    #[error("canaries cannot be listed (see -namespace and -kubeconfig): {0}")]
    List(ClusterError),
    /// The API server does not answer an access review.
    #[error("the API server does not say whether {right} is allowed: {error}")]
    Review {
        /// The right, for people.
        right: String,
        /// The reason why there is no answer.
        error: ClusterError,
    },
}

/// Previews the first action of the operator for each of the `watched` canaries with these settings, and finds missing
/// rights. The rights for the leader election are included if `lease_namespace` is given, and those for records with `records`.
///
/// # Errors
/// The canaries cannot be listed, or the API server does not answer an access review.
pub async fn check(
    cluster: Cluster,
    watched: Watched,
    settings: Settings,
    lease_namespace: Option<&str>,
    records: bool,
) -> Result<Report, CheckError> {
    let settings = Arc::new(settings);
    let (namespace, shard) = (watched.namespace.as_deref(), watched.shard.as_ref());
    let selector = shard.map(Shard::as_str);
    let listed = cluster.list(Kind::Canary, namespace, selector).await;
    let listed = listed.map_err(CheckError::List)?;
    let all: Vec<_> = listed
        .iter()
        .filter_map(|canary| parse(canary.clone()).ok())
        .collect();
    let reader = Reader::new(&cluster, watched.clone());
    let previews = listed.iter().map(async |canary| {
        let (preview, subject) = Box::pin(preview_of(&reader, &settings, canary, &all)).await;
        (row(canary, preview), subject)
    });
    let previews: Vec<_> = stream::iter(previews).buffered(PARALLEL).collect().await;
    let (canaries, subjects): (Vec<_>, Vec<_>) = previews.into_iter().unzip();
    let subjects: Vec<_> = subjects.into_iter().flatten().collect();
    let scope = namespace.map_or(Scope::All, |n| Scope::Namespace(n.to_owned()));
    let lease_name = lease::name(shard);
    let lease = lease_namespace.map(|namespace| (lease_name.as_str(), namespace));
    let needed = rights(&subjects, &scope, lease, records);
    let missing = missing_rights(needed, async |right, scope| {
        let allowed = cluster.is_allowed(attributes(right, scope)).await;
        allowed.map_err(|error| CheckError::Review {
            right: right.to_string(),
            error,
        })
    })
    .await?;
    Ok(Report { canaries, missing })
}

fn row(canary: &Value, preview: Preview) -> Row {
    let text = |path| {
        let text = canary.pointer(path).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    Row {
        namespace: text("/metadata/namespace"),
        name: text("/metadata/name"),
        phase: text("/status/phase"),
        preview,
    }
}

/// A cache that is never fed by watches: it reads each object from the API server.
struct Reader {
    cache: Cache,
    /// The cache sends to these channels, so they must stay open.
    _channels: (
        mpsc::UnboundedReceiver<ObjectRef>,
        mpsc::UnboundedReceiver<Kind>,
    ),
}

impl Reader {
    fn new(cluster: &Cluster, watched: Watched) -> Self {
        let (trigger, triggers) = mpsc::unbounded_channel();
        let needs =
            Box::new(|_: &ObjectRef, _: &dyn Fn(&ObjectRef) -> Option<Value>| Needed::default());
        let (cache, kinds) = Cache::new(cluster.clone(), watched, needs, trigger);
        Self {
            cache,
            _channels: (triggers, kinds),
        }
    }
}

/// Returns what the operator would do first for a canary, and the objects that it names, as far as they can be read.
async fn preview_of(
    reader: &Reader,
    settings: &Arc<Settings>,
    listed: &Value,
    all: &[Canary],
) -> (Preview, Option<Subject>) {
    let canary = match parse(listed.clone()) {
        Ok(canary) => canary,
        Err(error) => return (unreadable(&error), None),
    };
    let reference = ObjectRef {
        kind: Kind::Canary,
        namespace: canary.metadata.namespace.clone().unwrap_or_default(),
        name: canary.metadata.name.clone().unwrap_or_default(),
    };
    let state = Mutex::new(ReconcileState::default());
    match observe(&reader.cache, settings, &reference, &state, None).await {
        Ok(Some(mut snapshot)) => {
            let others = all.iter().filter(|other| {
                other.metadata.namespace == canary.metadata.namespace
                    && other.metadata.name != canary.metadata.name
            });
            snapshot.conflicting_canary = conflicting_among(&snapshot, others.cloned());
            (preview(&snapshot), Some(subject(&snapshot)))
        }
        Ok(None) => (
            Preview::new(FirstAction::Nothing, "deleted meanwhile"),
            None,
        ),
        Err(error) => {
            let snapshot = empty_snapshot(canary, &reference, settings);
            (unreadable(&error), Some(subject(&snapshot)))
        }
    }
}

/// A canary and the objects for which the operator needs rights.
pub fn subject(snapshot: &Snapshot) -> Subject {
    Subject {
        canary: snapshot.canary.clone(),
        objects: rollout::needs(snapshot),
        queried: rollout::queried(snapshot),
    }
}

fn unreadable(error: &ObserveError) -> Preview {
    let why = match error {
        ObserveError::Invalid { error, .. } => error.to_string(),
        ObserveError::Cluster(error) => error.to_string(),
    };
    Preview::new(FirstAction::Unreadable, why)
}

/// Returns the rights that an account lacks; `is_allowed` asks for one of them.
///
/// # Errors
/// An answer is missing.
pub async fn missing_rights<E>(
    rights: BTreeMap<Right, BTreeSet<Scope>>,
    is_allowed: impl AsyncFn(&Right, &Scope) -> Result<bool, E>,
) -> Result<Vec<(Right, Scope)>, E> {
    let is_allowed = &is_allowed;
    let reviews = rights.into_iter().map(async |(right, scopes)| {
        let mut missing = Vec::new();
        // A right in all namespaces includes each of them.
        if scopes.is_empty() || is_allowed(&right, &Scope::All).await? {
            return Ok(missing);
        }
        for scope in scopes {
            if scope == Scope::All || !is_allowed(&right, &scope).await? {
                missing.push((right.clone(), scope));
            }
        }
        Ok::<_, E>(missing)
    });
    let missing: Vec<_> = stream::iter(reviews)
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    Ok(missing.into_iter().flatten().collect())
}

/// A right, as access reviews name it.
pub fn attributes(right: &Right, scope: &Scope) -> ResourceAttributes {
    let (resource, subresource) = match right.resource.split_once('/') {
        Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
        None => (right.resource, None),
    };
    ResourceAttributes {
        group: Some(right.group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource,
        name: right.name.clone(),
        namespace: scope.namespace().map(str::to_owned),
        verb: Some(right.verb.to_owned()),
        ..ResourceAttributes::default()
    }
}

#[cfg(test)]
mod tests;
