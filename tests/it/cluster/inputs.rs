//! Checks that the operator reports bad input, and that another canary of the namespace is released meanwhile.

use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use testbed::{fakes::Answer, wait::until};

use super::{Outcome, PATIENCE, Scenario, edits::workload, ensure, equal, text};
use flagger_rs::snapshot::Kind;

/// Creates another application, with a Canary that allows no failed check.
async fn neighbour(s: &Scenario<'_>) -> Outcome {
    let [mut deployment, _] = workload();
    deployment["metadata"]["name"] = json!("neighbour");
    let labels = json!({"app": "neighbour"});
    deployment["spec"]["selector"]["matchLabels"] = labels.clone();
    deployment["spec"]["template"]["metadata"]["labels"] = labels;
    s.apply(&deployment).await?;
    let analysis = json!({"stepWeight": 50, "maxWeight": 50, "threshold": 1});
    let mut canary = s.canary_named("neighbour", analysis);
    let spec = canary["spec"].as_object_mut().ok_or("no spec")?;
    spec.remove("autoscalerRef");
    spec["targetRef"]["name"] = json!("neighbour");
    s.apply(&canary).await
}

/// Starts a release of the other application.
async fn neighbour_has_a_new_version(s: &Scenario<'_>) -> Outcome {
    s.phase_of("neighbour", "Initialized").await?;
    s.kubectl("set image deploy/neighbour podinfod=podinfo:3.1.1")
        .await
}

pub async fn an_invalid_spec_is_reported_and_harms_no_other_canary(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    s.canary(json!({"stepWeight": 0})).await?;
    s.event("Warning invalid canary spec: spec.analysis.stepWeight: must be greater than 0")
        .await?;
    let canary = s.get(Kind::Canary, "podinfo").await?;
    ensure(
        canary["status"]["conditions"][0]["type"] == "Invalid",
        &canary["status"],
    )?;
    ensure(
        s.get(Kind::Deployment, "podinfo-primary").await.is_err(),
        "nothing is made for it",
    )?;
    neighbour(&s).await?;
    neighbour_has_a_new_version(&s).await?;
    s.phase_of("neighbour", "Succeeded").await?;
    s.patch(
        "canary",
        "podinfo",
        &json!({"spec": {"analysis": {"stepWeight": 50}}}),
    )
    .await?;
    s.phase("Initialized").await?;
    let canary = s.get(Kind::Canary, "podinfo").await?;
    ensure(
        canary["status"]["conditions"].as_array().map(Vec::len) == Some(1),
        "it heals without a trace",
    )
}

pub async fn a_canary_that_cannot_be_parsed_is_reported_until_it_is_corrected(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50}));
    // The schema accepts any integer, but no port is that large.
    canary["spec"]["service"]["targetPort"] = json!(99_999_999_999_i64);
    s.apply(&canary).await?;
    s.event("canary cannot be read").await?;
    s.patch(
        "canary",
        "podinfo",
        &json!({"spec": {"service": {"targetPort": 9898}}}),
    )
    .await?;
    s.phase("Initialized").await
}

pub async fn a_hostile_metrics_server_fails_checks_and_nothing_else(s: Scenario<'_>) -> Outcome {
    neighbour(&s).await?;
    s.initialized(json!({"stepWeight": 20, "threshold": 20}))
        .await?;
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    neighbour_has_a_new_version(&s).await?;
    let query = format!("namespace=\"{}\", destination_workload=~\"podinfo\"", s.ns);
    for (answer, message) in [
        (
            Answer::Raw(200, "<html>down</html>".to_owned()),
            "error unmarshaling result",
        ),
        (
            Answer::Raw(200, "{\"result\":[{}]}".to_owned()),
            "no values found for istio metric request-success-rate",
        ),
        (
            Answer::Raw(
                200,
                "{\"data\":{\"result\":[{\"value\":[0,\"NaN\"]}]}}".to_owned(),
            ),
            "is not receiving traffic: running query failed: no values found",
        ),
        (Answer::Raw(200, " ".repeat(10 << 20)), "larger than 1 MiB"),
        (
            Answer::Raw(404, "gone".to_owned()),
            "error response: Status 404 Not Found: gone",
        ),
    ] {
        s.rig.bed.fakes.script(&query, answer);
        s.event(message).await?;
    }
    s.phase_of("neighbour", "Succeeded").await?;
    s.rig.bed.fakes.unscript(&query);
    s.phase("Succeeded").await
}

