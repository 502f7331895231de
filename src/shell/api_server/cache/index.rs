//! The contents of the cache. This module does no I/O: it gets objects from lists, watches and answers.
//!
//! The newer resourceVersion counts, in whatever order objects arrive. An object that may be out of date counts as unknown, so that it is
//! read again.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    packed::{Packed, Packer},
    workloads::Workloads,
};
use crate::{
    snapshot::{Kind, ObjectRef},
    workload::config,
};

/// A watch that has lasted this long works. Earlier failures do not count any more.
const STEADY: Duration = Duration::from_secs(30);

/// The objects that canaries need, and the canaries that need each.
#[derive(Default)]
pub struct Index {
    kinds: HashMap<Kind, KindWatch>,
    objects: HashMap<Arc<ObjectRef>, Entry>,
    /// For each object that is being written now, the canary that writes it.
    writers: HashMap<ObjectRef, ObjectRef>,
    /// The objects that each canary needs.
    subscriptions: HashMap<Arc<ObjectRef>, Box<[Arc<ObjectRef>]>>,
    packer: Packer,
    /// The pods of all workloads, whether a canary needs them or not.
    pub workloads: Workloads,
}

/// The state of the watch of a kind.
#[derive(Default)]
struct KindWatch {
    state: WatchState,
    /// How often in a row the kind could not be listed and watched.
    failures: u32,
    /// Since when the kind is watched.
    live_since: Option<Instant>,
    /// Whether the first list has ended or failed.
    has_begun: bool,
    /// The objects that the current list has not named yet.
    unlisted: HashSet<Arc<ObjectRef>>,
}

impl KindWatch {
    /// Returns how often in a row the watch failed. A list that succeeds does not reset the number, because some kinds can be listed but
    /// not watched.
    fn failures(&self) -> u32 {
        let is_steady = |since: Instant| since.elapsed() >= STEADY;
        if self.live_since.is_some_and(is_steady) {
            0
        } else {
            self.failures
        }
    }
}

/// Whether the cached objects of a kind are current.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum WatchState {
    #[default]
    Listing,
    Live,
    Failing,
}

/// An object that some canary needs.
#[derive(Default)]
struct Entry {
    subscribers: Vec<Arc<ObjectRef>>,
    content: Content,
}

#[derive(Default)]
enum Content {
    /// The object must be read.
    #[default]
    Unknown,
    /// The object must be read. Events older than this resourceVersion are ignored.
    Stale(u64),
    /// The object was deleted at this resourceVersion (0 if unknown). Older events are ignored.
    Absent(u64),
    Present(u64, Packed),
}

impl Content {
    /// Events older than this resourceVersion are ignored; 0 means none.
    const fn version(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Stale(version) | Self::Absent(version) | Self::Present(version, _) => *version,
        }
    }
}

/// The cache's answer about an object.
#[derive(Debug)]
pub enum Cached {
    /// The object, at this resourceVersion.
    Present(u64, Packed),
    /// The object does not exist.
    Absent,
    /// Unknown: the object must be read.
    Unknown,
}

/// An object that a list, a watch or an answer brought.
pub struct Arrival<'a> {
    /// Its name.
    pub object: ObjectRef,
    /// Its resourceVersion.
    pub version: &'a str,
    /// Returns its JSON; called only if the object is kept.
    pub text: &'a dyn Fn() -> String,
}

/// The canaries that a change affects.
pub type Affected = Vec<Arc<ObjectRef>>;

impl Index {
    /// Looks an object up.
    pub fn get(&self, object: &ObjectRef) -> Cached {
        if !self.is_live(object.kind) {
            return Cached::Unknown;
        }
        match self.objects.get(object).map(|entry| &entry.content) {
            Some(Content::Present(version, packed)) => Cached::Present(*version, packed.clone()),
            Some(Content::Absent(_)) => Cached::Absent,
            // Every Canary is kept, so an unknown one does not exist.
            None if object.kind == Kind::Canary => Cached::Absent,
            Some(Content::Unknown | Content::Stale(_)) | None => Cached::Unknown,
        }
    }

