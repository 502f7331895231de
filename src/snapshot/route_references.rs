//! The objects that the routes of a Canary name: gateways, hosts in the cluster and mirrors. With the flag `-no-cross-namespace-refs`, a
//! route must not name objects in other namespaces. (Flagger follows these references.)
//!
//! A delegated VirtualService has no reference: the VirtualService that delegates to it names it.

use serde_json::{Value, json};

use super::{
    Kind, ObjectRef, OtherNamespaces, Snapshot,
    references::{Blocked, allowed},
};
use crate::api::{
    canary::{Canary, CanaryPhase},
    route_refs::{RouteRef, SUFFIX},
};

/// A part of a spec in which the routes of some routers name other objects. Other routers ignore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// `service.gateways`, and `gateways` in conditions.
    Gateways,
    /// `service.hosts`.
    Hosts,
    /// `service.gatewayRefs`.
    Parents,
    /// `service.mirror`.
    Mirrors,
    /// The parents of copies in `service.routeRefs`.
    Copies,
}

/// The kinds of routes that name other objects.
const ROUTES: [Kind; 7] = [
    Kind::VirtualService,
    Kind::HttpRoute,
    Kind::HttpRouteV1Beta1,
    Kind::GrpcRoute,
    Kind::TrafficSplitV1Alpha1,
    Kind::TrafficSplitV1Alpha2,
    Kind::TrafficSplitV1Alpha3,
];

/// Checks the objects that the routes of a Canary name in these parts of its spec. During a run, the objects that the route names already
/// are allowed. So a release can end that was under way when the flag was set, or when the operator took over from Flagger.
///
/// # Errors
/// An object is in another namespace, and such references are blocked.
pub fn routes(snapshot: &Snapshot, parts: &[Named]) -> Result<(), Blocked> {
    use CanaryPhase as P;
    let canary = &snapshot.canary;
    let runs = matches!(
        snapshot.phase(),
        P::Progressing | P::WaitingPromotion | P::Promoting | P::Finalising
    );
    let is_copy = |object: &ObjectRef| parts == [Named::Copies] && object.name.ends_with(SUFFIX);
    let is_route = |object: &ObjectRef| {
        (ROUTES.contains(&object.kind) && object.name == canary.apex_name()) || is_copy(object)
    };
    let is_routed = |what: &str, value: &Value| {
        let mut live = snapshot.objects.iter();
        runs && live.any(|(object, live)| is_route(object) && names(&live["spec"], what, value))
    };
    blocked_route(canary, parts, is_routed, snapshot.other_namespaces()).map_or(Ok(()), Err)
}

/// Whether the spec of a route names an object, in a field that only references have. A user may write any text into other fields, such as
/// headers.
fn names(spec: &Value, what: &str, value: &Value) -> bool {
    let is_in = |list: &Value| list.as_array().is_some_and(|list| list.contains(value));
    let is = |reference: &Value| {
        let fields = value.as_object().into_iter().flatten();
        reference.is_object()
            && fields
                .into_iter()
                .all(|(key, value)| reference[key] == *value)
    };
    match what {
        "host" => is_in(&spec["hosts"]) || spec["service"] == *value,
        "service" => any_under(spec, "requestMirror", &|mirror| is(&mirror["backendRef"])),
        _ if value.is_string() => any_under(spec, "gateways", &is_in),
        _ => { spec["parentRefs"].as_array().into_iter().flatten() }.any(is),
    }
}

/// Whether this holds for a value under this key, at any depth.
fn any_under(value: &Value, key: &str, holds: &dyn Fn(&Value) -> bool) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| any_under(item, key, holds)),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, value)| (name == key && holds(value)) || any_under(value, key, holds)),
        _ => false,
    }
}

/// The first reference in these parts of the spec that is blocked. References that a route already has are left out.
fn blocked_route(
    canary: &Canary,
    parts: &[Named],
    is_routed: impl Fn(&str, &Value) -> bool,
    others: OtherNamespaces,
) -> Option<Blocked> {
    let own = canary.metadata.namespace.as_deref().unwrap_or_default();
    let all = parts.iter().flat_map(|part| named_in(canary, *part));
    let mut new = all.filter(|(what, value, _)| !is_routed(what, value));
    new.find_map(|(what, value, field)| {
        let to = match (&value, what) {
            (Value::String(host), "host") => host_of(host, is_in_mesh(canary, parts)),
            (Value::String(name), _) => gateway(name),
            _ => named(&value),
        };
        allowed(what, to, (&field, own), others).err()
    })
}

