//! Pods that serve: a promotion takes none of them, and a loss of them holds a release up, but does not end it.

use serde_json::json;
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, equal, text};
use flagger_rs::snapshot::Kind;

/// fluxcd/flagger#1347: the user scales the target and the primary, and the Canary has no `autoscalerRef`.
pub async fn a_primary_that_its_user_scales_keeps_its_size_in_a_promotion(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50, "maxWeight": 50}));
    canary["spec"]
        .as_object_mut()
        .unwrap()
        .remove("autoscalerRef");
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    s.scale("podinfo-primary", 5).await?;
    s.until_ready("podinfo-primary", 5).await?;
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    s.scale("podinfo", 1).await?;
    s.phase("Succeeded").await?;
    let primary = s.get(Kind::Deployment, "podinfo-primary").await?;
    ensure(primary["spec"]["replicas"] == 5, &primary["spec"])?;
    // It was created, scaled by its user, and promoted: nobody scaled it down and up again meanwhile.
    ensure(primary["metadata"]["generation"] == 3, &primary["metadata"])
}

/// An eviction with a threshold of 1: no check has failed.
pub async fn a_version_whose_pods_are_evicted_gets_its_traffic_back(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 20, "maxWeight": 40, "threshold": 1}))
        .await?;
    let seen = s.table().len();
    s.image("slow2").await?;
    s.line("Progressing 40").await?;
    let pods = [
        "-n",
        &s.ns,
        "delete",
        "pod",
        "-l",
        "app=podinfo",
        "--wait=false",
    ];
    s.rig.bed.kubectl(&pods).await.map_err(text)?;
    s.event("has no ready pod: routing all traffic to primary")
        .await?;
    s.event("has ready pods again: routing traffic to canary as before")
        .await?;
    s.phase("Succeeded").await?;
    let table = &s.table()[seen..];
    equal(
        "the table",
        table,
        &[
            "Progressing 0",
            "Progressing 20",
            "Progressing 40",
            "Progressing 0",
            "Progressing 40",
            "Promoting 40",
            "Finalising 0",
            "Succeeded 0",
        ],
    )?;
    let events = s.events();
    let hooks = events
        .iter()
        .filter(|line| line.contains("Pre-rollout check"));
    ensure(hooks.count() == 1, format!("{events:?}"))
}

impl Scenario<'_> {
    /// `kubectl scale`, which does what autoscalers do.
    async fn scale(&self, name: &str, replicas: i64) -> Outcome {
        let (name, replicas) = (
            format!("deployment/{name}"),
            format!("--replicas={replicas}"),
        );
        let scale = ["-n", &self.ns, "scale", &name, &replicas];
        self.rig.bed.kubectl(&scale).await.map(drop).map_err(text)
    }

    async fn until_ready(&self, name: &str, pods: i64) -> Outcome {
        until(PATIENCE, "ready pods", async || {
            let deployment = self.get(Kind::Deployment, name).await?;
            let ready = deployment["status"]["readyReplicas"].as_i64();
            (ready == Some(pods))
                .then_some(())
                .ok_or_else(|| format!("{ready:?}"))
        })
        .await
        .map_err(text)
    }
}