    /// Adds objects to those that a canary needs. Returns the kinds that no canary needed before.
    pub fn subscribe(
        &mut self,
        canary: &ObjectRef,
        objects: impl IntoIterator<Item = ObjectRef>,
    ) -> Vec<Kind> {
        let canary = self.shared(canary);
        let mut all = self
            .subscriptions
            .remove(&canary)
            .unwrap_or_default()
            .into_vec();
        let mut kinds = Vec::new();
        for object in objects {
            if object.kind == Kind::Canary {
                // A canary is always affected by its own changes.
                continue;
            }
            self.kinds.entry(object.kind).or_insert_with(|| {
                kinds.push(object.kind);
                KindWatch::default()
            });
            let object = self.shared(&object);
            let entry = self.objects.entry(object.clone()).or_default();
            if !entry.subscribers.contains(&canary) {
                entry.subscribers.push(canary.clone());
                all.push(object);
            }
        }
        if !all.is_empty() {
            self.subscriptions.insert(canary, all.into());
        }
        kinds
    }

    /// Reduces the objects that a canary needs to these. Objects that no canary needs are dropped.
    pub fn subscribe_only(&mut self, canary: &ObjectRef, objects: &BTreeSet<ObjectRef>) {
        let Some((canary, all)) = self.subscriptions.remove_entry(canary) else {
            return;
        };
        let (kept, left): (Vec<_>, Vec<_>) = all
            .into_vec()
            .into_iter()
            .partition(|object| objects.contains(object.as_ref()));
        for object in left {
            let Some(entry) = self.objects.get_mut(&object) else {
                continue;
            };
            entry.subscribers.retain(|other| *other != canary);
            if entry.subscribers.is_empty() && object.kind != Kind::Canary {
                self.objects.remove(&object);
            }
        }
        if !kept.is_empty() {
            self.subscriptions.insert(canary, kept.into());
        }
    }

    /// The API server answered that an object does not exist.
    pub fn not_found(&mut self, object: &ObjectRef) {
        // If the watch has reported meanwhile that the object was created, keep the content. Some Secrets are not watched, so do not keep
        // their absence.
        if let Some(entry) = self.objects.get_mut(object)
            && let Content::Unknown | Content::Stale(_) = entry.content
            && object.kind != Kind::Secret
        {
            // Late events about an earlier state must not bring a Canary back, so its version is kept until the next list.
            entry.content = Content::Absent(entry.content.version());
            if object.kind == Kind::Canary {
                self.subscribe_only(object, &BTreeSet::new());
            }
        }
    }

    /// A canary starts to write an object. Until [`Self::write_ended`], changes of the object do not affect that canary.
    pub fn write_started(&mut self, canary: &ObjectRef, object: &ObjectRef) {
        self.writers.insert(object.clone(), canary.clone());
    }

    /// A write has ended with this resourceVersion. Returns whether a newer write by another actor has already been seen.
    pub fn write_ended(&mut self, object: &ObjectRef, at: &str) -> bool {
        self.writers.remove(object);
        let seen = self.objects.get(object).map(|entry| &entry.content);
        matches!(seen, Some(Content::Present(known, _)) if *known > version(at))
    }

    /// Marks an object as possibly out of date: the next reconciliation reads it.
    pub fn mark_stale(&mut self, object: &ObjectRef) {
        if let Some(entry) = self.objects.get_mut(object) {
            entry.content = match entry.content.version() {
                0 => Content::Unknown,
                known => Content::Stale(known),
            };
        }
    }

    /// A list of a kind begins.
    pub fn list_started(&mut self, kind: Kind) {
        self.workloads.list_started(kind);
        let unlisted = self.objects.keys().filter(|object| object.kind == kind);
        let unlisted = unlisted.cloned().collect();
        self.kinds.entry(kind).or_default().unlisted = unlisted;
    }

