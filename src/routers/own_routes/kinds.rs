//! The kinds of routes of the user: the lists of rules in each, and how a backend names its Service and its weight.
//!
//! A new kind is a row here, a name in `api/route_refs.rs`, and a row in the table of [`Kind`].

use std::fmt;

use serde_json::{Value, json};

use crate::{
    routers::route::text,
    snapshot::{Kind, ObjectRef},
};

/// A kind of route, and the places of its rules and backends.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    /// The kind.
    pub kind: Kind,
    /// The lists of rules in `spec`.
    lists: &'static [&'static str],
    /// The list of backends in a rule.
    backends: &'static str,
    /// The path of the name of a backend's Service.
    service: &'static str,
    /// How a backend names its Service.
    naming: Naming,
    /// The weight of a backend that has none, in a rule with several backends.
    absent_weight: u64,
}

/// How a backend names its Service.
#[derive(Debug, PartialEq, Eq)]
enum Naming {
    /// By group, kind, name and namespace.
    Reference,
    /// By a host. A host without a dot is in the namespace of the route.
    Host,
}

/// The end of the hosts of Services.
const CLUSTER: &str = ".svc.cluster.local";

const fn gateway_api(kind: Kind) -> Form {
    Form {
        kind,
        lists: &["rules"],
        backends: "backendRefs",
        service: "name",
        naming: Naming::Reference,
        // The API server adds this default.
        absent_weight: 1,
    }
}

/// The kinds, in the order of `api::route_refs::KINDS`.
static FORMS: [Form; 5] = [
    gateway_api(Kind::HttpRoute),
    gateway_api(Kind::GrpcRoute),
    gateway_api(Kind::TlsRoute),
    gateway_api(Kind::TcpRoute),
    // Istio serves each object in all its versions, so it does not matter which one the user's manifest has.
    Form {
        kind: Kind::VirtualService,
        // Only rules of the first list have names.
        lists: &["http", "tls", "tcp"],
        backends: "route",
        service: "destination/host",
        naming: Naming::Host,
        absent_weight: 0,
    },
];

/// The place of a rule: a list in `spec`, and an index in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    list: &'static str,
    index: usize,
}

impl Place {
    /// The path of the rule in the route.
    pub fn path(self) -> String {
        format!("/spec/{}/{}", self.list, self.index)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spec.{}[{}]", self.list, self.index)
    }
}

/// Whether routes of this kind can be the user's (`routeRefs`).
pub fn is_route(kind: Kind) -> bool {
    FORMS.iter().any(|form| form.kind == kind)
}

/// The kind of this name. (App Mesh has a VirtualService, too, which is no route of the user.)
pub fn named(name: &str) -> Option<Kind> {
    let mut kinds = FORMS.iter().map(|form| form.kind);
    kinds.find(|kind| kind.name() == name)
}

impl Form {
    /// The form of a route.
    pub fn of(route: &ObjectRef) -> &'static Self {
        // Only a route of these kinds can be named.
        let form = FORMS.iter().find(|form| form.kind == route.kind);
        form.unwrap_or(&FORMS[0])
    }

    /// All rules of a route, with their places.
    pub fn rules<'a>(&self, route: &'a Value) -> impl Iterator<Item = (Place, &'a Value)> {
        self.lists.iter().flat_map(|list| {
            let rules = items(&route["spec"][list]).enumerate();
            rules.map(move |(index, rule)| (Place { list, index }, rule))
        })
    }

    /// The backends of a rule.
    pub fn backends<'a>(&self, rule: &'a Value) -> impl Iterator<Item = &'a Value> {
        items(&rule[self.backends])
    }

    /// The text by which a backend names this Service; `None` if it is another one.
    pub fn named<'a>(
        &self,
        backend: &'a Value,
        service: &str,
        [namespace, of_route]: [&str; 2],
    ) -> Option<&'a str> {
        let path = format!("/{}", self.service);
        let name = backend.pointer(&path).and_then(Value::as_str)?;
        let is_service = match self.naming {
            Naming::Reference => {
                name == service
                    && text(backend, "group").is_none()
                    && text(backend, "kind").is_none_or(|kind| kind == "Service")
                    && text(backend, "namespace").unwrap_or(of_route) == namespace
            }
            Naming::Host if name.contains('.') => {
                let mut ends = ["", ".svc", CLUSTER].iter();
                ends.any(|end| name == format!("{service}.{namespace}{end}"))
            }
            Naming::Host => name == service && of_route == namespace,
        };
        is_service.then_some(name)
    }

    /// Whether the data plane finds the Service by this name. Istio completes only a host without a dot.
    pub fn is_found(&self, name: &str) -> bool {
        self.naming == Naming::Reference || !name.contains('.') || name.ends_with(CLUSTER)
    }

    /// The weight of a backend.
    pub fn weight(&self, backend: &Value) -> u64 {
        let weight = backend.get("weight");
        let of = |weight: &Value| weight.as_u64().unwrap_or(0).min(u64::from(u32::MAX));
        weight.map_or(self.absent_weight, of)
    }

    /// The path of a backend, in the route.
    pub fn backend_path(&self, rule: Place, backend: usize) -> String {
        format!("{}/{}/{backend}", rule.path(), self.backends)
    }

    /// A copy of a backend that leads to the Service with this name, and has this weight.
    pub fn leading_to(&self, backend: &Value, service: &str, weight: u64) -> Value {
        let mut copy = backend.clone();
        if let Some(name) = copy.pointer_mut(&format!("/{}", self.service)) {
            *name = json!(service);
        }
        copy["weight"] = json!(weight);
        copy
    }

    /// The path of the name of a backend's Service, in the route.
    pub fn name_path(&self, rule: Place, backend: usize) -> String {
        self.path(rule, backend, self.service)
    }

    /// The path of the weight of a backend, in the route.
    pub fn weight_path(&self, rule: Place, backend: usize) -> String {
        self.path(rule, backend, "weight")
    }

    fn path(&self, rule: Place, backend: usize, field: &str) -> String {
        format!("{}/{field}", self.backend_path(rule, backend))
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route_refs::KINDS;

    #[test]
    fn each_kind_that_a_canary_may_name_has_a_form_and_no_other_kind_has_one() {
        let forms = FORMS.iter().map(|form| form.kind.name());
        assert!(forms.eq(KINDS));
        assert_eq!(named("Ingress"), None);
        assert_eq!(named("VirtualService"), Some(Kind::VirtualService));
    }
}
