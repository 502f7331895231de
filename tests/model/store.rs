//! What the API server keeps, and its rules for changing it: one counter of revisions, as etcd has, and every change on record.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    defaults,
    refusal::Refusal,
    resources::{Generation, Resource},
};

/// Which object; in the order in which lists have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub plural: &'static str,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(plural: &str, namespace: &str, name: &str) -> Self {
        Self {
            plural: Resource::of(plural).unwrap().plural,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub fn resource(&self) -> &'static Resource {
        Resource::of(self.plural).unwrap()
    }
}

/// One revision: an object before and after it.
#[derive(Clone, Debug)]
pub struct Change {
    pub revision: u64,
    pub at: Timestamp,
    /// Who sent the request.
    pub by: String,
    pub key: Key,
    pub before: Option<Arc<Value>>,
    pub after: Option<Arc<Value>>,
}

/// Which part of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, if that is a subresource.
    Main,
    /// The status subresource.
    Status,
}

/// Who writes, and when.
#[derive(Clone, Debug)]
pub struct Writer {
    pub name: String,
    pub now: Timestamp,
}

/// What became of a deletion.
pub enum Deletion {
    /// The object is gone; as it was.
    Gone(Arc<Value>),
    /// Finalizers hold it.
    Marked(Arc<Value>),
}

/// All objects and all that ever happened to them.
pub struct Store {
    pub revision: u64,
    /// What is older than this cannot be watched from, nor paged.
    pub compacted: u64,
    made: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Change>,
}

