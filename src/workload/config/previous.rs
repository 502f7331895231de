//! The content that the primary's copies of configs had in the version that the primary ran before (not in Flagger).
//!
//! A promotion overwrites the copies. If the promotion fails, the primary gets its previous version back, which must not read the content
//! that failed. So before the operator overwrites a copy, it keeps the content in a config of its own, `COPY-TARGET-previous`. The
//! annotation `flagger-id` of this config is the mark of the version that used the content. The next promotion that changes the copy
//! overwrites this config.

use serde_json::{Map, Value, json};

use super::copies::{CONTENT, Copies, Copy, is_same};
use crate::{
    snapshot::{Action, Kind, ObjectRef, Write},
    workload::{
        history,
        metadata::{FLAGGER_ID, is_owned, owner_reference},
    },
};

/// The longest name of an object.
const LONGEST_NAME: usize = 253;

impl Copies<'_> {
    /// The copies that the primary uses, and for each the config that keeps its previous content, whether or not they exist.
    pub fn with_previous(&self) -> impl Iterator<Item = [ObjectRef; 2]> {
        let snapshot = self.snapshot;
        self.in_use.iter().map(|(kind, copy)| {
            let previous = previous_name(copy, &snapshot.canary.spec.target_ref.name);
            [copy, &previous].map(|name| snapshot.reference(*kind, name))
        })
    }

    /// The write that keeps the content of a copy before it is overwritten. `None` if the primary does not use the copy, if the content is
    /// kept already, or if another owner has a config of that name.
    pub fn keep(&self, kind: Kind, copy: &Copy<'_>) -> Option<Write> {
        let snapshot = self.snapshot;
        let content = copy.existing?;
        let mark = history::mark(snapshot.primary()?.pointer("/spec/template")?)?;
        let name = previous_name(&copy.name, &snapshot.canary.spec.target_ref.name);
        let is_used = self.in_use.contains(&(kind, copy.name.clone()));
        if !is_used || name.len() > LONGEST_NAME {
            return None;
        }
        let object = snapshot.reference(kind, &name);
        let existing = snapshot.objects.get(&object);
        let is_free =
            |kept: &Value| is_owned(kept, &snapshot.canary) && history::mark(kept) != Some(mark);
        if !existing.is_none_or(is_free) {
            return None;
        }
        let mut kept = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": {
            "name": name, "namespace": object.namespace, "annotations": {FLAGGER_ID: mark},
            "ownerReferences": [owner_reference(&snapshot.canary)]}});
        for field in CONTENT {
            if let Some(value) = content.get(field) {
                kept[field] = value.clone();
            }
        }
        let failure = format!(
            "keeping {} {} in {name}.{} failed: ",
            kind.name().to_lowercase(),
            copy.name,
            object.namespace
        );
        let action = match existing {
            None => Action::Create(kept),
            Some(existing) => {
                kept["metadata"]["resourceVersion"] =
                    existing["metadata"]["resourceVersion"].clone();
                Action::Replace(kept)
            }
        };
        Some(Write {
            object,
            action,
            failure,
        })
    }

    /// The writes that restore the content of the copies that the version with this mark used. The objects of [`Copies::with_previous`]
    /// must have their content.
    pub fn restore(&self, mark: &str) -> Vec<Write> {
        let objects = &self.snapshot.objects;
        let restore = |[copy, previous]: [ObjectRef; 2]| {
            let is_kept = |kept: &&Value| {
                is_owned(kept, &self.snapshot.canary) && history::mark(kept) == Some(mark)
            };
            let content = objects.get(&previous).filter(is_kept)?;
            let existing = objects.get(&copy);
            if existing.is_some_and(|copy| is_same(content, copy)) {
                return None;
            }
            let failure = format!(
                "restoring {} {}.{} failed: ",
                copy.kind.name().to_lowercase(),
                copy.name,
                copy.namespace
            );
            let restored = Copy {
                name: copy.name.clone(),
                existing,
                considered: Vec::new(),
                foreign: None,
            };
            let owner = owner_reference(&self.snapshot.canary);
            let content = restored.write(copy.kind, content, Map::new(), &owner)?;
            let action = match existing {
                None => Action::Create(content),
                Some(_) => Action::Replace(content),
            };
            Some(Write {
                object: copy,
                action,
                failure,
            })
        };
        self.with_previous().filter_map(restore).collect()
    }
}

/// The name of the config that keeps the previous content of a copy. Targets that share a config have one each.
fn previous_name(copy: &str, target: &str) -> String {
    format!("{copy}-{target}-previous")
}
