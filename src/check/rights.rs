//! The rights that the operator needs for a set of canaries: those rights of `kustomize/base/flagger/account.yaml` and
//! `kustomize/base/routers` and `kustomize/base/metrics` that are about the kinds which these canaries use. The verbs of each kind are in the table of [`Kind`](crate::snapshot::Kind).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use crate::{
    api::canary::Canary,
    metrics::Queried,
    routers::own_routes,
    snapshot::{Kind, ObjectRef, TargetKind, references},
    workload::history,
};

/// The verbs for routes of the user, which the operator neither creates nor replaces.
const WEIGHTS: &[&str] = &["get", "list", "watch", "patch"];

/// One right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The resource, with its subresource if there is one (`canaries/status`).
    pub resource: &'static str,
    /// The name of the only object that the right is about; `None` if it is about all objects of the resource.
    pub name: Option<String>,
    /// `get`, `list`, `watch`, `create`, `update` or `patch`.
    pub verb: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, subresource) = match self.resource.split_once('/') {
            Some((resource, subresource)) => (resource, format!("/{subresource}")),
            None => (self.resource, String::new()),
        };
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(
            f,
            "{} {resource}{dot}{}{subresource}",
            self.verb, self.group
        )?;
        self.name
            .as_ref()
            .map_or(Ok(()), |name| write!(f, " {name}"))
    }
}

/// The namespaces in which a right is needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In all namespaces.
    All,
    /// In one namespace.
    Namespace(String),
}

impl Scope {
    /// The namespace; `None` for all namespaces.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Namespace(namespace) => Some(namespace),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("in all namespaces"),
            Self::Namespace(namespace) => write!(f, "in namespace {namespace}"),
        }
    }
}

/// A canary and the objects that it depends on.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The canary.
    pub canary: Canary,
    /// The objects that decisions about the canary read or write.
    pub objects: BTreeSet<ObjectRef>,
    /// The objects that the queries of its metrics name.
    pub queried: Vec<Queried>,
}

/// Each right that the operator needs, with the namespaces in which it needs it. The operator lists and watches objects in the scope
/// `watched`. `lease` is the name and namespace of the Lease if leader election is on, `records` whether it keeps records of releases.
pub fn rights(
    subjects: &[Subject],
    watched: &Scope,
    lease: Option<(&str, &str)>,
    records: bool,
) -> BTreeMap<Right, BTreeSet<Scope>> {
    let mut needed = Needed {
        watched,
        rights: BTreeMap::new(),
    };
    needed.add("flagger.app", "canaries", &["list", "watch"], "");
    for Subject {
        canary,
        objects,
        queried,
    } in subjects
    {
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        needed.add("flagger.app", "canaries", &["get"], namespace);
        needed.add("flagger.app", "canaries/status", &["patch"], namespace);
        // The admission plugin OwnerReferencesPermissionEnforcement asks for this right when the operator creates an object that the
        // Canary owns.
        needed.add("flagger.app", "canaries/finalizers", &["update"], namespace);
        if canary.spec.revert_on_deletion || canary.has_route_refs() {
            needed.add("flagger.app", "canaries", &["patch"], namespace);
        }
        needed.add("", "events", &["get", "create", "patch"], namespace);
        needed.add_objects(canary, objects);
        for query in queried {
            if let Some((group, resource, verbs)) = query.rights {
                needed.add(group, resource, verbs, &query.namespace);
            }
        }
        for kind in beside(canary).chain(records.then_some(Kind::Release)) {
            let (group, _) = kind.group_version();
            needed.add(group, kind.plural(), kind.verbs(), namespace);
        }
        let alerts = canary.spec.analysis.iter().flat_map(|a| &a.alerts);
        for alert in alerts {
            let named = alert.provider_ref.namespace.as_deref();
            let namespace = references::namespace(named, namespace);
            needed.add("flagger.app", "alertproviders", &["get"], namespace);
            needed.add("", "secrets", &["get"], namespace);
        }
    }
    if let Some((name, namespace)) = lease {
        let (group, resource) = ("coordination.k8s.io", "leases");
        needed.add(group, resource, &["create"], namespace);
        needed.add_named(group, (resource, Some(name)), &["get", "update"], namespace);
    }
    needed.rights
}

