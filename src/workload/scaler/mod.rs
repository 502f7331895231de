//! The target's autoscaler and its copy that scales the primary (Flagger: `pkg/canary/hpa_reconciler.go` and
//! `scaled_object_reconciler.go`).
//!
//! Copies are complete: they keep fields that have no types here. An update changes the spec only.

mod scaled_object;

use serde_json::{Value, json};

use super::metadata::{owner_reference, without_flux};
use crate::{
    api::canary::{AutoscalerRef, Canary},
    snapshot::{Action, Kind, ObjectRef, Snapshot, Write},
};

/// The kinds of autoscalers that a Canary can refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScalerKind {
    /// Kubernetes' own autoscaler. It does nothing while its workload has 0 replicas.
    HorizontalPodAutoscaler,
    /// KEDA's autoscaler. It can scale to zero and from zero.
    ScaledObject,
}

/// The Canary refers to an autoscaler that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{title} {name}.{namespace} get query error: {plural}.{group} {name:?} not found")]
pub struct ScalerNotFound {
    title: &'static str,
    plural: &'static str,
    group: &'static str,
    name: String,
    namespace: String,
}

/// The autoscalers of a Canary as they exist in the cluster: the target's and the primary's.
pub struct Scaler<'a> {
    kind: ScalerKind,
    canary: &'a Canary,
    reference: &'a AutoscalerRef,
    target: Option<&'a Value>,
    primary: Option<&'a Value>,
}

impl ScalerKind {
    /// The kind of a referenced autoscaler. Returns `None` for any other kind: it counts as no autoscaler, as in Flagger.
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

    /// The name of the kind in the event about a missing autoscaler.
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

    /// The fields of the spec with the minimum and the maximum of replicas.
    const fn replica_fields(self) -> [&'static str; 2] {
        match self {
            Self::HorizontalPodAutoscaler => ["minReplicas", "maxReplicas"],
            Self::ScaledObject => ["minReplicaCount", "maxReplicaCount"],
        }
    }
}

/// The name of the primary's autoscaler.
fn primary_name(reference: &AutoscalerRef) -> String {
    format!("{}-primary", reference.name)
}

/// The autoscalers that a decision reads: the target's and the primary's. Returns none if the Canary has no autoscaler.
pub fn objects(snapshot: &Snapshot) -> Vec<ObjectRef> {
    let reference = snapshot.canary.spec.autoscaler_ref.as_ref();
    let Some((reference, kind)) = reference.and_then(|r| Some((r, ScalerKind::of(r)?))) else {
        return Vec::new();
    };
    [reference.name.clone(), primary_name(reference)]
        .map(|name| snapshot.reference(kind.kind(), &name))
        .into()
}

/// Whether this is the name of the primary's autoscaler.
pub fn is_primarys(canary: &Canary, name: &str) -> bool {
    let reference = canary.spec.autoscaler_ref.as_ref();
    reference.is_some_and(|reference| primary_name(reference) == name)
}

/// Whether an autoscaler keeps its workload at 0 replicas, regardless of load.
pub fn pins_to_zero(object: &Value) -> bool {
    scaled_object::is_paused_at_zero(object)
}

impl<'a> Scaler<'a> {
    /// The autoscalers of a Canary. Returns `None` if the Canary refers to none.
    pub fn of(snapshot: &'a Snapshot) -> Option<Self> {
        let reference = snapshot.canary.spec.autoscaler_ref.as_ref()?;
        let kind = ScalerKind::of(reference)?;
        Some(Self {
            kind,
            canary: &snapshot.canary,
            reference,
            target: snapshot.object(kind.kind(), &reference.name),
            primary: snapshot.object(kind.kind(), &primary_name(reference)),
        })
    }

    /// Creates the primary's autoscaler. Returns no write if it exists already.
    pub fn create(&self) -> Result<Option<Write>, ScalerNotFound> {
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
        let annotations = match self.kind {
            ScalerKind::HorizontalPodAutoscaler => None,
            // An annotation can, for example, allow KEDA to take over an existing HPA.
            ScalerKind::ScaledObject => map("annotations").map(scaled_object::without_pauses),
        };
        for (field, map) in [("labels", map("labels")), ("annotations", annotations)] {
            if let Some(map) = map.filter(|map| !map.is_empty()) {
                metadata[field] = Value::Object(map);
            }
        }
        let kind = self.kind.kind();
        let object = json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": self.primary_spec(target)});
        let name = primary_name(self.reference);
        Ok(Some(self.write(
            Action::Create(object),
            name,
            self.kind.creating(),
        )))
    }

