//! The primary: a copy of the target with a name and a selector label of its own (Flagger: `pkg/canary/*_controller.go`). The
//! differences between the kinds of targets are in the kinds' files.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value, json};

use super::{
    config::{self, ConfigName},
    daemon_set, deployment,
    keep_apart::{Renamed, keep_apart, keep_apart_like_flagger},
    knative,
    metadata::{self, FLAGGER_ID, included, of_others, without_flux},
    patch::{Change, conditional},
    selection::{Selection, template_labels},
    service_target, strategy,
};
use crate::snapshot::{
    Action, ObjectRef, TargetKind, Write,
    revision::{self, digest},
};

/// The values from which the primary is made.
pub struct Primary<'a> {
    /// The kind of the target and of the primary.
    pub kind: TargetKind,
    /// The target, as the API server returned it.
    pub target: &'a Value,
    /// The primary's name.
    pub name: &'a str,
    /// The labels that distinguish the primary's pods from the canary's.
    pub selection: &'a Selection,
    /// The keys of labels that Flagger takes for such labels (`-selector-labels`).
    pub selector_labels: &'a [String],
    /// The prefixes of the target's labels and annotations that the primary gets too (`-include-label-prefix`).
    pub include_label_prefix: &'a [String],
    /// The configs to which the primary refers by other names: mostly those of copies.
    pub tracked: &'a BTreeMap<ConfigName, String>,
    /// The value of `flagger-id`.
    pub flagger_id: &'a str,
    /// The owner reference to the Canary.
    pub owner: Value,
    /// Whether an autoscaler sets the replicas.
    pub autoscaled: bool,
}

/// The `flagger-id` of a promotion. The same promotion always has the same id, so that its repetition restarts no pod.
pub fn flagger_id(canary_uid: &str, revision: &str, configs: &str) -> String {
    let hex = digest(&format!("{canary_uid}/{revision}/{configs}"), 16);
    // Flagger writes a random (version 4) UUID; this text has the same form.
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default().to_owned();
    format!(
        "{}-{}-4{}-a{}-{}",
        part(0..8),
        part(8..12),
        part(13..16),
        part(17..20),
        part(20..32)
    )
}

