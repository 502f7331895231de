//! Checks that releases on a real control plane run as the walkthrough shows them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::{fakes::Answer, wait::until};

use super::{Outcome, PATIENCE, Scenario, ensure, equal, text};
use flagger_rs::snapshot::Kind;

pub async fn a_good_version_is_promoted_step_by_step_and_a_bad_one_rolled_back(
    s: Scenario<'_>,
) -> Outcome {
    s.initialized(json!({"stepWeight": 20, "maxWeight": 50}))
        .await?;
    let target = s.get(Kind::Deployment, "podinfo").await?;
    ensure(
        target["spec"]["replicas"] == 0,
        "the target is scaled to zero",
    )?;
    let primary = s.get(Kind::Deployment, "podinfo-primary").await?;
    ensure(
        primary["spec"]["replicas"] == 2,
        "the primary has the target's pods",
    )?;
    s.get(Kind::HorizontalPodAutoscaler, "podinfo-primary")
        .await?;
    for service in ["podinfo", "podinfo-primary", "podinfo-canary"] {
        s.get(Kind::Service, service).await?;
    }
    let seen = s.table().len();
    s.release("3.1.1").await?;
    equal(
        "the table",
        &s.table()[seen..],
        &[
            "Progressing 0",
            "Progressing 20",
            "Progressing 40",
            "Progressing 50",
            "Promoting 50",
            "Finalising 0",
            "Succeeded 0",
        ],
    )?;
    let image = s
        .get(Kind::Deployment, "podinfo-primary")
        .await?
        .pointer("/spec/template/spec/containers/0/image")
        .cloned();
    ensure(
        image == Some(json!("podinfo:3.1.1")),
        "the primary has the version",
    )?;
    ensure(s.weight().await? == 0, "traffic is on the primary")?;
    s.rig.bed.fakes.success_rate(&s.ns, 97.5);
    s.notified("Promotion completed!").await?;
    let (seen, sent) = (s.table().len(), s.events().len());
    s.image("3.1.2").await?;
    s.phase("Failed").await?;
    equal(
        "the table",
        &s.table()[seen..],
        &["Progressing 0", "Progressing 20", "Failed 0"],
    )?;
    equal(
        "the events",
        &s.events()[sent..]
            .iter()
            .map(|line| line.replace(&s.ns, "test"))
            .collect::<Vec<_>>(),
        &[
            "Normal [Progressing] New revision detected! Scaling up podinfo.test",
            "Normal [Progressing] Starting canary analysis for podinfo.test",
            "Normal [Progressing] Pre-rollout check acceptance-test passed",
            "Normal [Progressing] Advance podinfo.test canary weight 20",
            "Warning [Progressing] Halt podinfo.test advancement success rate 97.50% < 99%",
            "Warning [Progressing] Halt podinfo.test advancement success rate 97.50% < 99%",
            "Warning [Progressing] Rolling back podinfo.test failed checks threshold reached 2",
            "Warning [Failed] Canary failed! Scaling down podinfo.test",
        ],
    )?;
    ensure(s.weight().await? == 0, "traffic is on the primary")?;
    let image = s
        .get(Kind::Deployment, "podinfo-primary")
        .await?
        .pointer("/spec/template/spec/containers/0/image")
        .cloned();
    ensure(
        image == Some(json!("podinfo:3.1.1")),
        "the primary has its old version",
    )?;
    ensure(
        s.get(Kind::Deployment, "podinfo").await?["spec"]["replicas"] == 0,
        "the canary has no pods",
    )
}

pub async fn blue_green_gets_all_traffic_once_before_its_promotion(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"iterations": 2})).await?;
    let sent = s.events().len();
    s.release("3.1.1").await?;
    equal(
        "the events",
        &s.events()[sent..]
            .iter()
            .map(|line| line.replace(&s.ns, "test"))
            .collect::<Vec<_>>(),
        &[
            "Normal [Progressing] New revision detected! Scaling up podinfo.test",
            "Normal [Progressing] Starting canary analysis for podinfo.test",
            "Normal [Progressing] Pre-rollout check acceptance-test passed",
            "Normal [Progressing] Advance podinfo.test canary iteration 1/2",
            "Normal [Progressing] Advance podinfo.test canary iteration 2/2",
            "Normal [Progressing] Routing all traffic to canary",
            "Normal [Progressing] Copying podinfo.test template spec to podinfo-primary.test",
            "Normal [Promoting] Routing all traffic to primary",
            "Normal [Succeeded] Promotion completed! Scaling down podinfo.test",
        ],
    )
}

