use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::{
    metrics::{
        MetricError,
        counting::Counted,
        observer::{Builtin, Named},
        template::Model,
    },
    routers::tests::ROUTERS,
};

/// The Debug form of a router, which names it.
fn router_of(provider: &str) -> String {
    format!("{:?}", router_named(provider))
}

fn observer_of(provider: &str) -> String {
    format!("{:?}", observer_named(provider))
}

fn target(kind: &str, api_version: &str) -> TargetRef {
    TargetRef {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: "podinfo".to_owned(),
    }
}

/// The names of the table have a test of their own.
#[test]
fn another_name_is_routed_or_taken_for_istio() {
    for (name, router) in [
        ("", "Istio"),
        ("kubernetes:service", "Istio"),
        ("gatewayapi:v1alpha2", "V1"),
        ("gatewayapi", "Istio"),
        ("smi", "Istio"),
        ("appmesh:v1beta1", "Istio"),
        ("gloo-edge", "Gloo"),
        ("smi:v1alpha1:istio", "V1Alpha1"),
    ] {
        assert_eq!(router_of(name), router, "{name}");
    }
}

#[test]
fn a_name_is_known_if_flagger_has_a_router_of_that_name() {
    for name in [
        "istio",
        "smi:v1alpha1:istio",
        "skipper",
        "appmesh",
        "gatewayapi:v1",
    ] {
        assert!(is_known(name), "{name}");
    }
    for name in ["", "gatewayapi", "appmesh:v1beta1", "smi", "foo"] {
        assert!(!is_known(name), "{name}");
    }
}

#[test]
fn the_observer_follows_from_the_flag_the_canary_and_the_target() {
    let deployment = target("Deployment", "apps/v1");
    let service = target("Service", "v1");
    let knative = target("Service", "serving.knative.dev/v1");
    for (flag, own, target, name, observer) in [
        ("istio", None, &deployment, "istio", "Istio"),
        ("istio", Some(""), &deployment, "istio", "Istio"),
        (
            "istio",
            Some("kubernetes"),
            &deployment,
            "kubernetes",
            "Http",
        ),
        (
            "istio",
            Some("kubernetes"),
            &service,
            "kubernetes:service",
            "Istio",
        ),
        (
            "gatewayapi:v1",
            None,
            &service,
            "gatewayapi:v1:service",
            "Http",
        ),
        ("gatewayapi", None, &deployment, "gatewayapi", "Http"),
        (
            "linkerd",
            Some("gatewayapi:v1"),
            &deployment,
            "linkerd",
            "Linkerd",
        ),
        (
            "smi:v1alpha1:linkerd",
            None,
            &deployment,
            "smi:v1alpha1:linkerd",
            "Istio",
        ),
        ("smi:crossover", None, &deployment, "crossover", "Istio"),
        (
            "smi:crossover",
            Some("istio"),
            &deployment,
            "istio",
            "Istio",
        ),
        ("nginx", None, &service, "nginx:service", "Istio"),
        ("appmesh", None, &service, "appmesh:service", "AppMesh"),
        ("istio", None, &knative, "istio", "Istio"),
    ] {
        let provider = metrics_provider_name(flag, own, target);
        assert_eq!(provider, name, "{flag} {own:?}");
        assert_eq!(observer_of(&provider), observer, "{flag} {own:?}");
    }
}

#[test]
fn a_longer_name_means_the_provider_only_if_its_pattern_is_a_prefix() {
    for (provider, observer) in [
        ("linkerd:service", "Istio"),
        ("appmesh:v1beta1", "AppMesh"),
        ("traefik:service", "Istio"),
        ("gloo:service", "Gloo"),
    ] {
        assert_eq!(observer_of(provider), observer, "{provider}");
    }
}

/// The first row that matches counts, so a longer pattern must come before the prefix that it begins with.
#[test]
fn every_provider_of_the_table_is_found_under_its_own_name() {
    for provider in PROVIDERS {
        let found = Provider::named(provider.name()).unwrap();
        assert_eq!(found.name(), provider.name());
    }
}

#[test]
fn every_router_has_a_row_in_the_table_of_the_router_tests() {
    for provider in PROVIDERS {
        let Own(router) = provider.router else {
            continue;
        };
        let row = ROUTERS.iter().find(|row| row.provider == provider.name());
        let row = row.unwrap_or_else(|| panic!("no test row for {}", provider.name()));
        assert_eq!(format!("{:?}", row.router), format!("{router:?}"));
    }
}

