//! Tests of autoscalers on a real API server. KEDA's CRDs are installed, KEDA is not.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, text};
use flagger_rs::snapshot::Kind;

const PAUSED: &str = "/metadata/annotations/autoscaling.keda.sh~1paused-replicas";

async fn scaler(s: &Scenario<'_>, name: &str) -> Result<Value, String> {
    s.get(Kind::ScaledObject, name).await
}

/// Whether the ScaledObject of the target is paused and the target has no pods.
async fn is_paused_at_zero(s: &Scenario<'_>) -> Result<bool, String> {
    let target = s.get(Kind::Deployment, "podinfo").await?;
    let scaler = scaler(s, "podinfo-so").await?;
    let paused = scaler.pointer(PAUSED) == Some(&json!("0"));
    let replicas = target["spec"]["replicas"].as_i64();
    ensure(
        paused == (replicas == Some(0)),
        format!("paused {paused} with {replicas:?} replicas"),
    )?;
    Ok(paused)
}

pub async fn a_scaled_object_is_paused_with_its_target_and_keeps_all_its_fields(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    s.delete("hpa", "podinfo").await?;
    let spec = json!({"scaleTargetRef": {"name": "podinfo"}, "minReplicaCount": 2, "maxReplicaCount": 3, "initialCooldownPeriod": 5,
        "advanced": {"scalingModifiers": {"formula": "load", "target": "5"}},
        "triggers": [{"type": "prometheus", "name": "load", "useCachedMetrics": true,
            "metadata": {"serverAddress": "http://prom:9090", "threshold": "5", "query": "sum(rate(requests{app=\"podinfo\"}[1m]))"}}]});
    s.apply(
        &json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject",
        "metadata": {"name": "podinfo-so", "annotations": {"own": "1"}}, "spec": spec}),
    )
    .await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50, "maxWeight": 50}));
    canary["spec"]["autoscalerRef"] = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so", "primaryScalerReplicas": {"minReplicas": 1}});
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    ensure(
        is_paused_at_zero(&s).await?,
        "the target is paused and has no pods",
    )?;
    let primary = scaler(&s, "podinfo-so-primary").await?;
    ensure(primary.pointer(PAUSED).is_none(), "the primary is not")?;
    let (query, least) = (
        primary.pointer("/spec/triggers/0/metadata/query"),
        &primary["spec"]["minReplicaCount"],
    );
    ensure(
        query == Some(&json!("sum(rate(requests{app=\"podinfo-primary\"}[1m]))")) && *least == 1,
        format!("the primary's scaler is about the primary: {primary}"),
    )?;
    s.patch(
        "scaledobject",
        "podinfo-so",
        &json!({"spec": {"maxReplicaCount": 4}}),
    )
    .await?;
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    ensure(!is_paused_at_zero(&s).await?, "the target is awake")?;
    s.phase("Succeeded").await?;
    ensure(
        is_paused_at_zero(&s).await?,
        "the target is paused and has no pods again",
    )?;
    let primary = scaler(&s, "podinfo-so-primary").await?;
    ensure(
        primary["spec"]["maxReplicaCount"] == 4,
        "the scaler was promoted",
    )?;
    for (name, of) in [
        ("the user's", "podinfo-so"),
        ("the primary's", "podinfo-so-primary"),
    ] {
        let now = scaler(&s, of).await?;
        let is_complete = now["spec"]["initialCooldownPeriod"] == 5
            && now["spec"]["triggers"][0]["useCachedMetrics"] == true
            && now["spec"]["advanced"]["scalingModifiers"]["formula"] == "load"
            && now["metadata"]["annotations"]["own"] == "1";
        ensure(is_complete, format!("{name} has all its fields: {now}"))?;
    }
    s.rig.bed.fakes.success_rate(&s.ns, 97.5);
    s.image("3.1.2").await?;
    s.phase("Failed").await?;
    until(
        PATIENCE,
        "the rolled back target to have no pods",
        async || {
            if is_paused_at_zero(&s).await? {
                Ok(())
            } else {
                Err("awake".to_owned())
            }
        },
    )
    .await
    .map_err(text)
}

pub async fn a_missing_scaler_is_reported_and_waited_for(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    s.delete("hpa", "podinfo").await?;
    s.canary(json!({"stepWeight": 50})).await?;
    s.event("Warning HorizontalPodAutoscaler podinfo.").await?;
    tokio::time::timeout(Duration::from_secs(60), s.workload())
        .await
        .map_err(text)??;
    s.phase("Initialized").await
}