pub async fn configs_are_part_of_a_version_and_the_primary_has_its_own(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    s.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "color"}, "data": {"color": "red"}, "binaryData": {"logo": "AAEC"}})).await?;
    s.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": {"key": "YQ=="}})).await?;
    let uses = json!([{"configMapRef": {"name": "color"}}, {"secretRef": {"name": "key"}}]);
    s.patch("deployment", "podinfo", &json!({"spec": {"template": {"spec": {"containers": [{"name": "podinfod", "envFrom": uses}]}}}})).await?;
    s.canary(json!({"stepWeight": 50, "maxWeight": 50})).await?;
    s.phase("Initialized").await?;
    let copy = s.get(Kind::ConfigMap, "color-primary").await?;
    ensure(
        copy["data"]["color"] == "red" && copy["binaryData"]["logo"] == "AAEC",
        "the primary has a copy, including binary data",
    )?;
    s.patch("configmap", "color", &json!({"data": {"color": "blue"}}))
        .await?;
    s.patch("secret", "key", &json!({"data": {"key": "Yg=="}}))
        .await?;
    s.patch("hpa", "podinfo", &json!({"spec": {"maxReplicas": 6}}))
        .await?;
    s.event("New revision detected! Scaling up").await?;
    ensure(
        s.get(Kind::ConfigMap, "color-primary").await?["data"]["color"] == "red",
        "the primary does not see it yet",
    )?;
    s.phase("Succeeded").await?;
    ensure(
        s.get(Kind::ConfigMap, "color-primary").await?["data"]["color"] == "blue",
        "the copy is promoted",
    )?;
    let scaler = s
        .get(Kind::HorizontalPodAutoscaler, "podinfo-primary")
        .await?;
    ensure(scaler["spec"]["maxReplicas"] == 6, "and so is the scaler")?;
    let canary = s.get(Kind::Canary, "podinfo").await?;
    ensure(
        canary["status"]["trackedConfigs"]["secret/key"].is_string(),
        "the status tracks both",
    )
}

pub async fn the_chat_of_the_alert_provider_gets_the_alerts(s: Scenario<'_>) -> Outcome {
    s.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "on-call-url"}, "stringData": {"address": format!("http://slack/{}", s.ns)}})).await?;
    s.apply(&json!({"apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider", "metadata": {"name": "on-call"},
        "spec": {"type": "slack", "channel": "on-call-alerts", "username": "flagger", "secretRef": {"name": "on-call-url"}}})).await?;
    let alerts = json!([{"name": "on-call Slack", "severity": "info", "providerRef": {"name": "on-call", "namespace": s.ns}}]);
    s.initialized(json!({"stepWeight": 50, "maxWeight": 50, "alerts": alerts}))
        .await?;
    s.rig.bed.fakes.latency(&s.ns, 600.0);
    s.image("3.1.1").await?;
    s.phase("Failed").await?;
    let expected = [
        "New Deployment detected, initialization completed.",
        "New revision detected, progressing canary analysis.",
        "Failed checks threshold reached 2",
    ];
    let messages = until(Duration::from_secs(10), "three messages", async || {
        let calls = s.rig.bed.fakes.calls(&format!("slack/{}", s.ns));
        let texts: Vec<_> = calls
            .iter()
            .map(|call| {
                call.body
                    .pointer("/attachments/0/text")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned()
            })
            .collect();
        if texts.len() < expected.len() {
            Err(format!("{texts:?}"))
        } else {
            Ok(texts)
        }
    })
    .await
    .map_err(text)?;
    equal("the chat", &messages, &expected)?;
    let last = s
        .rig
        .bed
        .fakes
        .calls(&format!("slack/{}", s.ns))
        .pop()
        .ok_or("no call")?
        .body;
    ensure(
        last["channel"] == "on-call-alerts" && last["attachments"][0]["color"] == "danger",
        last,
    )
}

pub async fn a_chat_webhook_that_is_gone_is_reported_on_the_canary_and_delays_nothing(
    s: Scenario<'_>,
) -> Outcome {
    let teams = format!("teams/{}", s.ns);
    s.rig
        .bed
        .fakes
        .script(&teams, Answer::Raw(410, "Connector is gone".to_owned()));
    s.apply(&json!({"apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider", "metadata": {"name": "on-call"},
        "spec": {"type": "msteams", "address": format!("http://{teams}")}})).await?;
    let alerts =
        json!([{"name": "on-call", "severity": "info", "providerRef": {"name": "on-call"}}]);
    s.initialized(json!({"stepWeight": 50, "maxWeight": 50, "alerts": alerts}))
        .await?;
    let event = s.event("alert provider on-call.").await?;
    ensure(
        event.contains("bad response 410: Connector is gone; the chat's webhook is gone")
            && !event.contains("http"),
        &event,
    )?;
    s.release("3.1.1").await?;
    let calls = s.rig.bed.fakes.calls(&teams);
    let first = calls.first().ok_or("no call")?;
    ensure(first.body["@type"] == "MessageCard", &first.body)
}

