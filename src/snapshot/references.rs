//! References of a Canary to objects that may be in another namespace, and the flag `-no-cross-namespace-refs`, which blocks those. Each
//! object of such a reference is named here and nowhere else, so that the flag also holds where a spec is not validated: while a rollback
//! is under way, and for alerts that wait in a queue. The Secret of a template or provider is in the namespace of that object.
//!
//! `route_references.rs` has the references of routes.

use super::{Kind, ObjectRef};
use crate::api::canary::{self, Canary, CrossNamespaceRef};

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

/// Checks a route of `spec.service.routeRefs` of a Canary in the namespace `own`.
///
/// # Errors
/// The route is in another namespace, and such references are blocked.
pub fn own_route(route: &ObjectRef, own: &str, others: OtherNamespaces) -> Result<(), Blocked> {
    let what = route.kind.name();
    let named = (route.name.as_str(), Some(route.namespace.as_str()));
    let field = "spec.service.routeRefs[].namespace";
    allowed(what, named, (field, own), others).map(drop)
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

pub(super) fn allowed(
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
    use serde_json::{Value, json};

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
