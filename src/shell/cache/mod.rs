//! What canaries look at, without asking the API server each time: one watch per kind, of the kinds that some Canary names.
//!
//! A cache that lags can delay, never mislead. What we wrote is known from the answer to the write, so that no look is older than the
//! canary's last write. A write that lost shows that an object is not as it was thought to be: that object is asked for at the next look.
//! So is what a canary looks at while the same stands in its way at one tick after another. The kinds that cannot be watched, for want of
//! a CRD or of a right, are asked for at every look.

mod index;
mod packed;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, future, stream};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, GroupVersionKind},
    runtime::watcher::{self, Event},
};
use serde_json::Value;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    cluster::{Cluster, ClusterError},
    meters::Meters,
    served::Served,
};
use crate::snapshot::{Kind, ObjectRef};
use index::{Arrival, Index, Known, Touched, version};
use watches::{streams, until_error, up_to_date};

/// How many objects of one canary are read at a time.
const PARALLEL_READS: usize = 8;
/// The longest that the API server is asked for its version.
const ASKING: Duration = Duration::from_secs(2);
/// How many objects a list brings at a time, where it is no stream: they are in memory together.
const PAGE: u32 = 50;
/// After as many seconds of silence, and five more, a connection counts as dead; a watch is renewed as often.
const SILENCE: u32 = 30;
/// Secrets of these types are many and large, and hardly a release looks at them.
const UNLISTED: [&str; 2] = ["helm.sh/release.v1", "kubernetes.io/service-account-token"];

/// What a Canary looks at, by what is known already.
pub type Needs = dyn Fn(&Cache, &ObjectRef) -> Needed + Send + Sync;

/// What a Canary looks at.
#[derive(Default)]
pub struct Needed {
    /// These.
    pub objects: BTreeSet<ObjectRef>,
    /// Whether something is under way, or owed.
    pub is_at_work: bool,
}

/// What canaries look at.
pub struct Cache {
    needs: Box<Needs>,
    client: Client,
    cluster: Cluster,
    meters: Meters,
    /// The namespace that is watched; `None` means all.
    namespace: Option<String>,
    index: Mutex<Index>,
    kinds: mpsc::UnboundedSender<Kind>,
    touched: mpsc::UnboundedSender<ObjectRef>,
    /// Told when the list of a kind is here, or cannot be had.
    known: tokio::sync::Notify,
}

/// What a kind's watch says: `None` when it is at its end and has to begin anew.
type News = (Kind, Option<watcher::Result<Event<Served>>>);

impl Cache {
    /// Nothing known yet. The canaries that a change matters to are named on the channel; the kinds to watch come back to [`Self::run`].
    pub fn new(
        client: Client,
        cluster: Cluster,
        meters: Meters,
        namespace: Option<&str>,
        needs: Box<Needs>,
        touched: mpsc::UnboundedSender<ObjectRef>,
    ) -> (Self, mpsc::UnboundedReceiver<Kind>) {
        let (kinds, wanted) = mpsc::unbounded_channel();
        let cache = Self {
            needs,
            client: up_to_date(client, cluster.client()),
            cluster,
            meters,
            namespace: namespace.map(str::to_owned),
            index: Mutex::default(),
            kinds,
            touched,
            known: tokio::sync::Notify::new(),
        };
        (cache, wanted)
    }

    /// Watches, for ever.
    pub async fn run(&self, mut wanted: mpsc::UnboundedReceiver<Kind>) {
        let mut watches = stream::SelectAll::new();
        let version = timeout(ASKING, self.client.apiserver_version()).await;
        // Where it is not known, a stream is tried.
        let minor = version.ok().and_then(Result::ok).map(|info| info.minor);
        let streams = minor.is_none_or(|minor| streams(&minor));
        let watch = |kind, after| self.watch(kind, streams, after);
        watches.push(watch(Kind::Canary, Duration::ZERO));
        loop {
            tokio::select! {
                Some(kind) = wanted.recv() => watches.push(watch(kind, Duration::ZERO)),
                Some((kind, news)) = watches.next() => {
                    if let Some(again) = self.take(kind, news) {
                        watches.push(watch(kind, again));
                    }
                }
            }
        }
    }

