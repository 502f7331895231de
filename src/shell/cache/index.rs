//! What is known of the objects that canaries look at: pure bookkeeping, told what lists and watches deliver.
//!
//! Newer wins: whatever arrives late, by its resourceVersion. What may be out of date is unknown, and is asked for again.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

use super::packed::{Packed, Packer};
use crate::{
    snapshot::{Kind, ObjectRef},
    workload::config,
};

/// A watch that lasted so long works.
const STEADY: Duration = Duration::from_secs(30);

/// What is known.
#[derive(Default)]
pub struct Index {
    kinds: HashMap<Kind, Watched>,
    objects: HashMap<Arc<ObjectRef>, Entry>,
    /// Which canary writes what just now.
    writes: HashMap<ObjectRef, ObjectRef>,
    /// What each canary looks at.
    looks: HashMap<Arc<ObjectRef>, Box<[Arc<ObjectRef>]>>,
    packer: Packer,
}

/// How the watch of a kind stands.
#[derive(Default)]
struct Watched {
    state: State,
    /// How often in a row it could not be listed and watched.
    failures: u32,
    /// Since when it is watched.
    live_since: Option<Instant>,
    /// Whether its first list, or the want of it, is behind us.
    known: bool,
    /// The objects that the list under way has not named yet.
    unlisted: HashSet<Arc<ObjectRef>>,
}

impl Watched {
    /// How often in a row it went wrong. That it can be listed says nothing of whether it can be watched.
    fn failures(&self) -> u32 {
        let is_steady = |since: Instant| since.elapsed() >= STEADY;
        if self.live_since.is_some_and(is_steady) {
            0
        } else {
            self.failures
        }
    }
}

/// Whether what is known of a kind can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Listing,
    Live,
    Failing,
}

/// An object that somebody looks at.
#[derive(Default)]
struct Entry {
    looked_at_by: Vec<Arc<ObjectRef>>,
    seen: Seen,
}

#[derive(Default)]
enum Seen {
    /// It has to be asked for.
    #[default]
    Unknown,
    /// It has to be asked for; news that is older than this resourceVersion is none.
    Doubted(u64),
    /// It was deleted at this resourceVersion, if that is known: what is older is no news.
    Absent(u64),
    Present(u64, Packed),
}

impl Seen {
    /// The resourceVersion that what is older than it is no news; 0 if there is none.
    const fn version(&self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Doubted(version) | Self::Absent(version) | Self::Present(version, _) => *version,
        }
    }
}

/// What can be said of an object without asking.
#[derive(Debug)]
pub enum Known {
    /// It is like this, at this resourceVersion.
    Present(u64, Packed),
    /// It does not exist.
    Absent,
    /// Nothing.
    Unknown,
}

/// An object as it arrived.
pub struct Arrival<'a> {
    /// Which.
    pub object: ObjectRef,
    /// Its resourceVersion.
    pub version: &'a str,
    /// Its text; only asked for if it is kept.
    pub text: &'a dyn Fn() -> String,
}

/// The canaries that a change matters to.
pub type Touched = Vec<Arc<ObjectRef>>;

impl Index {
    /// What is known of an object.
    pub fn known(&self, object: &ObjectRef) -> Known {
        if !self.is_live(object.kind) {
            return Known::Unknown;
        }
        match self.objects.get(object).map(|entry| &entry.seen) {
            Some(Seen::Present(version, packed)) => Known::Present(*version, packed.clone()),
            Some(Seen::Absent(_)) => Known::Absent,
            // Every Canary is kept.
            None if object.kind == Kind::Canary => Known::Absent,
            Some(Seen::Unknown | Seen::Doubted(_)) | None => Known::Unknown,
        }
    }

    /// A canary looks at these objects too, from now on; the kinds that nobody looked at before.
    pub fn reconcile(
        &mut self,
        canary: &ObjectRef,
        objects: impl IntoIterator<Item = ObjectRef>,
    ) -> Vec<Kind> {
        let canary = self.shared(canary);
        let mut all = self.looks.remove(&canary).unwrap_or_default().into_vec();
        let mut kinds = Vec::new();
        for object in objects {
            if object.kind == Kind::Canary {
                // Its own changes are its own anyway.
                continue;
            }
            self.kinds.entry(object.kind).or_insert_with(|| {
                kinds.push(object.kind);
                Watched::default()
            });
            let object = self.shared(&object);
            let entry = self.objects.entry(object.clone()).or_default();
            if !entry.looked_at_by.contains(&canary) {
                entry.looked_at_by.push(canary.clone());
                all.push(object);
            }
        }
        if !all.is_empty() {
            self.looks.insert(canary, all.into());
        }
        kinds
    }

