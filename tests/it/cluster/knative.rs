//! Checks that a real API server with Knative's own CRDs keeps the routes of a Knative Service. The test bed stands in for Knative's
//! controller.

use serde_json::{Value, json};

use super::{Outcome, PATIENCE, Scenario, ensure, inputs::a_step_costs_three_writes_of, text};
use flagger_rs::snapshot::Kind;
use testbed::wait::until;

const PRIMARY: &str = "flagger.app/primary-revision";

/// The Knative Service. The API server adds a default to the port, and Knative a default timeout to its Revision.
fn service() -> Value {
    json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "podinfo", "annotations": {"theirs": "1"}},
        "spec": {"template": {"spec": {"timeoutSeconds": 60, "containers": [container("3.1.0")]}}}})
}

fn container(tag: &str) -> Value {
    json!({"name": "podinfod", "image": format!("podinfo:{tag}"), "ports": [{"containerPort": 9898}]})
}

async fn image(s: &Scenario<'_>, tag: &str) -> Outcome {
    let change = json!({"spec": {"template": {"spec": {"containers": [container(tag)]}}}});
    s.patch("services.serving.knative.dev", "podinfo", &change)
        .await
}

/// The share of the latest Revision, and the Revision that was promoted with its own.
fn shares(latest: u8, primary: &str) -> Value {
    json!([{"latestRevision": true, "percent": latest}, {"revisionName": primary, "percent": 100 - latest}])
}

async fn routes(s: &Scenario<'_>, traffic: &Value, primary: Option<&str>) -> Outcome {
    until(PATIENCE, "the routes", async || {
        let service = s.get(Kind::KnativeService, "podinfo").await?;
        let annotations = &service["metadata"]["annotations"];
        let is_routed = service["spec"]["traffic"] == *traffic && annotations["theirs"] == "1";
        ensure(
            is_routed && annotations[PRIMARY] == json!(primary),
            &service,
        )
    })
    .await
    .map_err(text)
}

pub async fn a_knative_service_is_released_by_its_own_routes(s: Scenario<'_>) -> Outcome {
    s.apply(&service()).await?;
    let analysis = json!({"stepWeight": 25, "maxWeight": 50, "metrics": [], "webhooks": []});
    let mut canary = s.canary_named("podinfo", analysis);
    let spec = canary["spec"].as_object_mut().unwrap();
    spec.remove("autoscalerRef");
    spec.remove("service");
    spec.insert("provider".to_owned(), json!("knative"));
    spec.insert("progressDeadlineSeconds".to_owned(), json!(15));
    spec.insert("revertOnDeletion".to_owned(), json!(true));
    spec["targetRef"]["apiVersion"] = json!("serving.knative.dev/v1");
    spec["targetRef"]["kind"] = json!("Service");
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    s.event("Initialization done").await?;
    routes(&s, &shares(0, "podinfo-00001"), Some("podinfo-00001")).await?;
    image(&s, "3.1.1").await?;
    a_step_costs_three_writes_of(&s, "services").await?;
    s.phase("Succeeded").await?;
    routes(&s, &shares(0, "podinfo-00002"), Some("podinfo-00002")).await?;
    image(&s, "broken").await?;
    s.phase("Failed").await?;
    s.event("Knative Revision podinfo-00003").await?;
    routes(&s, &shares(0, "podinfo-00002"), Some("podinfo-00002")).await?;
    s.delete("canary", "podinfo").await?;
    let latest = json!([{"latestRevision": true, "percent": 100}]);
    routes(&s, &latest, None).await?;
    s.delete("services.serving.knative.dev", "podinfo").await
}