pub async fn a_metrics_server_that_fails_for_a_moment_fails_no_check(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 50, "maxWeight": 50}))
        .await?;
    let query = format!("destination_workload_namespace=\"{}\"", s.ns);
    let fakes = &s.rig.bed.fakes;
    fakes.script(&query, Answer::Raw(503, "starting".to_owned()));
    s.image("3.1.1").await?;
    until(Duration::from_secs(60), "the first query", async || {
        let asked = fakes.queries().iter().any(|asked| asked.contains(&query));
        if asked {
            Ok(())
        } else {
            Err("none".to_owned())
        }
    })
    .await
    .map_err(text)?;
    fakes.unscript(&query);
    s.phase("Succeeded").await?;
    let sent = s.events();
    let failed = sent.iter().find(|line| line.contains("query failed"));
    ensure(failed.is_none(), format!("{failed:?}"))
}

pub async fn a_missing_target_is_waited_for(s: Scenario<'_>) -> Outcome {
    // The operator adopts a Service that existed before.
    s.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo"},
        "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 9898}]}}),
    )
    .await?;
    s.canary(json!({"stepWeight": 50})).await?;
    s.event("Warning deployment podinfo.").await?;
    s.workload().await?;
    s.phase("Initialized").await?;
    let service = s.get(Kind::Service, "podinfo").await?;
    ensure(
        service["spec"]["selector"] == json!({"app": "podinfo-primary"}),
        &service,
    )?;
    s.patch(
        "canary",
        "podinfo",
        &json!({"spec": {"service": {"trafficPolicy": {"tls": {"mode": "DISABLE"}}}}}),
    )
    .await?;
    until(Duration::from_secs(20), "the policy", async || {
        let rule = s.get(Kind::DestinationRule, "podinfo-primary").await?;
        (rule["spec"]["trafficPolicy"]["tls"]["mode"] == "DISABLE")
            .then_some(())
            .ok_or_else(|| rule["spec"].to_string())
    })
    .await
    .map_err(text)
}

pub async fn a_route_that_is_deleted_midway_is_restored_with_its_weights(
    s: Scenario<'_>,
) -> Outcome {
    s.initialized(json!({"stepWeight": 20})).await?;
    s.image("3.1.1").await?;
    s.line("Progressing 20").await?;
    s.delete("virtualservices.networking.istio.io", "podinfo")
        .await?;
    until(Duration::from_secs(10), "the route", async || {
        match s.weight().await {
            Ok(weight) if weight > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .map_err(text)?;
    s.phase("Succeeded").await?;
    let table = s.table();
    let steps: Vec<_> = table
        .iter()
        .filter(|line| line.starts_with("Progressing"))
        .cloned()
        .collect();
    equal(
        "the steps",
        &steps,
        &[
            "Progressing 0",
            "Progressing 20",
            "Progressing 40",
            "Progressing 60",
            "Progressing 80",
            "Progressing 100",
        ],
    )
}

pub async fn the_second_canary_of_a_target_is_not_run(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 50})).await?;
    let mut second = s.canary_named("second", json!({"stepWeight": 50}));
    second["spec"]["service"]["name"] = json!("other");
    s.apply(&second).await?;
    s.event(&format!(
        "Warning canary second.{} is not run: podinfo.{}",
        s.ns, s.ns
    ))
    .await?;
    ensure(
        s.get(Kind::Service, "other").await.is_err(),
        "nothing is made for it",
    )?;
    let canary = s.get(Kind::Canary, "second").await?;
    ensure(
        canary["status"]["conditions"][0]["type"] == "TargetConflict",
        &canary["status"],
    )
}

