//! The primary's copies of configs: their names, their owners, and which of them may be changed.
//!
//! Canaries of one namespace can use one config, and a copy belongs to all primaries that use it. Their Canaries are its owners, so
//! Kubernetes deletes it with the last one. One of them is the controller, the others are plain owners.
//!
//! A copy is changed only if no other Canary owns it: content that passed the analysis of one version has not passed that of another. So
//! the operator takes the first of these names whose copy does not exist, has the wanted content already, or may be changed:
//!
//! 1. the name that the primary uses now, so that its pods are not restarted without need,
//! 2. `NAME-primary`, which is Flagger's,
//! 3. `NAME-primary-TARGET`, if another primary uses the copy of the second name with other content, or if the API server refuses a change
//!    of that copy: a Secret of another type, or an `immutable` config,
//! 4. `NAME-primary-TARGET-HASH`, with a hash of the content, if the copy of the third name cannot be changed either.
//!
//! (Flagger has the second name only. A promotion of one Canary then changes a copy that another Canary's primary uses, even if the content
//! has failed that Canary's analysis.)

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{ConfigName, checksum, copy_name, references};
use crate::{
    snapshot::{Kind, Snapshot, revision::digest},
    workload::{
        metadata::{self, is_canary, owners},
        ownership::{Ownership, canaries, is_given},
    },
};

/// The fields of a config that its copies have.
pub(super) const CONTENT: [&str; 3] = ["data", "binaryData", "type"];

/// The copies of one canary.
pub struct Copies<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// The configs that the primary refers to now.
    pub(super) in_use: BTreeSet<ConfigName>,
}

/// A copy of a config.
pub struct Copy<'a> {
    /// Its name.
    pub name: String,
    /// The copy that exists.
    pub existing: Option<&'a Value>,
    /// The names on which the choice depends, with that of the copy itself.
    pub considered: Vec<String>,
    /// The first of these names under which a config exists that does not belong to a Canary.
    pub foreign: Option<String>,
}

/// How the operator may use a config that exists under the name of a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It can be used, and changed if it differs.
    Take,
    /// It belongs to another version, or cannot be changed.
    Leave,
    /// It does not belong to any Canary.
    Foreign,
}

impl<'a> Copies<'a> {
    /// The copies of the canary of a snapshot.
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let template = snapshot.primary().and_then(|p| p.pointer("/spec/template"));
        let in_use = template.map(references).unwrap_or_default();
        Self {
            snapshot,
            in_use: in_use.into_keys().collect(),
        }
    }

    /// The copy that the primary gets of this config.
    pub fn choose(&self, kind: Kind, source: &Value) -> Copy<'a> {
        let names = self.names(kind, source);
        let uses = names.each_ref().map(|name| {
            let existing = self.snapshot.object(kind, name);
            existing.map_or(Use::Take, |copy| self.usable(kind, name, source, copy))
        });
        let taken = uses.iter().position(|usable| *usable == Use::Take);
        // The last name has a hash of the content, so its copy has the wanted content unless another actor changed it.
        let taken = taken.unwrap_or(names.len() - 1);
        let considered = names.iter().zip(uses).take(taken + 1);
        let mut foreign = considered
            .clone()
            .filter(|(_, usable)| *usable == Use::Foreign);
        let name = names[taken].clone();
        Copy {
            existing: self.snapshot.object(kind, &name),
            foreign: foreign.next().map(|(name, _)| name.clone()),
            considered: considered.map(|(name, _)| name.clone()).collect(),
            name,
        }
    }

    /// The copy of this config that the primary uses now; `None` if it uses none. It may differ from the copy that the primary gets.
    pub fn used(&self, kind: Kind, source: &Value) -> Option<Copy<'a>> {
        let [usual, own] = self.fixed_names(source);
        let is_versioned = |name: &str| {
            let hash = name
                .strip_prefix(&own)
                .and_then(|rest| rest.strip_prefix('-'));
            hash.is_some_and(|hash| hash.len() == 8 && hash.chars().all(|c| c.is_ascii_hexdigit()))
        };
        let is_copy = |name: &String| *name == usual || *name == own || is_versioned(name);
        let mut used = self
            .in_use
            .iter()
            .filter(|(of, name)| *of == kind && is_copy(name));
        let (_, name) = used.next()?;
        Some(Copy {
            existing: self.snapshot.object(kind, name),
            name: name.clone(),
            considered: vec![name.clone()],
            foreign: None,
        })
    }

    fn fixed_names(&self, source: &Value) -> [String; 2] {
        let usual = copy_name(metadata::name(source));
        let own = format!("{usual}-{}", self.snapshot.canary.spec.target_ref.name);
        [usual, own]
    }

    /// The names for a copy, the preferred one first.
    fn names(&self, kind: Kind, source: &Value) -> [String; 3] {
        let [usual, own] = self.fixed_names(source);
        let content = format!("{} {:?}", checksum(source), type_of(source));
        let versioned = format!("{own}-{}", digest(&content, 4));
        let mut names = [usual, own, versioned];
        let is_used = |name: &String| self.in_use.contains(&(kind, name.clone()));
        names.sort_by_key(|name| !is_used(name));
        names
    }

    fn usable(&self, kind: Kind, name: &str, source: &Value, copy: &Value) -> Use {
        let own = self.snapshot.name();
        let is_shared = canaries(copy).any(|canary| canary != own);
        let is_in_use = self.in_use.contains(&(kind, name.to_owned()));
        let is_own = is_in_use || is_given(copy) || canaries(copy).any(|canary| canary == own);
        let other = Ownership::of(copy, &self.snapshot.canary);
        if matches!(other, Ownership::Other(_)) || !(is_own || is_shared) {
            return Use::Foreign;
        }
        let can_be_changed =
            || !is_shared && copy["immutable"] != true && type_of(source) == type_of(copy);
        if is_same(source, copy) || can_be_changed() {
            Use::Take
        } else {
            Use::Leave
        }
    }
}

