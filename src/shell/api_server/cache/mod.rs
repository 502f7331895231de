//! A cache of the objects that canaries need, so that most reconciliations send no request to read them. There is one watch for each kind
//! that some Canary names.
//!
//! A cache that lags can delay a release, but it cannot make a release do something wrong:
//!
//! * The answer to a write updates the cache at once, so each reconciliation sees at least the canary's last write.
//! * If a write fails because the object has changed, the cached object is stale: the next reconciliation reads it.
//! * While the same obstacle holds up a canary at one tick after another, its objects are read again.
//! * Objects of kinds that cannot be watched, because the CRD or a right is missing, are read at each reconciliation.

mod feed;
mod index;
mod packed;
mod watches;
mod workloads;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use futures::{StreamExt, TryStreamExt, stream};
use kube::Client;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};

use super::{cluster::Cluster, raw_object::RawObject, request::ClusterError};
use crate::{
    shell::lock::lock,
    snapshot::{Kind, ObjectRef, Pods, Shard, Watched},
};
use index::{Affected, Arrival, Cached, Index, version};
use watches::up_to_date;

/// How many objects of one canary are read at the same time.
const PARALLEL_READS: usize = 8;

/// Secrets of these types are many and large, and hardly any release needs them: they are neither listed nor watched.
const UNLISTED: [&str; 2] = ["helm.sh/release.v1", "kubernetes.io/service-account-token"];

/// Returns the objects that a Canary needs, judged by the cached objects. The second argument looks an object up in the cache.
pub type Needs = dyn Fn(&ObjectRef, &dyn Fn(&ObjectRef) -> Option<Value>) -> Needed + Send + Sync;

/// The objects that a Canary needs.
#[derive(Default)]
pub struct Needed {
    /// The objects.
    pub objects: BTreeSet<ObjectRef>,
    /// Whether a run, a deletion or another action is under way.
    pub is_active: bool,
}

/// The objects that canaries need.
pub struct Cache {
    needs: Box<Needs>,
    watch_client: Client,
    cluster: Cluster,
    /// The namespace that is watched, and the canaries.
    watched: Watched,
    index: Mutex<Index>,
    /// The kinds that [`Self::run`] has to watch.
    kinds: mpsc::UnboundedSender<Kind>,
    /// The canaries that have to be reconciled.
    triggers: mpsc::UnboundedSender<ObjectRef>,
    /// Notified when the list of a kind has ended or failed.
    kind_listed: Notify,
}

impl Cache {
    /// Returns an empty cache, and the kinds to watch, which [`Self::run`] takes. The cache sends each canary that a change affects to
    /// `triggers`.
    pub fn new(
        cluster: Cluster,
        watched: Watched,
        needs: Box<Needs>,
        triggers: mpsc::UnboundedSender<ObjectRef>,
    ) -> (Self, mpsc::UnboundedReceiver<Kind>) {
        let (kinds, kinds_to_watch) = mpsc::unbounded_channel();
        let clients = cluster.clients();
        let cache = Self {
            needs,
            watch_client: up_to_date(clients.watches.clone(), clients.requests.clone()),
            cluster,
            watched,
            index: Mutex::default(),
            kinds,
            triggers,
            kind_listed: Notify::new(),
        };
        (cache, kinds_to_watch)
    }

    /// Returns objects that a canary needs, with `None` for those that do not exist and an error for those that the operator is not allowed
    /// to read, and subscribes the canary to their changes. Objects in `held`, from an earlier reconciliation, are moved from there if they
    /// are still current.
    ///
    /// # Errors
    /// An object is not cached and cannot be read for another reason.
    pub async fn read(
        &self,
        canary: &ObjectRef,
        objects: Vec<ObjectRef>,
        held: &mut BTreeMap<ObjectRef, Value>,
    ) -> Result<Vec<(ObjectRef, Result<Option<Value>, ClusterError>)>, ClusterError> {
        self.subscribe(canary, objects.iter().cloned());
        let (mut found, mut packed, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        {
            let index = self.index();
            let mut misses = 0;
            for object in objects {
                let held = held.remove(&object);
                let held_version = held
                    .as_ref()
                    .map(|held| version(version_of(held)))
                    .filter(|version| *version > 0);
                match index.get(&object) {
                    Cached::Present(version, _) if held_version == Some(version) => {
                        found.push((object, Ok(held)));
                    }
                    Cached::Present(_, text) => packed.push((object, text)),
                    Cached::Absent => found.push((object, Ok(None))),
                    Cached::Unknown => {
                        misses += usize::from(index.is_live(object.kind));
                        unknown.push(object);
                    }
                }
            }
            self.cluster.metrics().cache_misses(misses);
        }
        // Objects are decompressed after the lock is released.
        found.extend(packed.into_iter().map(|(object, packed)| {
            let value = with_kind(packed.value(), object.kind);
            (object, Ok(Some(value)))
        }));
        let fetched: Vec<_> = stream::iter(unknown)
            .map(async |object| match self.fetch(canary, &object).await {
                Err(error) if error.code() != Some(403) => Err(error),
                read => Ok((object, read)),
            })
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        found.extend(fetched);
        Ok(found)
    }

    /// Returns an object from the cache, or else from the API server.
    ///
    /// # Errors
    /// The object is not cached and cannot be read.
    pub async fn peek_or_fetch(
        &self,
        canary: &ObjectRef,
        object: &ObjectRef,
    ) -> Result<Option<Value>, ClusterError> {
        match self.peek(object) {
            Some(value) => Ok(Some(value)),
            None => self.fetch(canary, object).await,
        }
    }

    /// Whether all these objects are cached at these versions; `None` means that the object does not exist.
    pub fn are_at<'a>(
        &self,
        objects: impl IntoIterator<Item = (&'a ObjectRef, Option<&'a str>)>,
    ) -> bool {
        let index = self.index();
        let mut objects = objects.into_iter();
        objects.all(|(object, at)| match (index.get(object), at) {
            (Cached::Present(is, _), Some(at)) => is > 0 && is == version(at),
            (Cached::Absent, None) => true,
            (Cached::Present(..) | Cached::Absent | Cached::Unknown, _) => false,
        })
    }

