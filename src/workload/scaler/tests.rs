//! Tests of the target's autoscaler and of its copy.

use std::sync::Arc;

use super::*;
use crate::snapshot::Settings;

/// A snapshot with a Canary of `podinfo` in `test`. The Canary refers to the autoscaler `so`, with these additional fields. `scalers` are
/// `so` and `so-primary`.
fn snapshot(kind: &str, more: Value, scalers: &[Value]) -> Snapshot {
    let mut reference = json!({"apiVersion": "v1", "kind": kind, "name": "so"});
    for (field, value) in more.as_object().unwrap() {
        reference[field] = value.clone();
    }
    let canary = serde_json::from_value(json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "u"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "autoscalerRef": reference,
            "service": {"port": 80}, "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10}}}))
    .unwrap();
    let settings = Settings {
        mesh_provider: String::new(),
        ingress_annotations_prefix: String::new(),
        ingress_class: String::new(),
        metrics_server: String::new(),
        selector_labels: vec![],
        include_label_prefix: vec![],
        config_tracking: true,
        no_cross_namespace_refs: false,
        cluster_name: String::new(),
    };
    let mut snapshot = Snapshot {
        canary,
        objects: std::collections::BTreeMap::new(),
        workloads: std::sync::Arc::default(),
        seen: std::collections::BTreeSet::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
        tick: None,
        changed: None,
        stalled: std::collections::BTreeMap::new(),
        paused: std::collections::BTreeMap::new(),
        undone: std::collections::BTreeMap::new(),
        forbidden: std::collections::BTreeMap::new(),
        recently_written: std::collections::BTreeSet::new(),
        refused: None,
        conflicting_canary: None,
        jitter: jiff::SignedDuration::ZERO,
        nonce: 0,
        settings: Arc::new(settings),
    };
    for (scaler, name) in scalers.iter().zip(["so", "so-primary"]) {
        let kind = if kind == "ScaledObject" {
            Kind::ScaledObject
        } else {
            Kind::HorizontalPodAutoscaler
        };
        snapshot
            .objects
            .insert(snapshot.reference(kind, name), scaler.clone());
    }
    snapshot
}

fn created(snapshot: &Snapshot) -> Value {
    match Scaler::of(snapshot)
        .unwrap()
        .create()
        .unwrap()
        .unwrap()
        .action
    {
        Action::Create(object) => object,
        other => panic!("{other:?}"),
    }
}

fn written(write: Option<Write>) -> Value {
    match write.unwrap().action {
        Action::Replace(object) => object,
        other => panic!("{other:?}"),
    }
}

fn query(text: &str) -> Value {
    json!({"type": "prometheus", "name": "load", "metadata": {"query": text, "threshold": "5"}})
}

fn scaled_object(annotations: Value, triggers: &[Value]) -> Value {
    json!({"metadata": {"name": "so", "namespace": "test", "resourceVersion": "7", "finalizers": ["finalizer.keda.sh"],
            "labels": {"l": "1", "kustomize.toolkit.fluxcd.io/name": "x"}, "annotations": annotations},
        "spec": {"scaleTargetRef": {"name": "podinfo", "kind": "Deployment"}, "minReplicaCount": 2, "maxReplicaCount": 3,
            "triggers": triggers, "fromTheFuture": {"a": 1}},
        "status": {"hpaName": "keda-hpa-so"}})
}

#[test]
fn the_primary_gets_a_complete_copy_that_scales_the_primary() {
    let target = scaled_object(
        json!({"x": "y"}),
        &[query(r#"sum(rate(requests{app="podinfo"}[1m]))"#)],
    );
    let primary = created(&snapshot("ScaledObject", json!({}), &[target]));
    assert_eq!(primary["apiVersion"], "keda.sh/v1alpha1");
    assert_eq!(primary["metadata"]["labels"], json!({"l": "1"}));
    assert_eq!(primary["metadata"]["annotations"], json!({"x": "y"}));
    assert_eq!(primary["metadata"]["ownerReferences"][0]["name"], "podinfo");
    assert!(primary["metadata"].get("finalizers").is_none() && primary.get("status").is_none());
    assert_eq!(
        primary["spec"],
        json!({"scaleTargetRef": {"name": "podinfo-primary", "kind": "Deployment"}, "minReplicaCount": 2, "maxReplicaCount": 3,
            "triggers": [query(r#"sum(rate(requests{app="podinfo-primary"}[1m]))"#)], "fromTheFuture": {"a": 1},
            "advanced": {"horizontalPodAutoscalerConfig": {}}})
    );
}

/// Flagger copies the pause: its primary stays at zero for ever.
#[test]
fn a_primary_created_while_the_target_is_paused_is_not_paused() {
    let paused = json!({"autoscaling.keda.sh/paused-replicas": "0", "autoscaling.keda.sh/paused": "true",
        "autoscaling.keda.sh/paused-scale-in": "true", "scaledobject.keda.sh/transfer-hpa-ownership": "true"});
    let snapshot = snapshot("ScaledObject", json!({}), &[scaled_object(paused, &[])]);
    assert_eq!(
        created(&snapshot)["metadata"]["annotations"],
        json!({"scaledobject.keda.sh/transfer-hpa-ownership": "true"})
    );
}

#[test]
fn the_next_promotion_resumes_a_primary_that_flagger_paused_at_zero() {
    let target = scaled_object(json!({}), &[]);
    let mut primary = created(&snapshot(
        "ScaledObject",
        json!({}),
        std::slice::from_ref(&target),
    ));
    let promoted = |primary: &Value| {
        let snapshot = snapshot(
            "ScaledObject",
            json!({}),
            &[target.clone(), primary.clone()],
        );
        Scaler::of(&snapshot).unwrap().promote().unwrap()
    };
    assert_eq!(promoted(&primary), None);
    primary["metadata"]["annotations"] =
        json!({"autoscaling.keda.sh/paused-replicas": "0", "a": "b"});
    let resumed = written(promoted(&primary));
    assert_eq!(resumed["metadata"]["annotations"], json!({"a": "b"}));
    // The user paused it at another number.
    primary["metadata"]["annotations"] = json!({"autoscaling.keda.sh/paused-replicas": "3"});
    assert_eq!(promoted(&primary), None);
}

#[test]
fn a_promotion_changes_only_the_spec_of_the_primarys_scaler() {
    let mut target = scaled_object(json!({}), &[]);
    let mut primary = created(&snapshot("ScaledObject", json!({}), &[target.clone()]));
    primary["metadata"]["resourceVersion"] = json!("9");
    primary["metadata"]["labels"] = json!({"own": "1"});
    target["spec"]["maxReplicaCount"] = json!(8);
    let snapshot = snapshot("ScaledObject", json!({}), &[target, primary]);
    let write = Scaler::of(&snapshot).unwrap().promote().unwrap();
    assert_eq!(
        write.as_ref().unwrap().failure,
        "updating ScaledObject so-primary.test failed: "
    );
    let promoted = written(write);
    assert_eq!(promoted["spec"]["maxReplicaCount"], 8);
    assert_eq!(promoted["metadata"]["resourceVersion"], "9");
    assert_eq!(promoted["metadata"]["labels"], json!({"own": "1"}));
}

#[test]
fn the_canary_overrides_the_primarys_replicas() {
    let more = json!({"primaryScalerReplicas": {"minReplicas": 5}});
    let spec = created(&snapshot(
        "ScaledObject",
        more.clone(),
        &[scaled_object(json!({}), &[])],
    ))["spec"]
        .clone();
    assert_eq!(
        (&spec["minReplicaCount"], &spec["maxReplicaCount"]),
        (&json!(5), &json!(3))
    );
    let zero = json!({"primaryScalerReplicas": {"minReplicas": 0}});
    let scaled = snapshot("ScaledObject", zero, &[scaled_object(json!({}), &[])]);
    assert_eq!(created(&scaled)["spec"]["minReplicaCount"], 0);
    let hpa = json!({"metadata": {"labels": {"l": "1"}, "annotations": {"a": "b"}},
        "spec": {"minReplicas": 2, "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "podinfo"}, "fromTheFuture": 1}});
    let primary = created(&snapshot("HorizontalPodAutoscaler", more, &[hpa]));
    assert_eq!(
        primary["spec"],
        json!({"minReplicas": 5, "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "podinfo-primary"}, "fromTheFuture": 1})
    );
    assert_eq!(primary["metadata"]["labels"], json!({"l": "1"}));
    assert!(
        primary["metadata"].get("annotations").is_none(),
        "as in Flagger"
    );
}

#[test]
fn queries_are_the_canarys_or_name_the_primary() {
    let triggers = [
        query("a{x=\"podinfo-canary\"} + b{x=\"podinfo\"}"),
        json!({"type": "cron", "metadata": {"start": "podinfo"}}),
    ];
    let target = scaled_object(json!({}), &triggers);
    let query_of = |more: Value| {
        let primary = created(&snapshot(
            "ScaledObject",
            more,
            std::slice::from_ref(&target),
        ));
        assert_eq!(
            primary["spec"]["triggers"][1], triggers[1],
            "only queries change"
        );
        primary["spec"]["triggers"][0]["metadata"].clone()
    };
    assert_eq!(
        query_of(json!({}))["query"],
        "a{x=\"podinfo-primary\"} + b{x=\"podinfo-primary\"}"
    );
    let own = query_of(json!({"primaryScalerQueries": {"load": "mine", "other": "x"}}));
    assert_eq!(own, json!({"query": "mine", "threshold": "5"}));
    assert_eq!(
        query_of(json!({"primaryScalerQueries": {}}))["query"],
        "a{x=\"podinfo-canary\"} + b{x=\"podinfo\"}",
        "if the Canary has any queries, other queries stay as they are"
    );
}

#[test]
fn the_hpas_that_keda_creates_have_different_names() {
    let mut target = scaled_object(json!({}), &[]);
    target["spec"]["advanced"] = json!({"restoreToOriginalReplicaCount": true, "horizontalPodAutoscalerConfig": {"name": "mine", "behavior": {"x": 1}}});
    let primary = created(&snapshot("ScaledObject", json!({}), &[target.clone()]));
    assert_eq!(
        primary["spec"]["advanced"],
        json!({"restoreToOriginalReplicaCount": true, "horizontalPodAutoscalerConfig": {"name": "mine-primary", "behavior": {"x": 1}}})
    );
    target["spec"]["advanced"] = json!(null);
    let primary = created(&snapshot("ScaledObject", json!({}), &[target]));
    assert_eq!(
        primary["spec"]["advanced"],
        json!({"horizontalPodAutoscalerConfig": {}})
    );
}

#[test]
fn pausing_and_resuming_change_one_annotation_only() {
    for annotations in [json!({"x": "y"}), json!({}), json!(null)] {
        let target = scaled_object(annotations.clone(), &[]);
        let before = snapshot("ScaledObject", json!({}), std::slice::from_ref(&target));
        let scaler = Scaler::of(&before).unwrap();
        assert_eq!(scaler.resume(), None);
        let paused = written(scaler.pause());
        let mut wanted = target.clone();
        wanted["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"] = json!("0");
        assert_eq!(
            paused, wanted,
            "unknown fields and the resourceVersion stay"
        );
        let after = snapshot("ScaledObject", json!({}), &[paused]);
        let scaler = Scaler::of(&after).unwrap();
        assert_eq!(scaler.pause(), None);
        let resumed = written(scaler.resume());
        assert_eq!(resumed["spec"], target["spec"]);
        assert!(
            resumed["metadata"]["annotations"]
                .get("autoscaling.keda.sh/paused-replicas")
                .is_none()
        );
    }
}

#[test]
fn an_hpa_is_not_paused_and_an_unknown_kind_is_no_scaler() {
    let hpa = json!({"metadata": {}, "spec": {"minReplicas": 4}});
    let with_hpa = snapshot("HorizontalPodAutoscaler", json!({}), &[hpa]);
    let scaler = Scaler::of(&with_hpa).unwrap();
    assert_eq!(
        (
            scaler.pause(),
            scaler.resume(),
            scaler.may_scale_to_zero(),
            scaler.min_replicas()
        ),
        (None, None, false, 4)
    );
    let other = snapshot("VerticalPodAutoscaler", json!({}), &[]);
    assert!(Scaler::of(&other).is_none() && objects(&other).is_empty());
    assert_eq!(objects(&with_hpa).len(), 2);
}

#[test]
fn a_missing_scaler_has_flaggers_error() {
    let missing = |kind: &str| {
        Scaler::of(&snapshot(kind, json!({}), &[]))
            .unwrap()
            .promote()
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        missing("ScaledObject"),
        "Keda ScaledObject so.test get query error: scaledobjects.keda.sh \"so\" not found"
    );
    assert_eq!(
        missing("HorizontalPodAutoscaler"),
        "HorizontalPodAutoscaler so.test get query error: horizontalpodautoscalers.autoscaling \"so\" not found"
    );
}

#[test]
fn keda_may_scale_a_workload_to_zero_unless_it_has_a_minimum() {
    let limits = |spec: Value, annotations: Value| {
        let snapshot = snapshot(
            "ScaledObject",
            json!({}),
            &[json!({"metadata": {"annotations": annotations}, "spec": spec})],
        );
        let scaler = Scaler::of(&snapshot).unwrap();
        (scaler.may_scale_to_zero(), scaler.min_replicas())
    };
    assert_eq!(limits(json!({}), json!({})), (true, 1));
    assert_eq!(limits(json!({"minReplicaCount": 0}), json!({})), (true, 1));
    assert_eq!(limits(json!({"minReplicaCount": 2}), json!({})), (false, 2));
    assert_eq!(
        limits(
            json!({"minReplicaCount": 2, "idleReplicaCount": 0}),
            json!({})
        ),
        (true, 2)
    );
    let paused = json!({"autoscaling.keda.sh/paused-replicas": "0"});
    assert_eq!(
        limits(json!({}), paused),
        (false, 1),
        "the operator paused it"
    );
}

#[test]
fn a_refused_write_of_the_primarys_scaler_has_flaggers_text() {
    let scaler = |max: i64| json!({"metadata": {}, "spec": {"minReplicas": 2, "maxReplicas": max, "scaleTargetRef": {"name": "podinfo"}}});
    for (kind, creating, updating) in [
        (
            "HorizontalPodAutoscaler",
            "creating HorizontalPodAutoscaler v2",
            "updating HorizontalPodAutoscaler v2",
        ),
        (
            "ScaledObject",
            "creating Keda ScaledObject",
            "updating ScaledObject",
        ),
    ] {
        let text = |scalers: &[Value]| {
            let snapshot = snapshot(kind, json!({}), scalers);
            Scaler::of(&snapshot)
                .unwrap()
                .promote()
                .unwrap()
                .unwrap()
                .refusal("no")
        };
        assert_eq!(
            text(&[scaler(3)]),
            format!("{creating} so-primary.test failed: no")
        );
        assert_eq!(
            text(&[scaler(3), scaler(4)]),
            format!("{updating} so-primary.test failed: no")
        );
    }
}
