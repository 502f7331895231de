//! Labels and selectors that change while a canary exists, and workloads with the same labels. Pods and endpoints are real.

use std::cell::RefCell;

use flagger_rs::snapshot::Kind;
use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, edits::workload, ensure, text};

/// A Canary without a mesh.
fn canary(s: &Scenario<'_>) -> Value {
    let analysis = json!({"iterations": 1, "metrics": [], "webhooks": []});
    let mut canary = s.canary_named("podinfo", analysis);
    canary["spec"]["provider"] = json!("kubernetes");
    canary
}

/// The Deployment, with these labels in its selector and on its pods.
fn deployment(labels: &Value, image: &str) -> Value {
    let [mut deployment, _] = workload();
    deployment["spec"]["selector"]["matchLabels"] = labels.clone();
    deployment["spec"]["template"]["metadata"]["labels"] = labels.clone();
    deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    deployment
}

/// Creates the Deployment with these labels, its HPA and its Canary, and waits until its Services have ready endpoints.
async fn initialized(s: &Scenario<'_>, labels: &Value) -> Outcome {
    let [_, scaler] = workload();
    s.apply(&deployment(labels, "podinfo:3.1.0")).await?;
    s.apply(&scaler).await?;
    s.apply(&canary(s)).await?;
    s.phase("Initialized").await?;
    until_served(s, "podinfo").await
}

/// Waits until the Services that clients of this canary call have ready endpoints.
pub async fn until_served(s: &Scenario<'_>, canary: &str) -> Outcome {
    let have_endpoints = async || without_endpoints(s, canary).await;
    until(PATIENCE, "endpoints", have_endpoints)
        .await
        .map_err(text)
}

/// Fails with the first Service that clients of this canary call and that has no ready endpoint.
async fn without_endpoints(s: &Scenario<'_>, canary: &str) -> Outcome {
    for service in [canary.to_owned(), format!("{canary}-primary")] {
        let of_service = format!("kubernetes.io/service-name={service}");
        let query = [
            "-n",
            &s.ns,
            "get",
            "endpointslices",
            "-l",
            &of_service,
            "-o",
            "json",
        ];
        let slices = s.rig.bed.kubectl(&query).await.map_err(text)?;
        let slices: Value = serde_json::from_str(&slices).map_err(text)?;
        let slices = slices["items"].as_array().into_iter().flatten();
        let mut endpoints = slices
            .flat_map(|slice| slice["endpoints"].as_array())
            .flatten();
        let selector = s.get(Kind::Service, &service).await?["spec"]["selector"].clone();
        ensure(
            endpoints.any(|endpoint| endpoint["conditions"]["ready"] == true),
            format!("{service} has no ready endpoint by {selector}"),
        )?;
    }
    Ok(())
}

/// Waits until `holds`, and fails if a Service that clients of this canary call has no ready endpoint meanwhile.
async fn without_outage(
    s: &Scenario<'_>,
    canary: &str,
    holds: impl AsyncFn() -> Outcome,
) -> Outcome {
    let outage = RefCell::new(Ok(()));
    until(PATIENCE, "the end of the outage test", async || {
        if outage.borrow().is_ok() {
            *outage.borrow_mut() = without_endpoints(s, canary).await;
        }
        if outage.borrow().is_err() {
            Ok(())
        } else {
            holds().await
        }
    })
    .await
    .map_err(text)?;
    outage.into_inner()
}

/// Waits until the primary of this canary runs this image, without an outage.
pub async fn promoted(s: &Scenario<'_>, canary: &str, image: &str) -> Outcome {
    without_outage(s, canary, async || {
        let primary = s
            .get(Kind::Deployment, &format!("{canary}-primary"))
            .await?;
        let template = &primary["spec"]["template"]["spec"];
        ensure(template["containers"][0]["image"] == image, template)?;
        let canary = s.get(Kind::Canary, canary).await?;
        ensure(canary["status"]["phase"] == "Succeeded", &canary["status"])
    })
    .await
}

/// `tests/field/f03-selector-label.yaml`, with a Deployment made anew.
pub async fn a_deployment_made_anew_with_another_label_is_released_without_an_outage(
    s: Scenario<'_>,
) -> Outcome {
    let mut objects = s.field("f03-selector-label");
    s.apply_as_user(&objects).await?;
    s.phase_of("web", "Initialized").await?;
    until_served(&s, "web").await?;
    s.delete("deployment", "web").await?;
    let is_gone = async || {
        let deployment = s.get(Kind::Deployment, "web").await;
        deployment.map_or(Ok(()), |deployment| Err(deployment["metadata"].to_string()))
    };
    without_outage(&s, "web", is_gone).await?;
    let anew = &mut objects[0]["spec"];
    anew["selector"]["matchLabels"] = json!({"app": "shop"});
    anew["template"]["metadata"]["labels"] = json!({"app": "shop"});
    anew["template"]["spec"]["containers"][0]["image"] = json!("example/app:2");
    s.apply_as_user(&objects).await?;
    promoted(&s, "web", "example/app:2").await?;
    s.kubectl("set image deploy/web main=example/app:3").await?;
    promoted(&s, "web", "example/app:3").await
}

/// The pods of the new version would get requests of the Services that clients call. The rollback scales them down.
pub async fn a_run_whose_deployment_gets_the_primarys_labels_is_rolled_back(
    s: Scenario<'_>,
) -> Outcome {
    initialized(&s, &json!({"app": "podinfo"})).await?;
    s.image("3.1.1").await?;
    s.line("Progressing 0").await?;
    s.delete("deployment", "podinfo").await?;
    let anew = deployment(&json!({"app": "podinfo-primary"}), "podinfo:3.1.1");
    s.apply(&anew).await?;
    s.event("run cannot go on: the selector app=podinfo-primary")
        .await?;
    without_outage(&s, "podinfo", async || {
        let canary = s.get(Kind::Canary, "podinfo").await?;
        let target = s.get(Kind::Deployment, "podinfo").await?;
        ensure(
            canary["status"]["phase"] == "Failed" && target["spec"]["replicas"] == 0,
            &canary["status"],
        )
    })
    .await
}

/// Two releases of one chart: the clients of the older one would reach the primary of the younger one.
pub async fn a_canary_with_the_labels_of_another_one_takes_none_of_its_clients(
    s: Scenario<'_>,
) -> Outcome {
    initialized(&s, &json!({"app": "podinfo"})).await?;
    let mut second = deployment(
        &json!({"app": "podinfo", "part": "second"}),
        "podinfo:3.1.0",
    );
    second["metadata"]["name"] = json!("second");
    s.apply(&second).await?;
    let mut other = canary(&s);
    other["metadata"]["name"] = json!("second");
    other["spec"]["targetRef"]["name"] = json!("second");
    other["spec"]
        .as_object_mut()
        .ok_or("no spec")?
        .remove("autoscalerRef");
    s.apply(&other).await?;
    s.event("the selector app=podinfo-primary for the pods of deployment second-primary")
        .await?;
    ensure(
        s.get(Kind::Deployment, "second-primary").await.is_err(),
        "no primary is made",
    )?;
    without_endpoints(&s, "podinfo").await
}