    /// Objects that a canary looks at, and from now on hears of; with those that do not exist. What is `held` of an earlier look, and is
    /// so still, is taken from there.
    pub async fn read(
        &self,
        canary: &ObjectRef,
        objects: Vec<ObjectRef>,
        held: &mut BTreeMap<ObjectRef, Value>,
    ) -> Result<Vec<(ObjectRef, Option<Value>)>, ClusterError> {
        let (mut found, mut packed, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        {
            let mut index = self.lock();
            let watched = objects.iter().filter(|object| self.watches(object));
            for kind in index.reconcile(canary, watched.cloned()) {
                // The receiver lives as long as the cache is in use.
                let _ = self.kinds.send(kind);
            }
            let mut fenced = 0;
            for object in objects {
                let held = held.remove(&object);
                let held_version = held
                    .as_ref()
                    .map(|held| version(text_version(held)))
                    .filter(|version| *version > 0);
                match index.known(&object) {
                    Known::Present(version, _) if held_version == Some(version) => {
                        found.push((object, held));
                    }
                    Known::Present(_, text) => packed.push((object, text)),
                    Known::Absent => found.push((object, None)),
                    Known::Unknown => {
                        fenced += usize::from(index.is_live(object.kind));
                        unknown.push(object);
                    }
                }
            }
            self.meters.fenced(fenced);
        }
        found.extend(packed.into_iter().map(|(object, packed)| {
            let value = with_kind(packed.value(), object.kind);
            (object, Some(value))
        }));
        let fetched: Vec<_> = stream::iter(unknown)
            .map(async |object| Ok::<_, ClusterError>((self.fetch(canary, &object).await?, object)))
            .buffer_unordered(PARALLEL_READS)
            .try_collect()
            .await?;
        found.extend(fetched.into_iter().map(|(value, object)| (object, value)));
        Ok(found)
    }

    /// An object as it is known, or else as the API server has it.
    pub async fn know(
        &self,
        canary: &ObjectRef,
        object: &ObjectRef,
    ) -> Result<Option<Value>, ClusterError> {
        match self.peek(object) {
            Some(value) => Ok(Some(value)),
            None => self.fetch(canary, object).await,
        }
    }

    /// Whether all these objects are known to be at their versions; not to exist, where there is none.
    pub fn are_at<'a>(
        &self,
        objects: impl IntoIterator<Item = (&'a ObjectRef, Option<&'a str>)>,
    ) -> bool {
        let index = self.lock();
        let mut objects = objects.into_iter();
        objects.all(|(object, at)| match (index.known(object), at) {
            (Known::Present(is, _), Some(at)) => is > 0 && is == version(at),
            (Known::Absent, None) => true,
            (Known::Present(..) | Known::Absent | Known::Unknown, _) => false,
        })
    }

    /// What is known of an object, without asking for it or looking at it.
    pub fn peek(&self, object: &ObjectRef) -> Option<Value> {
        match self.lock().known(object) {
            Known::Present(_, packed) => Some(with_kind(packed.value(), object.kind)),
            Known::Absent | Known::Unknown => None,
        }
    }

    /// A canary will look at what its spec names; whether it is at work.
    fn announce(&self, canary: &ObjectRef) -> bool {
        let Needed {
            objects,
            is_at_work,
        } = (self.needs)(self, canary);
        let objects = objects.into_iter().filter(|object| self.watches(object));
        for kind in self.lock().reconcile(canary, objects) {
            // The receiver lives as long as the cache is in use.
            let _ = self.kinds.send(kind);
        }
        is_at_work
    }

    /// A canary looks at these and at nothing else any more.
    pub fn subscribe_only(&self, canary: &ObjectRef, objects: &BTreeSet<ObjectRef>) {
        self.lock().subscribe_only(canary, objects);
    }

