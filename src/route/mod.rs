//! PURE: how traffic is split, one file per dialect: what should be routed, and what is.
//!
//! A dialect has a variant of [`Dialect`], its name in [`Dialect::named`], and an arm in each function below.

pub mod affinity;
mod gateway_api;
mod istio;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::{
    api::canary::Canary,
    workload::{
        metadata::{is_owned, json_map, with_flux},
        service::unmanaged,
    },
    world::{Effect, Kind, ObjectRef, Weights, World},
};
use affinity::{Cookies, Sides};
pub use gateway_api::Version;

/// The ways to route that this version speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// VirtualService and DestinationRules.
    Istio,
    /// HTTPRoute.
    GatewayApi(Version),
    /// None: clients reach the version only by its own Service.
    Kubernetes,
}

/// Providers that Flagger knows and this version does not; the ends of some names are free.
const NOT_YET: [&str; 10] = [
    "apisix", "appmesh", "contour", "knative", "kuma", "linkerd", "nginx", "osm", "skipper",
    "traefik",
];
const NOT_YET_FROM: [&str; 5] = [
    "appmesh:v1beta2",
    "gloo",
    "smi:v1alpha1",
    "smi:v1alpha2",
    "smi:v1alpha3",
];

impl Dialect {
    /// The dialect of a canary's provider, or of the operator's.
    pub fn of(world: &World) -> Result<Self, String> {
        let own = world.canary.spec.provider.as_deref();
        let own = own.filter(|provider| !provider.is_empty());
        Self::named(own.unwrap_or(&world.settings.mesh_provider))
    }

    /// The dialect of a provider's name (`pkg/router/factory.go`). A name that nobody knows means Istio, as in Flagger.
    pub fn named(provider: &str) -> Result<Self, String> {
        let is = |name: &&str| provider == *name;
        let begins = |start: &&str| provider.starts_with(*start);
        match provider {
            "kubernetes" => Ok(Self::Kubernetes),
            _ if provider.starts_with("gatewayapi:v1beta1") => {
                Ok(Self::GatewayApi(Version::V1Beta1))
            }
            _ if provider.starts_with("gatewayapi:v1") => Ok(Self::GatewayApi(Version::V1)),
            _ if NOT_YET.iter().any(is) || NOT_YET_FROM.iter().any(begins) => Err(format!(
                "{provider} is not supported yet, only istio, gatewayapi:v1, gatewayapi:v1beta1 and kubernetes are"
            )),
            _ => Ok(Self::Istio),
        }
    }

    /// Whether it can divide traffic at all. Where it cannot, there is nothing to route and nothing to say of routing.
    pub const fn splits(self) -> bool {
        match self {
            Self::Istio | Self::GatewayApi(_) => true,
            Self::Kubernetes => false,
        }
    }
}

/// The objects that say what is routed.
pub fn objects(dialect: Dialect, canary: &Canary) -> BTreeSet<ObjectRef> {
    match dialect {
        Dialect::Istio => istio::objects(canary),
        Dialect::GatewayApi(version) => gateway_api::objects(version, canary),
        Dialect::Kubernetes => BTreeSet::new(),
    }
}

