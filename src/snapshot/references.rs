//! References of a Canary to objects that may be in another namespace, and the flag `-no-cross-namespace-refs`, which blocks those. Each
//! object of such a reference is named here and nowhere else, so that the flag also holds where a spec is not validated: while a rollback
//! is under way, and for alerts that wait in a queue. The Secret of a template or provider is in the namespace of that object.
//!
//! The gateways of a route, its hosts in the cluster and its mirrors are such references, too: with the flag, a Canary reaches no client and
//! no Service of another namespace by a route. (Flagger follows them.)
//!
//! A delegated VirtualService has no reference: the VirtualService that delegates to it names it.

use serde_json::{Value, json};

use super::{Kind, ObjectRef, Snapshot};
use crate::api::canary::{self, Canary, CanaryPhase, CrossNamespaceRef};

/// Whether references to other namespaces are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherNamespaces {
    /// Flagger's default.
    #[default]
    Allowed,
    /// `-no-cross-namespace-refs`.
    Blocked,
}

impl OtherNamespaces {
    /// The value of the flag `-no-cross-namespace-refs`.
    pub const fn of_flag(no_cross_namespace_refs: bool) -> Self {
        if no_cross_namespace_refs {
            Self::Blocked
        } else {
            Self::Allowed
        }
    }
}

/// A reference that `-no-cross-namespace-refs` blocks. The text begins with Flagger's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "can't access {what} {name}.{namespace}, cross-namespace references are blocked: with -no-cross-namespace-refs, {field} may name the namespace {own} only"
)]
pub struct Blocked {
    what: &'static str,
    name: String,
    namespace: String,
    field: String,
    own: String,
}

/// The namespace of a reference; without one, or with an empty one, it is the Canary's.
pub fn namespace<'a>(named: Option<&'a str>, own: &'a str) -> &'a str {
    named.filter(|named| !named.is_empty()).unwrap_or(own)
}

/// The MetricTemplate of a reference by a Canary in the namespace `own`.
///
/// # Errors
/// The template is in another namespace, and such references are blocked.
pub fn metric_template(
    to: &CrossNamespaceRef,
    own: &str,
    others: OtherNamespaces,
) -> Result<ObjectRef, Blocked> {
    let named = (to.name.as_str(), to.namespace.as_deref());
    let field = "spec.analysis.metrics[].templateRef";
    let namespace = allowed("metric template", named, (field, own), others)?;
    Ok(ObjectRef {
        kind: Kind::MetricTemplate,
        namespace,
        name: to.name.clone(),
    })
}

/// The AlertProvider of a reference by a Canary in the namespace `own`.
///
/// # Errors
/// The provider is in another namespace, and such references are blocked.
pub fn alert_provider(
    to: &CrossNamespaceRef,
    own: &str,
    others: OtherNamespaces,
) -> Result<ObjectRef, Blocked> {
    let named = (to.name.as_str(), to.namespace.as_deref());
    let field = "spec.analysis.alerts[].providerRef";
    let namespace = allowed("alert provider", named, (field, own), others)?;
    Ok(ObjectRef {
        kind: Kind::AlertProvider,
        namespace,
        name: to.name.clone(),
    })
}

/// Checks the object that a query of a metric names.
///
/// # Errors
/// The object is in another namespace, and such references are blocked.
pub fn queried(
    what: &'static str,
    (name, namespace): (&str, &str),
    own: &str,
    others: OtherNamespaces,
) -> Result<(), Blocked> {
    let field = "the query of a MetricTemplate";
    allowed(what, (name, Some(namespace)), (field, own), others).map(drop)
}

/// The Upstream of a reference by a Canary in the namespace `own`.
///
/// # Errors
/// The Upstream is in another namespace, and such references are blocked.
pub fn upstream(
    to: &canary::ObjectRef,
    own: &str,
    others: OtherNamespaces,
) -> Result<ObjectRef, Blocked> {
    let named = (to.name.as_str(), to.namespace.as_deref());
    let namespace = allowed("gloo upstream", named, ("spec.upstreamRef", own), others)?;
    Ok(ObjectRef {
        kind: Kind::GlooUpstream,
        namespace,
        name: to.name.clone(),
    })
}

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
}

/// The kinds of routes that name other objects.
const ROUTES: [Kind; 6] = [
    Kind::VirtualService,
    Kind::HttpRoute,
    Kind::HttpRouteV1Beta1,
    Kind::TrafficSplitV1Alpha1,
    Kind::TrafficSplitV1Alpha2,
    Kind::TrafficSplitV1Alpha3,
];

/// Checks the objects that the routes of a Canary name in these parts of its spec. During a run, those that its route names already are
/// allowed: a release that was under way when the flag was set, or when the operator took over from Flagger, comes to its end.
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
    let is_route =
        |object: &ObjectRef| ROUTES.contains(&object.kind) && object.name == canary.apex_name();
    let is_routed = |value: &Value| {
        let mut live = snapshot.objects.iter();
        runs && live.any(|(object, live)| is_route(object) && has(&live["spec"], value))
    };
    blocked_route(canary, parts, is_routed, snapshot.other_namespaces()).map_or(Ok(()), Err)
}

