use std::sync::Arc;

use super::*;
use crate::{
    routers::tests::{apply, canary_analysis, selector},
    workload::metadata::LAST_APPLIED,
};

const VERSIONS: [(&str, Smi); 3] = [
    ("linkerd", Smi::V1Alpha1),
    ("smi:v1alpha2", Smi::V1Alpha2),
    ("smi:v1alpha3", Smi::V1Alpha3),
];

fn snapshot(provider: &str, service: Value) -> Snapshot {
    let mut all = json!({"port": 80});
    for (key, value) in service.as_object().unwrap() {
        all[key] = value.clone();
    }
    crate::routers::tests::snapshot(provider, all, canary_analysis(), Value::Null)
}

fn split(version: Smi, snapshot: &Snapshot) -> &Value {
    snapshot.object(version.kind(), "podinfo").unwrap()
}

fn reconciled(version: Smi, mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = version.reconcile(&snapshot, &selector(), weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

#[test]
fn the_split_is_flaggers_to_the_letter() {
    for (provider, version) in VERSIONS {
        let service = json!({"apex": {"labels": {"a": "b"}}, "gateways": ["public"]});
        let mut snapshot = reconciled(version, snapshot(provider, service), &Weights::PRIMARY);
        let writes = version
            .set_weights(&snapshot, &Weights::canary(10))
            .unwrap();
        assert_eq!(
            writes[0].refusal("no"),
            "TrafficSplit podinfo.test update error: no"
        );
        apply(&mut snapshot, writes);
        let weight = |weight: u8| match version {
            Smi::V1Alpha1 => json!(weight.to_string()),
            Smi::V1Alpha2 | Smi::V1Alpha3 => json!(weight),
        };
        let split = split(version, &snapshot);
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
fn the_first_host_is_the_service_that_clients_call() {
    let service = json!({"hosts": ["podinfo.test.svc.cluster.local", "other"]});
    let snapshot = reconciled(
        Smi::V1Alpha1,
        snapshot("linkerd", service),
        &Weights::PRIMARY,
    );
    let split = split(Smi::V1Alpha1, &snapshot);
    assert_eq!(split["spec"]["service"], "podinfo.test.svc.cluster.local");
}

#[test]
fn the_gateways_are_an_annotation_for_the_adapter_of_istio() {
    for (provider, refused) in [
        ("smi:v1alpha2:istio", Some("[\"a\",\"b\"]")),
        ("smi:v1alpha2", None),
        ("smi:v1alpha2:linkerd", None),
    ] {
        let mut snapshot = snapshot("", json!({"gateways": ["a", "b"]}));
        Arc::make_mut(&mut snapshot.settings).mesh_provider = provider.to_owned();
        let snapshot = reconciled(Smi::V1Alpha2, snapshot, &Weights::PRIMARY);
        let annotations = &split(Smi::V1Alpha2, &snapshot)["metadata"]["annotations"];
        assert_eq!(annotations[GATEWAYS].as_str(), refused, "{provider}");
    }
}

/// Weights of v1alpha1 are quantities. The API server serves them as numbers in the other versions.
#[test]
fn a_weight_is_a_number_or_a_string() {
    for (provider, version) in VERSIONS {
        let mut snapshot = reconciled(version, snapshot(provider, json!({})), &Weights::canary(30));
        let name = snapshot.reference(version.kind(), "podinfo");
        let backends = &mut snapshot.objects.get_mut(&name).unwrap()["spec"]["backends"];
        backends[0]["weight"] = json!(30);
        backends[1]["weight"] = json!("70");
        assert_eq!(version.current_weights(&snapshot), Ok(Weights::canary(30)));
        assert_eq!(
            version.set_weights(&snapshot, &Weights::canary(30)),
            Ok(vec![])
        );
        assert_eq!(
            version.reconcile(&snapshot, &selector(), &Weights::canary(30)),
            Ok(vec![])
        );
    }
}

#[test]
fn conditions_that_others_write_are_removed_from_the_split() {
    let version = Smi::V1Alpha3;
    let mut snapshot = reconciled(
        version,
        snapshot("smi:v1alpha3", json!({})),
        &Weights::canary(30),
    );
    let name = snapshot.reference(version.kind(), "podinfo");
    snapshot.objects.get_mut(&name).unwrap()["spec"]["matches"] =
        json!([{"kind": "HTTPRouteGroup", "name": "x"}]);
    let snapshot = reconciled(version, snapshot, &Weights::canary(30));
    assert_eq!(split(version, &snapshot)["spec"].get("matches"), None);
    assert_eq!(version.current_weights(&snapshot), Ok(Weights::canary(30)));
}

/// Flagger would send all requests to the canary.
#[test]
fn an_ab_test_is_refused() {
    let analysis = json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": [{"headers": {"x": {"exact": "1"}}}]});
    let snapshot = crate::routers::tests::snapshot(
        "linkerd",
        json!({"port": 80}),
        analysis,
        json!({"phase": ""}),
    );
    assert_eq!(
        Smi::V1Alpha1
            .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
            .unwrap_err()
            .to_string(),
        "TrafficSplit podinfo.test cannot tell requests apart: take spec.analysis.match away, or use another provider"
    );
}

#[test]
fn a_split_that_is_missing_or_leads_elsewhere_is_reported_in_flaggers_words() {
    let version = Smi::V1Alpha1;
    let mut snapshot = snapshot("linkerd", json!({}));
    assert_eq!(
        version.current_weights(&snapshot).unwrap_err().to_string(),
        "TrafficSplit podinfo.test get query error: trafficsplits.split.smi-spec.io \"podinfo\" not found"
    );
    let name = snapshot.reference(version.kind(), "podinfo");
    snapshot.objects.insert(
        name,
        json!({"spec": {"backends": [{"service": "other", "weight": "1"}]}}),
    );
    assert_eq!(
        version.current_weights(&snapshot).unwrap_err().to_string(),
        "TrafficSplit podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
}

#[test]
fn a_split_is_restored_or_leads_to_the_apex_service() {
    let version = Smi::V1Alpha2;
    let before = json!({"service": "podinfo", "backends": [{"service": "podinfo-v1", "weight": 1}, {"service": "podinfo-v2", "weight": 1}]});
    for (applied, after) in [
        (before.clone(), before),
        (
            json!({"backends": [{"service": "podinfo-primary", "weight": 100}]}),
            json!({"service": "podinfo", "backends": [{"service": "podinfo", "weight": 100}]}),
        ),
    ] {
        let mut snapshot = snapshot("smi:v1alpha2", json!({}));
        let name = snapshot.reference(version.kind(), "podinfo");
        let annotations = json!({LAST_APPLIED: json!({"spec": applied}).to_string()});
        snapshot.objects.insert(
            name,
            json!({"metadata": {"annotations": annotations}, "spec": applied}),
        );
        let mut snapshot = reconciled(version, snapshot, &Weights::canary(30));
        while let Some(write) = version.restore(&snapshot) {
            apply(&mut snapshot, vec![write]);
            assert_eq!(split(version, &snapshot)["spec"], after);
        }
    }
}
