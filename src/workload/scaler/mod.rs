//! The target's autoscaler, and the primary's: a copy that scales the primary (Flagger's `pkg/canary/hpa_reconciler.go` and
//! `scaled_object_reconciler.go`).
//!
//! Copies are whole: a field that no type here knows goes along, and an update changes nothing but the spec.

mod hpa;
mod scaled_object;

use serde_json::{Map, Value, json};

use super::metadata::{owner_reference, without_flux};
use crate::{
    api::canary::{AutoscalerRef, Canary},
    snapshot::{Action, Kind, ObjectRef, Snapshot, Write},
};

/// The autoscalers that a Canary can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavour {
    HorizontalPodAutoscaler,
    ScaledObject,
}

/// A canary's autoscalers as they are: the target's and the primary's.
pub struct Scaler<'a> {
    flavour: Flavour,
    canary: &'a Canary,
    reference: &'a AutoscalerRef,
    target: Option<&'a Value>,
    primary: Option<&'a Value>,
}

impl Flavour {
    /// The autoscaler of a reference. A kind that is none of them counts as no autoscaler, as in Flagger.
    fn of(reference: &AutoscalerRef) -> Option<Self> {
        match reference.kind.as_str() {
            "HorizontalPodAutoscaler" => Some(Self::HorizontalPodAutoscaler),
            "ScaledObject" => Some(Self::ScaledObject),
            _ => None,
        }
    }

    const fn kind(self) -> Kind {
        match self {
            Self::HorizontalPodAutoscaler => Kind::HorizontalPodAutoscaler,
            Self::ScaledObject => Kind::ScaledObject,
        }
    }

    /// How events call it when it cannot be found.
    const fn title(self) -> &'static str {
        match self {
            Self::HorizontalPodAutoscaler => "HorizontalPodAutoscaler",
            Self::ScaledObject => "Keda ScaledObject",
        }
    }

    const fn creating(self) -> &'static str {
        match self {
            Self::HorizontalPodAutoscaler => "creating HorizontalPodAutoscaler v2",
            Self::ScaledObject => "creating Keda ScaledObject",
        }
    }

    const fn updating(self) -> &'static str {
        match self {
            Self::HorizontalPodAutoscaler => "updating HorizontalPodAutoscaler v2",
            Self::ScaledObject => "updating ScaledObject",
        }
    }
}

/// The name of the primary's scaler.
fn primary_name(reference: &AutoscalerRef) -> String {
    format!("{}-primary", reference.name)
}

/// The autoscalers that a decision looks at: the target's and the primary's, if the canary has one.
pub fn objects(snapshot: &Snapshot) -> Vec<ObjectRef> {
    let reference = snapshot.canary.spec.autoscaler_ref.as_ref();
    let Some((reference, flavour)) = reference.and_then(|r| Some((r, Flavour::of(r)?))) else {
        return Vec::new();
    };
    [reference.name.clone(), primary_name(reference)]
        .map(|name| snapshot.reference(flavour.kind(), &name))
        .into()
}

/// Whether a scaler keeps its workload at zero, whatever the load.
pub fn pins_to_zero(object: &Value) -> bool {
    scaled_object::is_paused(object)
}

impl<'a> Scaler<'a> {
    /// A canary's autoscalers, if it has any.
    pub fn of(snapshot: &'a Snapshot) -> Option<Self> {
        let reference = snapshot.canary.spec.autoscaler_ref.as_ref()?;
        let flavour = Flavour::of(reference)?;
        Some(Self {
            flavour,
            canary: &snapshot.canary,
            reference,
            target: snapshot.object(flavour.kind(), &reference.name),
            primary: snapshot.object(flavour.kind(), &primary_name(reference)),
        })
    }

    /// Creates the primary's scaler if there is none; what a user reads, if the target has none.
    pub fn create(&self) -> Result<Option<Write>, String> {
        let target = self.target()?;
        if self.primary.is_some() {
            return Ok(None);
        }
        let mut metadata = json!({"name": primary_name(self.reference), "namespace": self.namespace(),
            "ownerReferences": [owner_reference(self.canary)]});
        let map = |field: &str| {
            let pointer = format!("/metadata/{field}");
            target
                .pointer(&pointer)
                .and_then(Value::as_object)
                .map(without_flux)
        };
        let annotations = match self.flavour {
            Flavour::HorizontalPodAutoscaler => None,
            // They say, for instance, that KEDA takes over an HPA that is there already.
            Flavour::ScaledObject => map("annotations").map(scaled_object::unpaused),
        };
        for (field, map) in [("labels", map("labels")), ("annotations", annotations)] {
            if let Some(map) = map.filter(|map| !map.is_empty()) {
                metadata[field] = Value::Object(map);
            }
        }
        let kind = self.flavour.kind();
        let object = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": self.wanted(target)});
        let name = primary_name(self.reference);
        Ok(Some(self.write(
            Action::Create(object),
            name,
            self.flavour.creating(),
        )))
    }