impl Copy<'_> {
    /// Whether the copy exists and has the content of its source.
    pub fn is_current(&self, source: &Value) -> bool {
        self.existing.is_some_and(|copy| is_same(source, copy))
    }

    /// Whether the Canary with this owner reference owns the copy, or there is none.
    pub fn has_owner(&self, owner: &Value) -> bool {
        let is_named = |copy: &Value| owners(copy).any(|other| is_same_owner(other, owner));
        self.existing.is_none_or(is_named)
    }

    /// The copy as it should be, with its owner; `None` if it is correct already. Existing copies and `source` must have their content (see
    /// [`is_complete`](super::is_complete)). The copy keeps metadata and owners that others added.
    pub fn write(
        &self,
        kind: Kind,
        source: &Value,
        labels: Map<String, Value>,
        owner: &Value,
    ) -> Option<Value> {
        if self.is_current(source) {
            return self.owned(owner);
        }
        let namespace = source.pointer("/metadata/namespace").cloned();
        let mut object = self.existing.cloned().unwrap_or_else(|| {
            json!({"apiVersion": kind.api_version(), "kind": kind.name(),
                "metadata": {"name": self.name, "namespace": namespace.unwrap_or_default()}})
        });
        for field in CONTENT {
            match source.get(field) {
                Some(value) => object[field] = value.clone(),
                None => drop(object.as_object_mut().and_then(|o| o.remove(field))),
            }
        }
        if !labels.is_empty() {
            object["metadata"]["labels"] = Value::Object(labels);
        }
        object["metadata"]["ownerReferences"] = controlled(self.existing, owner);
        Some(object)
    }

    /// The existing copy with this owner beside the others; `None` if it has that owner, or does not exist.
    pub fn owned(&self, owner: &Value) -> Option<Value> {
        let existing = self.existing.filter(|_| !self.has_owner(owner))?;
        let mut own = owner.clone();
        let others: Vec<_> = others(existing, owner).collect();
        own["controller"] = json!(!others.iter().any(|other| other["controller"] == true));
        let mut object = existing.clone();
        let all = others.into_iter().cloned().chain([own]);
        object["metadata"]["ownerReferences"] = all.collect();
        Some(object)
    }
}

/// Whether a copy has the same content and type as its source.
pub fn is_same(source: &Value, copy: &Value) -> bool {
    checksum(source) == checksum(copy) && type_of(source) == type_of(copy)
}

fn type_of(config: &Value) -> Option<&Value> {
    config.get("type").filter(|kind| !kind.is_null())
}

/// Whether two owner references are to the same Canary.
fn is_same_owner(one: &Value, other: &Value) -> bool {
    one.get("uid") == other.get("uid")
}

/// The owners of a changed copy: the Canary as the controller, then the other owners of the existing copy.
fn controlled(existing: Option<&Value>, owner: &Value) -> Value {
    let others = existing.into_iter().flat_map(|copy| others(copy, owner));
    let others = others.cloned().map(|mut other| {
        other["controller"] = json!(false);
        other
    });
    std::iter::once(owner.clone()).chain(others).collect()
}

/// The owners of a copy without the Canary with this owner reference, and without an earlier Canary of its name.
fn others<'a>(copy: &'a Value, owner: &Value) -> impl Iterator<Item = &'a Value> {
    let is_earlier = |other: &Value| is_canary(other) && other.get("name") == owner.get("name");
    owners(copy).filter(move |other| !is_same_owner(other, owner) && !is_earlier(other))
}

#[cfg(test)]
mod tests;
