//! The labels that distinguish the primary's pods from the target's, and the selectors that follow from them.
//!
//! The selector of a workload cannot be changed. So once there is a primary, its own selector decides. A selector that is derived anew,
//! from `-selector-labels` or the target's labels, may select none of the primary's pods. (Flagger derives all from the target:
//! `pkg/canary/deployment_controller.go`.)

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    label_selector::{includes, matches, required, shown},
    metadata,
};
use crate::snapshot::{
    ObjectRef, TargetKind,
    pods::{Labels, Pods, labels},
};

/// The workloads among whose pods a selector has to choose.
#[derive(Clone, Copy, Debug)]
pub struct Workloads<'a> {
    /// The kind of the target and of the primary.
    pub kind: TargetKind,
    /// The target.
    pub target: &'a Value,
    /// The primary, if it exists.
    pub primary: Option<&'a Value>,
    /// The workloads of the namespace, as far as they are known. The target and the primary may be among them.
    pub namespace: &'a BTreeMap<ObjectRef, Pods>,
}

/// The labels that distinguish the primary's pods from the target's. All are empty for a core Service, which has no pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The label that distinguishes both: its key, and its value on the target.
    pub label: (String, String),
    /// The labels by which the canary's Service selects the target's pods.
    pub canary: Labels,
    /// The labels by which Services select the primary's pods: those of the primary's own selector.
    pub primary: Labels,
    /// The labels that the primary's pods have, instead of the target's.
    pub of_primary_pods: Labels,
}

/// The target's selector has none of the labels that could distinguish the primary's pods from the canary's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "getSelectorLabel failed: {kind} {name}.{namespace} spec.selector.matchLabels must contain one of [{candidates}]"
)]
pub struct NoSelectorLabel {
    kind: String,
    name: String,
    namespace: String,
    candidates: String,
}

/// Selectors that would lead requests to the wrong pods, or to none. No Service, no route and no primary is changed while they exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongSelector {
    /// The target's selector does not select its own pods.
    #[error(
        "the selector of {target} does not select its pods, which have the labels {labels}; give its pods the labels of its selector"
    )]
    NotItsPods {
        /// The target.
        target: String,
        /// The labels of its pods.
        labels: String,
    },
    /// The primary's selector would not select the pods of the target's version.
    #[error(
        "the selector of {primary} cannot be changed and selects no pods with the labels {labels}; give the pods of {target} labels that it selects, or delete {primary}, which is then created anew"
    )]
    NotThePrimarysPods {
        /// The primary.
        primary: String,
        /// The target.
        target: String,
        /// The labels that the primary's pods would get.
        labels: String,
    },
    /// A selector selects the pods of another workload, too.
    #[error(
        "the selector {selector} for the pods of {workload} also selects those of {other}; give the pods of {to_change} another value of the label {key}, for which it must be created anew"
    )]
    Shared {
        /// The labels of the selector.
        selector: String,
        /// The workload whose pods the selector is for.
        workload: String,
        /// The other workload whose pods have the labels, too.
        other: String,
        /// The workload whose labels the user has to change.
        to_change: String,
        /// The key of the label that distinguishes the target and the primary.
        key: String,
    },
}

impl Selection {
    /// The labels for these workloads. `candidates` are the keys of the label that distinguishes the target and a new primary, in order of
    /// preference (`-selector-labels`).
    pub fn of(workloads: &Workloads<'_>, candidates: &[String]) -> Result<Self, NoSelectorLabel> {
        if !workloads.kind.has_pods() {
            return Ok(Self::default());
        }
        let own = workloads.primary.map(|primary| required(selector(primary)));
        let (key, value) = label(workloads, own.as_ref(), candidates)?;
        let on_primary = own
            .as_ref()
            .and_then(|own| own.get(&key))
            .filter(|on_primary| **on_primary != value)
            .cloned()
            .unwrap_or_else(|| format!("{value}-primary"));
        let distinguishing = || Labels::from([(key.clone(), on_primary.clone())]);
        let primary = own.unwrap_or_else(distinguishing);
        let mut of_primary_pods = primary.clone();
        of_primary_pods.extend(distinguishing());
        // The complete selector: pods of other workloads may have the label, too, and not all workloads are known.
        let mut canary = required(selector(workloads.target));
        canary.insert(key.clone(), value.clone());
        Ok(Self {
            label: (key, value),
            canary,
            primary,
            of_primary_pods,
        })
    }

    /// The labels that the primary's pods get, if the target's pods have these.
    pub fn on_primary(&self, of_target: &Labels) -> Labels {
        let mut labels = of_target.clone();
        labels.extend(self.of_primary_pods.clone());
        labels
    }

