//! SMI: one TrafficSplit (Flagger: `pkg/router/smi.go`, `smi_v1alpha2.go`, `smi_v1alpha3.go`), as Linkerd's SMI extension, Open Service
//! Mesh and the SMI adapters of other meshes read it.
//!
//! `spec.service`, `spec.backends` and `spec.matches` are ours. Other fields stay as they are, and so does all metadata.
//!
//! The split is of all requests to the apex Service, each to the same port of the other Services. `spec.service.match` is not used.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    RouteError, Router, adoption,
    conditions::refuse_test,
    provider_name,
    route::{
        create_route, full_name, items, no_routes, not_found, put_fields, reference, route_write,
    },
};
use crate::{
    api::{canary::Canary, percent::Percent},
    snapshot::{
        Action, Kind, ObjectRef, Snapshot, Weights, Write,
        route_references::{self, Named},
    },
};

/// The fields of a spec that are ours. We write no `matches` (of v1alpha3), and remove those that others write: they would exclude requests
/// from the split.
const OURS: [&str; 3] = ["service", "backends", "matches"];
/// The annotation from which the SMI adapter of Istio takes the gateways. It is written at creation, if the provider is `smi:…:istio`.
const GATEWAYS: &str = "VirtualService.v1alpha3.networking.istio.io/spec.gateways";

/// The router of SMI, in one version of its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Smi {
    /// `v1alpha1`. It writes weights as strings.
    V1Alpha1,
    /// `v1alpha2`
    V1Alpha2,
    /// `v1alpha3`
    V1Alpha3,
}

impl Router for Smi {
    fn objects(&self, canary: &Canary) -> BTreeSet<ObjectRef> {
        [reference(canary, self.kind(), canary.apex_name())].into()
    }

    fn repairs(
        &self,
        snapshot: &Snapshot,
        _selector: &(String, String),
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let (canary, kind) = (&snapshot.canary, self.kind());
        refuse_test(canary, &full_name(snapshot, kind))?;
        route_references::routes(snapshot, self.named(snapshot))?;
        let spec = self.spec(canary, weights);
        let Some(live) = self.live(snapshot) else {
            let metadata = [Map::new(), annotations(snapshot)];
            let spec = Value::Object(spec);
            return Ok(vec![create_route(snapshot, kind, metadata, spec)]);
        };
        if routed(canary, live).is_some_and(|now| self.has_weights(canary, live, &now)) {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        put_fields(&mut wanted, spec, &OURS);
        Ok(vec![self.replace(snapshot, wanted)])
    }

    fn current_weights(&self, snapshot: &Snapshot) -> Result<Weights, RouteError> {
        let live = self.live(snapshot).ok_or_else(|| self.missing(snapshot))?;
        routed(&snapshot.canary, live).ok_or_else(|| no_routes(snapshot, self.kind()))
    }

    fn set_weights(
        &self,
        snapshot: &Snapshot,
        weights: &Weights,
    ) -> Result<Vec<Write>, RouteError> {
        let canary = &snapshot.canary;
        let live = self.live(snapshot).ok_or_else(|| self.missing(snapshot))?;
        if self.has_weights(canary, live, weights) {
            return Ok(Vec::new());
        }
        let mut wanted = live.clone();
        let mut spec = self.spec(canary, weights);
        wanted["spec"]["backends"] = spec.remove("backends").unwrap_or_default();
        if wanted == *live {
            return Ok(Vec::new());
        }
        Ok(vec![self.replace(snapshot, wanted)])
    }

    fn named(&self, snapshot: &Snapshot) -> &'static [Named] {
        if is_for_istio(snapshot) {
            &[Named::Hosts, Named::Gateways]
        } else {
            &[Named::Hosts]
        }
    }