/// Whether a value has another one in it. An object may have further fields.
fn has(value: &Value, wanted: &Value) -> bool {
    match (value, wanted) {
        (Value::Array(items), _) => items.iter().any(|item| has(item, wanted)),
        (Value::Object(fields), Value::Object(some)) => {
            some.iter()
                .all(|(key, value)| fields.get(key) == Some(value))
                || fields.values().any(|value| has(value, wanted))
        }
        (Value::Object(fields), _) => fields.values().any(|value| has(value, wanted)),
        _ => value == wanted,
    }
}

/// The first reference in these parts of the spec that is blocked, and that no route has already.
fn blocked_route(
    canary: &Canary,
    parts: &[Named],
    is_routed: impl Fn(&Value) -> bool,
    others: OtherNamespaces,
) -> Option<Blocked> {
    let own = canary.metadata.namespace.as_deref().unwrap_or_default();
    let all = parts.iter().flat_map(|part| named_in(canary, *part));
    let mut new = all.filter(|(_, value, _)| !is_routed(value));
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
        Named::Mirrors => references(&service.mirror, "service", "mirror", "/backendRef"),
        // A VirtualService that another one delegates to has no gateways.
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

/// The first reference of a Canary beside its routes that is blocked, in Flagger's order.
pub fn first_blocked(canary: &Canary, others: OtherNamespaces) -> Option<Blocked> {
    let own = canary.metadata.namespace.as_deref().unwrap_or_default();
    let upstream = canary.spec.upstream_ref.as_ref();
    let upstream = upstream.and_then(|to| self::upstream(to, own, others).err());
    let analysis = canary.spec.analysis.as_ref();
    let metrics = analysis.iter().flat_map(|analysis| &analysis.metrics);
    let mut templates = metrics
        .filter_map(|metric| metric_template(metric.template_ref.as_ref()?, own, others).err());
    let alerts = analysis.iter().flat_map(|analysis| &analysis.alerts);
    let mut providers =
        alerts.filter_map(|alert| alert_provider(&alert.provider_ref, own, others).err());
    upstream
        .or_else(|| templates.next())
        .or_else(|| providers.next())
}

fn allowed(
    what: &'static str,
    (name, named): (&str, Option<&str>),
    (field, own): (&str, &str),
    others: OtherNamespaces,
) -> Result<String, Blocked> {
    let namespace = namespace(named, own).to_owned();
    if others == OtherNamespaces::Allowed || namespace == own {
        return Ok(namespace);
    }
    Err(Blocked {
        what,
        name: name.to_owned(),
        namespace,
        field: field.to_owned(),
        own: own.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Canary in the namespace `shop` with this kind of reference.
    fn canary(kind: &str, reference: &Value) -> Canary {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        let mut spec = json!({"targetRef": target, "service": {"port": 80}, "analysis": {}});
        match kind {
            "metric template" => {
                spec["analysis"]["metrics"] = json!([{"name": "m", "templateRef": reference}]);
            }
            "alert provider" => {
                spec["analysis"]["alerts"] = json!([{"name": "a", "providerRef": reference}]);
            }
            _ => spec["upstreamRef"] = reference.clone(),
        }
        let metadata = json!({"name": "web", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn each_kind_of_reference_to_another_namespace_is_blocked_by_the_flag_and_only_then() {
        for kind in ["gloo upstream", "metric template", "alert provider"] {
            let blocked =
                format!("can't access {kind} n.other, cross-namespace references are blocked");
            for (reference, expected) in [
                (json!({"name": "n"}), None),
                (json!({"name": "n", "namespace": ""}), None),
                (json!({"name": "n", "namespace": "shop"}), None),
                (json!({"name": "n", "namespace": "other"}), Some(blocked)),
            ] {
                let canary = canary(kind, &reference);
                let found = first_blocked(&canary, OtherNamespaces::Blocked);
                let found = found.map(|blocked| blocked.to_string());
                let (text, advice) = found
                    .as_deref()
                    .and_then(|found| found.split_once(": with"))
                    .unzip();
                assert_eq!(text, expected.as_deref());
                assert!(
                    advice
                        .is_none_or(|advice| advice.ends_with(" may name the namespace shop only"))
                );
                assert_eq!(first_blocked(&canary, OtherNamespaces::Allowed), None);
            }
        }
    }

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

    #[test]
    fn what_a_route_names_in_another_namespace_is_blocked_with_its_field() {
        let rows = [
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
        ];
        for (field, value, blocked) in rows {
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
                    blocked_route(&canary, &PARTS, |_| is_routed, others)
                };
                assert_eq!(blocked_if(false, OtherNamespaces::Allowed), None);
                assert_eq!(blocked_if(true, OtherNamespaces::Blocked), None);
                assert_eq!(
                    blocked_route(&canary, &[], |_| false, OtherNamespaces::Blocked),
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

    #[test]
    fn a_reference_names_its_object() {
        let to = |namespace: Option<&str>| CrossNamespaceRef {
            name: "n".to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        let others = OtherNamespaces::Allowed;
        for (named, namespace) in [(None, "shop"), (Some(""), "shop"), (Some("x"), "x")] {
            let template = metric_template(&to(named), "shop", others).unwrap();
            let provider = alert_provider(&to(named), "shop", others).unwrap();
            for object in [&template, &provider] {
                assert_eq!(
                    (object.name.as_str(), object.namespace.as_str()),
                    ("n", namespace)
                );
            }
            assert_eq!(
                (template.kind, provider.kind),
                (Kind::MetricTemplate, Kind::AlertProvider)
            );
        }
    }
}
