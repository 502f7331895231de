//! PURE: how traffic is split, one file per dialect: what should be routed, and what is.
//!
//! A dialect has a variant of [`Dialect`], its name in [`Dialect::named`], and an arm in each function below.

pub mod affinity;
mod contour;
mod gateway_api;
mod istio;
mod nginx;
mod smi;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{
    api::canary::Canary,
    snapshot::{Action, Kind, ObjectRef, Snapshot, Weights, Write},
    workload::{
        metadata::{is_owned, json_map, owner_reference, with_flux},
        service::unmanaged,
    },
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
    /// HTTPProxy.
    Contour,
    /// The annotations of a second Ingress.
    Nginx,
    /// TrafficSplit.
    Smi(smi::Version),
    /// None: clients reach the version only by its own Service.
    Kubernetes,
}

/// Providers that Flagger knows and this version does not; the end of one name is free.
const NOT_YET: [&str; 6] = ["apisix", "appmesh", "knative", "kuma", "skipper", "traefik"];
const NOT_YET_FROM: [&str; 2] = ["appmesh:v1beta2", "gloo"];

/// What kubectl applied last: what a deletion may restore.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Dialect {
    /// The dialect of a canary's provider, or of the operator's.
    pub fn of(snapshot: &Snapshot) -> Result<Self, String> {
        Self::named(provider(snapshot))
    }

    /// The dialect of a provider's name (`pkg/router/factory.go`). A name that nobody knows means Istio, as in Flagger.
    pub fn named(provider: &str) -> Result<Self, String> {
        let is = |name: &&str| provider == *name;
        let begins = |start: &&str| provider.starts_with(*start);
        match provider {
            "kubernetes" => Ok(Self::Kubernetes),
            "contour" => Ok(Self::Contour),
            "nginx" => Ok(Self::Nginx),
            "linkerd" => Ok(Self::Smi(smi::Version::V1Alpha1)),
            "osm" => Ok(Self::Smi(smi::Version::V1Alpha2)),
            _ if provider.starts_with("smi:v1alpha1") => Ok(Self::Smi(smi::Version::V1Alpha1)),
            _ if provider.starts_with("smi:v1alpha2") => Ok(Self::Smi(smi::Version::V1Alpha2)),
            _ if provider.starts_with("smi:v1alpha3") => Ok(Self::Smi(smi::Version::V1Alpha3)),
            _ if provider.starts_with("gatewayapi:v1beta1") => {
                Ok(Self::GatewayApi(Version::V1Beta1))
            }
            _ if provider.starts_with("gatewayapi:v1") => Ok(Self::GatewayApi(Version::V1)),
            _ if NOT_YET.iter().any(is) || NOT_YET_FROM.iter().any(begins) => Err(format!(
                "{provider} is not supported yet, only contour, gatewayapi:v1, gatewayapi:v1beta1, istio, kubernetes, linkerd, nginx, osm and smi are"
            )),
            _ => Ok(Self::Istio),
        }
    }

    /// Whether it can divide traffic at all. Where it cannot, there is nothing to route and nothing to say of routing.
    pub const fn splits(self) -> bool {
        match self {
            Self::Istio | Self::GatewayApi(_) | Self::Contour | Self::Nginx | Self::Smi(_) => true,
            Self::Kubernetes => false,
        }
    }

    /// Whether it can copy requests. Where it cannot, `analysis.mirror` is passed over; Flagger waits for the copies for ever there.
    pub const fn mirrors(self) -> bool {
        match self {
            Self::Istio | Self::GatewayApi(_) | Self::Contour => true,
            Self::Kubernetes | Self::Nginx | Self::Smi(_) => false,
        }
    }
}

/// The provider of a canary, or the operator's.
fn provider(snapshot: &Snapshot) -> &str {
    let own = snapshot.canary.spec.provider.as_deref();
    let own = own.filter(|provider| !provider.is_empty());
    own.unwrap_or(&snapshot.settings.mesh_provider)
}

