//! The VirtualServices: the names that clients call, and the annotations that the gateway of App Mesh reads.

use serde_json::{Map, Value, json};

use super::{AppMesh, Side, routes::attempts, write};
use crate::{
    api::canary::Canary,
    routers::route::{metadata, new_object, put_fields},
    snapshot::{Action, Kind, Snapshot, Write},
    workload::metadata::is_owned,
};

/// The prefix of the annotations that App Mesh's gateway reads.
const GATEWAY: &str = "gateway.appmesh.k8s.aws/";
/// The annotations that are ours, without [`GATEWAY`].
const OURS: [&str; 4] = ["expose", "domain", "timeout", "retries"];

impl AppMesh {
    /// The write of the VirtualService that leads to the VirtualRouter of one Service; `None` if it is correct. (Flagger never changes it,
    /// and does not create it again.)
    pub(super) fn service_write(self, snapshot: &Snapshot, side: Side) -> Option<Write> {
        if self == Self::V1Beta1 {
            // In `v1beta1`, the VirtualService has the routes, and `routes_write` writes it.
            return None;
        }
        let (canary, kind) = (&snapshot.canary, Kind::AppMeshService);
        let name = self.name(canary, side);
        let provider = provider(&name);
        let action = match snapshot.object(kind, &name) {
            None => {
                let metadata = [Map::new(), gateway_annotations(canary, side)];
                let spec = json!({"provider": provider});
                Action::Create(new_object(snapshot, kind, &name, metadata, spec))
            }
            Some(live) => {
                let mut wanted = live.clone();
                annotate(canary, side, &mut wanted);
                if live.pointer("/spec/provider") != Some(&provider) {
                    let ours = Map::from_iter([("provider".to_owned(), provider)]);
                    put_fields(&mut wanted, ours, &["provider"]);
                }
                (wanted != *live).then_some(Action::Replace(wanted))?
            }
        };
        Some(write(snapshot, kind, &name, action, self.within(side)))
    }
}

/// In `v1beta1`, the object with the routes is the VirtualService.
impl AppMesh {
    /// The annotations of a new object with routes.
    pub(super) fn route_annotations(self, canary: &Canary, side: Side) -> Map<String, Value> {
        match self {
            Self::V1Beta1 => gateway_annotations(canary, side),
            Self::V1Beta2 => Map::new(),
        }
    }

    /// Replaces the annotations of an object with routes.
    pub(super) fn annotate_routes(self, canary: &Canary, side: Side, live: &mut Value) {
        match self {
            Self::V1Beta1 => annotate(canary, side, live),
            Self::V1Beta2 => {}
        }
    }
}

/// The field `provider` of a VirtualService that leads to the VirtualRouter of this name.
pub(super) fn provider(router: &str) -> Value {
    json!({"virtualRouter": {"virtualRouterRef": {"name": router}}})
}

/// The annotations for the gateway. The gateway only has hosts for the Service that clients call.
fn gateway_annotations(canary: &Canary, side: Side) -> Map<String, Value> {
    let service = &canary.spec.service;
    let hosts = service.hosts.as_deref().unwrap_or_default();
    if hosts.is_empty() || side == Side::Canary {
        return Map::new();
    }
    // Flagger's list ends with a comma.
    let domain = format!("{},", hosts.join(","));
    let timeout = service
        .timeout
        .as_ref()
        .filter(|timeout| !timeout.is_empty());
    let retries = service.retries.as_ref().and_then(attempts);
    let values = [
        Some("true".to_owned()),
        Some(domain),
        timeout.cloned(),
        retries.map(|retries| retries.to_string()),
    ];
    let all = OURS.iter().zip(values);
    all.filter_map(|(key, value)| Some((format!("{GATEWAY}{key}"), json!(value?))))
        .collect()
}

/// Replaces the annotations for the gateway. If the Canary has no hosts, those of a VirtualService that it does not own stay.
fn annotate(canary: &Canary, side: Side, live: &mut Value) {
    let wanted = gateway_annotations(canary, side);
    if wanted.is_empty() && !is_owned(live, canary) {
        return;
    }
    let before = metadata(live, "annotations");
    let is_ours = |key: &str| {
        key.strip_prefix(GATEWAY)
            .is_some_and(|key| OURS.contains(&key))
    };
    let mut annotations = before.clone();
    annotations.retain(|key, _| !is_ours(key));
    annotations.extend(wanted);
    if annotations != before {
        live["metadata"]["annotations"] = Value::Object(annotations);
    }
}