    /// These may be other than they are thought to be: they are asked for at the next look.
    pub fn doubt(&self, objects: &BTreeSet<ObjectRef>) {
        let mut index = self.lock();
        for object in objects {
            index.doubt(object);
        }
    }

    /// An object as the API server has it now, all of it, asked for at a canary's look.
    pub async fn fetch(
        &self,
        canary: &ObjectRef,
        object: &ObjectRef,
    ) -> Result<Option<Value>, ClusterError> {
        let served = self.cluster.get(object).await?;
        match &served {
            Some(served) => self.answered(canary, object, served),
            None => self.lock().is_absent(object),
        }
        let value = served.map(|served| served.value()).transpose();
        value.map_err(|error| {
            ClusterError::Unreachable(format!("{} {}: {error}", object.kind.name(), object.name))
        })
    }

    /// Writes an object for a canary: the canary knows what was written from the answer, others that look at it are told. A write that
    /// lost shows that the object is not as it was thought to be.
    pub async fn write(
        &self,
        canary: &ObjectRef,
        object: &ObjectRef,
        write: impl Future<Output = Result<Served, ClusterError>>,
    ) -> Result<(), ClusterError> {
        self.lock().writes(canary, object);
        match write.await {
            Ok(answer) => {
                self.answered(canary, object, &answer);
                let overtaken = self.lock().wrote(object, answer.version());
                if overtaken {
                    // The receiver lives as long as somebody looks.
                    let _ = self.touched.send(canary.clone());
                }
                Ok(())
            }
            Err(error) => {
                let mut index = self.lock();
                index.wrote(object, "");
                match &error {
                    ClusterError::Lost(_) => {
                        self.meters.conflict();
                        index.doubt(object);
                    }
                    // It may have been carried out all the same.
                    ClusterError::Unreachable(_) => index.doubt(object),
                    ClusterError::Refused { .. } | ClusterError::NotLeader => {}
                }
                Err(error)
            }
        }
    }

    /// An object as the API server answered a call for a canary.
    fn answered(&self, canary: &ObjectRef, object: &ObjectRef, answer: &Served) {
        let is_unlisted = object.kind == Kind::Secret
            && answer
                .type_name()
                .is_some_and(|name| UNLISTED.contains(&name.as_str()));
        if is_unlisted {
            // Nobody will tell of its changes: it is read at each look.
            return;
        }
        let mut touched = self.lock().answered(&Arrival {
            object: object.clone(),
            version: answer.version(),
            text: &|| answer.text(),
        });
        touched.retain(|other| **other != *canary);
        self.touch(object.kind, touched);
    }

    /// Returns the Canaries once all kinds that they name are listed or cannot be; first those that are at work.
    pub async fn synced(&self) -> VecDeque<ObjectRef> {
        self.until(|index| index.is_live(Kind::Canary)).await;
        loop {
            self.until(Index::all_known).await;
            let mut canaries = VecDeque::new();
            // What a target refers to is known only with the target.
            for canary in self.canaries() {
                if self.announce(&canary) {
                    canaries.push_front(canary.as_ref().clone());
                } else {
                    canaries.push_back(canary.as_ref().clone());
                }
                // Thousands are no reason to miss a renewal of the lease.
                tokio::task::yield_now().await;
            }
            if self.lock().all_known() {
                return canaries;
            }
        }
    }

    /// All Canaries there are.
    pub fn canaries(&self) -> Vec<Arc<ObjectRef>> {
        self.lock().canaries()
    }

    /// Whether a Canary is among those.
    pub fn is_listed(&self, canary: &ObjectRef) -> bool {
        !self.lock().touched_by(canary).is_empty()
    }

    /// The canaries that look at an object.
    pub fn subscribers(&self, object: &ObjectRef) -> Touched {
        self.lock().touched_by(object)
    }

    /// Whether a canary looks at something that nobody tells us of.
    pub fn uses_unwatched_kind(&self, canary: &ObjectRef) -> bool {
        self.lock().uses_unwatched_kind(canary)
    }