    /// The current list contains an object.
    pub fn listed(&mut self, arrival: &Arrival<'_>) -> Affected {
        if let Some(watched) = self.kinds.get_mut(&arrival.object.kind) {
            watched.unlisted.remove(&arrival.object);
        }
        if let Some(entry) = self.objects.get_mut(&arrival.object)
            && (version(arrival.version) < entry.content.version()
                || matches!(entry.content, Content::Absent(known) if known == version(arrival.version)))
        {
            // Either the list is older than a write of this process, or the API server was restored from a backup, or it has answered by
            // mistake that the object does not exist.
            entry.content = Content::Unknown;
            return self.subscribers(&arrival.object);
        }
        self.changed(arrival)
    }

    /// The list of a kind has ended. Objects that it did not contain do not exist, unless they were created meanwhile.
    pub fn list_ended(&mut self, kind: Kind) -> Affected {
        self.workloads.list_ended(kind);
        let watched = self.kinds.entry(kind).or_default();
        (watched.state, watched.has_begun) = (WatchState::Live, true);
        watched.failures = watched.failures();
        watched.live_since = Some(Instant::now());
        let mut affected = Vec::new();
        for object in std::mem::take(&mut watched.unlisted) {
            let Some(entry) = self.objects.get_mut(&object) else {
                continue;
            };
            match entry.content {
                Content::Absent(_) if kind == Kind::Canary => self.remove_canary(&object),
                Content::Absent(_) => {}
                _ if kind == Kind::Canary => {
                    affected.extend(self.subscribers(&object));
                    self.remove_canary(&object);
                }
                Content::Present(..) | Content::Stale(_) => {
                    entry.content = Content::Unknown;
                    affected.extend(self.subscribers(&object));
                }
                // Some Secrets are never listed.
                Content::Unknown if kind != Kind::Secret => entry.content = Content::Absent(0),
                Content::Unknown => {}
            }
        }
        affected
    }

    /// The answer to a request contains an object. A late answer does not bring back a Canary that was deleted.
    pub fn answered(&mut self, arrival: &Arrival<'_>) -> Affected {
        let Some(entry) = self.objects.get_mut(&arrival.object) else {
            return Vec::new();
        };
        if let Content::Stale(known) = entry.content
            && version(arrival.version) < known
        {
            // The answer to a request is trusted, even if the API server was restored from a backup.
            entry.content = Content::Unknown;
        }
        self.changed(arrival)
    }

    /// An object was created or changed.
    pub fn changed(&mut self, arrival: &Arrival<'_>) -> Affected {
        let object = &arrival.object;
        self.workloads
            .changed(object, version(arrival.version), arrival.text);
        if object.kind == Kind::Canary && !self.objects.contains_key(object) {
            self.objects.entry(Arc::new(object.clone())).or_default();
        }
        let Some(entry) = self.objects.get_mut(object) else {
            return Vec::new();
        };
        let (version, known) = (version(arrival.version), entry.content.version());
        let was_stale = matches!(entry.content, Content::Stale(_));
        if version != 0 && (known > version || known == version && !was_stale) {
            return Vec::new();
        }
        let text = kept(object.kind, (arrival.text)());
        entry.content = Content::Present(version, self.packer.pack(&text));
        if was_stale && known == version {
            // The object has not changed after all.
            return Vec::new();
        }
        let mut affected = self.subscribers(object);
        if let Some(writer) = self.writers.get(object) {
            affected.retain(|canary| **canary != *writer);
        }
        affected
    }

    /// An object was deleted.
    pub fn deleted(&mut self, object: &ObjectRef, at: &str) -> Affected {
        self.workloads.deleted(object, version(at));
        let affected = self.subscribers(object);
        let Some(entry) = self.objects.get_mut(object) else {
            return Vec::new();
        };
        if matches!(entry.content, Content::Present(known, _) | Content::Stale(known) if known > version(at))
        {
            // The deletion is older than the known version: the object was created again under this name.
            return Vec::new();
        }
        entry.content = Content::Absent(version(at));
        if object.kind == Kind::Canary {
            self.remove_canary(object);
        }
        affected
    }

