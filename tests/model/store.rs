//! The storage of the API server and its rules for writes. It has one counter of revisions, like etcd, and a history of all changes.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    defaults,
    refusal::Refusal,
    resources::{Generation, Resource},
};

/// Identifies an object. The order is that of lists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub plural: &'static str,
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// The key of an object in a namespace, or of one that is in none.
    pub fn new(plural: &str, namespace: &str, name: &str) -> Self {
        let resource = Resource::of(plural).unwrap();
        let namespace = if resource.of_cluster { "" } else { namespace };
        Self {
            plural: resource.plural,
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
    /// The client that sent the request.
    pub by: String,
    pub key: Key,
    pub before: Option<Arc<Value>>,
    pub after: Option<Arc<Value>>,
}

/// The part of an object that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The object, without the status if that is a subresource.
    Main,
    /// The status subresource.
    Status,
}

/// The author and the time of a write.
#[derive(Clone, Debug)]
pub struct Writer {
    pub name: String,
    pub now: Timestamp,
}

/// The result of a DELETE.
pub enum Deletion {
    /// The object is deleted; its last state.
    Gone(Arc<Value>),
    /// Finalizers hold the object, which has a deletion timestamp.
    Marked(Arc<Value>),
}

/// All objects and their history.
pub struct Store {
    pub revision: u64,
    /// Watches and pages from earlier revisions fail.
    pub compacted: u64,
    created: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Change>,
}

impl Store {
    /// An empty store. The first revision is so high that no other number is mistaken for one.
    pub const fn new() -> Self {
        Self {
            revision: 1_000_000,
            compacted: 1_000_000,
            created: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    pub fn get(&self, key: &Key) -> Result<Arc<Value>, Refusal> {
        let found = self.objects.get(key).cloned();
        found.ok_or_else(|| Refusal::not_found(key))
    }

    /// Whether an object is stored without its default status, which the first write adds.
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
        if resource.of_cluster {
            meta.as_object_mut().unwrap().remove("namespace");
        }
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            meta[field] = kept[field].clone();
        }
        if resource.generation != Generation::None {
            meta["generation"] = json!(1);
        }
        object["metadata"] = meta;
        defaults::fill(resource, &mut object, None, self.created);
        if let Some(there) = self.objects.get(key) {
            let is_being_deleted = there["metadata"]["deletionTimestamp"].is_string();
            return Err(Refusal::exists(key, is_being_deleted));
        }
        Ok(self.record(key, Some(object), by).unwrap())
    }

    /// Updates one part of an object. Fails if `wanted` has another resourceVersion than the stored object.
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
        defaults::fill(resource, &mut new, Some(&old), self.created);
        let mut new = without_nulls(new);
        check_update(key, part, &old, &new)?;
        if raises_generation(resource, part, &old, &new) {
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

    /// Deletes an object if the preconditions of `options` hold.
    pub fn delete(&mut self, key: &Key, options: &Value, by: &Writer) -> Result<Deletion, Refusal> {
        let old = self.get(key)?;
        let preconditions = &options["preconditions"];
        for (field, name, fate) in [
            ("uid", "UID", "deleted and then recreated"),
            ("resourceVersion", "ResourceVersion", "modified"),
        ] {
            let (wanted, is) = (&preconditions[field], &old["metadata"][field]);
            if wanted.is_string() && wanted != is {
                let (wanted, is) = (wanted.as_str().unwrap(), is.as_str().unwrap());
                let why = format!(
                    "the {name} in the precondition ({wanted}) does not match the {name} in record ({is}). \
                     The object might have been {fate}"
                );
                return Err(Refusal::delete_precondition(key, &why));
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
        self.created += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.created)
    }
}

/// The resourceVersion of an object; `None` if it has none.
pub fn version_of(object: &Value) -> Option<&str> {
    let version = object.pointer("/metadata/resourceVersion")?.as_str()?;
    (!version.is_empty()).then_some(version)
}

/// The object after a write. Fields that the writer may not set keep their values.
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
            // `server.rs` has checked the uid.
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

fn raises_generation(resource: &Resource, part: Part, old: &Value, new: &Value) -> bool {
    if part == Part::Status {
        return false;
    }
    let differs = |path: &str| old.pointer(path) != new.pointer(path);
    match resource.generation {
        Generation::None => false,
        // Every change of a custom kind counts, except in metadata and status.
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

/// Removes null fields, and empty metadata.
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