    /// A canary looks at these and at nothing else any more; what nobody looks at is forgotten.
    pub fn subscribe_only(&mut self, canary: &ObjectRef, objects: &BTreeSet<ObjectRef>) {
        let Some((canary, all)) = self.looks.remove_entry(canary) else {
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
            entry.looked_at_by.retain(|other| *other != canary);
            if entry.looked_at_by.is_empty() && object.kind != Kind::Canary {
                self.objects.remove(&object);
            }
        }
        if !kept.is_empty() {
            self.looks.insert(canary, kept.into());
        }
    }

    /// An object was asked for, and does not exist.
    pub fn is_absent(&mut self, object: &ObjectRef) {
        // Somebody may have created it since: then that was told already. Of some Secrets nobody would tell.
        if let Some(entry) = self.objects.get_mut(object)
            && let Seen::Unknown | Seen::Doubted(_) = entry.seen
            && object.kind != Kind::Secret
        {
            entry.seen = Seen::Absent(entry.seen.version());
            if object.kind == Kind::Canary {
                self.gone(object);
            }
        }
    }

    /// A canary writes an object: until the answer is here, what is told of the object is no news to that canary.
    pub fn writes(&mut self, canary: &ObjectRef, object: &ObjectRef) {
        self.writes.insert(object.clone(), canary.clone());
    }

    /// The write came to an end; whether somebody else wrote after it, as was told already.
    pub fn wrote(&mut self, object: &ObjectRef, at: &str) -> bool {
        self.writes.remove(object);
        let seen = self.objects.get(object).map(|entry| &entry.seen);
        matches!(seen, Some(Seen::Present(known, _)) if *known > version(at))
    }

    /// An object is not as it was thought to be: it is asked for at the next look.
    pub fn doubt(&mut self, object: &ObjectRef) {
        if let Some(entry) = self.objects.get_mut(object) {
            entry.seen = match entry.seen.version() {
                0 => Seen::Unknown,
                known => Seen::Doubted(known),
            };
        }
    }

    /// A list begins.
    pub fn listing(&mut self, kind: Kind) {
        let unlisted = self.objects.keys().filter(|object| object.kind == kind);
        let unlisted = unlisted.cloned().collect();
        self.kinds.entry(kind).or_default().unlisted = unlisted;
    }

    /// The list names an object.
    pub fn listed(&mut self, arrival: &Arrival<'_>) -> Touched {
        if let Some(watched) = self.kinds.get_mut(&arrival.object.kind) {
            watched.unlisted.remove(&arrival.object);
        }
        if let Some(entry) = self.objects.get_mut(&arrival.object)
            && let Seen::Present(known, _) | Seen::Doubted(known) = entry.seen
            && version(arrival.version) < known
        {
            // Either the list was on its way while we wrote, or the API server went back in time.
            entry.seen = Seen::Unknown;
            return self.touched_by(&arrival.object);
        }
        self.arrived(arrival)
    }

    /// The list is at its end: what it did not name does not exist, unless that came to be meanwhile.
    pub fn is_listed(&mut self, kind: Kind) -> Touched {
        let watched = self.kinds.entry(kind).or_default();
        (watched.state, watched.known) = (State::Live, true);
        watched.failures = watched.failures();
        watched.live_since = Some(Instant::now());
        let mut touched = Vec::new();
        for object in std::mem::take(&mut watched.unlisted) {
            let Some(entry) = self.objects.get_mut(&object) else {
                continue;
            };
            match entry.seen {
                Seen::Absent(_) => {}
                _ if kind == Kind::Canary => {
                    touched.extend(self.touched_by(&object));
                    self.gone(&object);
                }
                Seen::Present(..) | Seen::Doubted(_) => {
                    entry.seen = Seen::Unknown;
                    touched.extend(self.touched_by(&object));
                }
                // Some Secrets are not listed at all.
                Seen::Unknown if kind != Kind::Secret => entry.seen = Seen::Absent(0),
                Seen::Unknown => {}
            }
        }
        touched
    }

    /// An object came as the answer to a call. A Canary that is gone does not come back by an answer that is late.
    pub fn answered(&mut self, arrival: &Arrival<'_>) -> Touched {
        let Some(entry) = self.objects.get_mut(&arrival.object) else {
            return Vec::new();
        };
        if let Seen::Doubted(known) = entry.seen
            && version(arrival.version) < known
        {
            // Whoever was asked is believed, also one that went back in time.
            entry.seen = Seen::Unknown;
        }
        self.arrived(arrival)
    }