/// The references in a part of the spec: the word for each, its value, and its field.
fn named_in(canary: &Canary, part: Named) -> Vec<(&'static str, Value, String)> {
    let service = &canary.spec.service;
    let texts = |list: &Option<Vec<String>>, what: &'static str, field: &str| {
        let texts = list.iter().flatten().enumerate();
        texts
            .map(|(i, text)| (what, json!(text), format!("spec.service.{field}[{i}]")))
            .collect::<Vec<_>>()
    };
    let references = |list: &Option<Vec<Value>>, what: &'static str, field: &str, of: &str| {
        let items = list.iter().flatten().enumerate();
        items
            .map(|(i, item)| {
                let to = item.pointer(of).unwrap_or(&Value::Null);
                let to = json!({"name": to["name"], "namespace": to["namespace"]});
                let of = of.trim_start_matches('/');
                let of = if of.is_empty() {
                    String::new()
                } else {
                    format!(".{of}")
                };
                (what, to, format!("spec.service.{field}[{i}]{of}.namespace"))
            })
            .collect::<Vec<_>>()
    };
    match part {
        Named::Hosts => texts(&service.hosts, "host", "hosts"),
        Named::Parents => references(&service.gateway_refs, "gateway", "gatewayRefs", ""),
        Named::Copies => {
            let refs = canary.route_refs().unwrap_or_default().into_iter();
            let parents = |(i, route): (usize, RouteRef)| {
                let of = format!("routeRefs[{i}].parentRefs");
                references(&route.parent_refs, "gateway", &of, "")
            };
            refs.enumerate().flat_map(parents).collect()
        }
        Named::Mirrors => references(&service.mirror, "service", "mirror", "/backendRef"),
        // A VirtualService to which another VirtualService delegates has no gateways.
        Named::Gateways => {
            let all = texts(&service.gateways, "gateway", "gateways").into_iter();
            let all = all.filter(|_| !service.delegation);
            all.chain(gateways_of_conditions(canary)).collect()
        }
    }
}

fn gateways_of_conditions(canary: &Canary) -> Vec<(&'static str, Value, String)> {
    let analysis = canary.spec.analysis.as_ref();
    let test = analysis.map_or(&[][..], |analysis| &analysis.match_);
    let own = canary.spec.service.match_.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    for (field, conditions) in [("spec.service.match", own), ("spec.analysis.match", test)] {
        for (i, condition) in conditions.iter().enumerate() {
            let gateways = condition.get("gateways").and_then(Value::as_array);
            for name in gateways
                .into_iter()
                .flatten()
                .filter(|name| name.is_string())
            {
                found.push(("gateway", name.clone(), format!("{field}[{i}].gateways")));
            }
        }
    }
    found
}

/// Whether the routes apply to the requests of the mesh, where `NAME.NAMESPACE` is the host of a Service.
fn is_in_mesh(canary: &Canary, parts: &[Named]) -> bool {
    let gateways = canary.spec.service.gateways.as_deref().unwrap_or_default();
    !parts.contains(&Named::Gateways)
        || gateways.is_empty()
        || gateways.iter().any(|gateway| gateway == "mesh")
}

/// Name and namespace of a gateway of Istio, by Istio's rules: `NAMESPACE/NAME`, with `.` for the own namespace; `NAME`; or, as in old
/// versions, `NAME.NAMESPACE.svc.cluster.local`.
fn gateway(gateway: &str) -> (&str, Option<&str>) {
    match gateway.split_once('/') {
        Some((".", name)) => (name, None),
        Some((namespace, name)) => (name, Some(namespace)),
        None => match gateway.split_once('.') {
            Some((name, rest)) => (name, rest.split('.').next()),
            None => (gateway, None),
        },
    }
}

/// The end of the hosts of Services.
const CLUSTER: &str = ".svc.cluster.local";

/// Name and namespace of the Service that a host stands for. A host outside the cluster, or without a namespace, has none. `*` as a name
/// stands for each Service, and as a namespace for each namespace. In the mesh, a host of two labels is `NAME.NAMESPACE`.
fn host_of(host: &str, is_in_mesh: bool) -> (&str, Option<&str>) {
    let mut labels = host.split('.');
    let (name, second, third) = (labels.next().unwrap_or(host), labels.next(), labels.next());
    match (second, third) {
        (Some(namespace), Some("svc")) => (name, Some(namespace)),
        (Some(namespace), None) if is_in_mesh => (name, Some(namespace)),
        (Some(_), _) if name == "*" && CLUSTER.ends_with(&host[1..]) => (name, Some("*")),
        _ => (name, None),
    }
}

