//! Tests of gates, and of releases of a DaemonSet and of a Service, on a real API server.

use serde_json::{Value, json};
use testbed::fakes::Answer;

use super::{Outcome, Scenario, ensure, equal};
use flagger_rs::snapshot::Kind;

fn hooks(s: &Scenario<'_>, kinds: &[&str]) -> Value {
    let hook = |kind: &&str| json!({"name": kind, "type": kind, "url": url(s, kind)});
    json!({"stepWeight": 50, "maxWeight": 50, "webhooks": kinds.iter().map(hook).collect::<Vec<_>>()})
}

fn url(s: &Scenario<'_>, kind: &str) -> String {
    format!("http://hooks/{}/{kind}", s.ns)
}

fn shut(s: &Scenario<'_>, kind: &str) {
    let answer = Answer::Raw(403, "not yet".to_owned());
    s.rig
        .bed
        .fakes
        .script(&format!("hooks/{}/{kind}", s.ns), answer);
}

fn open(s: &Scenario<'_>, kind: &str) {
    s.rig.bed.fakes.unscript(&format!("hooks/{}/{kind}", s.ns));
}

pub async fn a_release_waits_at_each_gate_until_it_is_approved(s: Scenario<'_>) -> Outcome {
    let gates = [
        "confirm-rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
    ];
    s.initialized(hooks(&s, &gates)).await?;
    for gate in gates {
        shut(&s, gate);
    }
    let seen = s.table().len();
    s.image("3.1.1").await?;
    s.event("waiting for approval confirm-rollout").await?;
    s.line("Waiting 0").await?;
    open(&s, "confirm-rollout");
    s.event("waiting for traffic increase approval").await?;
    ensure(s.weight().await? == 0, "no traffic without approval")?;
    open(&s, "confirm-traffic-increase");
    s.line("WaitingPromotion 50").await?;
    ensure(s.weight().await? == 50, "the status has the routed weight")?;
    open(&s, "confirm-promotion");
    s.phase("Succeeded").await?;
    let seen = &s.table()[seen..];
    equal(
        "the table",
        seen,
        &[
            "Waiting 0",
            "Progressing 0",
            "Progressing 50",
            "WaitingPromotion 50",
            "Promoting 50",
            "Finalising 0",
            "Succeeded 0",
        ],
    )
}

pub async fn a_version_that_a_webhook_rolls_back_is_not_run_again(s: Scenario<'_>) -> Outcome {
    s.initialized(hooks(&s, &["rollback"])).await?;
    shut(&s, "rollback");
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    s.event("Rollback hook rollback not signaling a rollback")
        .await?;
    open(&s, "rollback");
    s.phase("Failed").await?;
    s.event("manual webhook invoked").await?;
    ensure(s.weight().await? == 0, "traffic is on the primary")?;
    let target = s.get(Kind::Deployment, "podinfo").await?;
    ensure(target["spec"]["replicas"] == 0, "the canary has no pods")
}

/// Creates a target and its Canary.
async fn canary_of(s: &Scenario<'_>, target: Value, analysis: Value) -> Outcome {
    let mut canary = s.canary_named("podinfo", analysis);
    let spec = canary["spec"].as_object_mut().unwrap();
    spec.insert("targetRef".to_owned(), target);
    spec.remove("autoscalerRef");
    s.apply(&canary).await
}

pub async fn a_daemon_set_is_released_and_rolled_back(s: Scenario<'_>) -> Outcome {
    let pods = json!({"selector": {"matchLabels": {"app": "podinfo"}},
        "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"nodeSelector": {"kubernetes.io/os": "linux"},
            "containers": [{"name": "podinfod", "image": "podinfo:3.1.0"}]}}});
    s.apply(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "podinfo"}, "spec": pods}))
        .await?;
    let target = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"});
    canary_of(&s, target, json!({"stepWeight": 50, "maxWeight": 50})).await?;
    s.phase("Initialized").await?;
    let selector = async |name: &str| {
        let object = s.get(Kind::DaemonSet, name).await?;
        let selector = object.pointer("/spec/template/spec/nodeSelector");
        Ok::<_, String>(selector.cloned().unwrap_or_default())
    };
    let zero = json!({"kubernetes.io/os": "linux", "flagger.app/scale-to-zero": "true"});
    ensure(selector("podinfo").await? == zero, "the target has no pods")?;
    let image = |tag: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": format!("podinfo:{tag}")}]}}}});
    s.patch("daemonset", "podinfo", &image("3.1.1")).await?;
    s.event("New revision detected").await?;
    s.phase("Succeeded").await?;
    let primary = s.get(Kind::DaemonSet, "podinfo-primary").await?;
    let template = &primary["spec"]["template"]["spec"];
    ensure(
        template["containers"][0]["image"] == "podinfo:3.1.1",
        "the primary has the version",
    )?;
    ensure(
        template["nodeSelector"] == json!({"kubernetes.io/os": "linux"}),
        "the primary stays where it was",
    )?;
    s.rig.bed.fakes.success_rate(&s.ns, 42.0);
    s.patch("daemonset", "podinfo", &image("3.1.2")).await?;
    s.phase("Failed").await?;
    ensure(selector("podinfo").await? == zero, "the target has no pods")
}

/// Flagger copies the `clusterIP` of the target, which the API server refuses.
pub async fn a_service_with_an_address_of_its_own_is_released(s: Scenario<'_>) -> Outcome {
    let service = |app: &str| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo"},
            "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 9898}]}})
    };
    s.apply(&service("blue")).await?;
    let target = json!({"apiVersion": "v1", "kind": "Service", "name": "podinfo"});
    canary_of(&s, target, json!({"stepWeight": 50, "maxWeight": 50})).await?;
    s.phase("Initialized").await?;
    s.apply(&service("green")).await?;
    s.event("New revision detected").await?;
    let app = async |name: &str| {
        let service = s.get(Kind::Service, name).await?;
        Ok::<_, String>(service["spec"]["selector"]["app"].clone())
    };
    ensure(app("podinfo-canary").await? == "green", "the canary is new")?;
    ensure(
        app("podinfo-primary").await? == "blue",
        "the primary is not",
    )?;
    s.phase("Succeeded").await?;
    ensure(app("podinfo-primary").await? == "green", "now it is")
}