pub async fn the_objects_of_a_canary_are_deleted_with_it(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 50})).await?;
    s.delete("canary", "podinfo").await?;
    for (kind, name) in [
        (Kind::Deployment, "podinfo-primary"),
        (Kind::HorizontalPodAutoscaler, "podinfo-primary"),
        (Kind::Service, "podinfo"),
        (Kind::VirtualService, "podinfo"),
        (Kind::DestinationRule, "podinfo-canary"),
    ] {
        until(PATIENCE, &format!("{name} to go"), async || {
            match s.get(kind, name).await {
                Err(error) if error.contains("not found") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .map_err(text)?;
    }
    ensure(
        s.get(Kind::Deployment, "podinfo").await?["spec"]["replicas"] == 0,
        "the target stays at zero",
    )?;
    let operator = s.rig.operator.as_ref().ok_or("no operator")?;
    let series = format!(
        "flagger_canary_status{{name=\"podinfo\",namespace=\"{}\"}}",
        s.ns
    );
    until(Duration::from_secs(30), "its gauges to go", async || {
        let metrics = operator.metrics().await.map_err(text)?;
        if metrics.contains(&series) {
            Err("still there".to_owned())
        } else {
            Ok(())
        }
    })
    .await
    .map_err(text)
}

pub async fn a_canary_with_revert_on_deletion_restores_the_objects_that_it_adopted(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    s.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo"},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 9898}]}}),
    )
    .await?;
    let rules = json!([{"route": [{"destination": {"host": "podinfo"}}]}]);
    s.apply(
        &json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService", "metadata": {"name": "podinfo"},
        "spec": {"hosts": ["app.example.com"], "http": rules}}),
    )
    .await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50}));
    canary["spec"]["revertOnDeletion"] = json!(true);
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    let replicas = |object: Value| object["spec"]["replicas"].as_i64();
    let target = s.get(Kind::Deployment, "podinfo").await?;
    ensure(replicas(target) == Some(0), "the target has no pods")?;
    s.delete("canary", "podinfo").await?;
    until(PATIENCE, "the Canary to go", async || {
        let canary = s.get(Kind::Canary, "podinfo").await;
        canary.map_or(Ok(()), |canary| Err(canary["status"].to_string()))
    })
    .await
    .map_err(text)?;
    let target = s.get(Kind::Deployment, "podinfo").await?;
    ensure(replicas(target) == Some(2), "the target serves again")?;
    let service = s.get(Kind::Service, "podinfo").await?;
    ensure(
        service["spec"]["selector"] == json!({"app": "podinfo"}),
        "the Service leads to it",
    )?;
    let route = s.get(Kind::VirtualService, "podinfo").await?;
    ensure(
        route["spec"]["http"] == rules && route["spec"]["hosts"] == json!(["app.example.com"]),
        format!("the routes are the user's again, not {}", route["spec"]),
    )?;
    s.event("Terminated canary").await.map(drop)
}

pub async fn a_version_that_never_gets_ready_is_rolled_back(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 50})).await?;
    s.patch(
        "canary",
        "podinfo",
        &json!({"spec": {"progressDeadlineSeconds": 10}}),
    )
    .await?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    s.event("canary deployment podinfo.").await?;
    let alerts = s.rig.bed.fakes.calls("slack/global");
    let deadline = |call: &testbed::fakes::Call| {
        call.body.pointer("/attachments/0/author_name") == Some(&json!(format!("podinfo.{}", s.ns)))
            && call
                .body
                .pointer("/attachments/0/text")
                .and_then(Value::as_str)
                .is_some_and(|text| text.starts_with("Progress deadline exceeded"))
    };
    ensure(
        alerts.iter().filter(|call| deadline(call)).count() == 1,
        "exactly one alert names the reason",
    )
}

pub async fn a_newer_version_restarts_the_analysis_at_once_even_while_a_webhook_hangs(
    s: Scenario<'_>,
) -> Outcome {
    s.initialized(json!({"stepWeight": 20})).await?;
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    s.rig
        .bed
        .fakes
        .script(&format!("hooks/{}/load", s.ns), Answer::Hang);
    let before = s.rig.bed.fakes.calls(&format!("hooks/{}/load", s.ns)).len();
    until(PATIENCE, "a webhook that hangs", async || {
        let calls = s.rig.bed.fakes.calls(&format!("hooks/{}/load", s.ns)).len();
        if calls > before {
            Ok(())
        } else {
            Err(calls.to_string())
        }
    })
    .await
    .map_err(text)?;
    let start = Instant::now();
    s.image("3.1.2").await?;
    s.event("New revision detected! Restarting analysis")
        .await?;
    let took = start.elapsed();
    s.rig.bed.fakes.unscript(&format!("hooks/{}/load", s.ns));
    // The restart does not wait for the timeout of the hanging webhook.
    ensure(took < Duration::from_secs(8), format!("it took {took:?}"))?;
    s.phase("Succeeded").await?;
    let image = s
        .get(Kind::Deployment, "podinfo-primary")
        .await?
        .pointer("/spec/template/spec/containers/0/image")
        .cloned();
    ensure(
        image == Some(json!("podinfo:3.1.2")),
        "the newer version is the one",
    )
}

pub async fn going_back_to_the_promoted_version_ends_the_run(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 20})).await?;
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    s.image("3.1.0").await?;
    s.phase("Succeeded").await?;
    s.event("Run ended without a promotion").await?;
    ensure(s.weight().await? == 0, "traffic is on the primary")?;
    let canary = s.get(Kind::Canary, "podinfo").await?;
    ensure(
        canary["status"]["lastAppliedSpec"] == canary["status"]["lastPromotedSpec"],
        "nothing is left to do",
    )
}
