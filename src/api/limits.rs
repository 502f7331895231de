//! The most entries that the lists of a Canary may have. The CRD has these limits as `maxItems`. A Canary that was created before the CRD
//! had them may exceed them; the operator then refuses it (`rollout/safety/validation.rs`).

use serde_json::{Value, json};

use super::{
    canary::{CanaryAnalysis, CanarySpec},
    route_refs,
};

/// The most metrics of a Canary.
pub const METRICS: usize = 100;
/// The most webhooks of a Canary.
pub const WEBHOOKS: usize = 100;
/// The most alerts of a Canary.
pub const ALERTS: usize = 100;
/// The most ports that `portDiscovery` takes from the target's containers.
pub const PORTS: usize = 100;
/// The most sets of conditions in `spec.service.match`, and in `spec.analysis.match`.
const MATCHES: usize = 1000;
/// The most host names, gateways, backends and keys of metadata.
const NAMES: usize = 1000;

/// The limit of one list.
pub struct ListLimit {
    /// The field, below `spec`.
    pub field: &'static str,
    /// The most entries.
    pub most: usize,
    /// Returns the number of entries.
    pub count: fn(&CanarySpec) -> usize,
}

/// A list with more entries than it may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {count} entries, but at most {most} are supported")]
pub struct TooMany {
    /// The field, below `spec`.
    pub field: &'static str,
    /// The number of entries.
    pub count: usize,
    /// The most entries.
    pub most: usize,
}

/// All lists of a Canary that the operator reads.
pub const LISTS: &[ListLimit] = &[
    list("analysis.metrics", METRICS, |spec| {
        of_analysis(spec, |analysis| analysis.metrics.len())
    }),
    list("analysis.webhooks", WEBHOOKS, |spec| {
        of_analysis(spec, |analysis| analysis.webhooks.len())
    }),
    list("analysis.alerts", ALERTS, |spec| {
        of_analysis(spec, |analysis| analysis.alerts.len())
    }),
    list("analysis.match", MATCHES, |spec| {
        of_analysis(spec, |analysis| analysis.match_.len())
    }),
    list("analysis.stepWeights", 100, |spec| {
        of_analysis(spec, |analysis| length(analysis.step_weights.as_ref()))
    }),
    list("analysis.decimalStepWeights", 100, |spec| {
        of_analysis(spec, |analysis| {
            length(analysis.decimal_step_weights.as_ref())
        })
    }),
    list("service.match", MATCHES, |spec| {
        length(spec.service.match_.as_ref())
    }),
    list("service.hosts", NAMES, |spec| {
        length(spec.service.hosts.as_ref())
    }),
    list("service.gateways", NAMES, |spec| {
        length(spec.service.gateways.as_ref())
    }),
    list("service.backends", NAMES, |spec| {
        length(spec.service.backends.as_ref())
    }),
    // The Gateway API has the same limit.
    list("service.gatewayRefs", 32, |spec| {
        length(spec.service.gateway_refs.as_ref())
    }),
    list("service.routeRefs", route_refs::ROUTES, |spec| {
        length(spec.service.route_refs.as_ref())
    }),
    // The Gateway API has the same limit.
    list("service.grpc.methods", 64, |spec| {
        let grpc = spec.service.grpc.as_ref();
        length(grpc.and_then(|grpc| grpc.methods.as_ref()))
    }),
    list("service.mirror", 100, |spec| {
        length(spec.service.mirror.as_ref())
    }),
    list("service.unmanagedMetadata.labels", NAMES, |spec| {
        let unmanaged = spec.service.unmanaged_metadata.as_ref();
        length(unmanaged.and_then(|unmanaged| unmanaged.labels.as_ref()))
    }),
    list("service.unmanagedMetadata.annotations", NAMES, |spec| {
        let unmanaged = spec.service.unmanaged_metadata.as_ref();
        length(unmanaged.and_then(|unmanaged| unmanaged.annotations.as_ref()))
    }),
];

const fn list(field: &'static str, most: usize, count: fn(&CanarySpec) -> usize) -> ListLimit {
    ListLimit { field, most, count }
}

fn of_analysis(spec: &CanarySpec, count: fn(&CanaryAnalysis) -> usize) -> usize {
    spec.analysis.as_ref().map_or(0, count)
}

fn length<T>(list: Option<&Vec<T>>) -> usize {
    list.map_or(0, Vec::len)
}

/// Returns the first list that is too long.
pub fn exceeded(spec: &CanarySpec) -> Option<TooMany> {
    LISTS.iter().find_map(|list| {
        let ListLimit { field, most, .. } = *list;
        let count = (list.count)(spec);
        (count > most).then_some(TooMany { field, count, most })
    })
}

/// Adds the limits to the schema of a Canary's `spec`.
pub(super) fn put_in_place(spec: &mut Value) {
    for ListLimit { field, most, .. } in LISTS {
        let place = format!("/properties/{}", field.replace('.', "/properties/"));
        let Some(schema) = spec.pointer_mut(&place) else {
            continue;
        };
        schema["maxItems"] = json!(most);
        if let Some(Value::String(description)) = schema.get_mut("description") {
            *description = format!("{description} At most {most} entries.");
        }
    }
}