/// The objects that say what is routed.
pub fn objects(dialect: Dialect, canary: &Canary) -> BTreeSet<ObjectRef> {
    match dialect {
        Dialect::Istio => istio::objects(canary),
        Dialect::GatewayApi(version) => gateway_api::objects(version, canary),
        Dialect::Contour => contour::objects(canary),
        Dialect::Nginx => nginx::objects(canary),
        Dialect::Smi(version) => smi::objects(version, canary),
        Dialect::Kubernetes => BTreeSet::new(),
    }
}

/// Makes the routes, or repairs them, with these weights: nothing, if they are as they should be, whatever their weights.
pub fn reconcile(
    dialect: Dialect,
    snapshot: &Snapshot,
    selector: &(String, String),
    weights: &Weights,
) -> Result<Vec<Write>, String> {
    match dialect {
        Dialect::Istio => istio::reconcile(snapshot, selector, weights),
        Dialect::GatewayApi(version) => {
            gateway_api::reconcile(version, snapshot, selector, weights)
        }
        Dialect::Contour => contour::reconcile(snapshot, selector, weights),
        Dialect::Nginx => nginx::reconcile(snapshot, weights),
        Dialect::Smi(version) => smi::reconcile(version, snapshot, weights),
        Dialect::Kubernetes => Ok(Vec::new()),
    }
}

/// The weights that are routed. Without routes (`pkg/router/nop.go`) it is the iterations that say whom the version is shown to.
pub fn read(dialect: Dialect, snapshot: &Snapshot) -> Result<Weights, String> {
    match dialect {
        Dialect::Istio => istio::read(snapshot),
        Dialect::GatewayApi(version) => gateway_api::read(version, snapshot),
        Dialect::Contour => contour::read(snapshot),
        Dialect::Nginx => nginx::read(snapshot),
        Dialect::Smi(version) => smi::read(version, snapshot),
        Dialect::Kubernetes => {
            let status = snapshot.canary.status.as_ref();
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
pub fn accepted(dialect: Dialect, snapshot: &Snapshot) -> Result<(), String> {
    match dialect {
        Dialect::GatewayApi(version) => gateway_api::accepted(version, snapshot),
        Dialect::Contour => contour::accepted(snapshot),
        Dialect::Istio | Dialect::Kubernetes | Dialect::Nginx | Dialect::Smi(_) => Ok(()),
    }
}

/// What must be written before a coming write of the routes, so that those who carry it out know all that it leads to.
pub fn announce(dialect: Dialect, snapshot: &Snapshot, coming: &Write) -> Option<Write> {
    match dialect {
        Dialect::Contour => contour::announce(snapshot, coming),
        Dialect::Istio
        | Dialect::GatewayApi(_)
        | Dialect::Kubernetes
        | Dialect::Nginx
        | Dialect::Smi(_) => None,
    }
}

/// Whether what this coming write is about has more in it than its routes: what was announced, or what is left.
pub fn is_announced(dialect: Dialect, snapshot: &Snapshot, coming: &Write) -> bool {
    dialect == Dialect::Contour
        && coming.object.kind == Kind::HttpProxy
        && contour::is_announced(snapshot)
}

/// That those who carry the routes out say that they have not seen them as they are; what a user reads.
pub fn lag(dialect: Dialect, snapshot: &Snapshot) -> Option<String> {
    match dialect {
        Dialect::Contour => contour::lag(snapshot),
        Dialect::Istio
        | Dialect::GatewayApi(_)
        | Dialect::Kubernetes
        | Dialect::Nginx
        | Dialect::Smi(_) => None,
    }
}

/// Takes away what was announced or left, when all who carry the routes out have followed: nothing, if there is none.
pub fn tidy(dialect: Dialect, snapshot: &Snapshot) -> Option<Write> {
    (dialect == Dialect::Contour)
        .then(|| contour::tidy(snapshot))
        .flatten()
}

/// Gives back what was there before the Canary: nothing, if it is so.
pub fn restore(dialect: Dialect, snapshot: &Snapshot) -> Option<Write> {
    match dialect {
        Dialect::Istio => istio::restore(snapshot),
        Dialect::GatewayApi(version) => gateway_api::restore(version, snapshot),
        Dialect::Contour => contour::restore(snapshot),
        Dialect::Nginx => nginx::restore(snapshot),
        Dialect::Smi(version) => smi::restore(version, snapshot),
        Dialect::Kubernetes => None,
    }
}

/// Routes these weights: nothing, if they are routed already.
pub fn set(dialect: Dialect, snapshot: &Snapshot, weights: &Weights) -> Result<Vec<Write>, String> {
    match dialect {
        Dialect::Istio => istio::set(snapshot, weights),
        Dialect::GatewayApi(version) => gateway_api::set(version, snapshot, weights),
        Dialect::Contour => contour::set(snapshot, weights),
        Dialect::Nginx => nginx::set(snapshot, weights),
        Dialect::Smi(version) => smi::set(version, snapshot, weights),
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
        Dialect::Contour | Dialect::Nginx | Dialect::Smi(_) | Dialect::Kubernetes => None,
    }
}

/// An object of a canary's namespace.
fn named(canary: &Canary, kind: Kind, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: canary.metadata.namespace.clone().unwrap_or_default(),
        name: name.to_owned(),
    }
}

/// A new object that goes when the Canary goes; maps without entries are left out.
fn made(
    snapshot: &Snapshot,
    kind: Kind,
    name: &str,
    [labels, annotations]: [Map<String, Value>; 2],
    spec: Value,
) -> Value {
    let mut metadata = json!({"name": name, "namespace": snapshot.namespace(), "ownerReferences": [owner_reference(&snapshot.canary)]});
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata[field] = Value::Object(map);
        }
    }
    json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": spec})
}