pub async fn a_metric_template_query_has_its_credentials(s: Scenario<'_>) -> Outcome {
    s.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "prom"}, "stringData": {"token": "hush\n"}})).await?;
    s.apply(&json!({"apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate", "metadata": {"name": "errors"},
        "spec": {"provider": {"type": "prometheus", "address": format!("http://prometheus.{}:9090", s.ns), "secretRef": {"name": "prom"}},
            "query": "errors{ns=\"{{ namespace }}\",\n  kind=\"{{ variables.kind }}\"}[{{ interval }}]"}})).await?;
    let metrics = json!([
        {"name": "errors", "interval": "1m", "thresholdRange": {"max": 1}, "templateRef": {"name": "errors"}, "templateVariables": {"kind": "x"}},
        {"name": "old", "query": "old_{{ target }}", "threshold": 5}]);
    s.rig.bed.fakes.script(
        &format!("errors{{ns=\"{}\", kind=\"x\"}}[1m]", s.ns),
        value("3"),
    );
    s.rig.bed.fakes.script("old_podinfo", value("5.5"));
    s.initialized(json!({"stepWeight": 50, "threshold": 1, "metrics": metrics}))
        .await?;
    s.image("3.1.1").await?;
    s.phase("Failed").await?;
    s.event(&format!(
        "Warning Halt podinfo.{} advancement errors 3.00 > 1",
        s.ns
    ))
    .await?;
    s.event(&format!(
        "Warning Halt podinfo.{} advancement old 5.50 > 5",
        s.ns
    ))
    .await?;
    let sent = s
        .rig
        .bed
        .fakes
        .authorizations(&format!("prometheus.{}/", s.ns));
    ensure(
        !sent.is_empty() && sent.iter().all(|value| value == "Bearer hush"),
        format!("{sent:?}"),
    )
}

fn value(value: &str) -> Answer {
    Answer::Raw(200, json!({"status": "success", "data": {"resultType": "vector", "result": [{"value": [0, value]}]}}).to_string())
}

