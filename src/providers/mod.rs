//! The names of providers (`spec.provider`, `-mesh-provider`), and the router and the built-in metrics of each name. Pure.
//!
//! A new provider is a row of [`PROVIDERS`]. Parsing, error texts, the warning about an unknown `-mesh-provider` and its help text follow
//! from the table.

use crate::{
    api::canary::{IstioReporter, TargetRef},
    metrics::observer::{self, Observer},
    routers::{self, Router, provider_name},
    snapshot::Snapshot,
};

/// A provider, with its router and its built-in metrics.
#[derive(Debug)]
pub struct Provider {
    /// The names that mean this provider.
    pub pattern: Pattern,
    /// The router.
    pub router: Support<dyn Router>,
    /// The queries of the built-in metrics.
    pub queries: Support<dyn Observer>,
}

/// The names that mean a provider.
#[derive(Clone, Copy, Debug)]
pub enum Pattern {
    /// Only this name.
    Exactly(&'static str),
    /// All names that begin with this.
    Prefix(&'static str),
}

/// The router of a provider, or its queries.
#[derive(Debug)]
pub enum Support<T: ?Sized + 'static> {
    /// Flagger has a router, or queries, for this provider alone, and so has this operator.
    Own(&'static T),
    /// Flagger does not know the name here, and uses Istio's router or queries.
    Istio,
}

use Pattern::{Exactly, Prefix};
use Support::Own;

/// All providers that Flagger knows (Flagger: `pkg/router/factory.go`, `pkg/metrics/observers/factory.go`). The first row whose pattern
/// matches a name counts. A name that no row matches means Istio, for routing and for built-in metrics, as in Flagger.
#[rustfmt::skip]
pub static PROVIDERS: &[Provider] = &[
    row(Exactly("istio"), Own(&routers::istio::Istio), Own(&observer::istio::Istio)),
    row(Exactly("kubernetes"), Own(&routers::kubernetes::Kubernetes), Own(&observer::http::Http)),
    row(Exactly("contour"), Own(&routers::contour::Contour), Own(&observer::contour::Contour)),
    row(Exactly("nginx"), Own(&routers::nginx::Nginx), Own(&observer::nginx::Nginx)),
    row(Exactly("linkerd"), Own(&routers::smi::Smi::V1Alpha1), Own(&observer::linkerd::Linkerd)),
    row(Exactly("osm"), Own(&routers::smi::Smi::V1Alpha2), Own(&observer::osm::Osm)),
    row(Prefix("smi:v1alpha1"), Own(&routers::smi::Smi::V1Alpha1), Support::Istio),
    row(Prefix("smi:v1alpha2"), Own(&routers::smi::Smi::V1Alpha2), Support::Istio),
    row(Prefix("smi:v1alpha3"), Own(&routers::smi::Smi::V1Alpha3), Support::Istio),
    row(Prefix("gatewayapi:v1beta1"), Own(&routers::gateway_api::GatewayApi::V1Beta1), Own(&observer::http::Http)),
    row(Prefix("gatewayapi:v1"), Own(&routers::gateway_api::GatewayApi::V1), Own(&observer::http::Http)),
    // Flagger has no router of this name, but its observers know it. The same is true of the prefix `appmesh` below.
    row(Prefix("gatewayapi"), Support::Istio, Own(&observer::http::Http)),
    row(Exactly("apisix"), Own(&routers::apisix::Apisix), Own(&observer::apisix::Apisix)),
    row(Exactly("appmesh"), Own(&routers::appmesh::AppMesh::V1Beta1), Own(&observer::appmesh::AppMesh)),
    row(Prefix("appmesh:v1beta2"), Own(&routers::appmesh::AppMesh::V1Beta2), Own(&observer::appmesh::AppMesh)),
    row(Prefix("appmesh"), Support::Istio, Own(&observer::appmesh::AppMesh)),
    row(Prefix("gloo"), Own(&routers::gloo::Gloo), Own(&observer::gloo::Gloo)),
    row(Exactly("knative"), Own(&routers::knative::Knative), Own(&observer::knative::Knative)),
    row(Exactly("kuma"), Own(&routers::kuma::Kuma), Own(&observer::kuma::Kuma)),
    row(Exactly("skipper"), Own(&routers::skipper::Skipper), Own(&observer::skipper::Skipper)),
    row(Exactly("traefik"), Own(&routers::traefik::Traefik), Own(&observer::traefik::Traefik)),
];

const fn row(
    pattern: Pattern,
    router: Support<dyn Router>,
    queries: Support<dyn Observer>,
) -> Provider {
    Provider {
        pattern,
        router,
        queries,
    }
}

impl Provider {
    /// The row for a name; `None` if Flagger does not know the name.
    fn named(name: &str) -> Option<&'static Self> {
        PROVIDERS
            .iter()
            .find(|provider| provider.pattern.matches(name))
    }

    /// The name, or the beginning of all names.
    pub const fn name(&self) -> &'static str {
        match self.pattern {
            Exactly(name) | Prefix(name) => name,
        }
    }
}