    /// Returns an object if it is cached. No canary is subscribed.
    pub fn peek(&self, object: &ObjectRef) -> Option<Value> {
        match self.index().get(object) {
            Cached::Present(_, packed) => Some(with_kind(packed.value(), object.kind)),
            Cached::Absent | Cached::Unknown => None,
        }
    }

    /// Subscribes a canary to all objects that it needs, as far as they are known. Returns whether the canary is active.
    fn subscribe_to_needs(&self, canary: &ObjectRef) -> bool {
        let Needed { objects, is_active } = (self.needs)(canary, &|object| self.peek(object));
        self.subscribe(canary, objects);
        is_active
    }

    fn subscribe(&self, canary: &ObjectRef, objects: impl IntoIterator<Item = ObjectRef>) {
        let objects = objects.into_iter().filter(|object| self.watches(object));
        for kind in self.index().subscribe(canary, objects) {
            // The receiver lives as long as the cache is in use.
            let _ = self.kinds.send(kind);
        }
    }

    /// Reduces the subscriptions of a canary to these objects.
    pub fn subscribe_only(&self, canary: &ObjectRef, objects: &BTreeSet<ObjectRef>) {
        self.index().subscribe_only(canary, objects);
    }

    /// Marks objects as possibly out of date: the next reconciliation reads them.
    pub fn mark_stale(&self, objects: &BTreeSet<ObjectRef>) {
        let mut index = self.index();
        for object in objects {
            index.mark_stale(object);
        }
    }

    /// Reads an object completely from the API server, for a canary, and updates the cache.
    ///
    /// # Errors
    /// The API server refused or is unreachable, or the object cannot be parsed.
    pub async fn fetch(
        &self,
        canary: &ObjectRef,
        object: &ObjectRef,
    ) -> Result<Option<Value>, ClusterError> {
        let answer = self.cluster.get(object).await?;
        let answer = answer.filter(|answer| self.is_of_this_shard(object, answer));
        match &answer {
            Some(answer) => self.answered(canary, object, answer),
            None => self.index().not_found(object),
        }
        let value = answer.map(|answer| answer.value()).transpose();
        value.map_err(|error| {
            let (kind, name) = (object.kind.name(), &object.name);
            ClusterError::Unreadable(format!("{kind} {name}: {error}"))
        })
    }

    /// Whether an object is no Canary of another operator. A Canary may get other labels at any time, also before a watch reports that.
    fn is_of_this_shard(&self, object: &ObjectRef, answer: &RawObject) -> bool {
        let is_selected = |shard: &Shard| {
            let labels = answer
                .value()
                .map(|mut canary| canary["metadata"]["labels"].take());
            let labels = labels.and_then(serde_json::from_value::<Option<BTreeMap<_, _>>>);
            labels.is_ok_and(|labels| shard.selects(&labels.unwrap_or_default()))
        };
        object.kind != Kind::Canary || self.watched.shard.as_ref().is_none_or(is_selected)
    }

    /// Awaits the write of an object for a canary and puts the answer into the cache. Other canaries that need the object are triggered. If
    /// the write fails because the object has changed, the cached object is marked as stale.
    ///
    /// # Errors
    /// The write failed.
    pub async fn write(
        &self,
        canary: &ObjectRef,
        object: &ObjectRef,
        write: impl Future<Output = Result<RawObject, ClusterError>>,
    ) -> Result<(), ClusterError> {
        self.index().write_started(canary, object);
        match write.await {
            Ok(answer) => {
                self.answered(canary, object, &answer);
                let is_overtaken = self.index().write_ended(object, answer.version());
                if is_overtaken {
                    // The receiver lives as long as canaries are reconciled.
                    let _ = self.triggers.send(canary.clone());
                }
                Ok(())
            }
            Err(error) => {
                let mut index = self.index();
                index.write_ended(object, "");
                match &error {
                    ClusterError::Lost(_) => {
                        self.cluster.metrics().conflict();
                        index.mark_stale(object);
                    }
                    // The write may have been carried out all the same.
                    ClusterError::Unreachable(_) | ClusterError::Unreadable(_) => {
                        index.mark_stale(object);
                    }
                    ClusterError::Refused { .. } | ClusterError::NotLeader => {}
                }
                Err(error)
            }
        }
    }

