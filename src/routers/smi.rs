//! SMI: one TrafficSplit (`pkg/router/smi.go`, `smi_v1alpha2.go`, `smi_v1alpha3.go`), as Linkerd's SMI extension, Open Service Mesh
//! and adapters of other meshes read it.
//!
//! `spec.service`, `spec.backends` and `spec.matches` are ours; what else a TrafficSplit has stays, all of its metadata too.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    applied_spec, full, items, made, named, not_found, provider, put, route_write, tested,
};
use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::metadata::is_owned,
};

/// The part of a spec that is ours. We write no `matches` (of v1alpha3): those of somebody else would keep requests from the split.
const OURS: [&str; 3] = ["service", "backends", "matches"];
/// What the SMI adapter of Istio routes from; written once, where the operator was started for that adapter.
const GATEWAYS: &str = "VirtualService.v1alpha3.networking.istio.io/spec.gateways";

/// The versions of the API. The oldest one writes weights as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `v1alpha1`
    V1Alpha1,
    /// `v1alpha2`
    V1Alpha2,
    /// `v1alpha3`
    V1Alpha3,
}

impl Version {
    const fn kind(self) -> Kind {
        match self {
            Self::V1Alpha1 => Kind::TrafficSplitV1Alpha1,
            Self::V1Alpha2 => Kind::TrafficSplitV1Alpha2,
            Self::V1Alpha3 => Kind::TrafficSplitV1Alpha3,
        }
    }

    fn backend(self, service: &str, weight: u8) -> Value {
        let weight = match self {
            Self::V1Alpha1 => json!(weight.to_string()),
            Self::V1Alpha2 | Self::V1Alpha3 => json!(weight),
        };
        json!({"service": service, "weight": weight})
    }
}

/// The object of a canary.
pub fn objects(version: Version, canary: &Canary) -> BTreeSet<ObjectRef> {
    [named(canary, version.kind(), canary.apex_name())].into()
}