    /// An object was created or changed.
    pub fn arrived(&mut self, arrival: &Arrival<'_>) -> Touched {
        let object = &arrival.object;
        if object.kind == Kind::Canary && !self.objects.contains_key(object) {
            self.objects.entry(Arc::new(object.clone())).or_default();
        }
        let Some(entry) = self.objects.get_mut(object) else {
            return Vec::new();
        };
        let (version, known) = (version(arrival.version), entry.seen.version());
        let is_doubted = matches!(entry.seen, Seen::Doubted(_));
        if version != 0 && (known > version || known == version && !is_doubted) {
            return Vec::new();
        }
        let text = kept(object.kind, (arrival.text)());
        entry.seen = Seen::Present(version, self.packer.pack(&text));
        if is_doubted && known == version {
            // It is as it was thought to be.
            return Vec::new();
        }
        let mut touched = self.touched_by(object);
        if let Some(writer) = self.writes.get(object) {
            touched.retain(|canary| **canary != *writer);
        }
        touched
    }

    /// An object was deleted.
    pub fn deleted(&mut self, object: &ObjectRef, at: &str) -> Touched {
        let Some(entry) = self.objects.get_mut(object) else {
            return Vec::new();
        };
        if matches!(entry.seen, Seen::Present(known, _) | Seen::Doubted(known) if known > version(at))
        {
            // It was made again, and we know that already.
            return Vec::new();
        }
        entry.seen = Seen::Absent(version(at));
        let touched = self.touched_by(object);
        if object.kind == Kind::Canary {
            self.gone(object);
        }
        touched
    }

    /// A kind cannot be watched for now; how often in a row that was so.
    pub fn failed(&mut self, kind: Kind) -> u32 {
        let watched = self.kinds.entry(kind).or_default();
        watched.failures = watched.failures() + 1;
        (watched.state, watched.known) = (State::Failing, true);
        watched.live_since = None;
        watched.failures
    }

    /// How often in a row a kind could not be watched.
    pub fn failures(&self, kind: Kind) -> u32 {
        self.kinds.get(&kind).map_or(0, Watched::failures)
    }

    /// Whether what is known of a kind can be relied on.
    pub fn is_live(&self, kind: Kind) -> bool {
        self.state(kind) == Some(State::Live)
    }

    /// Whether each kind's list is here, or cannot be had.
    pub fn all_known(&self) -> bool {
        self.kinds.values().all(|watched| watched.known)
    }

    /// Whether a canary looks at something that cannot be watched.
    pub fn uses_unwatched_kind(&self, canary: &ObjectRef) -> bool {
        let mut objects = self.looks.get(canary).into_iter().flatten();
        objects.any(|object| !self.is_live(object.kind))
    }

    /// All canaries.
    pub fn canaries(&self) -> Vec<Arc<ObjectRef>> {
        let canaries = self.objects.iter();
        canaries
            .filter(|(object, entry)| {
                object.kind == Kind::Canary && !matches!(entry.seen, Seen::Absent(_))
            })
            .map(|(object, _)| object.clone())
            .collect()
    }

    /// The canaries that look at an object.
    pub fn touched_by(&self, object: &ObjectRef) -> Touched {
        let Some((object, entry)) = self.objects.get_key_value(object) else {
            return Vec::new();
        };
        let itself = (object.kind == Kind::Canary).then(|| object.clone());
        let looking = entry.looked_at_by.iter().cloned();
        looking.chain(itself).collect()
    }

    /// How many objects of each kind are kept, and how many bytes of them.
    pub fn sizes(&self) -> HashMap<Kind, (usize, usize)> {
        let mut sizes: HashMap<Kind, (usize, usize)> = HashMap::new();
        for (object, entry) in &self.objects {
            let (objects, bytes) = sizes.entry(object.kind).or_default();
            if let Seen::Present(_, packed) = &entry.seen {
                *objects += 1;
                *bytes += packed.len();
            }
        }
        sizes
    }

    /// A Canary does not exist any more: nobody looks with its eyes.
    fn gone(&mut self, canary: &ObjectRef) {
        self.subscribe_only(canary, &BTreeSet::new());
        self.objects.remove(canary);
    }

    fn state(&self, kind: Kind) -> Option<State> {
        self.kinds.get(&kind).map(|watched| watched.state)
    }

    /// One name for all who name it.
    fn shared(&self, object: &ObjectRef) -> Arc<ObjectRef> {
        match self.objects.get_key_value(object) {
            Some((shared, _)) => shared.clone(),
            None => Arc::new(object.clone()),
        }
    }
}

/// A resourceVersion as the number that it is; 0, which is newer than nothing and older than nothing, where it is none.
pub fn version(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// What is kept of an object: of a config, what tells whether it changed.
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
