//! The primary: what the target is, under a name and a label of its own (Flagger's `pkg/canary/*_controller.go`). What differs from one
//! kind of target to another stands in that kind's file.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    config::{self, ConfigName},
    daemon_set, deployment,
    metadata::{included, without_flux},
    service_target,
};
use crate::snapshot::{
    Action, ObjectRef, TargetKind, Write,
    revision::{digest, revision},
};

/// The annotation that makes the primary's pods restart with a promotion, even if only a config changed.
pub const FLAGGER_ID: &str = "flagger-id";

/// What the primary is made of.
pub struct Primary<'a> {
    /// What kind of workload both are.
    pub kind: TargetKind,
    /// The target, as the API server returned it.
    pub target: &'a Value,
    /// The primary's name.
    pub name: &'a str,
    /// The label that tells the primary's pods from the canary's: its key, and its value on the target.
    pub selector: (&'a str, &'a str),
    /// The keys that may be such a label (`-selector-labels`).
    pub selector_labels: &'a [String],
    /// Prefixes of the labels and annotations that go along (`-include-label-prefix`).
    pub include_label_prefix: &'a [String],
    /// The configs of which the primary has copies.
    pub tracked: &'a BTreeSet<ConfigName>,
    /// The value of `flagger-id`.
    pub flagger_id: &'a str,
    /// The owner reference to the Canary.
    pub owner: Value,
    /// Whether an autoscaler decides the replicas.
    pub autoscaled: bool,
}

/// The label by which the target's pods are selected: the first of `candidates` that its selector has. A Service has no pods.
pub fn selector(
    kind: TargetKind,
    target: &Value,
    candidates: &[String],
) -> Result<(String, String), String> {
    if !kind.has_pods() {
        return Ok((String::new(), String::new()));
    }
    let labels = target.pointer("/spec/selector/matchLabels");
    candidates
        .iter()
        .find_map(|key| Some((key.clone(), labels?.get(key)?.as_str()?.to_owned())))
        .ok_or_else(|| {
            format!(
                "getSelectorLabel failed: {} {}.{} spec.selector.matchLabels must contain one of [{}]",
                kind.kind().name().to_lowercase(),
                text(target, "/metadata/name"),
                text(target, "/metadata/namespace"),
                candidates.join(" ")
            )
        })
}