    /// How many objects of each kind are kept, and how many bytes of them.
    pub fn sizes(&self) -> HashMap<Kind, (usize, usize)> {
        self.lock().sizes()
    }

    async fn until(&self, holds: impl Fn(&Index) -> bool) {
        loop {
            let told = self.known.notified();
            if holds(&self.lock()) {
                return;
            }
            told.await;
        }
    }

    /// Whether a watch tells of an object: not of those in other namespaces than the one that is watched.
    fn watches(&self, object: &ObjectRef) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace)
    }

    /// A kind's list and changes, until something is wrong with them, or until they are an hour old.
    fn watch(
        &self,
        kind: Kind,
        streams: bool,
        after: Duration,
    ) -> stream::BoxStream<'static, News> {
        let (group, version) = kind.group_version();
        let gvk = GroupVersionKind::gvk(group, version, kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        let api: Api<Served> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        let mut config = watcher::Config::default().page_size(PAGE).timeout(SILENCE);
        if kind == Kind::Secret {
            config = config.fields(&UNLISTED.map(|kind| format!("type!={kind}")).join(","));
        }
        let news =
            stream::once(sleep(after)).flat_map(move |()| until_error(&api, &config, streams));
        news.map(Some)
            .chain(stream::once(future::ready(None)))
            .map(move |news| (kind, news))
            .boxed()
    }

    /// Takes the news of a kind; when its watch is to begin again, if it is over.
    fn take(&self, kind: Kind, news: Option<watcher::Result<Event<Served>>>) -> Option<Duration> {
        let mut index = self.lock();
        let touched = match news {
            None => {
                return Some(watches::pause(index.failures(kind)));
            }
            Some(Ok(Event::Init)) => {
                index.listing(kind);
                Vec::new()
            }
            Some(Ok(Event::InitApply(served))) => {
                index.listed(&arrival(kind, &served, &|| served.text()))
            }
            Some(Ok(Event::Apply(served))) => {
                index.arrived(&arrival(kind, &served, &|| served.text()))
            }
            Some(Ok(Event::Delete(served))) => {
                let Arrival {
                    object, version, ..
                } = arrival(kind, &served, &String::new);
                index.deleted(&object, version)
            }
            Some(Ok(Event::InitDone)) => {
                let touched = index.is_listed(kind);
                self.known.notify_waiters();
                touched
            }
            Some(Err(error)) => {
                say(kind, index.failed(kind), &error);
                self.known.notify_waiters();
                Vec::new()
            }
        };
        drop(index);
        self.touch(kind, touched);
        None
    }

    fn touch(&self, kind: Kind, canaries: Touched) {
        for canary in canaries {
            if kind == Kind::Canary {
                self.announce(&canary);
            }
            // The receiver lives as long as somebody looks.
            let _ = self.touched.send(canary.as_ref().clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn arrival<'a>(kind: Kind, served: &'a Served, text: &'a dyn Fn() -> String) -> Arrival<'a> {
    let meta = served.meta();
    Arrival {
        object: ObjectRef {
            kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        },
        version: served.version(),
        text,
    }
}

/// The resourceVersion of an object.
pub fn text_version(object: &Value) -> &str {
    let text = object.pointer("/metadata/resourceVersion");
    text.and_then(Value::as_str).unwrap_or_default()
}

/// Lists leave out what is the same for all their objects.
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

/// Said once, until it is better: what that means, and what to do.
fn say(kind: Kind, failures: u32, error: &watcher::Error) {
    let plural = kind.plural();
    let forbidden = error.to_string().contains("orbidden");
    match failures {
        1 if forbidden => warn!(
            "{plural} cannot be watched: they are read at each step, and every five minutes between runs, until the role allows to list and watch them: {error}"
        ),
        1 => debug!("{plural} cannot be watched: {error}"),
        3 => warn!("{plural} cannot be watched, and are read at each step instead: {error}"),
        _ => debug!("{plural} cannot be watched still: {error}"),
    }
}