impl Store {
    /// Empty, at a revision that no other number is taken for.
    pub const fn new() -> Self {
        Self {
            revision: 1_000_000,
            compacted: 1_000_000,
            made: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    pub fn get(&self, key: &Key) -> Result<Arc<Value>, Refusal> {
        let found = self.objects.get(key).cloned();
        found.ok_or_else(|| Refusal::not_found(key))
    }

    /// Whether an object is kept without the status that it is served with: the first write to it adds that.
    fn lacks_defaults(&self, key: &Key) -> bool {
        let last = || self.history.iter().rev().find(|change| change.key == *key);
        key.plural == "httpproxies" && last().is_some_and(|change| change.before.is_none())
    }

    /// The changes after a revision.
    pub fn since(&self, revision: u64) -> &[Change] {
        &self.history[self
            .history
            .partition_point(|change| change.revision <= revision)..]
    }

    pub fn all(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// The objects of a kind as they were at a revision.
    pub fn at(&self, plural: &str, revision: u64) -> BTreeMap<Key, Arc<Value>> {
        let of_kind = |key: &&Key| key.plural == plural;
        let mut objects: BTreeMap<_, _> = self
            .objects
            .iter()
            .filter(|(key, _)| of_kind(key))
            .map(|(key, object)| (key.clone(), object.clone()))
            .collect();
        for change in self
            .since(revision)
            .iter()
            .rev()
            .filter(|change| of_kind(&&change.key))
        {
            match &change.before {
                Some(before) => drop(objects.insert(change.key.clone(), before.clone())),
                None => drop(objects.remove(&change.key)),
            }
        }
        objects
    }

    pub fn create(&mut self, key: &Key, body: Value, by: &Writer) -> Result<Arc<Value>, Refusal> {
        let resource = key.resource();
        if version_of(&body).is_some() {
            return Err(Refusal::plain(
                500,
                "",
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let mut object = defaults::decoded(resource, body)?;
        if resource.status {
            object.as_object_mut().unwrap().remove("status");
        }
        let kept = &object["metadata"];
        let mut meta = json!({"name": key.name, "namespace": key.namespace, "uid": self.uid(),
            "creationTimestamp": whole_second(by.now)});
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            meta[field] = kept[field].clone();
        }
        if resource.generation != Generation::None {
            meta["generation"] = json!(1);
        }
        object["metadata"] = meta;
        defaults::fill(resource, &mut object, None, self.made);
        if let Some(there) = self.objects.get(key) {
            let goes = there["metadata"]["deletionTimestamp"].is_string();
            return Err(Refusal::exists(key, goes));
        }
        Ok(self.record(key, Some(object), by).unwrap())
    }

    /// Writes an object as it is wanted, made of what was read as `read` (for a PUT: of nothing that we know).
    pub fn update(
        &mut self,
        key: &Key,
        part: Part,
        wanted: Value,
        by: &Writer,
    ) -> Result<Arc<Value>, Refusal> {
        let resource = key.resource();
        let old = self.get(key)?;
        let wanted = defaults::decoded(resource, wanted)?;
        let read = version_of(&wanted).map(str::to_owned);
        if read.is_none() && !resource.unconditional {
            return Err(Refusal::unconditional(key));
        }
        if read.is_some_and(|read| Some(read.as_str()) != version_of(&old)) {
            return Err(Refusal::conflict(key));
        }
        let mut new = merged(resource, part, &old, wanted);
        defaults::fill(resource, &mut new, Some(&old), self.made);
        let mut new = without_nulls(new);
        check_update(key, part, &old, &new)?;
        if raises(resource, part, &old, &new) {
            new["metadata"]["generation"] =
                json!(old["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        if new == *old && !self.lacks_defaults(key) {
            return Ok(old);
        }
        let is_over = new["metadata"]["deletionTimestamp"].is_string()
            && new["metadata"]["finalizers"].is_null();
        if is_over {
            self.record(key, None, by);
            return Ok(Arc::new(new));
        }
        Ok(self.record(key, Some(new), by).unwrap())
    }

    /// Deletes an object, if it is still the one that is meant.
    pub fn delete(&mut self, key: &Key, options: &Value, by: &Writer) -> Result<Deletion, Refusal> {
        let old = self.get(key)?;
        let meant = &options["preconditions"];
        for (field, name, fate) in [
            ("uid", "UID", "deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", "modified"),
        ] {
            let (wanted, is) = (&meant[field], &old["metadata"][field]);
            if wanted.is_string() && wanted != is {
                let (wanted, is) = (wanted.as_str().unwrap(), is.as_str().unwrap());
                let why = format!(
                    "the {name} in the precondition ({wanted}) does not match the {name} in record ({is}). \
                     The object might have been {fate}"
                );
                return Err(Refusal::lost_to_delete(key, &why));
            }
        }
        if old["metadata"]["finalizers"].is_null() {
            self.record(key, None, by);
            let mut gone = (*old).clone();
            gone["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            return Ok(Deletion::Gone(Arc::new(gone)));
        }
        if old["metadata"]["deletionTimestamp"].is_string() {
            return Ok(Deletion::Marked(old));
        }
        let mut new = (*old).clone();
        let meta = &mut new["metadata"];
        meta["deletionTimestamp"] = json!(whole_second(by.now));
        meta["deletionGracePeriodSeconds"] = json!(0);
        if let Some(generation) = meta["generation"].as_i64() {
            meta["generation"] = json!(generation + 1);
        }
        Ok(Deletion::Marked(self.record(key, Some(new), by).unwrap()))
    }

    fn record(&mut self, key: &Key, object: Option<Value>, by: &Writer) -> Option<Arc<Value>> {
        self.revision += 1;
        let after = object.map(|mut object| {
            object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
            Arc::new(without_nulls(object))
        });
        let before = match &after {
            Some(after) => self.objects.insert(key.clone(), after.clone()),
            None => self.objects.remove(key),
        };
        self.history.push(Change {
            revision: self.revision,
            at: by.now,
            by: by.name.clone(),
            key: key.clone(),
            before,
            after: after.clone(),
        });
        after
    }

    fn uid(&mut self) -> String {
        self.made += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.made)
    }
}

/// The resourceVersion that an object carries, if any.
pub fn version_of(object: &Value) -> Option<&str> {
    let version = object.pointer("/metadata/resourceVersion")?.as_str()?;
    (!version.is_empty()).then_some(version)
}

/// The object that a write asks for: what is not the writer's to say stays as it is.
fn merged(resource: &Resource, part: Part, old: &Value, wanted: Value) -> Value {
    match part {
        Part::Status => {
            let mut new = old.clone();
            new["status"] = wanted["status"].clone();
            if !resource.custom {
                for field in ["annotations", "finalizers", "ownerReferences"] {
                    new["metadata"][field] = wanted["metadata"][field].clone();
                }
            }
            without_nulls(new)
        }
        Part::Main => {
            let mut new = wanted;
            let mut meta = old["metadata"].clone();
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                meta[field] = new["metadata"][field].clone();
            }
            // A uid is checked by who reads the request.
            new["metadata"] = meta;
            new["kind"] = old["kind"].clone();
            new["apiVersion"] = old["apiVersion"].clone();
            if resource.status {
                new["status"] = old["status"].clone();
            }
            without_nulls(new)
        }
    }
}

fn raises(resource: &Resource, part: Part, old: &Value, new: &Value) -> bool {
    if part == Part::Status {
        return false;
    }
    let differs = |path: &str| old.pointer(path) != new.pointer(path);
    match resource.generation {
        Generation::None => false,
        // Of a custom kind all that is not metadata or status.
        Generation::Spec if resource.custom => {
            let own = |object: &Value| {
                let mut object = object.clone();
                for field in ["metadata", "status"] {
                    object.as_object_mut().unwrap().remove(field);
                }
                object
            };
            own(old) != own(new)
        }
        Generation::Spec => differs("/spec"),
        Generation::SpecAndAnnotations => differs("/spec") || differs("/metadata/annotations"),
    }
}

fn check_update(key: &Key, part: Part, old: &Value, new: &Value) -> Result<(), Refusal> {
    if part == Part::Main
        && matches!(key.plural, "deployments" | "daemonsets")
        && old["spec"]["selector"] != new["spec"]["selector"]
    {
        return Err(Refusal::invalid(
            key,
            "spec.selector",
            "Invalid value: field is immutable",
        ));
    }
    let strategy = &new["spec"]["strategy"];
    if key.plural == "deployments"
        && strategy["type"] == "Recreate"
        && !strategy["rollingUpdate"].is_null()
    {
        return Err(Refusal::invalid(
            key,
            "spec.strategy.rollingUpdate",
            "Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ));
    }
    if old["metadata"]["deletionTimestamp"].is_string() {
        let names = |object: &Value| {
            object["metadata"]["finalizers"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        let had = names(old);
        if names(new).iter().any(|finalizer| !had.contains(finalizer)) {
            return Err(Refusal::invalid(
                key,
                "metadata.finalizers",
                "Forbidden: no new finalizers can be added if the object is being deleted",
            ));
        }
    }
    Ok(())
}

/// Without the fields that are null, and without metadata that is empty.
fn without_nulls(mut object: Value) -> Value {
    object
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    let is_empty = |value: &Value| {
        value.is_null()
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .retain(|_, value| !is_empty(value));
    object
}

fn whole_second(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap().to_string()
}