/// Makes the split, or repairs it, with these weights.
pub fn reconcile(
    version: Version,
    snapshot: &Snapshot,
    weights: &Weights,
) -> Result<Vec<Write>, String> {
    let (canary, kind) = (&snapshot.canary, version.kind());
    if !tested(canary).is_empty() {
        // Flagger would give the version to everyone.
        let full = full(snapshot, kind);
        return Err(format!(
            "{full} cannot tell requests apart: take spec.analysis.match away, or use another provider"
        ));
    }
    let spec = spec(version, canary, weights);
    let Some(live) = live(version, snapshot) else {
        let metadata = [Map::new(), annotations(snapshot)];
        let object = made(
            snapshot,
            kind,
            canary.apex_name(),
            metadata,
            Value::Object(spec),
        );
        let action = Action::Create(object);
        return Ok(vec![route_write(snapshot, kind, action, "create error: ")]);
    };
    if routed(canary, live).is_some_and(|now| follows(version, canary, live, &now)) {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    put(&mut wanted, spec, &OURS);
    let action = Action::Replace(wanted);
    Ok(vec![route_write(snapshot, kind, action, "update error: ")])
}

/// The weights of the backends.
pub fn read(version: Version, snapshot: &Snapshot) -> Result<Weights, String> {
    let canary = &snapshot.canary;
    let live = live(version, snapshot).ok_or_else(|| missing(version, snapshot))?;
    routed(canary, live).ok_or_else(|| {
        format!(
            "{} does not contain routes for {} and {}",
            full(snapshot, version.kind()),
            canary.primary_name(),
            canary.canary_name()
        )
    })
}

/// Routes these weights.
pub fn set(version: Version, snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    let canary = &snapshot.canary;
    let live = live(version, snapshot).ok_or_else(|| missing(version, snapshot))?;
    if follows(version, canary, live, weights) {
        return Ok(Vec::new());
    }
    let mut wanted = live.clone();
    put(&mut wanted, spec(version, canary, weights), &OURS);
    let action = Action::Replace(wanted);
    Ok(vec![route_write(
        snapshot,
        version.kind(),
        action,
        "update error: ",
    )])
}

/// The split as kubectl applied it before the Canary; otherwise, and where it is ours and goes with the Canary, it leads where the
/// Service leads. (Flagger leaves it leading to a primary that goes.)
pub fn restore(version: Version, snapshot: &Snapshot) -> Option<Write> {
    let canary = &snapshot.canary;
    let live = live(version, snapshot)?;
    routed(canary, live)?;
    let is_before = |spec: &Value| routed(canary, &json!({"spec": spec})).is_none();
    let mut wanted = live.clone();
    match applied_spec(live).filter(|spec| !is_owned(live, canary) && is_before(spec)) {
        Some(applied) => wanted["spec"] = applied,
        None => wanted["spec"]["backends"] = json!([version.backend(canary.apex_name(), 100)]),
    }
    let action = Action::Replace(wanted);
    Some(route_write(
        snapshot,
        version.kind(),
        action,
        "update error: ",
    ))
}

fn live(version: Version, snapshot: &Snapshot) -> Option<&Value> {
    snapshot.object(version.kind(), snapshot.canary.apex_name())
}

fn missing(version: Version, snapshot: &Snapshot) -> String {
    let why = not_found(version.kind(), snapshot.canary.apex_name());
    format!("{} get query error: {why}", full(snapshot, version.kind()))
}

/// What the adapter of Istio is told.
fn annotations(snapshot: &Snapshot) -> Map<String, Value> {
    let target = provider(snapshot)
        .strip_prefix("smi:")
        .and_then(|rest| rest.split_once(':'));
    let gateways = snapshot.canary.spec.service.gateways.as_deref();
    let gateways = gateways.filter(|gateways| !gateways.is_empty());
    match (target, gateways) {
        (Some((_, "istio")), Some(gateways)) => {
            [(GATEWAYS.to_owned(), json!(json!(gateways).to_string()))]
                .into_iter()
                .collect()
        }
        _ => Map::new(),
    }
}

/// The part of the spec that is ours.
fn spec(version: Version, canary: &Canary, weights: &Weights) -> Map<String, Value> {
    let hosts = canary.spec.service.hosts.as_deref().unwrap_or_default();
    let service = hosts.first().map_or(canary.apex_name(), String::as_str);
    let backends = json!([
        version.backend(&canary.canary_name(), weights.canary),
        version.backend(&canary.primary_name(), weights.primary),
    ]);
    [
        ("service".to_owned(), json!(service)),
        ("backends".to_owned(), backends),
    ]
    .into_iter()
    .collect()
}

/// Whether our part of the spec is as it should be for these weights, whether they are numbers or text.
fn follows(version: Version, canary: &Canary, live: &Value, weights: &Weights) -> bool {
    let wanted = Value::Object(spec(version, canary, weights));
    let Some(live) = live.get("spec") else {
        return false;
    };
    let shares = |spec: &Value| -> Vec<Value> {
        let share = |backend: &Value| {
            let mut backend = backend.clone();
            if let Some(weight) = backend.get_mut("weight") {
                *weight = json!(percent(weight));
            }
            backend
        };
        items(spec, "/backends").map(share).collect()
    };
    live.get("service") == wanted.get("service")
        && live.get("matches") == wanted.get("matches")
        && shares(live) == shares(&wanted)
}

/// The weights that a split has.
fn routed(canary: &Canary, live: &Value) -> Option<Weights> {
    let weight_of = |name: &str| {
        let backend = items(live, "/spec/backends").find(|backend| backend["service"] == name);
        backend
            .and_then(|backend| backend.get("weight"))
            .map_or(0, percent)
    };
    let (primary, to_canary) = (
        weight_of(&canary.primary_name()),
        weight_of(&canary.canary_name()),
    );
    (primary > 0 || to_canary > 0).then_some(Weights {
        primary,
        canary: to_canary,
        mirrored: false,
    })
}

/// A weight, which is a number or, as a quantity of Kubernetes, text.
fn percent(weight: &Value) -> u8 {
    let number = weight.as_str().and_then(|text| text.parse::<u64>().ok());
    super::percent(number.map(Value::from).as_ref().or(Some(weight)))
}

#[cfg(test)]
mod tests;