    /// Updates the cache from the answer to a request for a canary.
    fn answered(&self, canary: &ObjectRef, object: &ObjectRef, answer: &RawObject) {
        let is_unlisted = object.kind == Kind::Secret
            && answer
                .type_name()
                .is_some_and(|name| UNLISTED.contains(&name.as_str()));
        if is_unlisted {
            // The cache would not see changes of this object, so do not keep it: each reconciliation reads it.
            return;
        }
        let mut affected = self.index().answered(&Arrival {
            object: object.clone(),
            version: answer.version(),
            text: &|| answer.text(),
        });
        affected.retain(|other| **other != *canary);
        self.trigger(object.kind, affected);
    }

    /// Waits until all kinds that Canaries name are listed, or their lists have failed. Returns the Canaries, the active ones first.
    pub async fn synced(&self) -> VecDeque<ObjectRef> {
        self.wait_until(|index| index.is_live(Kind::Canary)).await;
        loop {
            self.wait_until(Index::all_kinds_have_begun).await;
            let mut canaries = VecDeque::new();
            // A canary needs the objects that its target refers to, which are known only once the target is cached.
            for canary in self.canaries() {
                if self.subscribe_to_needs(&canary) {
                    canaries.push_front(canary.as_ref().clone());
                } else {
                    canaries.push_back(canary.as_ref().clone());
                }
                // Let the task that renews the Lease run in time, even with thousands of canaries.
                tokio::task::yield_now().await;
            }
            if self.index().all_kinds_have_begun() {
                return canaries;
            }
        }
    }

    /// Returns all Canaries.
    pub fn canaries(&self) -> Vec<Arc<ObjectRef>> {
        self.index().canaries()
    }

    /// Whether the cache contains a Canary.
    pub fn is_listed(&self, canary: &ObjectRef) -> bool {
        !self.index().subscribers(canary).is_empty()
    }

    /// Returns the canaries that need an object.
    pub fn subscribers(&self, object: &ObjectRef) -> Vec<Arc<ObjectRef>> {
        self.index().subscribers(object)
    }

    /// Whether a canary needs an object of a kind that cannot be watched.
    pub fn uses_unwatched_kind(&self, canary: &ObjectRef) -> bool {
        self.index().uses_unwatched_kind(canary)
    }

    /// Returns the pods of the Deployments and DaemonSets in a namespace, as far as their kind is watched.
    pub fn workloads(&self, namespace: &str) -> Arc<BTreeMap<ObjectRef, Pods>> {
        self.index().workloads.in_namespace(namespace)
    }

    /// Returns how many objects of each kind are cached, and how many bytes they take.
    pub fn sizes(&self) -> HashMap<Kind, (usize, usize)> {
        self.index().sizes()
    }

    async fn wait_until(&self, holds: impl Fn(&Index) -> bool) {
        loop {
            let listed = self.kind_listed.notified();
            if holds(&self.index()) {
                return;
            }
            listed.await;
        }
    }

    /// Whether changes of an object are watched: not if it is in another namespace than the watched one.
    fn watches(&self, object: &ObjectRef) -> bool {
        let watched = self.watched.namespace.as_ref();
        object.kind.is_cluster_scoped()
            || watched.is_none_or(|namespace| *namespace == object.namespace)
    }

    /// Triggers the canaries that a change of this kind affects.
    fn trigger(&self, kind: Kind, canaries: Affected) {
        for canary in canaries {
            if kind == Kind::Canary {
                self.subscribe_to_needs(&canary);
            }
            // The receiver lives as long as canaries are reconciled.
            let _ = self.triggers.send(canary.as_ref().clone());
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        lock(&self.index)
    }
}

/// Returns the resourceVersion of an object, or an empty string.
pub fn version_of(object: &Value) -> &str {
    let text = object.pointer("/metadata/resourceVersion");
    text.and_then(Value::as_str).unwrap_or_default()
}

/// Adds `apiVersion` and `kind`, which objects in lists lack.
fn with_kind(mut object: Value, kind: Kind) -> Value {
    if let Some(fields) = object.as_object_mut() {
        let name = |name: &str| Value::from(name);
        fields
            .entry("apiVersion")
            .or_insert_with(|| name(&kind.api_version()));
        fields.entry("kind").or_insert_with(|| name(kind.name()));
    }
    object
}

#[cfg(test)]
mod tests;