    /// A kind cannot be watched now. Returns how often in a row that happened.
    pub fn watch_failed(&mut self, kind: Kind) -> u32 {
        let watched = self.kinds.entry(kind).or_default();
        watched.failures = watched.failures() + 1;
        (watched.state, watched.has_begun) = (WatchState::Failing, true);
        watched.live_since = None;
        watched.failures
    }

    /// Returns how often in a row a kind could not be watched.
    pub fn failures(&self, kind: Kind) -> u32 {
        self.kinds.get(&kind).map_or(0, KindWatch::failures)
    }

    /// Whether the cached objects of a kind are current.
    pub fn is_live(&self, kind: Kind) -> bool {
        self.state(kind) == Some(WatchState::Live)
    }

    /// Whether the first list of each kind has ended or failed.
    pub fn all_kinds_have_begun(&self) -> bool {
        self.kinds.values().all(|watched| watched.has_begun)
    }

    /// Whether a canary needs an object of a kind that cannot be watched.
    pub fn uses_unwatched_kind(&self, canary: &ObjectRef) -> bool {
        let mut objects = self.subscriptions.get(canary).into_iter().flatten();
        objects.any(|object| !self.is_live(object.kind))
    }

    /// Returns all Canaries.
    pub fn canaries(&self) -> Vec<Arc<ObjectRef>> {
        let canaries = self.objects.iter();
        canaries
            .filter(|(object, entry)| {
                object.kind == Kind::Canary && !matches!(entry.content, Content::Absent(_))
            })
            .map(|(object, _)| object.clone())
            .collect()
    }

    /// Returns the canaries that need an object, and the object itself if it is a Canary.
    pub fn subscribers(&self, object: &ObjectRef) -> Affected {
        let Some((object, entry)) = self.objects.get_key_value(object) else {
            return Vec::new();
        };
        let is_absent = matches!(entry.content, Content::Absent(_));
        let itself = (object.kind == Kind::Canary && !is_absent).then(|| object.clone());
        let subscribers = entry.subscribers.iter().cloned();
        subscribers.chain(itself).collect()
    }

    /// Returns how many objects of each kind are kept, and how many bytes they take.
    pub fn sizes(&self) -> HashMap<Kind, (usize, usize)> {
        let mut sizes: HashMap<Kind, (usize, usize)> = HashMap::new();
        for (object, entry) in &self.objects {
            let (objects, bytes) = sizes.entry(object.kind).or_default();
            if let Content::Present(_, packed) = &entry.content {
                *objects += 1;
                *bytes += packed.len();
            }
        }
        sizes
    }

    /// The Canary is gone: drops it and its subscriptions.
    fn remove_canary(&mut self, canary: &ObjectRef) {
        self.subscribe_only(canary, &BTreeSet::new());
        self.objects.remove(canary);
    }

    fn state(&self, kind: Kind) -> Option<WatchState> {
        self.kinds.get(&kind).map(|watched| watched.state)
    }

    /// Returns the shared copy of a reference, so that each name is in memory once.
    fn shared(&self, object: &ObjectRef) -> Arc<ObjectRef> {
        match self.objects.get_key_value(object) {
            Some((shared, _)) => shared.clone(),
            None => Arc::new(object.clone()),
        }
    }
}

/// Parses a resourceVersion. Returns 0 if it is no number: then it counts neither as newer nor as older than others.
pub fn version(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Returns the JSON of an object that the cache keeps. Of a ConfigMap or Secret it keeps only checksums, which are enough to detect a
/// change.
fn kept(kind: Kind, text: String) -> String {
    match kind {
        Kind::ConfigMap | Kind::Secret => {
            let object: Value = serde_json::from_str(&text).unwrap_or_default();
            config::hashed(&object).to_string()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests;