/// A `flagger-id` that is the same for the same promotion: repeating one restarts no pod.
pub fn flagger_id(canary_uid: &str, revision: &str, configs: &str) -> String {
    let hex = digest(&format!("{canary_uid}/{revision}/{configs}"), 16);
    // The form of a random (version 4) UUID, which is what Flagger writes.
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
        let target = self
            .target
            .pointer("/spec/template")
            .cloned()
            .unwrap_or_default();
        let mut template = config::with_primary_names(target, self.tracked);
        match self.kind {
            TargetKind::Deployment => deployment::keep_apart(self, &mut template),
            TargetKind::DaemonSet => daemon_set::on_all_nodes(&mut template),
            TargetKind::Service => {}
        }
        let map = |pointer: &str| {
            template
                .pointer(pointer)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default()
        };
        let mut labels = without_flux(&map("/metadata/labels"));
        labels.insert(self.selector.0.to_owned(), json!(self.selector_value()));
        let mut annotations = without_flux(&map("/metadata/annotations"));
        annotations.insert(FLAGGER_ID.to_owned(), json!(self.flagger_id));
        template["metadata"]["labels"] = Value::Object(labels);
        template["metadata"]["annotations"] = Value::Object(annotations);
        template
    }

    /// The primary as it is first created.
    pub fn create(&self) -> Write {
        let object = match self.kind {
            TargetKind::Deployment => self.object(deployment::create(self)),
            TargetKind::DaemonSet => self.object(daemon_set::create(self)),
            TargetKind::Service => service_target::create_primary(self),
        };
        let failure = format!("creating {} failed: ", self.full());
        self.write(Action::Create(object), failure)
    }

    /// Makes the existing primary what the target is; `None` if it is already.
    pub fn promote(&self, primary: &Value) -> Option<Write> {
        let changes = match self.kind {
            TargetKind::Deployment => deployment::promote(self, primary),
            TargetKind::DaemonSet => daemon_set::promote(self, primary),
            TargetKind::Service => return service_target::promote(self, primary),
        };
        if changes.is_empty() {
            return None;
        }
        let mut changes: Vec<_> = changes.into_iter().map(Change::operation).collect();
        let annotations = included(&self.metadata("annotations"), self.include_label_prefix);
        for (field, map) in [("labels", self.labels()), ("annotations", annotations)] {
            let path = format!("/metadata/{field}");
            changes.push(json!({"op": "add", "path": path, "value": map}));
        }
        let failure = format!("updating {} template spec failed: ", self.full());
        Some(self.write(Action::Patch(conditional(primary, changes)), failure))
    }

    /// Fields of the target's spec.
    pub fn fields(&self, fields: &[&str]) -> Map<String, Value> {
        let found = fields.iter().filter_map(|field| {
            let value = self.target.pointer(&format!("/spec/{field}"))?;
            Some(((*field).to_owned(), value.clone()))
        });
        found.collect()
    }

    /// Fields of the spec that go from the target to the primary, where they differ; and the template.
    pub fn copied(&self, fields: &[&str], primary: &Value) -> Vec<Change> {
        let changes = fields.iter().filter_map(|field| {
            let path = format!("/spec/{field}");
            Change::of(primary, &path, self.target.pointer(&path).cloned())
        });
        let template = Change::of(primary, "/spec/template", Some(self.template()));
        changes.chain(template).collect()
    }

    /// Whether the primary runs the same as the target, whatever `flagger-id` it was promoted with.
    pub fn runs_the_target(&self, primary: &Value) -> bool {
        let wanted = match self.kind {
            TargetKind::Deployment | TargetKind::DaemonSet => self.template(),
            TargetKind::Service => self.kind.version(self.target).into_owned(),
        };
        let strip = |mut version: Value| {
            if let Some(annotations) = version
                .pointer_mut("/metadata/annotations")
                .and_then(Value::as_object_mut)
            {
                annotations.remove(FLAGGER_ID);
            }
            revision(&version)
        };
        strip(wanted) == strip(self.kind.version(primary).into_owned())
    }

    /// Whether the primary was promoted with this `flagger-id`, or, where it has no pods that could carry one, to this revision.
    pub fn was_promoted(&self, primary: &Value, id: &str, to: &str) -> bool {
        match self.kind {
            TargetKind::Deployment | TargetKind::DaemonSet => {
                text(
                    primary,
                    &format!("/spec/template/metadata/annotations/{FLAGGER_ID}"),
                ) == id
            }
            TargetKind::Service => revision(&self.kind.version(primary)) == to,
        }
    }

    /// The object with this spec.
    fn object(&self, mut spec: Map<String, Value>) -> Value {
        spec.insert(
            "selector".to_owned(),
            json!({"matchLabels": {self.selector.0: self.selector_value()}}),
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

    fn selector_value(&self) -> String {
        format!("{}-primary", self.selector.1)
    }

    /// The namespace of both.
    pub fn namespace(&self) -> &str {
        text(self.target, "/metadata/namespace")
    }

    /// The labels or the annotations of the target.
    pub fn metadata(&self, field: &str) -> Map<String, Value> {
        self.target
            .pointer(&format!("/metadata/{field}"))
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default()
    }

    fn labels(&self) -> Map<String, Value> {
        let mut labels = included(&self.metadata("labels"), self.include_label_prefix);
        labels.insert(self.selector.0.to_owned(), json!(self.selector_value()));
        labels
    }

    /// A write of the primary.
    pub fn write(&self, action: Action, failure: String) -> Write {
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

    /// `deployment NAME.NAMESPACE`, as messages call the primary.
    fn full(&self) -> String {
        let kind = self.kind.kind().name().to_lowercase();
        format!("{kind} {}.{}", self.name, self.namespace())
    }
}

/// One field of a workload that changes: to a value, or away.
#[derive(Debug, PartialEq)]
pub struct Change {
    path: String,
    value: Option<Value>,
}

impl Change {
    /// The change that gives a field this value; `None` if it has it.
    pub fn of(object: &Value, path: &str, value: Option<Value>) -> Option<Self> {
        (object.pointer(path) != value.as_ref()).then(|| Self {
            path: path.to_owned(),
            value,
        })
    }

    /// The change as an operation of a JSON Patch.
    pub fn operation(self) -> Value {
        match self.value {
            Some(value) => json!({"op": "add", "path": self.path, "value": value}),
            None => json!({"op": "remove", "path": self.path}),
        }
    }

    /// Carries the change out, as the API server does.
    ///
    /// # Panics
    ///
    /// Where the field has no parent.
    #[cfg(test)]
    pub fn apply(self, object: &mut Value) {
        let Some((parent, key)) = self.path.rsplit_once('/') else {
            return;
        };
        let parent = object.pointer_mut(parent).and_then(Value::as_object_mut);
        let parent = parent.expect("the field's parent");
        match self.value {
            Some(value) => drop(parent.insert(key.to_owned(), value)),
            None => drop(parent.remove(key)),
        }
    }
}

/// A JSON Patch that applies only to the object and the generation of its spec that were observed. (Not to its
/// `resourceVersion`: a status changes with every pod.)
pub fn conditional(object: &Value, changes: Vec<Value>) -> Value {
    let test = |path: &str| json!({"op": "test", "path": path, "value": object.pointer(path)});
    Value::Array(
        [test("/metadata/uid"), test("/metadata/generation")]
            .into_iter()
            .chain(changes)
            .collect(),
    )
}

/// A text somewhere in an object; empty if it is not there.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Value {
        json!({"metadata": {"name": "podinfo", "namespace": "test", "uid": "u", "generation": 3,
                "labels": {"app": "podinfo", "team": "a"}, "annotations": {"note": "x", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"}},
            "spec": {"replicas": 0, "minReadySeconds": 3, "strategy": {"type": "RollingUpdate"},
                "selector": {"matchLabels": {"app": "podinfo", "other": "y"}},
                "template": {"metadata": {"labels": {"app": "podinfo", "other": "y"}, "annotations": {"scrape": "true"}},
                    "spec": {"containers": [{"name": "podinfod", "image": "podinfo:1"}],
                        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                            {"podAffinityTerm": {"labelSelector": {"matchLabels": {"app": "podinfo", "other": "podinfo"}}}}]}},
                        "topologySpreadConstraints": [{"labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["podinfo"]}]}}]}}}})
    }

    fn with<T>(test: impl FnOnce(Primary<'_>) -> T) -> T {
        let target = target();
        test(Primary {
            kind: TargetKind::Deployment,
            target: &target,
            name: "podinfo-primary",
            selector: ("app", "podinfo"),
            selector_labels: &["app".to_owned(), "name".to_owned()],
            include_label_prefix: &["te".to_owned()],
            tracked: &BTreeSet::new(),
            flagger_id: "id",
            owner: json!({"uid": "c"}),
            autoscaled: false,
        })
    }

    #[test]
    fn the_primary_is_the_target_under_its_own_label() {
        with(|primary| {
            let Action::Create(object) = primary.create().action else {
                panic!("not a create")
            };
            assert_eq!(
                object["metadata"]["labels"],
                json!({"app": "podinfo-primary", "team": "a"})
            );
            assert_eq!(object["metadata"]["annotations"], json!({"note": "x"}));
            assert_eq!(
                object["spec"]["selector"],
                json!({"matchLabels": {"app": "podinfo-primary"}})
            );
            assert_eq!(
                object["spec"]["replicas"], 1,
                "0 replicas are never copied to the primary"
            );
            assert_eq!(object["spec"]["minReadySeconds"], 3);
            let template = &object["spec"]["template"];
            assert_eq!(
                template["metadata"]["labels"],
                json!({"app": "podinfo-primary", "other": "y"})
            );
            assert_eq!(
                template["metadata"]["annotations"],
                json!({"scrape": "true", "flagger-id": "id"})
            );
            assert_eq!(
                template.pointer("/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm/labelSelector/matchLabels"),
                Some(&json!({"app": "podinfo-primary", "other": "podinfo"}))
            );
            assert_eq!(
                template.pointer(
                    "/spec/topologySpreadConstraints/0/labelSelector/matchExpressions/0/values/0"
                ),
                Some(&json!("podinfo-primary"))
            );
        });
    }

    #[test]
    fn promoting_twice_changes_nothing() {
        with(|primary| {
            let Action::Create(mut object) = primary.create().action else {
                panic!("not a create")
            };
            assert_eq!(primary.promote(&object), None);
            object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:0");
            object["metadata"]["uid"] = json!("p");
            object["metadata"]["generation"] = json!(7);
            assert!(!primary.runs_the_target(&object));
            let Some(Write {
                action: Action::Patch(patch),
                ..
            }) = primary.promote(&object)
            else {
                panic!("not a patch")
            };
            assert_eq!(
                patch[0],
                json!({"op": "test", "path": "/metadata/uid", "value": "p"})
            );
            assert_eq!(
                patch[1],
                json!({"op": "test", "path": "/metadata/generation", "value": 7})
            );
            assert_eq!(patch[2]["path"], "/spec/template");
            assert!(
                !patch.to_string().contains("/spec/replicas"),
                "0 replicas are never copied to the primary"
            );
        });
    }

    #[test]
    fn the_same_promotion_has_the_same_id() {
        assert_eq!(flagger_id("u", "v1-a", "{}"), flagger_id("u", "v1-a", "{}"));
        assert_ne!(flagger_id("u", "v1-a", "{}"), flagger_id("u", "v1-b", "{}"));
        assert_eq!(flagger_id("u", "v1-a", "{}").len(), 36);
    }

    #[test]
    fn a_target_without_a_known_label_is_said_so() {
        let labels = ["app".to_owned(), "name".to_owned()];
        assert_eq!(
            selector(TargetKind::Deployment, &target(), &labels),
            Ok(("app".to_owned(), "podinfo".to_owned()))
        );
        let error = selector(TargetKind::Deployment, &target(), &labels[1..]).unwrap_err();
        assert_eq!(
            error,
            "getSelectorLabel failed: deployment podinfo.test spec.selector.matchLabels must contain one of [name]"
        );
    }
}