/// The routes of the user in which the operator sets weights, or which it has to give back. (Rights are for a kind in a namespace, so a
/// route that the operator copies needs those of the copy.)
fn users_routes(canary: &Canary) -> BTreeSet<ObjectRef> {
    let used = own_routes::named_or_recorded(canary).into_iter();
    let patched = used.filter(|used| used.template.is_none());
    patched.map(|used| used.route).collect()
}

/// The kinds that are listed when they are needed: the former versions of the target, and the pods of a version that does not become ready.
fn beside(canary: &Canary) -> impl Iterator<Item = Kind> {
    let target = TargetKind::of(canary);
    let pods = target.filter(|it| it.has_pods()).map(|_| Kind::Pod);
    let history = target.and_then(history::kind);
    history.into_iter().chain(pods)
}

struct Needed<'a> {
    watched: &'a Scope,
    rights: BTreeMap<Right, BTreeSet<Scope>>,
}

impl Needed<'_> {
    fn add_objects(&mut self, canary: &Canary, objects: &BTreeSet<ObjectRef>) {
        let users = users_routes(canary);
        for object in objects {
            let (group, _) = object.kind.group_version();
            let kind = object.kind;
            let verbs = if users.contains(object) {
                WEIGHTS
            } else {
                kind.verbs()
            };
            self.add(group, kind.plural(), verbs, &object.namespace);
        }
    }

    fn add(
        &mut self,
        group: &'static str,
        resource: &'static str,
        verbs: &[&'static str],
        namespace: &str,
    ) {
        self.add_named(group, (resource, None), verbs, namespace);
    }

    /// Adds the rights on a resource, or on the one object of this name.
    fn add_named(
        &mut self,
        group: &'static str,
        (resource, name): (&'static str, Option<&str>),
        verbs: &[&'static str],
        namespace: &str,
    ) {
        // The kind decides about the scope: the rights on Canaries are added without a namespace, although Canaries are in namespaces.
        let is_of_cluster = Kind::ALL.iter().any(|kind| {
            kind.is_cluster_scoped() && kind.group_version().0 == group && kind.plural() == resource
        });
        for verb in verbs {
            let scope = match *verb {
                // A kind that is not watched is listed in the canary's namespace only.
                "list" | "watch" if verbs.contains(&"watch") && !is_of_cluster => {
                    self.watched.clone()
                }
                _ if is_of_cluster => Scope::All,
                _ => Scope::Namespace(namespace.to_owned()),
            };
            let right = Right {
                group,
                resource,
                name: name.map(str::to_owned),
                verb,
            };
            self.rights.entry(right).or_default().insert(scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::metrics::Server;

    fn subject(spec: Value, kinds: &[Kind]) -> Subject {
        let mut all = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80}});
        for (key, value) in spec.as_object().unwrap() {
            all[key] = value.clone();
        }
        let object = |kind: &Kind| ObjectRef {
            kind: *kind,
            namespace: "test".to_owned(),
            name: "podinfo".to_owned(),
        };
        Subject {
            canary: serde_json::from_value(
                json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": all}),
            )
            .unwrap(),
            objects: kinds.iter().map(object).collect(),
            queried: Vec::new(),
        }
    }

    fn words(rights: &BTreeMap<Right, BTreeSet<Scope>>) -> Vec<String> {
        let each = rights
            .iter()
            .flat_map(|(right, scopes)| scopes.iter().map(move |scope| format!("{right} {scope}")));
        each.collect()
    }

    #[test]
    fn a_canary_needs_the_rights_for_the_objects_that_it_uses_and_no_others() {
        let all = rights(
            &[subject(json!({}), &[Kind::Deployment])],
            &Scope::All,
            None,
            true,
        );
        let mut seen = words(&all);
        seen.sort();
        assert_eq!(
            seen,
            [
                "create deployments.apps in namespace test",
                "create events in namespace test",
                "create releases.flagger-rs.github.io in namespace test",
                "delete releases.flagger-rs.github.io in namespace test",
                "get canaries.flagger.app in namespace test",
                "get deployments.apps in namespace test",
                "get events in namespace test",
                "list canaries.flagger.app in all namespaces",
                "list deployments.apps in all namespaces",
                "list pods in namespace test",
                "list releases.flagger-rs.github.io in namespace test",
                "list replicasets.apps in namespace test",
                "patch canaries.flagger.app/status in namespace test",
                "patch deployments.apps in namespace test",
                "patch events in namespace test",
                "patch releases.flagger-rs.github.io in namespace test",
                "update canaries.flagger.app/finalizers in namespace test",
                "watch canaries.flagger.app in all namespaces",
                "watch deployments.apps in all namespaces",
            ]
        );
    }

    /// The person who grants the rights should not give the operator more than it uses on routes of others.
    #[test]
    fn a_route_of_the_user_needs_no_right_to_create_or_replace_it() {
        let refs = json!([{"kind": "HTTPRoute", "name": "podinfo"}, {"kind": "GRPCRoute", "name": "podinfo"}]);
        let spec = json!({"service": {"port": 80, "routeRefs": refs}});
        let kinds = [Kind::HttpRoute, Kind::GrpcRoute];
        let of_routes = |spec: Value| {
            let seen = words(&rights(&[subject(spec, &kinds)], &Scope::All, None, true));
            let seen = seen.into_iter().filter(|right| right.contains("routes."));
            let verbs = seen.map(|right| right.split(".gateway").next().unwrap().to_owned());
            verbs.collect::<BTreeSet<_>>()
        };
        let expected = ["get", "list", "patch", "watch"];
        let expected = ["grpcroutes", "httproutes"]
            .map(|plural| expected.map(|verb| format!("{verb} {plural}")));
        assert_eq!(of_routes(spec), expected.into_iter().flatten().collect());
        assert!(of_routes(json!({})).contains("create httproutes"));
        let refs = json!([{"kind": "HTTPRoute", "name": "podinfo", "mode": "Template", "parentRefs": [{"name": "a"}]}]);
        let copied = json!({"service": {"port": 80, "routeRefs": refs}});
        assert!(of_routes(copied).contains("create httproutes"));
    }

    #[test]
    fn an_operator_without_records_needs_no_rights_for_them() {
        let seen = words(&rights(
            &[subject(json!({}), &[])],
            &Scope::All,
            None,
            false,
        ));
        assert!(
            !seen.iter().any(|right| right.contains("releases")),
            "{seen:?}"
        );
    }

    #[test]
    fn an_operator_that_watches_one_namespace_needs_no_rights_in_others() {
        let watched = Scope::Namespace("test".to_owned());
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| !kind.is_cluster_scoped());
        let all = rights(&[subject(json!({}), &kinds)], &watched, None, true);
        assert!(all.values().flatten().all(|scope| *scope == watched));
    }

    #[test]
    fn an_alert_provider_is_read_in_its_own_namespace() {
        let alerts = json!([{"name": "chat", "severity": "info", "providerRef": {"name": "chat", "namespace": "chats"}}]);
        let subject = subject(json!({"analysis": {"alerts": alerts}}), &[]);
        let seen = words(&rights(&[subject], &Scope::All, None, true));
        for right in ["get alertproviders.flagger.app", "get secrets"] {
            let right = format!("{right} in namespace chats");
            assert!(seen.contains(&right), "{right}: {seen:?}");
        }
    }

    /// The objects that a query names.
    fn queried(type_: &str, query: &str) -> Queried {
        let spec = serde_json::from_value(json!({"type": type_})).unwrap();
        let server = Server::of(&spec, None, None).unwrap();
        server.queried(query).unwrap().unwrap()
    }

    #[test]
    fn a_query_needs_the_rights_for_the_object_that_it_names() {
        let mut subject = subject(json!({}), &[]);
        subject.queried = vec![queried("keptn", "analysis/other/podinfo")];
        let seen = words(&rights(&[subject], &Scope::All, None, true));
        for verb in ["create", "get", "delete"] {
            let right = format!("{verb} analyses.metrics.keptn.sh in namespace other");
            assert!(seen.contains(&right), "{right}: {seen:?}");
        }
    }
}
