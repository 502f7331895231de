//! A Deployment as target: its primary, its promotion, its scaling (Flagger's `pkg/canary/deployment_controller.go`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    config::{self, ConfigName},
    metadata::{included, without_flux},
};
use crate::world::{Action, Effect, Kind, ObjectRef, readiness::replicas, revision::digest};

/// The annotation that makes the primary's pods restart with a promotion, even if only a config changed.
pub const FLAGGER_ID: &str = "flagger-id";

/// What of the spec goes from the target to the primary besides the template and the replicas.
const COPIED: [&str; 4] = [
    "progressDeadlineSeconds",
    "minReadySeconds",
    "revisionHistoryLimit",
    "strategy",
];

/// What the primary is made of.
pub struct Primary<'a> {
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

/// The label by which the target's pods are selected: the first of `candidates` that its selector has.
pub fn selector(target: &Value, candidates: &[String]) -> Result<(String, String), String> {
    let labels = target.pointer("/spec/selector/matchLabels");
    candidates
        .iter()
        .find_map(|key| Some((key.clone(), labels?.get(key)?.as_str()?.to_owned())))
        .ok_or_else(|| {
            let text = |pointer| target.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            format!(
                "getSelectorLabel failed: deployment {}.{} spec.selector.matchLabels must contain one of [{}]",
                text("/metadata/name"),
                text("/metadata/namespace"),
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
        self.avoid_the_primary(&mut template);
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
    pub fn create(&self) -> Effect {
        let mut spec = Map::new();
        for field in COPIED {
            if let Some(value) = self.target.pointer(&format!("/spec/{field}")) {
                spec.insert(field.to_owned(), value.clone());
            }
        }
        spec.insert("replicas".to_owned(), json!(replicas(self.target).max(1)));
        spec.insert(
            "selector".to_owned(),
            json!({"matchLabels": {self.selector.0: self.selector_value()}}),
        );
        spec.insert("template".to_owned(), self.template());
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {
                "name": self.name, "namespace": self.namespace(),
                "labels": self.labels(),
                "annotations": without_flux(&self.metadata("annotations")),
                "ownerReferences": [self.owner]},
            "spec": spec});
        self.effect(
            Action::Create(object),
            &format!(
                "creating deployment {}.{} failed: ",
                self.name,
                self.namespace()
            ),
        )
    }

    /// Makes the existing primary what the target is; `None` if it is already.
    pub fn promote(&self, primary: &Value) -> Option<Effect> {
        let mut changes = Vec::new();
        let mut set = |pointer: String, value: Option<Value>| {
            let old = primary.pointer(&pointer);
            match value {
                Some(value) if old != Some(&value) => {
                    changes.push(json!({"op": "add", "path": pointer, "value": value}));
                }
                None if old.is_some() => changes.push(json!({"op": "remove", "path": pointer})),
                _ => {}
            }
        };
        for field in COPIED {
            set(
                format!("/spec/{field}"),
                self.target.pointer(&format!("/spec/{field}")).cloned(),
            );
        }
        if !self.autoscaled && replicas(self.target) > 0 {
            set(
                "/spec/replicas".to_owned(),
                Some(json!(replicas(self.target))),
            );
        }
        set("/spec/template".to_owned(), Some(self.template()));
        if changes.is_empty() {
            return None;
        }
        let mut set = |field: &str, value: Value| {
            changes
                .push(json!({"op": "add", "path": format!("/metadata/{field}"), "value": value}));
        };
        set("labels", Value::Object(self.labels()));
        set(
            "annotations",
            Value::Object(included(
                &self.metadata("annotations"),
                self.include_label_prefix,
            )),
        );
        let failure = format!(
            "updating deployment {}.{} template spec failed: ",
            self.name,
            self.namespace()
        );
        Some(self.effect(Action::Patch(conditional(primary, changes)), &failure))
    }

    /// Whether the primary already runs what this promotion would give it.
    pub fn is_promoted(&self, primary: &Value) -> bool {
        primary.pointer("/spec/template") == Some(&self.template())
    }

    /// Whether the primary runs the same as the target, whatever `flagger-id` it was promoted with.
    pub fn runs_the_target(&self, primary: &Value) -> bool {
        let strip = |mut template: Value| {
            if let Some(annotations) = template
                .pointer_mut("/metadata/annotations")
                .and_then(Value::as_object_mut)
            {
                annotations.remove(FLAGGER_ID);
            }
            crate::world::revision::revision(&template)
        };
        strip(self.template())
            == strip(
                primary
                    .pointer("/spec/template")
                    .cloned()
                    .unwrap_or_default(),
            )
    }

    fn selector_value(&self) -> String {
        format!("{}-primary", self.selector.1)
    }

    fn namespace(&self) -> &str {
        self.target
            .pointer("/metadata/namespace")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn metadata(&self, field: &str) -> Map<String, Value> {
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

    fn effect(&self, action: Action, failure: &str) -> Effect {
        let object = ObjectRef {
            kind: Kind::Deployment,
            namespace: self.namespace().to_owned(),
            name: self.name.to_owned(),
        };
        Effect {
            object,
            action,
            failure: failure.to_owned(),
        }
    }

    /// Rules that keep the target's pods apart must keep the primary's apart from each other: the name they look for changes.
    fn avoid_the_primary(&self, template: &mut Value) {
        let name = self
            .target
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let Some(spec) = template.get_mut("spec") else {
            return;
        };
        let constraints = spec
            .get_mut("topologySpreadConstraints")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten();
        for constraint in constraints {
            self.rename_in_selector(constraint.get_mut("labelSelector"), name);
        }
        let Some(anti) = spec.pointer_mut("/affinity/podAntiAffinity") else {
            return;
        };
        for (list, term) in [
            (
                "requiredDuringSchedulingIgnoredDuringExecution",
                "/labelSelector",
            ),
            (
                "preferredDuringSchedulingIgnoredDuringExecution",
                "/podAffinityTerm/labelSelector",
            ),
        ] {
            for entry in anti
                .get_mut(list)
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                self.rename_in_selector(entry.pointer_mut(term), name);
            }
        }
    }

    fn rename_in_selector(&self, selector: Option<&mut Value>, name: &str) {
        let Some(selector) = selector else { return };
        let ours = |key: &str| self.selector_labels.iter().any(|label| label == key);
        for expression in selector
            .get_mut("matchExpressions")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if expression
                .get("key")
                .and_then(Value::as_str)
                .is_some_and(ours)
                && let Some(values) = expression.get_mut("values").and_then(Value::as_array_mut)
                && let Some(value) = values.iter_mut().find(|value| value.as_str() == Some(name))
            {
                *value = json!(format!("{name}-primary"));
            }
        }
        for (key, value) in selector
            .get_mut("matchLabels")
            .and_then(Value::as_object_mut)
            .into_iter()
            .flatten()
        {
            if ours(key) && value.as_str() == Some(name) {
                *value = json!(format!("{name}-primary"));
            }
        }
    }
}

/// Sets the replicas of a workload; `None` if they are so already.
pub fn scale(object: &Value, to: i64, failure: String) -> Option<Effect> {
    if replicas(object) == to {
        return None;
    }
    let text = |pointer| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Some(Effect {
        object: ObjectRef {
            kind: Kind::Deployment,
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
        },
        action: Action::Patch(conditional(
            object,
            vec![json!({"op": "add", "path": "/spec/replicas", "value": to})],
        )),
        failure,
    })
}

/// A JSON Patch that applies only to the object and the generation of its spec that were observed. (Not to its
/// `resourceVersion`: a status changes with every pod.)
fn conditional(object: &Value, changes: Vec<Value>) -> Value {
    let test = |path: &str| json!({"op": "test", "path": path, "value": object.pointer(path)});
    Value::Array(
        [test("/metadata/uid"), test("/metadata/generation")]
            .into_iter()
            .chain(changes)
            .collect(),
    )
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
            assert!(!primary.is_promoted(&object));
            let Some(Effect {
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
            selector(&target(), &labels),
            Ok(("app".to_owned(), "podinfo".to_owned()))
        );
        let error = selector(&target(), &labels[1..]).unwrap_err();
        assert_eq!(
            error,
            "getSelectorLabel failed: deployment podinfo.test spec.selector.matchLabels must contain one of [name]"
        );
    }
}
