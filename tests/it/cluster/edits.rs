//! The actions of a scenario's user: creates, changes and deletes objects.

use flagger_rs::snapshot::Kind;
use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, text};

impl Scenario<'_> {
    /// Creates a Deployment `podinfo` and its HPA, and waits for two ready pods.
    pub async fn podinfo(&self) -> Outcome {
        self.workload().await?;
        until(PATIENCE, "two ready pods", async || {
            let deployment = self.get(Kind::Deployment, "podinfo").await?;
            let ready = deployment
                .pointer("/status/availableReplicas")
                .and_then(Value::as_i64);
            (ready == Some(2))
                .then_some(())
                .ok_or_else(|| format!("{ready:?}"))
        })
        .await
        .map_err(text)
    }

    /// Creates a Deployment `podinfo` and its HPA.
    pub async fn workload(&self) -> Outcome {
        for object in workload() {
            self.apply(&object).await?;
        }
        Ok(())
    }

    /// Creates the Canary of the walkthrough with an interval of ten seconds, and with these fields of its analysis.
    pub async fn canary(&self, analysis: Value) -> Outcome {
        self.apply(&self.canary_named("podinfo", analysis)).await
    }

    pub fn canary_named(&self, name: &str, analysis: Value) -> Value {
        let mut all = json!({"interval": "10s", "threshold": 2,
            "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m"},
                {"name": "request-duration", "thresholdRange": {"max": 500}, "interval": "30s"}],
            "webhooks": [{"name": "acceptance-test", "type": "pre-rollout", "url": format!("http://hooks/{}/acceptance", self.ns), "timeout": "30s"},
                {"name": "load-test", "url": format!("http://hooks/{}/load", self.ns), "timeout": "5s", "metadata": {"cmd": "hey"}}]});
        for (key, value) in analysis.as_object().unwrap() {
            all[key] = value.clone();
        }
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": name},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "progressDeadlineSeconds": 60,
                "autoscalerRef": {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"},
                "service": {"port": 9898, "targetPort": 9898, "gateways": ["public-gateway.istio-system.svc.cluster.local"], "hosts": ["app.example.com"]},
                "analysis": all}})
    }

    /// Creates a canary and waits until it is initialized and has sent its event.
    pub async fn initialized(&self, analysis: Value) -> Outcome {
        self.podinfo().await?;
        self.canary(analysis).await?;
        self.phase("Initialized").await?;
        self.notified("Initialization done!").await
    }

    pub async fn apply(&self, object: &Value) -> Outcome {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!(self.ns);
        self.rig
            .bed
            .apply(&object.to_string())
            .await
            .map(drop)
            .map_err(text)
    }

    pub async fn image(&self, tag: &str) -> Outcome {
        self.patch("deployment", "podinfo", &json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "image": format!("podinfo:{tag}")}]}}}})).await
    }

    /// Releases a version that reads a new ConfigMap and a new Secret.
    pub async fn image_with_configs(&self, tag: &str) -> Outcome {
        let data = json!({"KEY": "YQ=="});
        for (kind, name) in [("ConfigMap", "settings"), ("Secret", "keys")] {
            let config =
                json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data});
            self.apply(&config).await?;
        }
        let reads =
            json!([{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}]);
        let container =
            json!({"name": "podinfod", "image": format!("podinfo:{tag}"), "envFrom": reads});
        let change = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        self.patch("deployment", "podinfo", &change).await
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: &Value) -> Outcome {
        let form = if kind == "deployment" || kind == "daemonset" {
            "strategic"
        } else {
            "merge"
        };
        self.rig
            .bed
            .kubectl(&[
                "-n",
                &self.ns,
                "patch",
                kind,
                name,
                "--type",
                form,
                "-p",
                &patch.to_string(),
            ])
            .await
            .map(drop)
            .map_err(text)
    }

    pub async fn delete(&self, kind: &str, name: &str) -> Outcome {
        self.rig
            .bed
            .kubectl(&["-n", &self.ns, "delete", kind, name, "--wait=false"])
            .await
            .map(drop)
            .map_err(text)
    }

    /// Releases a version and waits until it has succeeded.
    pub async fn release(&self, tag: &str) -> Outcome {
        self.image(tag).await?;
        self.event("New revision detected").await?;
        self.phase("Succeeded").await
    }
}

/// The manifests of a Deployment `podinfo` and of its HPA.
pub fn workload() -> [Value; 2] {
    [
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "labels": {"app": "podinfo"}},
            "spec": {"selector": {"matchLabels": {"app": "podinfo"}}, "progressDeadlineSeconds": 60, "revisionHistoryLimit": 5,
                "template": {"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"name": "podinfod", "image": "podinfo:3.1.0", "ports": [{"name": "http", "containerPort": 9898}]}]}}}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "podinfo"},
            "spec": {"minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}]}}),
    ]
}