/// Makes the routes, or repairs them, with these weights: nothing, if they are as they should be, whatever their weights.
pub fn reconcile(
    dialect: Dialect,
    world: &World,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Vec<Effect>, String> {
    match dialect {
        Dialect::Istio => istio::reconcile(world, selector, weights),
        Dialect::GatewayApi(version) => gateway_api::reconcile(version, world, selector, weights),
        Dialect::Kubernetes => Ok(Vec::new()),
    }
}

/// The weights that are routed. Without routes (`pkg/router/nop.go`) it is the iterations that say whom the version is shown to.
pub fn read(dialect: Dialect, world: &World) -> Result<Weights, String> {
    match dialect {
        Dialect::Istio => istio::read(world),
        Dialect::GatewayApi(version) => gateway_api::read(version, world),
        Dialect::Kubernetes => {
            let status = world.canary.status.as_ref();
            let is_shown = status.is_some_and(|status| status.iterations > 0);
            Ok(if is_shown {
                Weights::CANARY
            } else {
                Weights::PRIMARY
            })
        }
    }
}

/// Whether those who carry the routes out have taken them up; or what a user reads. What is measured before that is not about these
/// weights. A way back does not ask.
pub fn accepted(dialect: Dialect, world: &World) -> Result<(), String> {
    match dialect {
        Dialect::GatewayApi(version) => gateway_api::accepted(version, world),
        Dialect::Istio | Dialect::Kubernetes => Ok(()),
    }
}

/// Gives back what was there before the Canary: nothing, if it is so.
pub fn restore(dialect: Dialect, world: &World) -> Option<Effect> {
    match dialect {
        Dialect::Istio => istio::restore(world),
        Dialect::GatewayApi(version) => gateway_api::restore(version, world),
        Dialect::Kubernetes => None,
    }
}

/// Routes these weights: nothing, if they are routed already.
pub fn set(dialect: Dialect, world: &World, weights: &Weights) -> Result<Vec<Effect>, String> {
    match dialect {
        Dialect::Istio => istio::set(world, weights),
        Dialect::GatewayApi(version) => gateway_api::set(version, world, weights),
        Dialect::Kubernetes => Ok(Vec::new()),
    }
}

/// The cookies that must be in the status before the canary gets a share of the traffic; `None` if they are, or if there is no need.
pub fn new_cookies(dialect: Dialect, canary: &Canary, nonce: u64) -> Option<Cookies> {
    match dialect {
        Dialect::Istio => istio::has_affinity(canary)
            .then(|| affinity::new_cookies(canary, Sides::Both, nonce))
            .flatten(),
        Dialect::GatewayApi(version) => affinity::new_cookies(canary, version.sides(), nonce),
        Dialect::Kubernetes => None,
    }
}

/// Labels and annotations of a route: the apex Service's. Where the Canary names any, the Service's own label is among them, and what
/// is left to others of the Service's, because Flagger writes both from one map.
fn apex_metadata(
    world: &World,
    selector: &(String, String),
) -> (Map<String, Value>, Map<String, Value>) {
    let canary = &world.canary;
    let Some(apex) = &canary.spec.service.apex else {
        return (Map::new(), with_flux(Map::new()));
    };
    let others = |field| {
        let live = world.object(Kind::Service, canary.apex_name());
        live.filter(|live| is_owned(live, canary))
            .map(|live| unmanaged(canary, live, field))
            .unwrap_or_default()
    };
    let mut labels = json_map(apex.labels.iter().flatten());
    // A Service as target has no pods that a label could select.
    if !selector.0.is_empty() {
        labels.insert(selector.0.clone(), json!(canary.apex_name()));
    }
    labels.extend(others("labels"));
    let mut annotations = json_map(apex.annotations.iter().flatten());
    annotations.extend(others("annotations"));
    (labels, with_flux(annotations))
}

/// The conditions of a test within the conditions of the service: each with each; what of the test `wins` takes the place of the
/// service's.
fn merged(tested: &[Value], own: &[Value], wins: [&str; 2]) -> Vec<Value> {
    if tested.is_empty() || own.is_empty() {
        return [tested, own].concat();
    }
    let merge = |test: &Value, own: &Value| {
        let mut both = own.as_object().cloned().unwrap_or_default();
        for key in wins {
            if let Some(value) = test.get(key) {
                both.insert(key.to_owned(), value.clone());
            }
        }
        Value::Object(both)
    };
    tested
        .iter()
        .flat_map(|test| own.iter().map(move |own| merge(test, own)))
        .collect()
}

/// An object's labels or annotations.
fn metadata(object: &Value, field: &str) -> Map<String, Value> {
    let map = object.pointer(&format!("/metadata/{field}"));
    map.and_then(Value::as_object).cloned().unwrap_or_default()
}

/// A weight as objects have it.
fn percent(weight: Option<&Value>) -> u8 {
    let weight = weight.and_then(Value::as_u64).unwrap_or(0);
    u8::try_from(weight.min(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests;