impl Pattern {
    fn matches(self, name: &str) -> bool {
        match self {
            Self::Exactly(exact) => name == exact,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

/// The router of a canary: that of its provider, unless the canary names routes of the user.
pub fn router(snapshot: &Snapshot) -> &'static dyn Router {
    if snapshot.canary.has_route_refs() {
        return &routers::own_routes::OwnRoutes;
    }
    router_named(provider_name(snapshot))
}

/// The router of a provider.
fn router_named(provider: &str) -> &'static dyn Router {
    match Provider::named(provider).map(|provider| &provider.router) {
        Some(Own(router)) => *router,
        Some(Support::Istio) | None => &routers::istio::Istio,
    }
}

/// Whether Flagger knows this name of a provider. If not, it routes with Istio.
pub fn is_known(provider: &str) -> bool {
    Provider::named(provider).is_some_and(|provider| !matches!(provider.router, Support::Istio))
}

/// The names of all providers that have a router of their own, in alphabetical order.
pub fn routed() -> Vec<&'static str> {
    let own = PROVIDERS
        .iter()
        .filter(|provider| matches!(provider.router, Own(_)));
    let mut names: Vec<_> = own.map(Provider::name).collect();
    names.sort_unstable();
    names
}

/// The queries of a canary's built-in metrics. An annotation that names proxies of Istio counts whatever the provider is, because such a
/// service may have its routes from any of them.
pub fn observer(snapshot: &Snapshot) -> &'static dyn Observer {
    match snapshot.canary.istio_reporter() {
        Some(IstioReporter::Waypoint) => &observer::istio::Waypoint,
        Some(IstioReporter::Gateway) => &observer::istio::Gateway,
        None => observer_named(&metrics_provider(snapshot)),
    }
}

/// The provider of a canary's built-in metrics, as messages name it.
pub fn metrics_provider(snapshot: &Snapshot) -> String {
    if snapshot.canary.istio_reporter().is_some() {
        return "istio".to_owned();
    }
    let spec = &snapshot.canary.spec;
    let flag = &snapshot.settings.mesh_provider;
    metrics_provider_name(flag, spec.provider.as_deref(), &spec.target_ref)
}

fn observer_named(provider: &str) -> &'static dyn Observer {
    match Provider::named(provider).map(|provider| &provider.queries) {
        Some(Own(observer)) => *observer,
        Some(Support::Istio) | None => &observer::istio::Istio,
    }
}

/// The provider of built-in metrics: the canary's own, or that of the flag `-mesh-provider`. If the flag names Linkerd, its proxies measure
/// all canaries, also those with another router. If the target is a core Service, the name gets the suffix `:service`, which most rows do
/// not match (Flagger: `pkg/controller/scheduler_metrics.go`).
fn metrics_provider_name(flag: &str, own: Option<&str>, target: &TargetRef) -> String {
    let flag = if flag.contains("crossover") {
        "crossover"
    } else {
        flag
    };
    let provider = match own.filter(|own| !own.is_empty()) {
        Some(_) if flag.contains("linkerd") => "linkerd",
        Some(own) => own,
        None => flag,
    };
    let is_knative = target.api_version.starts_with("serving.knative.dev/");
    if target.kind == "Service" && !is_knative {
        format!("{provider}:service")
    } else {
        provider.to_owned()
    }
}

#[cfg(test)]
mod tests;