    /// Gives the primary's autoscaler the spec of the target's, or creates it. Returns no write if it has that spec already.
    pub fn promote(&self) -> Result<Option<Write>, ScalerNotFound> {
        let target = self.target()?;
        let Some(primary) = self.primary else {
            return self.create();
        };
        let mut wanted = primary.clone();
        wanted["spec"] = self.primary_spec(target);
        if self.kind == ScalerKind::ScaledObject {
            // Flagger may have copied the pause of the target's autoscaler, which would keep the primary at zero.
            scaled_object::resume(&mut wanted);
        }
        if wanted == *primary {
            return Ok(None);
        }
        let name = primary_name(self.reference);
        Ok(Some(self.write(
            Action::Replace(wanted),
            name,
            self.kind.updating(),
        )))
    }

    /// Pauses the target's autoscaler before the target is scaled to zero, so that the autoscaler does not scale it up again. Returns no
    /// write if it is paused already, and for an HPA, which does nothing while its workload has 0 replicas.
    pub fn pause(&self) -> Option<Write> {
        self.change(scaled_object::pause)
    }

    /// Ends the pause of the target's autoscaler before the target is scaled up. Returns no write if it is not paused.
    pub fn resume(&self) -> Option<Write> {
        self.change(scaled_object::resume)
    }

    /// The replicas of a target that is scaled up from zero: the minimum of its autoscaler, and at least 1.
    pub fn min_replicas(&self) -> i64 {
        let [min, _] = self.kind.replica_fields();
        let min = self
            .target
            .and_then(|scaler| scaler.pointer(&format!("/spec/{min}"))?.as_i64());
        min.unwrap_or(1).max(1)
    }

    /// Whether the target's autoscaler may scale the target to zero when there is no load. The user wants this, so it is no drift.
    pub fn may_scale_to_zero(&self) -> bool {
        self.kind == ScalerKind::ScaledObject
            && self.target.is_some_and(scaled_object::may_scale_to_zero)
    }

    fn target(&self) -> Result<&'a Value, ScalerNotFound> {
        let kind = self.kind.kind();
        self.target.ok_or_else(|| ScalerNotFound {
            title: self.kind.title(),
            plural: kind.plural(),
            group: kind.group_version().0,
            name: self.reference.name.clone(),
            namespace: self.namespace().to_owned(),
        })
    }

    /// The complete spec of the target's autoscaler with the primary as its workload, and with the overrides of the Canary.
    fn primary_spec(&self, target: &Value) -> Value {
        let mut spec = target.get("spec").cloned().unwrap_or_default();
        spec["scaleTargetRef"]["name"] = json!(self.canary.primary_workload_name());
        if let Some(overrides) = &self.reference.primary_scaler_replicas {
            let [min, max] = self.kind.replica_fields();
            for (field, value) in [(min, overrides.min_replicas), (max, overrides.max_replicas)] {
                if let Some(value) = value {
                    spec[field] = json!(value);
                }
            }
        }
        match self.kind {
            ScalerKind::HorizontalPodAutoscaler => {}
            ScalerKind::ScaledObject => {
                let queries = self.reference.primary_scaler_queries.as_ref();
                let target = &self.canary.spec.target_ref.name;
                scaled_object::for_primary(&mut spec, queries, target);
            }
        }
        spec
    }

    /// Changes the target's ScaledObject. It belongs to the user, so the write contains the complete object as it was read. Returns no
    /// write if nothing changes, and for an HPA.
    fn change(&self, change: fn(&mut Value)) -> Option<Write> {
        let live = self
            .target
            .filter(|_| self.kind == ScalerKind::ScaledObject)?;
        let mut wanted = live.clone();
        change(&mut wanted);
        (wanted != *live).then(|| {
            let name = self.reference.name.clone();
            self.write(Action::Replace(wanted), name, self.kind.updating())
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
                kind: self.kind.kind(),
                namespace,
                name,
            },
            action,
        }
    }
}

#[cfg(test)]
mod tests;