fn model() -> Model {
    Model {
        namespace: "test".to_owned(),
        target: "podinfo".to_owned(),
        service: "web".to_owned(),
        ingress: "in".to_owned(),
        route: "r".to_owned(),
        interval: "1m".to_owned(),
        ..Model::default()
    }
}

#[test]
fn the_queries_of_built_in_metrics_are_flaggers_to_the_letter() {
    for row in ROUTERS {
        let observer = observer_named(row.provider);
        let metrics = [Builtin::SuccessRate, Builtin::Duration];
        let queries = metrics.map(|metric| observer.query(metric, &model()));
        assert_eq!(queries, row.queries, "{}", row.provider);
    }
}

/// The counters of requests that a comparison asks for.
#[test]
fn the_primary_has_the_same_series_as_the_canary_under_its_own_name() {
    for row in ROUTERS {
        let observer = observer_named(row.provider);
        let [canary, primary] = row.compared;
        let is_compared = observer.named() != Named::Neither;
        assert_eq!(is_compared, !canary.is_empty(), "{}", row.provider);
        if !is_compared {
            continue;
        }
        let counted = Counted::of(observer, &model(), "podinfo-primary");
        let [ours, theirs] = counted.counters();
        assert_eq!(
            ours.replacen(canary, primary, 1),
            theirs,
            "{}",
            row.provider
        );
        assert_ne!(ours, theirs, "{}", row.provider);
    }
}

#[test]
fn every_observer_is_that_of_a_row_in_the_table_of_the_router_tests() {
    for provider in PROVIDERS {
        let Own(observer) = provider.queries else {
            continue;
        };
        let observer = format!("{observer:?}");
        let mut rows = ROUTERS.iter();
        assert!(
            rows.any(|row| observer_of(row.provider) == observer),
            "{observer}"
        );
    }
}

#[test]
fn only_the_success_rate_of_an_application_fails_without_a_prefix() {
    let prefixed = "running query failed: no values found";
    for row in ROUTERS {
        let observer = observer_named(row.provider);
        let failure = |metric| observer.failure(metric, &MetricError::NoValues);
        let rate = match observer_of(row.provider).as_str() {
            "Http" => "no values found",
            _ => prefixed,
        };
        assert_eq!(failure(Builtin::SuccessRate), rate, "{observer:?}");
        assert_eq!(failure(Builtin::Duration), prefixed, "{observer:?}");
    }
}

/// The API server refuses a Canary with another provider.
#[test]
fn the_crd_allows_exactly_the_providers_that_flagger_routes() {
    let canaries: Value = include_str!("../../crds/ALL-IN-ONE.yaml")
        .split("\n---\n")
        .map(|crd| serde_saphyr::from_str(crd).unwrap())
        .find(|crd: &Value| crd["spec"]["names"]["kind"] == "Canary")
        .unwrap();
    let schema = &canaries["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let allowed = &schema["properties"]["spec"]["properties"]["provider"]["enum"];
    let allowed = allowed.as_array().into_iter().flatten();
    let allowed: BTreeSet<_> = allowed.filter_map(Value::as_str).collect();
    let routed = PROVIDERS
        .iter()
        .filter(|provider| is_known(provider.name()));
    let routed: BTreeSet<_> = routed.map(Provider::name).collect();
    assert_eq!(routed, allowed);
}

/// Comparable form of names in documents: `App Mesh` is `appmesh`.
fn squeezed(text: &str) -> String {
    let kept = text.chars().filter(|c| c.is_alphanumeric());
    kept.collect::<String>().to_lowercase()
}

#[test]
fn the_documents_name_every_provider() {
    let readme = squeezed(include_str!("../../README.md"));
    for provider in PROVIDERS {
        let family = provider.name().split(':').next().unwrap();
        if matches!(provider.router, Own(_)) {
            assert!(readme.contains(family), "README.md lacks {family}");
        }
    }
}

#[test]
fn the_overlays_start_the_operator_with_known_providers() {
    let readme = include_str!("../../kustomize/README.md");
    let named = readme.split("`-mesh-provider=").skip(1);
    let named: BTreeSet<_> = named.filter_map(|rest| rest.split('`').next()).collect();
    assert!(named.len() > 3, "{named:?}");
    for name in named {
        assert!(is_known(name), "{name}");
    }
}