    /// The first selector that selects the pods of both workloads, or not its own pods; `None` if there is none.
    pub fn wrong(&self, workloads: &Workloads<'_>) -> Option<WrongSelector> {
        if !workloads.kind.has_pods() {
            return None;
        }
        let target = || workloads.full_target();
        let primary = || workloads.full_primary();
        let pods = template_labels(workloads.target);
        if !matches(selector(workloads.target), &pods) {
            let (target, labels) = (target(), shown(&pods));
            return Some(WrongSelector::NotItsPods { target, labels });
        }
        let promoted = self.on_primary(&pods);
        if includes(&pods, &self.primary) {
            return Some(self.shared(workloads, &self.primary, primary(), target()));
        }
        let existing = workloads.primary.map(template_labels);
        if includes(&promoted, &self.canary)
            || existing.is_some_and(|existing| includes(&existing, &self.canary))
        {
            return Some(self.shared(workloads, &self.canary, target(), primary()));
        }
        let is_selected = |existing| matches(selector(existing), &promoted);
        (!workloads.primary.is_none_or(is_selected)).then(|| WrongSelector::NotThePrimarysPods {
            primary: primary(),
            target: target(),
            labels: shown(&promoted),
        })
    }

    /// The selector that selects the pods of a third workload, too; `None` if there is none.
    pub fn shared_with_others(&self, workloads: &Workloads<'_>) -> Option<WrongSelector> {
        if !workloads.kind.has_pods() {
            return None;
        }
        let target = || (&self.canary, workloads.full_target());
        let primary = || (&self.primary, workloads.full_primary());
        workloads.neighbours().find_map(|(other, pods)| {
            let (selector, workload) = [primary(), target()]
                .into_iter()
                .find(|(selector, _)| includes(&pods.labels, selector))?;
            let other = full(other.kind.name(), &other.name, &other.namespace);
            let mut wrong = self.shared(workloads, selector, workload, other.clone());
            if let WrongSelector::Shared { to_change, .. } = &mut wrong
                && workloads.primary.is_some()
                && *selector == self.primary
            {
                // The selector of an existing primary cannot be changed.
                *to_change = other;
            }
            Some(wrong)
        })
    }

    fn shared(
        &self,
        workloads: &Workloads<'_>,
        selector: &Labels,
        workload: String,
        other: String,
    ) -> WrongSelector {
        WrongSelector::Shared {
            selector: shown(selector),
            workload,
            other,
            to_change: workloads.full_target(),
            key: self.label.0.clone(),
        }
    }
}

impl<'a> Workloads<'a> {
    /// The first workload with ready pods that these labels select, in words; `None` if there is none.
    pub fn serving(&self, selector: &Labels) -> Option<String> {
        let is_target = self.kind.has_ready_pods(self.target)
            && includes(&template_labels(self.target), selector);
        if is_target {
            return Some(self.full_target());
        }
        let mut others = self.neighbours();
        let serving = others.find(|(_, pods)| pods.are_ready && includes(&pods.labels, selector));
        serving.map(|(other, _)| full(other.kind.name(), &other.name, &other.namespace))
    }

    /// The workloads that are neither the target nor the primary.
    fn neighbours(&self) -> impl Iterator<Item = (&'a ObjectRef, &'a Pods)> {
        let (kind, target) = (self.kind.kind(), metadata::name(self.target));
        let primary = self.primary_name();
        let is_ours = move |other: &ObjectRef| {
            other.kind == kind && (other.name == target || other.name == primary)
        };
        let all = self.namespace.iter();
        all.filter(move |(other, _)| !is_ours(other))
    }

    fn full_target(&self) -> String {
        let (name, namespace) = (
            metadata::name(self.target),
            metadata::namespace(self.target),
        );
        full(self.kind.kind().name(), name, namespace)
    }

    fn full_primary(&self) -> String {
        let namespace = metadata::namespace(self.target);
        full(self.kind.kind().name(), &self.primary_name(), namespace)
    }

    fn primary_name(&self) -> String {
        format!("{}-primary", metadata::name(self.target))
    }
}

/// The label that distinguishes the target's pods from the primary's: one of the primary's own selector, if one distinguishes them, else
/// the first candidate that the target's selector has.
fn label(
    workloads: &Workloads<'_>,
    own: Option<&Labels>,
    candidates: &[String],
) -> Result<(String, String), NoSelectorLabel> {
    let target = labels(selector(workloads.target).get("matchLabels"));
    let distinguishes = |key: &&String| {
        let on_target = target.get(*key);
        let on_primary = own.and_then(|own| own.get(*key));
        on_target.is_some() && on_primary.is_some() && on_target != on_primary
    };
    let of_primary = candidates.iter().find(distinguishes);
    let of_primary = of_primary.or_else(|| own?.keys().find(distinguishes));
    let is_on_target = |key: &&String| target.contains_key(*key);
    let key = of_primary.or_else(|| candidates.iter().find(is_on_target));
    key.and_then(|key| Some((key.clone(), target.get(key)?.clone())))
        .ok_or_else(|| NoSelectorLabel {
            kind: workloads.kind.kind().name().to_lowercase(),
            name: metadata::name(workloads.target).to_owned(),
            namespace: metadata::namespace(workloads.target).to_owned(),
            candidates: candidates.join(" "),
        })
}

fn selector(workload: &Value) -> &Value {
    workload.pointer("/spec/selector").unwrap_or(&Value::Null)
}

/// The labels of a workload's pod template.
pub fn template_labels(workload: &Value) -> Labels {
    labels(workload.pointer("/spec/template/metadata/labels"))
}

/// A workload in messages: `deployment NAME.NAMESPACE`.
fn full(kind: &str, name: &str, namespace: &str) -> String {
    format!("{} {name}.{namespace}", kind.to_lowercase())
}

#[cfg(test)]
mod tests;
