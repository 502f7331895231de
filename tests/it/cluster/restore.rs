//! After a failed promotion, the primary gets its last version back, and then its traffic.

use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, equal, text};
use flagger_rs::snapshot::Kind;

pub async fn a_primary_that_cannot_run_the_promoted_version_gets_its_last_one_back(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    let reads = json!([{"configMapRef": {"name": "color"}}, {"secretRef": {"name": "color"}}]);
    let container = |tag: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": format!("podinfo:{tag}"), "envFrom": reads}]}}}});
    s.colors("red").await?;
    s.patch("deployment", "podinfo", &container("3.1.0"))
        .await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50, "maxWeight": 50}));
    canary["spec"]["progressDeadlineSeconds"] = json!(15);
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    s.colors("blue").await?;
    s.patch("deployment", "podinfo", &container("brokenprimary1"))
        .await?;
    s.restored(Kind::Deployment, "podinfo:3.1.0").await?;
    s.primary_reads("red").await?;
    // The fix is released step by step.
    let seen = s.table().len();
    s.release("3.1.1").await?;
    equal(
        "the table",
        &s.table()[seen..],
        &[
            "Progressing 0",
            "Progressing 50",
            "Promoting 50",
            "Finalising 0",
            "Succeeded 0",
        ],
    )?;
    s.primary_reads("blue").await
}

pub async fn the_primary_of_a_daemon_set_gets_its_last_version_back(s: Scenario<'_>) -> Outcome {
    let daemon_set = |tag: &str| {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "podinfo"},
        "spec": {"selector": {"matchLabels": {"app": "podinfo"}}, "template": {"metadata": {"labels": {"app": "podinfo"}},
            "spec": {"containers": [{"name": "podinfod", "image": format!("podinfo:{tag}")}]}}}})
    };
    s.apply(&daemon_set("3.1.0")).await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50, "maxWeight": 50}));
    let spec = canary["spec"].as_object_mut().unwrap();
    spec.insert("progressDeadlineSeconds".to_owned(), json!(15));
    spec.insert(
        "targetRef".to_owned(),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"}),
    );
    spec.remove("autoscalerRef");
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    s.patch(
        "daemonset",
        "podinfo",
        &json!({"spec": {"template": daemon_set("brokenprimary1")["spec"]["template"]}}),
    )
    .await?;
    s.restored(Kind::DaemonSet, "podinfo:3.1.0").await
}

impl Scenario<'_> {
    /// Creates or changes the ConfigMap and the Secret `color`.
    async fn colors(&self, color: &str) -> Outcome {
        for kind in ["ConfigMap", "Secret"] {
            self.apply(&json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "color"}, "data": {"color": encoded(kind, color)}}))
                .await?;
        }
        Ok(())
    }

    /// Checks the content of the configs that the primary reads.
    async fn primary_reads(&self, color: &str) -> Outcome {
        for kind in [Kind::ConfigMap, Kind::Secret] {
            let copy = self.get(kind, "color-primary").await?;
            ensure(copy["data"]["color"] == encoded(kind.name(), color), &copy)?;
        }
        Ok(())
    }

    /// Waits until the promotion has failed and the primary has this image and all traffic.
    async fn restored(&self, kind: Kind, image: &str) -> Outcome {
        self.event("failed, primary not ready").await?;
        self.event("is restored: routing all traffic to primary")
            .await?;
        self.phase("Failed").await?;
        let primary = self.get(kind, "podinfo-primary").await?;
        let pods: &Value = &primary["spec"]["template"]["spec"];
        ensure(pods["containers"][0]["image"] == image, pods)?;
        ensure(self.weight().await? == 0, "traffic is on the primary")?;
        until(PATIENCE, "the end of the canary's pods", async || {
            let target = self.get(kind, "podinfo").await?;
            let selector = &target["spec"]["template"]["spec"]["nodeSelector"];
            let is_at_zero = target["spec"]["replicas"] == 0 || selector.is_object();
            is_at_zero
                .then_some(())
                .ok_or_else(|| target["spec"].to_string())
        })
        .await
        .map_err(text)
    }
}

/// The value of a key with this color, in the form of a ConfigMap or Secret.
fn encoded(kind: &str, color: &str) -> String {
    match (kind, color) {
        ("Secret", "red") => "cmVk".to_owned(),
        ("Secret", _) => "Ymx1ZQ==".to_owned(),
        _ => color.to_owned(),
    }
}