    /// Brings the primary's scaler to what the target's is now, as a promotion does; creates it if there is none.
    pub fn promote(&self) -> Result<Option<Write>, String> {
        let target = self.target()?;
        let Some(primary) = self.primary else {
            return self.create();
        };
        let mut wanted = primary.clone();
        wanted["spec"] = self.wanted(target);
        if self.flavour == Flavour::ScaledObject {
            // Flagger may have copied the pause from the target's: it would keep the primary at zero.
            scaled_object::unpin(&mut wanted);
        }
        if wanted == *primary {
            return Ok(None);
        }
        let name = primary_name(self.reference);
        Ok(Some(self.write(
            Action::Replace(wanted),
            name,
            self.flavour.updating(),
        )))
    }

    /// Keeps the target's scaler from giving it pods: before it is scaled to zero. An HPA does nothing at zero by itself.
    pub fn pause(&self) -> Option<Write> {
        self.change(scaled_object::pause)
    }

    /// Lets the target's scaler work again: before the target is scaled up.
    pub fn resume(&self) -> Option<Write> {
        self.change(scaled_object::unpin)
    }

    /// With how many pods a target begins that is scaled up from zero: as many as its scaler would give it at least.
    pub fn least(&self) -> i64 {
        let field = match self.flavour {
            Flavour::HorizontalPodAutoscaler => "/spec/minReplicas",
            Flavour::ScaledObject => "/spec/minReplicaCount",
        };
        let least = self
            .target
            .and_then(|scaler| scaler.pointer(field)?.as_i64());
        least.unwrap_or(1).max(1)
    }

    /// Whether the target's scaler may leave it without pods where there is no load. That is the user's wish, not drift.
    pub fn may_rest(&self) -> bool {
        self.flavour == Flavour::ScaledObject && self.target.is_some_and(scaled_object::may_rest)
    }

    fn target(&self) -> Result<&'a Value, String> {
        let kind = self.flavour.kind();
        self.target.ok_or_else(|| {
            format!(
                "{} {}.{} get query error: {}.{} {:?} not found",
                self.flavour.title(),
                self.reference.name,
                self.namespace(),
                kind.plural(),
                kind.group_version().0,
                self.reference.name
            )
        })
    }

    /// The target's spec, whole, but for whom it scales and what the Canary overrides.
    fn wanted(&self, target: &Value) -> Value {
        let mut spec = target.get("spec").cloned().unwrap_or_default();
        spec["scaleTargetRef"]["name"] = json!(self.canary.primary_workload_name());
        match self.flavour {
            Flavour::HorizontalPodAutoscaler => hpa::for_primary(&mut spec, self.reference),
            Flavour::ScaledObject => {
                scaled_object::for_primary(
                    &mut spec,
                    self.reference,
                    &self.canary.spec.target_ref.name,
                );
            }
        }
        spec
    }

    /// A change of the target's ScaledObject, which is the user's: the whole object as it was read goes back.
    fn change(&self, change: fn(&mut Value)) -> Option<Write> {
        let live = self
            .target
            .filter(|_| self.flavour == Flavour::ScaledObject)?;
        let mut wanted = live.clone();
        change(&mut wanted);
        (wanted != *live).then(|| {
            let name = self.reference.name.clone();
            self.write(Action::Replace(wanted), name, self.flavour.updating())
        })
    }

    fn namespace(&self) -> &str {
        self.canary
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default()
    }

    fn write(&self, action: Action, name: String, doing: &str) -> Write {
        let namespace = self.namespace().to_owned();
        Write {
            failure: format!("{doing} {name}.{namespace} failed: "),
            object: ObjectRef {
                kind: self.flavour.kind(),
                namespace,
                name,
            },
            action,
        }
    }
}

/// Sets the least and the most replicas where the Canary says so, under the names that the scaler has for them.
fn override_replicas(spec: &mut Value, reference: &AutoscalerRef, names: [&str; 2]) {
    let Some(overrides) = &reference.primary_scaler_replicas else {
        return;
    };
    for (field, value) in names
        .into_iter()
        .zip([overrides.min_replicas, overrides.max_replicas])
    {
        if let Some(value) = value {
            spec[field] = json!(value);
        }
    }
}

/// An object within an object; made if there is none.
fn child<'v>(value: &'v mut Value, field: &str) -> Option<&'v mut Map<String, Value>> {
    let map = value.as_object_mut()?;
    let child = map.entry(field).or_insert_with(|| json!({}));
    if child.is_null() {
        *child = json!({});
    }
    child.as_object_mut()
}

#[cfg(test)]
mod tests;
