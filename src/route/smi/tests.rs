use std::sync::Arc;

use super::*;
use crate::route::{
    LAST_APPLIED,
    tests::{apply, canary_analysis},
};

const VERSIONS: [(&str, Version); 3] = [
    ("linkerd", Version::V1Alpha1),
    ("smi:v1alpha2", Version::V1Alpha2),
    ("smi:v1alpha3", Version::V1Alpha3),
];

fn world(provider: &str, service: Value) -> World {
    let mut all = json!({"port": 80});
    for (key, value) in service.as_object().unwrap() {
        all[key] = value.clone();
    }
    crate::route::tests::world(provider, all, canary_analysis(), Value::Null)
}

fn split(version: Version, world: &World) -> &Value {
    world.object(version.kind(), "podinfo").unwrap()
}

fn reconciled(version: Version, mut world: World, weights: &Weights) -> World {
    let effects = reconcile(version, &world, weights).unwrap();
    apply(&mut world, effects);
    world
}

#[test]
fn the_split_is_flaggers() {
    for (provider, version) in VERSIONS {
        let service = json!({"apex": {"labels": {"a": "b"}}, "gateways": ["public"]});
        let mut world = reconciled(version, world(provider, service), &Weights::PRIMARY);
        let effects = set(version, &world, &Weights::canary(10)).unwrap();
        assert_eq!(
            effects[0].refusal("no"),
            "TrafficSplit podinfo.test update error: no"
        );
        apply(&mut world, effects);
        let weight = |weight: u8| match version {
            Version::V1Alpha1 => json!(weight.to_string()),
            Version::V1Alpha2 | Version::V1Alpha3 => json!(weight),
        };
        let split = split(version, &world);
        assert_eq!(
            split["spec"],
            json!({"service": "podinfo", "backends": [
                {"service": "podinfo-canary", "weight": weight(10)}, {"service": "podinfo-primary", "weight": weight(90)}]})
        );
        assert_eq!(
            split["apiVersion"],
            json!(format!(
                "split.smi-spec.io/{}",
                version.kind().group_version().1
            ))
        );
        assert_eq!(split["kind"], "TrafficSplit");
        let metadata = split["metadata"].as_object().unwrap();
        assert_eq!(metadata["ownerReferences"][0]["kind"], "Canary");
        assert_eq!(
            (metadata.get("labels"), metadata.get("annotations")),
            (None, None)
        );
    }
}

#[test]
fn clients_call_the_first_host() {
    let service = json!({"hosts": ["podinfo.test.svc.cluster.local", "other"]});
    let world = reconciled(
        Version::V1Alpha1,
        world("linkerd", service),
        &Weights::PRIMARY,
    );
    let split = split(Version::V1Alpha1, &world);
    assert_eq!(split["spec"]["service"], "podinfo.test.svc.cluster.local");
}

#[test]
fn the_adapter_of_istio_is_told_the_gateways() {
    for (provider, told) in [
        ("smi:v1alpha2:istio", Some("[\"a\",\"b\"]")),
        ("smi:v1alpha2", None),
        ("smi:v1alpha2:linkerd", None),
    ] {
        let mut world = world("", json!({"gateways": ["a", "b"]}));
        Arc::make_mut(&mut world.settings).mesh_provider = provider.to_owned();
        let world = reconciled(Version::V1Alpha2, world, &Weights::PRIMARY);
        let annotations = &split(Version::V1Alpha2, &world)["metadata"]["annotations"];
        assert_eq!(annotations[GATEWAYS].as_str(), told, "{provider}");
    }
}

/// Weights of the oldest version are quantities, which other versions serve as numbers.
#[test]
fn a_weight_is_a_number_or_text() {
    for (provider, version) in VERSIONS {
        let mut world = reconciled(version, world(provider, json!({})), &Weights::canary(30));
        let name = world.reference(version.kind(), "podinfo");
        let backends = &mut world.objects.get_mut(&name).unwrap()["spec"]["backends"];
        backends[0]["weight"] = json!(30);
        backends[1]["weight"] = json!("70");
        assert_eq!(read(version, &world), Ok(Weights::canary(30)));
        assert_eq!(set(version, &world, &Weights::canary(30)), Ok(vec![]));
        assert_eq!(reconcile(version, &world, &Weights::canary(30)), Ok(vec![]));
    }
}

#[test]
fn conditions_of_somebody_else_keep_no_request_from_the_split() {
    let version = Version::V1Alpha3;
    let mut world = reconciled(
        version,
        world("smi:v1alpha3", json!({})),
        &Weights::canary(30),
    );
    let name = world.reference(version.kind(), "podinfo");
    world.objects.get_mut(&name).unwrap()["spec"]["matches"] =
        json!([{"kind": "HTTPRouteGroup", "name": "x"}]);
    let world = reconciled(version, world, &Weights::canary(30));
    assert_eq!(split(version, &world)["spec"].get("matches"), None);
    assert_eq!(read(version, &world), Ok(Weights::canary(30)));
}

/// Flagger gives the version to everyone then.
#[test]
fn a_test_of_requests_is_refused() {
    let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": [{"headers": {"x": {"exact": "1"}}}]});
    let world = crate::route::tests::world(
        "linkerd",
        json!({"port": 80}),
        analysis,
        json!({"phase": ""}),
    );
    assert_eq!(
        reconcile(Version::V1Alpha1, &world, &Weights::PRIMARY).unwrap_err(),
        "TrafficSplit podinfo.test cannot tell requests apart: take spec.analysis.match away, or use another provider"
    );
}

#[test]
fn a_split_that_is_gone_or_leads_elsewhere_is_said_in_flaggers_words() {
    let version = Version::V1Alpha1;
    let mut world = world("linkerd", json!({}));
    assert_eq!(
        read(version, &world).unwrap_err(),
        "TrafficSplit podinfo.test get query error: trafficsplits.split.smi-spec.io \"podinfo\" not found"
    );
    let name = world.reference(version.kind(), "podinfo");
    world.objects.insert(
        name,
        json!({"spec": {"backends": [{"service": "other", "weight": "1"}]}}),
    );
    assert_eq!(
        read(version, &world).unwrap_err(),
        "TrafficSplit podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
}

#[test]
fn a_split_is_given_back_as_it_was_or_leads_where_the_service_leads() {
    let version = Version::V1Alpha2;
    let before = json!({"service": "podinfo", "backends": [{"service": "podinfo-v1", "weight": 1}, {"service": "podinfo-v2", "weight": 1}]});
    for (applied, after) in [
        (before.clone(), before),
        (
            json!({"backends": [{"service": "podinfo-primary", "weight": 100}]}),
            json!({"service": "podinfo", "backends": [{"service": "podinfo", "weight": 100}]}),
        ),
    ] {
        let mut world = world("smi:v1alpha2", json!({}));
        let name = world.reference(version.kind(), "podinfo");
        let annotations = json!({LAST_APPLIED: json!({"spec": applied}).to_string()});
        world.objects.insert(
            name,
            json!({"metadata": {"annotations": annotations}, "spec": {}}),
        );
        let mut world = reconciled(version, world, &Weights::canary(30));
        let effect = restore(version, &world).unwrap();
        apply(&mut world, vec![effect]);
        assert_eq!(split(version, &world)["spec"], after);
        assert_eq!(restore(version, &world), None);
    }
}