pub async fn datadog_checks_a_release_and_its_errors_are_reported(s: Scenario<'_>) -> Outcome {
    let ns = &s.ns;
    s.apply(&json!({"apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate", "metadata": {"name": "errors"},
        "spec": {"provider": {"type": "datadog", "address": format!("http://datadog/{ns}"), "secretRef": {"name": "keys"}},
            "query": "avg:errors{ns:{{ namespace }}}"}})).await?;
    let metrics = json!([{"name": "errors", "interval": "1m", "thresholdRange": {"max": 1}, "templateRef": {"name": "errors"}}]);
    let secret = async |keys: Value| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": keys});
        s.apply(&secret).await
    };
    let answers = |status, body: &str| {
        let query = format!("avg:errors{{ns:{ns}}}");
        let answer = Answer::Raw(status, body.to_owned());
        s.rig.bed.fakes.script(&query, answer);
    };
    s.initialized(json!({"stepWeight": 50, "maxWeight": 50, "threshold": 20, "metrics": metrics}))
        .await?;
    s.event(&format!(
        "Warning Error checking metric providers: metric template errors.{ns} secret keys error: secrets \"keys\" not found"
    ))
    .await?;
    secret(json!({"datadog_api_key": "hush"})).await?;
    answers(403, r#"{"errors":["Forbidden"]}"#);
    s.image("3.1.1").await?;
    s.event(&format!(
        "Warning Metric template errors.{ns} provider datadog error: datadog credentials does not contain datadog_application_key"
    ))
    .await?;
    secret(json!({"datadog_api_key": "hush", "datadog_application_key": "hush"})).await?;
    s.event("Warning Metric query failed for errors: error response: {\"errors\":[\"Forbidden\"]}: 403 Forbidden")
        .await?;
    answers(200, r#"{"series":[{"pointlist":[[1,2.5],[2,0]]}]}"#);
    s.event(&format!(
        "Warning Halt podinfo.{ns} advancement errors 2.50 > 1"
    ))
    .await?;
    answers(200, r#"{"series":[{"pointlist":[[1,0.5],[2,9]]}]}"#);
    s.phase("Succeeded").await
}

/// Compares all requests of the operator to the API server.
pub async fn an_idle_canary_costs_no_request_and_a_step_three_writes(s: Scenario<'_>) -> Outcome {
    s.initialized(json!({"stepWeight": 25, "maxWeight": 50}))
        .await?;
    s.event("Initialization done").await?;
    // On a busy machine, pods are late at a tick, and an event reports it.
    let waited = s.late_pods();
    let before = logged(&s).await?.len();
    a_step_costs_three_writes(&s, "virtualservices").await?;
    s.line("Succeeded 0").await?;
    // Its last write removes the condition of the pending notification.
    until(PATIENCE, "the end of the release", async || {
        let all = named(s.requests()?.split_off(before));
        if all.len() >= 26 {
            Ok(())
        } else {
            Err(format!("{all:?}"))
        }
    })
    .await
    .map_err(text)?;
    s.ticks().await?;
    let release = named(s.requests()?.split_off(before));
    // The operator reads the target twice: for the record, which names the last manager, and before its promotion, because the cache may be
    // stale.
    let reads: Vec<_> = release
        .iter()
        .filter(|line| line.starts_with("get "))
        .collect();
    ensure(
        release.len() == 26 + s.late_pods() - waited
            && reads == ["get deployments", "get deployments"],
        format!("{} requests of a release: {release:?}", release.len()),
    )
}

/// Releases a version, and compares the requests of the step from 25 to 50 percent. `routes` is the resource that has the weights.
pub async fn a_step_costs_three_writes(s: &Scenario<'_>, routes: &str) -> Outcome {
    s.image("3.1.1").await?;
    a_step_costs_three_writes_of(s, routes).await
}

/// The same for a version whose run has begun.
pub async fn a_step_costs_three_writes_of(s: &Scenario<'_>, routes: &str) -> Outcome {
    s.line("Progressing 25").await?;
    s.event("canary weight 25").await?;
    let first = logged(s).await?.len();
    s.line("Progressing 50").await?;
    s.event("canary weight 50").await?;
    let step = named(logged(s).await?.split_off(first));
    let route = format!("update {routes}");
    let writes = [&route, "patch canaries/status", "create events"];
    equal("the requests of a step", &step, &writes)
}

fn named(requests: Vec<testbed::Audit>) -> Vec<String> {
    requests
        .iter()
        .map(|line| format!("{} {}", line.verb, line.resource))
        .collect()
}

/// The requests of the operator. Waits until the audit log, which lags behind the answers, has those for all events.
async fn logged(s: &Scenario<'_>) -> Result<Vec<testbed::Audit>, String> {
    let events: Api<Event> = Api::namespaced(s.client.clone(), &s.ns);
    until(PATIENCE, "the log of all events", async || {
        let events = events.list(&ListParams::default()).await.map_err(text)?;
        let ours = |event: &&Event| {
            event
                .source
                .as_ref()
                .is_some_and(|source| source.component.as_deref() == Some("flagger"))
        };
        let there = events.items.iter().filter(ours).count();
        let all = s.requests()?;
        let written = all
            .iter()
            .filter(|line| line.resource == "events" && line.verb == "create")
            .count();
        if written == there {
            Ok(all)
        } else {
            Err(format!("{written} of {there}"))
        }
    })
    .await
    .map_err(text)
}
