//! A loss of pods that serve requests delays a release, but does not end it.

use serde_json::json;

use super::{Outcome, Scenario, ensure, equal, text};

/// The threshold is 1. An eviction is no failed check.
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
