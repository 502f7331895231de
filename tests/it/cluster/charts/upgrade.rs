//! Flagger's own chart, installed with the values of a user, is upgraded to ours with the same values.

use serde_json::{Value, json};
use testbed::{bed::ACCOUNT, wait::until};

use super::{Charts, grants, strings, verbs};
use crate::cluster::{
    Outcome, PATIENCE, Scenario, ensure, equal, installs, survival::STEPS, takeover, text,
};
use flagger_rs::snapshot::Kind;

/// The values of a user of Flagger's chart. The last three have no effect here.
const VALUES: &str = r#"{
    "meshProvider": "istio", "metricsServer": "http://prometheus:9090", "eventWebhook": "http://events/all",
    "slack": {"user": "flagger", "channel": "general", "url": "http://slack/global"},
    "podLabels": {"team": "platform"}, "podDisruptionBudget": {"enabled": true}, "leaderElection": {"enabled": true, "replicaCount": 2},
    "threadiness": 4, "kubeconfigQPS": 50, "image": {"repository": "ghcr.io/fluxcd/flagger", "tag": "1.44.0"}}"#;

const NAMESPACE: &str = "istio-system";

pub async fn flaggers_release_becomes_ours(charts: &Charts<'_>) -> Outcome {
    charts.namespace(NAMESPACE).await?;
    let theirs = charts.helm.of_flagger("flagger-1.44.0.tgz").map_err(text)?;
    let values = charts.values("user.yaml", VALUES)?;
    let place = ["-n", NAMESPACE, "-f", &values];
    let install = [&["install", "flagger", &theirs], &place[..]].concat();
    charts.helm.run(&install).await.map_err(text)?;
    let before = charts.object(NAMESPACE, "deployment/flagger").await?;
    let s = Scenario::new(charts.rig, "chart-succeeded").await;
    takeover::load(&s, "succeeded").await?;

    // Many users upgrade with the values of the old chart. Then the defaults of Flagger's chart are set, and the values of our chart are
    // missing.
    let defaults = charts.defaults(&theirs).await?;
    let template = ["template", "flagger", "CHART", "-f", &defaults];
    charts.run("flagger", &template).await?;
    let reused = [
        "upgrade",
        "flagger",
        "CHART",
        "-n",
        NAMESPACE,
        "--reuse-values",
    ];
    charts.run("flagger", &reused).await?;

    let upgrade = [&["upgrade", "flagger", "CHART"], &place[..]].concat();
    let notes = charts.run("flagger", &upgrade).await?;
    for value in ["threadiness", "kubeconfigQPS", "image.repository"] {
        ensure(
            notes.contains(&format!("\n* {value}")),
            format!("{value} is in {notes}"),
        )?;
    }
    ensure(notes.matches("\n* ").count() == 3, &notes)?;
    is_ours(charts, &before).await?;
    let operator = charts.operator(NAMESPACE, "chart-takeover").await?;
    takeover::stays_idle(&s, "succeeded").await?;
    a_second_operator_finishes_the_release(charts, operator).await?;
    the_release_goes_and_canaries_stay(charts, &s).await
}

/// The objects are those of our chart; the Deployment is the same object as before.
async fn is_ours(charts: &Charts<'_>, before: &Value) -> Outcome {
    let after = charts.object(NAMESPACE, "deployment/flagger").await?;
    ensure(
        after["metadata"]["uid"] == before["metadata"]["uid"],
        "the Deployment was not made anew",
    )?;
    let pod = &after["spec"]["template"];
    ensure(pod["metadata"]["labels"]["team"] == "platform", pod)?;
    let image = &pod["spec"]["containers"][0]["image"];
    let ours = concat!("ghcr.io/flagger-rs/flagger:", env!("CARGO_PKG_VERSION"));
    ensure(image == ours, image)?;
    let command = strings(&pod["spec"]["containers"][0]["command"]);
    for flag in [
        "-mesh-provider=istio",
        "-slack-channel=general",
        "-event-webhook=http://events/all",
    ] {
        ensure(
            command.iter().any(|other| other == flag),
            format!("{command:?}"),
        )?;
    }
    let role = charts.object("", "clusterrole/flagger").await?;
    let deletes = verbs(&role).iter().any(|verb| verb == "delete");
    ensure(!deletes && !grants(&role, "httpproxies"), &role)?;
    let budget = charts
        .object(NAMESPACE, "poddisruptionbudget/flagger")
        .await?;
    ensure(budget["spec"]["minAvailable"] == 1, budget)
}

/// One operator begins a release and is killed. The second operator finishes the release, and neither repeats nor skips a step.
async fn a_second_operator_finishes_the_release(
    charts: &Charts<'_>,
    first: testbed::operator::Operator,
) -> Outcome {
    let s = Scenario::new(charts.rig, "chart-release").await;
    s.initialized(json!({"stepWeight": 20, "maxWeight": 40}))
        .await?;
    let second = charts.operator(NAMESPACE, "chart-second").await?;
    let seen = s.table().len();
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    first.kill().await;
    s.phase("Succeeded").await?;
    equal("the table", &s.table()[seen..], &STEPS)?;
    // A Canary with `revertOnDeletion` needs the operator when it is deleted.
    s.patch(
        "canary",
        "podinfo",
        &json!({"spec": {"revertOnDeletion": true}}),
    )
    .await?;
    until(PATIENCE, "the finalizer", async || {
        let canary = s.get(Kind::Canary, "podinfo").await?;
        let is_there = !canary["metadata"]["finalizers"].is_null();
        is_there
            .then_some(())
            .ok_or_else(|| canary["metadata"].to_string())
    })
    .await
    .map_err(text)?;
    s.delete("canary", "podinfo").await?;
    until(PATIENCE, "the Canary to go", async || {
        let canary = s.get(Kind::Canary, "podinfo").await;
        canary.map_or(Ok(()), |canary| Err(canary["status"].to_string()))
    })
    .await
    .map_err(text)?;
    let target = s.get(Kind::Deployment, "podinfo").await?;
    ensure(target["spec"]["replicas"] == 2, "the target serves again")?;
    installs::nothing_was_refused(charts.rig, ACCOUNT)?;
    let code = second.terminate().await.map_err(text)?;
    ensure(code.success(), code)
}

/// `helm uninstall` removes the operator and its rights. Canaries, CRDs and the objects that serve clients stay.
async fn the_release_goes_and_canaries_stay(charts: &Charts<'_>, s: &Scenario<'_>) -> Outcome {
    let args = ["uninstall", "flagger", "-n", NAMESPACE, "--wait"];
    charts.helm.run(&args).await.map_err(text)?;
    for gone in [
        "deployment/flagger",
        "serviceaccount/flagger",
        "clusterrole/flagger",
        "clusterrolebinding/flagger",
    ] {
        let found = charts.object(NAMESPACE, gone).await;
        ensure(found.is_err(), format!("{gone} is still there"))?;
    }
    let canary = s.get(Kind::Canary, "podinfo").await?;
    ensure(canary["status"]["phase"] == "Succeeded", &canary["status"])?;
    let primary = s.get(Kind::Deployment, "podinfo-primary").await?;
    let replicas = primary["status"]["readyReplicas"].as_i64();
    ensure(replicas > Some(0), "the primary serves")?;
    ensure(s.weight().await? == 0, "the route leads to it")
}