/// Name and namespace of a reference.
fn named(reference: &Value) -> (&str, Option<&str>) {
    let text = |key: &str| reference.get(key).and_then(Value::as_str);
    (text("name").unwrap_or_default(), text("namespace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: [Named; 4] = [
        Named::Gateways,
        Named::Hosts,
        Named::Parents,
        Named::Mirrors,
    ];

    #[test]
    fn a_host_of_two_labels_is_a_domain_behind_a_gateway() {
        for (is_in_mesh, namespace) in [(true, Some("com")), (false, None)] {
            assert_eq!(host_of("example.com", is_in_mesh), ("example", namespace));
        }
    }

    /// Fields, values, and the object that is blocked.
    fn rows() -> Vec<(&'static str, Value, Option<&'static str>)> {
        vec![
            ("gateways", json!(["mesh"]), None),
            ("gateways", json!(["public"]), None),
            ("gateways", json!(["shop/public"]), None),
            ("gateways", json!(["./public"]), None),
            (
                "gateways",
                json!(["mesh", "infra/public"]),
                Some("gateway public.infra"),
            ),
            (
                "gateways",
                json!(["public.infra.svc.cluster.local"]),
                Some("gateway public.infra"),
            ),
            ("gateways", json!(["public.shop.svc.cluster.local"]), None),
            (
                "hosts",
                json!([
                    "*",
                    "shop.example.com",
                    "a.shop",
                    "web.shop.svc.cluster.local"
                ]),
                None,
            ),
            ("hosts", json!(["web", "web.other"]), Some("host web.other")),
            (
                "hosts",
                json!(["web.other.svc.cluster.local"]),
                Some("host web.other"),
            ),
            ("hosts", json!(["web.other.svc"]), Some("host web.other")),
            (
                "hosts",
                json!(["*.other.svc.cluster.local"]),
                Some("host *.other"),
            ),
            ("hosts", json!(["*.svc.cluster.local"]), Some("host *.*")),
            (
                "gatewayRefs",
                json!([{"name": "public"}, {"name": "own", "namespace": "shop"}]),
                None,
            ),
            (
                "gatewayRefs",
                json!([{"name": "public", "namespace": "infra"}]),
                Some("gateway public.infra"),
            ),
            (
                "gatewayRefs",
                json!([{"kind": "Service", "name": "web", "namespace": "other"}]),
                Some("gateway web.other"),
            ),
            (
                "mirror",
                json!([{"backendRef": {"name": "copy", "port": 80}}, {}]),
                None,
            ),
            (
                "mirror",
                json!([{"backendRef": {"name": "copy", "namespace": "other"}}]),
                Some("service copy.other"),
            ),
            (
                "match",
                json!([{"gateways": ["mesh", "shop/public"]}, {}]),
                None,
            ),
            (
                "match",
                json!([{"gateways": ["infra/public"]}]),
                Some("gateway public.infra"),
            ),
            ("delegation", json!(true), None),
        ]
    }

    #[test]
    fn what_a_route_names_in_another_namespace_is_blocked_with_its_field() {
        for (field, value, blocked) in rows() {
            for part in ["service", "analysis"] {
                if part == "analysis" && field != "match" {
                    continue;
                }
                let mut canary = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                    "service": {"port": 80}, "analysis": {}}});
                canary["spec"][part][field] = value.clone();
                let canary: Canary = serde_json::from_value(canary).unwrap();
                let blocked_if = |is_routed: bool, others: OtherNamespaces| {
                    blocked_route(&canary, &PARTS, |_, _| is_routed, others)
                };
                assert_eq!(blocked_if(false, OtherNamespaces::Allowed), None);
                assert_eq!(blocked_if(true, OtherNamespaces::Blocked), None);
                assert_eq!(
                    blocked_route(&canary, &[], |_, _| false, OtherNamespaces::Blocked),
                    None
                );
                let found = blocked_if(false, OtherNamespaces::Blocked);
                let found = found.map(|found| found.to_string());
                assert_eq!(found.is_some(), blocked.is_some(), "{field} {value}");
                for (found, blocked) in found.iter().zip(blocked) {
                    let text =
                        format!("can't access {blocked}, cross-namespace references are blocked: ");
                    assert!(found.starts_with(&text), "{found}");
                    assert!(found.contains(&format!("spec.{part}.{field}[")), "{found}");
                }
            }
        }
    }

    /// A user may write any text into a header of the route, and then ask for it as a gateway.
    #[test]
    fn a_route_names_only_what_is_in_its_references() {
        let spec = json!({"hosts": ["podinfo"], "gateways": ["own/public"], "http": [{
            "match": [{"gateways": ["own/inner"]}],
            "headers": {"request": {"set": {"gateways": "infra/public", "hosts": "web.other"}, "remove": ["infra/public"]}},
            "rewrite": {"authority": "web.other"}}]});
        for (what, name, is_named) in [
            ("gateway", "own/public", true),
            ("gateway", "own/inner", true),
            ("gateway", "infra/public", false),
            ("host", "podinfo", true),
            ("host", "web.other", false),
        ] {
            assert_eq!(names(&spec, what, &json!(name)), is_named, "{what} {name}");
        }
        let own = json!({"name": "own", "namespace": "a"});
        let other = json!({"name": "other", "namespace": "b"});
        let spec = json!({"parentRefs": [{"name": "own", "namespace": "a", "sectionName": "http"}],
            "rules": [{"filters": [{"requestMirror": {"backendRef": own}}], "backendRefs": [other]}]});
        for (what, value, is_named) in [
            ("gateway", &own, true),
            ("gateway", &other, false),
            ("service", &own, true),
            ("service", &other, false),
        ] {
            assert_eq!(names(&spec, what, value), is_named, "{what} {value}");
        }
    }
}