impl Primary<'_> {
    /// The primary's pod template.
    pub fn template(&self) -> Value {
        let pods = template_labels(self.target);
        let renamed = Renamed {
            target: metadata::name(self.target),
            namespace: self.namespace(),
            pods: &pods,
            on_primary: &self.selection.of_primary_pods,
        };
        self.template_with(self.tracked, |template| keep_apart(template, &renamed))
    }

    /// The pod template that Flagger would give the primary.
    fn flaggers_template(&self) -> Value {
        let target = metadata::name(self.target);
        let mut copies = self.tracked.clone();
        copies.retain(|(_, name), copy| *copy != config::absent_name(name, target));
        self.template_with(&copies, |template| {
            if self.kind == TargetKind::Deployment {
                keep_apart_like_flagger(template, target, self.selector_labels);
            }
        })
    }

    /// The pod template, with these names of configs, and with rules that `apart` changes.
    fn template_with(
        &self,
        configs: &BTreeMap<ConfigName, String>,
        apart: impl FnOnce(&mut Value),
    ) -> Value {
        let target = self
            .target
            .pointer("/spec/template")
            .cloned()
            .unwrap_or_default();
        let mut template = config::with_primary_names(target, configs);
        if self.kind == TargetKind::DaemonSet {
            daemon_set::on_all_nodes(&mut template);
        }
        apart(&mut template);
        let map = |pointer: &str| {
            template
                .pointer(pointer)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default()
        };
        let mut labels = without_flux(&map("/metadata/labels"));
        let own = self.selection.of_primary_pods.iter();
        labels.extend(own.map(|(key, value)| (key.clone(), json!(value))));
        let mut annotations = without_flux(&map("/metadata/annotations"));
        annotations.insert(FLAGGER_ID.to_owned(), json!(self.flagger_id));
        template["metadata"]["labels"] = Value::Object(labels);
        template["metadata"]["annotations"] = Value::Object(annotations);
        template
    }

    /// Creates the primary; `None` if there is nothing to create it from.
    pub fn create(&self) -> Option<Write> {
        let object = match self.kind {
            TargetKind::Deployment => {
                let mut spec = self.fields(&deployment::COPIED);
                let replicas = deployment::initial_replicas(self.target);
                spec.insert("replicas".to_owned(), json!(replicas));
                self.object(spec)
            }
            TargetKind::DaemonSet => self.object(self.fields(&daemon_set::COPIED)),
            TargetKind::Service => service_target::copy(self.target, self.name, &self.owner),
            TargetKind::Knative => return knative::promote(self.target),
        };
        let failure = format!("creating {} failed: ", self.full());
        Some(self.write(Action::Create(object), failure))
    }

    /// Makes the existing primary equal to the target. Returns no write if it is so already. A primary that `serves` requests meanwhile
    /// keeps pods, whatever the target's strategy is.
    pub fn promote(&self, primary: &Value, serves: bool) -> Option<Write> {
        let changes = match self.kind {
            TargetKind::Deployment => {
                let mut changes = self.changes(&deployment::COPIED, primary, serves);
                if !self.autoscaled {
                    changes.extend(deployment::raise_replicas(self.target, primary));
                }
                changes
            }
            TargetKind::DaemonSet => self.changes(&daemon_set::COPIED, primary, serves),
            TargetKind::Service => return self.promote_service(primary),
            TargetKind::Knative => return knative::promote(self.target),
        };
        if changes.is_empty() {
            return None;
        }
        let mut operations: Vec<_> = changes.into_iter().map(Change::operation).collect();
        let annotations = included(&self.metadata("annotations"), self.include_label_prefix);
        for (field, map) in [("labels", self.labels()), ("annotations", annotations)] {
            let path = format!("/metadata/{field}");
            let live = primary.pointer(&path).and_then(Value::as_object);
            let live = live.cloned().unwrap_or_default();
            let original = self.metadata(field);
            let mut all = of_others(&live, &original, self.include_label_prefix);
            all.extend(map);
            operations.push(json!({"op": "add", "path": path, "value": all}));
        }
        let failure = format!("updating {} template spec failed: ", self.full());
        Some(self.write(Action::Patch(conditional(primary, operations)), failure))
    }

    fn promote_service(&self, primary: &Value) -> Option<Write> {
        let object = service_target::promoted(self.target, primary, self.include_label_prefix)?;
        let failure = format!("updating {} spec failed: ", self.full());
        Some(self.write(Action::Replace(object), failure))
    }

    /// These fields of the target's spec.
    fn fields(&self, fields: &[&str]) -> Map<String, Value> {
        let found = fields.iter().filter_map(|field| {
            let value = self.target.pointer(&format!("/spec/{field}"))?;
            Some(((*field).to_owned(), value.clone()))
        });
        found.collect()
    }

    /// The changes that give the primary these fields of the target's spec, and the template.
    fn changes(&self, fields: &[&str], primary: &Value, serves: bool) -> Vec<Change> {
        let template = Change::of(primary, "/spec/template", Some(self.template()));
        let strategy = serves
            .then(|| strategy::serving(self.kind, self.target, primary))
            .flatten();
        let changes = fields.iter().filter_map(|field| {
            let path = format!("/spec/{field}");
            let wanted = match &strategy {
                Some((of, _)) if path == *of && template.is_none() => return None,
                Some((of, strategy)) if path == *of => Some(strategy.clone()),
                _ => self.target.pointer(&path).cloned(),
            };
            Change::of(primary, &path, wanted)
        });
        changes
            .collect::<Vec<_>>()
            .into_iter()
            .chain(template)
            .collect()
    }

    /// Whether the primary runs the target's version: it has the mark of the version, or it has the same template. A primary with the mark
    /// runs the version, even if other actors have changed it since.
    pub fn runs_the_target(&self, primary: &Value, revision: &str) -> bool {
        if self.was_promoted(primary, self.flagger_id, revision) {
            return true;
        }
        let live = revision::revision(&without_mark(self.kind.version(primary)));
        self.versions()
            .any(|version| revision::revision(&version) == live)
    }

    /// Whether the primary runs the target's version, perhaps with additions of others: labels, sidecars, environment variables, times of
    /// a restart. Use it only if something else shows that the version is not new, because a version that removes something from the
    /// promoted one has all of its template in the primary, too.
    pub fn contains_the_target(&self, primary: &Value) -> bool {
        let live = self.kind.version(primary);
        self.versions().any(|version| contains(&live, &version))
    }

    /// The forms in which the primary may have the target's version, without the mark: the operator's, then Flagger's.
    fn versions(&self) -> impl Iterator<Item = Value> {
        let version = |template: fn(&Self) -> Value| {
            if self.kind.has_pods() {
                without_mark(Cow::Owned(template(self)))
            } else {
                self.kind.version(self.target).into_owned()
            }
        };
        [Self::template, Self::flaggers_template]
            .into_iter()
            .map(version)
    }

    /// Whether the primary was promoted with this `flagger-id`. A Service has no template for the id, so its revision is compared.
    pub fn was_promoted(&self, primary: &Value, id: &str, revision: &str) -> bool {
        if !self.kind.has_pods() {
            return revision::revision(&self.kind.version(primary)) == revision;
        }
        let annotation = format!("/spec/template/metadata/annotations/{FLAGGER_ID}");
        let promoted = primary.pointer(&annotation).and_then(Value::as_str);
        promoted.unwrap_or_default() == id
    }

    /// A new primary with this spec, the selector and the template.
    fn object(&self, mut spec: Map<String, Value>) -> Value {
        spec.insert(
            "selector".to_owned(),
            json!({"matchLabels": self.selection.primary}),
        );
        spec.insert("template".to_owned(), self.template());
        json!({
            "apiVersion": self.kind.kind().api_version(), "kind": self.kind.kind().name(),
            "metadata": {
                "name": self.name, "namespace": self.namespace(),
                "labels": self.labels(),
                "annotations": without_flux(&self.metadata("annotations")),
                "ownerReferences": [self.owner]},
            "spec": spec})
    }

    /// The namespace of the target and the primary.
    fn namespace(&self) -> &str {
        metadata::namespace(self.target)
    }

    /// The labels or the annotations of the target.
    fn metadata(&self, field: &str) -> Map<String, Value> {
        self.target
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    }

    fn labels(&self) -> Map<String, Value> {
        let mut labels = included(&self.metadata("labels"), self.include_label_prefix);
        let key = &self.selection.label.0;
        let value = self.selection.of_primary_pods.get(key);
        labels.insert(key.clone(), json!(value));
        labels
    }

    fn write(&self, action: Action, failure: String) -> Write {
        Write {
            object: ObjectRef {
                kind: self.kind.kind(),
                namespace: self.namespace().to_owned(),
                name: self.name.to_owned(),
            },
            action,
            failure,
        }
    }

    /// The primary's name in messages: `deployment NAME.NAMESPACE`.
    fn full(&self) -> String {
        let kind = self.kind.kind().name().to_lowercase();
        format!("{kind} {}.{}", self.name, self.namespace())
    }
}

fn without_mark(version: Cow<'_, Value>) -> Value {
    let mut version = version.into_owned();
    let annotations = version.pointer_mut("/metadata/annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(FLAGGER_ID);
    }
    version
}

/// Whether a value has everything that `wanted` has. Lists of objects may have further items before, between and after those of `wanted`;
/// other lists must be equal.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (_, Value::Null) => true,
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| contains(live.get(key).unwrap_or(&Value::Null), wanted)),
        (Value::Array(live), Value::Array(wanted)) if live.iter().all(Value::is_object) => {
            let mut live = live.iter();
            wanted
                .iter()
                .all(|wanted| live.any(|live| contains(live, wanted)))
        }
        _ => live == wanted,
    }
}

#[cfg(test)]
mod tests;