    /// The TrafficSplit gets the spec, labels and annotations back that it had before the Canary. If the Canary owns it, or if its former
    /// spec is not known, it leads to the apex Service. (Flagger leaves it leading to a primary that is deleted.)
    fn reverted(&self, snapshot: &Snapshot) -> Option<Write> {
        let canary = &snapshot.canary;
        let live = self.live(snapshot)?;
        routed(canary, live)?;
        let mut wanted = live.clone();
        match adoption::before(live, canary, |route| routed(canary, route).is_some()) {
            Some(before) => wanted = before,
            None => {
                wanted["spec"]["backends"] =
                    json!([self.backend(canary.apex_name(), Percent::ALL)]);
            }
        }
        Some(self.replace(snapshot, wanted))
    }
}

impl Smi {
    const fn kind(self) -> Kind {
        match self {
            Self::V1Alpha1 => Kind::TrafficSplitV1Alpha1,
            Self::V1Alpha2 => Kind::TrafficSplitV1Alpha2,
            Self::V1Alpha3 => Kind::TrafficSplitV1Alpha3,
        }
    }

    /// The TrafficSplit that exists.
    fn live(self, snapshot: &Snapshot) -> Option<&Value> {
        snapshot.object(self.kind(), snapshot.canary.apex_name())
    }

    fn missing(self, snapshot: &Snapshot) -> RouteError {
        let full = full_name(snapshot, self.kind());
        let name = snapshot.canary.apex_name();
        not_found(full, "get query error:", self.kind(), name)
    }

    /// The write that replaces the TrafficSplit.
    fn replace(self, snapshot: &Snapshot, wanted: Value) -> Write {
        let action = Action::Replace(wanted);
        route_write(snapshot, self.kind(), action, "update error: ")
    }

    fn backend(self, service: &str, weight: Percent) -> Value {
        let weight = match self {
            Self::V1Alpha1 => json!(weight.to_string()),
            Self::V1Alpha2 | Self::V1Alpha3 => json!(weight),
        };
        json!({"service": service, "weight": weight})
    }

    /// The part of the spec that is ours.
    fn spec(self, canary: &Canary, weights: &Weights) -> Map<String, Value> {
        let hosts = canary.spec.service.hosts.as_deref().unwrap_or_default();
        let service = hosts.first().map_or(canary.apex_name(), String::as_str);
        let backends = json!([
            self.backend(&canary.canary_name(), weights.canary),
            self.backend(&canary.primary_name(), weights.primary),
        ]);
        let service = ("service".to_owned(), json!(service));
        [service, ("backends".to_owned(), backends)]
            .into_iter()
            .collect()
    }

    /// Whether our part of the live spec is correct for these weights, whether they are numbers or strings.
    fn has_weights(self, canary: &Canary, live: &Value, weights: &Weights) -> bool {
        let wanted = Value::Object(self.spec(canary, weights));
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
}

/// Whether the SMI adapter of Istio reads the TrafficSplit.
fn is_for_istio(snapshot: &Snapshot) -> bool {
    let target = provider_name(snapshot)
        .strip_prefix("smi:")
        .and_then(|rest| rest.split_once(':'));
    matches!(target, Some((_, "istio")))
}

/// The annotations for the SMI adapter of Istio.
fn annotations(snapshot: &Snapshot) -> Map<String, Value> {
    let gateways = snapshot.canary.spec.service.gateways.as_deref();
    let gateways = gateways.filter(|gateways| !gateways.is_empty());
    match gateways {
        Some(gateways) if is_for_istio(snapshot) => {
            [(GATEWAYS.to_owned(), json!(json!(gateways).to_string()))]
                .into_iter()
                .collect()
        }
        _ => Map::new(),
    }
}

/// The weights of a TrafficSplit; `None` if it does not lead to our Services.
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
    Weights::of_percents(primary, to_canary)
}

/// A weight, which is a number or a string (a quantity of Kubernetes).
fn percent(weight: &Value) -> u8 {
    let number = weight.as_str().and_then(|text| text.parse::<u64>().ok());
    super::route::percent(number.map(Value::from).as_ref().or(Some(weight)))
}

#[cfg(test)]
mod tests;