/// A write of the route that has the apex' name. What a user reads when it is refused begins with the route's name.
fn route_write(snapshot: &Snapshot, kind: Kind, action: Action, failure: &str) -> Write {
    Write {
        object: snapshot.reference(kind, snapshot.canary.apex_name()),
        action,
        failure: format!("{} {failure}", full(snapshot, kind)),
    }
}

/// The route that has the apex' name, as messages call it.
fn full(snapshot: &Snapshot, kind: Kind) -> String {
    let apex = snapshot.canary.apex_name();
    format!("{} {apex}.{}", kind.name(), snapshot.namespace())
}

/// What the API server says of an object that is not there.
fn not_found(kind: Kind, name: &str) -> String {
    let (group, _) = kind.group_version();
    format!("{}.{group} {name:?} not found", kind.plural())
}

/// The spec that kubectl applied last.
fn applied_spec(object: &Value) -> Option<Value> {
    let annotations = object.pointer("/metadata/annotations")?;
    let text = annotations.get(LAST_APPLIED)?.as_str()?;
    serde_json::from_str::<Value>(text)
        .ok()?
        .get("spec")
        .cloned()
}

/// Puts our fields into the spec of an object: one that is not wanted goes, what is not ours stays.
fn put(object: &mut Value, mut spec: Map<String, Value>, ours: &[&str]) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let Some(theirs) = object["spec"].as_object_mut() else {
        return;
    };
    for field in ours {
        match spec.remove(*field) {
            Some(value) => drop(theirs.insert((*field).to_owned(), value)),
            None => drop(theirs.remove(*field)),
        }
    }
}

/// The conditions of the requests that an A/B test gives the version to.
fn tested(canary: &Canary) -> &[Value] {
    let analysis = canary.spec.analysis.as_ref();
    analysis.map_or(&[], |analysis| analysis.match_.as_slice())
}

/// A map by name: in this order it is written. Flagger's order is random, which it then takes for drift.
fn by_name(map: Option<&Value>) -> BTreeMap<&String, &Value> {
    let map = map.and_then(Value::as_object);
    map.into_iter().flatten().collect()
}

/// A text that is not empty.
fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    let text = value.get(key)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

/// The members of a list; none, if it is no list.
fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}

/// Labels and annotations of a route: the apex Service's. Where the Canary names any, the Service's own label is among them, and what
/// is left to others of the Service's, because Flagger writes both from one map.
fn apex_metadata(
    snapshot: &Snapshot,
    selector: &(String, String),
) -> (Map<String, Value>, Map<String, Value>) {
    let canary = &snapshot.canary;
    let Some(apex) = &canary.spec.service.apex else {
        return (Map::new(), with_flux(Map::new()));
    };
    let others = |field| {
        let live = snapshot.object(Kind::Service, canary.apex_name());
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
