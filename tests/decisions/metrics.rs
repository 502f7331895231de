//! The bounds of metrics, and the texts that users see when a metric is out of its bounds or has no value.

use std::sync::Arc;

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    metrics::Query,
    rollout::{self, Answer, Decision, Evidence, Question},
    snapshot::{HttpResponse, Kind, Origin},
};
use serde_json::{Value, json};

use super::simulation::{Simulation, release, release_of};

/// A release at its first weight, whose only metric is this one. Its interval is over.
fn at_a_check(metric: &Value) -> Simulation {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60, "metrics": [metric]}));
    while sim.snapshot.phase() != CanaryPhase::Progressing || sim.canary_weight() == 0 {
        sim.reconcile();
    }
    sim.notified.clear();
    sim
}

/// The warning of the check that follows when the metric server returns this value; empty if the version gets more traffic.
fn verdict(metric: &Value, value: &str) -> String {
    let mut sim = at_a_check(metric);
    value.clone_into(&mut sim.metric);
    let (weight, failed) = (sim.canary_weight(), sim.snapshot.status().failed_checks);
    while sim.canary_weight() == weight && sim.snapshot.status().failed_checks == failed {
        sim.reconcile();
    }
    let warnings: Vec<_> = { sim.notified.iter() }
        .filter_map(|line| line.strip_prefix("Warning [Progressing] "))
        .collect();
    assert_eq!(warnings.is_empty(), sim.canary_weight() > weight);
    warnings.join("\n").replace("podinfo.test", "…")
}

/// One row has a metric, a value of its server, and the warning.
#[test]
fn a_metric_has_its_bounds_and_its_texts() {
    let rate = |bounds: Value| with(json!({"name": "request-success-rate"}), bounds);
    let duration = |bounds: Value| with(json!({"name": "request-duration"}), bounds);
    let own = |bounds: Value| with(json!({"name": "errors", "query": "sum(errors)"}), bounds);
    let range = |range: Value| json!({"thresholdRange": range});
    let pass = "";
    let rows = [
        (rate(json!({"threshold": 99})), "99", pass),
        (
            rate(json!({"threshold": 99})),
            "98.996",
            "Halt … advancement success rate 99.00% < 99%",
        ),
        (rate(json!({})), "0", pass),
        (rate(range(json!({"min": 99.5}))), "99.5", pass),
        (
            rate(range(json!({"min": 99.5}))),
            "99",
            "Halt … advancement success rate 99.00% < 99.5%",
        ),
        (rate(range(json!({"max": 50}))), "50", pass),
        (
            rate(range(json!({"max": 50}))),
            "51",
            "Halt … advancement success rate 51.00% > 50%",
        ),
        (rate(range(json!({}))), "0", pass),
        // A range replaces the bare threshold.
        (
            rate(json!({"threshold": 99, "thresholdRange": {"min": 50}})),
            "60",
            pass,
        ),
        (duration(json!({"threshold": 500})), "500.9", pass),
        (
            duration(json!({"threshold": 500})),
            "501",
            "Halt … advancement request duration 501ms > 500ms",
        ),
        (
            duration(json!({})),
            "1",
            "Halt … advancement request duration 1ms > 0s",
        ),
        (duration(range(json!({"max": 1500}))), "1500", pass),
        (
            duration(range(json!({"max": 1500}))),
            "2001",
            "Halt … advancement request duration 2.001s > 1.5s",
        ),
        (
            duration(range(json!({"min": 10, "max": 500}))),
            "9",
            "Halt … advancement request duration 9ms < 10ms",
        ),
        (own(json!({"threshold": 5})), "5", pass),
        (
            own(json!({"threshold": 5})),
            "5.5",
            "Halt … advancement errors 5.50 > 5",
        ),
        (
            own(range(json!({"min": 2, "max": 5}))),
            "1",
            "Halt … advancement errors 1.00 < 2",
        ),
        (own(range(json!({"min": -5}))), "-4", pass),
        (
            rate(json!({"threshold": 99})),
            "NaN",
            "Halt advancement no values found for istio metric request-success-rate probably … is not receiving traffic: running query failed: no values found",
        ),
        (
            duration(json!({"threshold": 500})),
            "NaN",
            "Halt advancement no values found for istio metric request-duration probably … is not receiving traffic",
        ),
        (
            own(json!({"threshold": 5})),
            "NaN",
            "Halt advancement no values found for metric: errors",
        ),
        (
            own(json!({"threshold": 5})),
            "five",
            "Prometheus query failed for errors: the value \"five\" is not a number",
        ),
        (
            json!({"name": "errors"}),
            "1",
            "Metric query failed for no usable metrics template and query were configured",
        ),
    ];
    for (metric, value, expected) in rows {
        assert_eq!(verdict(&metric, value), expected, "{metric} is {value}");
    }
}

fn with(mut metric: Value, bounds: Value) -> Value {
    for (key, value) in bounds.as_object().unwrap() {
        metric[key] = value.clone();
    }
    metric
}

/// The verdict rounds a value, unless the rounded value would equal the bound that it misses.
#[test]
fn a_version_that_failed_has_the_reason_in_its_verdict() {
    let rate = json!({"name": "request-success-rate", "threshold": 99});
    let errors = json!({"name": "errors", "query": "sum(errors)", "threshold": 5});
    for (metric, value, reason) in [
        (
            &rate,
            "98.123456789",
            "was 98.1235 %, below the minimum 99 %",
        ),
        (
            &rate,
            "98.99999999",
            "was 98.99999999 %, below the minimum 99 %",
        ),
        (
            &rate,
            "NaN",
            "had no value: the query returned no number, so probably podinfo.test receives no traffic",
        ),
        (&errors, "6", "was 6, above the maximum 5"),
        (&errors, "NaN", "had no value: the query returned no number"),
    ] {
        let mut sim = at_a_check(metric);
        value.clone_into(&mut sim.metric);
        sim.run_until(CanaryPhase::Failed);
        let verdict = sim.snapshot.status().condition(ConditionType::Verdict);
        let message = verdict.unwrap().message.clone().unwrap();
        assert!(message.contains(reason), "{message}");
    }
}

/// The gauges of a step have the name of the metric; a duration is in seconds there.
#[test]
fn the_values_of_a_step_are_exported_by_metric() {
    let mut sim = at_a_check(&json!({"name": "request-duration", "threshold": 500}));
    let mut exported = Vec::new();
    while exported.is_empty() && sim.canary_weight() == 20 {
        exported = rollout::samples(&sim.snapshot, &answers(&sim, "250"));
        sim.reconcile();
    }
    assert_eq!(exported, [("request-duration".to_owned(), 0.25)]);
    assert_eq!(rollout::samples(&sim.snapshot, &Evidence::new()), []);
}

/// The answers of the present step, if all hooks pass and each metric has this value.
fn answers(sim: &Simulation, value: &str) -> Evidence {
    let mut evidence = Evidence::new();
    while let Decision::Ask(questions, _) = rollout::decide(&sim.snapshot, &evidence) {
        evidence.extend(questions.into_iter().map(|question| {
            let body = json!({"data": {"result": [{"value": [0, value]}]}}).to_string();
            let answer = question.read(Ok(HttpResponse { status: 200, body }));
            (Arc::new(question), answer)
        }));
    }
    evidence
}

/// The origin of the address that the next check of the metrics calls: a user, or the administrator.
fn origin(mut sim: Simulation) -> Origin {
    for _ in 0..30 {
        if let Some(query) = asked(&sim) {
            return query.request(sim.snapshot.now).origin;
        }
        sim.reconcile();
    }
    panic!("no metric is asked for");
}

/// The query of a metric that the operator asks now, if all hooks pass.
pub fn asked(sim: &Simulation) -> Option<Box<Query>> {
    let mut evidence = Evidence::new();
    // Hooks are asked first, one after the other.
    for _ in 0..10 {
        let Decision::Ask(questions, _) = rollout::decide(&sim.snapshot, &evidence) else {
            break;
        };
        for question in questions {
            if let Question::Metric { query, .. } = question {
                return Some(query);
            }
            let (status, body) = (200, String::new());
            evidence.insert(
                Arc::new(question),
                Answer::Response(HttpResponse { status, body }),
            );
        }
    }
    None
}

#[test]
fn only_the_address_of_the_flag_is_the_administrators() {
    let metric = json!({"name": "request-success-rate", "threshold": 99});
    assert_eq!(origin(at_a_check(&metric)), Origin::Administrator);
    let ours = at_a_check(&metric).snapshot.settings.metrics_server.clone();
    for (address, expected) in [
        (ours.as_str(), Origin::Administrator),
        ("", Origin::Administrator),
        ("http://own", Origin::User),
    ] {
        let mut sim = at_a_check(&metric);
        sim.snapshot.canary.spec.metrics_server = Some(address.to_owned());
        assert_eq!(origin(sim), expected, "{address}");
    }
    let template = json!({"metadata": {"name": "errors"},
        "spec": {"provider": {"type": "prometheus", "address": ours}, "query": "sum(errors)"}});
    let metric = json!({"name": "errors", "templateRef": {"name": "errors"}, "threshold": 200});
    let mut sim = at_a_check(&metric);
    let reference = sim.snapshot.reference(Kind::MetricTemplate, "errors");
    sim.snapshot.objects.insert(reference, template);
    assert_eq!(origin(sim), Origin::User);
}

#[test]
fn a_secret_of_a_template_goes_to_its_hosts_only_and_a_service_accounts_token_nowhere() {
    let bound = |hosts: &str| {
        json!({"metadata": {"name": "key", "annotations": {"flagger-rs.github.io/allowed-hosts": hosts}},
            "data": {"token": "dA=="}})
    };
    let rows = [
        (bound("prometheus.example"), None),
        (
            bound("other.example"),
            Some(
                "secret key error: the Secret key is not sent to prometheus.example: its annotation flagger-rs.github.io/allowed-hosts allows only \"other.example\"",
            ),
        ),
        (
            json!({"metadata": {"name": "key"}, "type": "kubernetes.io/service-account-token", "data": {"token": "dA=="}}),
            Some(
                "secret key error: the Secret key has the token of a ServiceAccount, which is sent to no other server: create a Secret of type Opaque",
            ),
        ),
    ];
    let provider = json!({"type": "prometheus", "address": "http://prometheus.example:9090", "secretRef": {"name": "key"}});
    let template = json!({"metadata": {"name": "errors"}, "spec": {"provider": provider, "query": "sum(errors)"}});
    let metric = json!({"name": "errors", "templateRef": {"name": "errors"}, "threshold": 200});
    for (secret, refusal) in rows {
        let mut sim = release(json!({"stepWeight": 20, "metrics": [metric]}));
        for (kind, name, object) in [
            (Kind::MetricTemplate, "errors", template.clone()),
            (Kind::Secret, "key", secret),
        ] {
            let reference = sim.snapshot.reference(kind, name);
            sim.snapshot.objects.insert(reference, object);
        }
        sim.run(30);
        let mut lines = sim.notified.iter();
        let warning = lines.find(|line| line.contains("Metric template errors.test"));
        assert_eq!(warning.is_some(), refusal.is_some(), "{warning:?}");
        assert_eq!(sim.canary_weight() > 20, refusal.is_none());
        let is_reported = |refusal| warning.is_some_and(|warning| warning.contains(refusal));
        assert!(refusal.is_none_or(is_reported), "{warning:?}");
    }
}

/// `-no-cross-namespace-refs`: the first row of each pair refers to the Canary's namespace only.
#[test]
fn with_the_flag_a_canary_refers_to_no_other_namespace() {
    let template =
        |reference: Value| json!({"metrics": [{"name": "errors", "templateRef": reference}]});
    let alert = |reference: Value| json!({"alerts": [{"name": "chat", "providerRef": reference}]});
    let rows = [
        (template(json!({"name": "errors"})), None),
        (template(json!({"name": "errors", "namespace": ""})), None),
        (
            template(json!({"name": "errors", "namespace": "test"})),
            None,
        ),
        (
            template(json!({"name": "errors", "namespace": "other"})),
            Some(
                "can't access metric template errors.other, cross-namespace references are blocked",
            ),
        ),
        (alert(json!({"name": "chat", "namespace": "test"})), None),
        (
            alert(json!({"name": "chat", "namespace": "other"})),
            Some("can't access alert provider chat.other, cross-namespace references are blocked"),
        ),
    ];
    for (mut analysis, refusal) in rows {
        analysis["stepWeight"] = json!(20);
        for flag in [false, true] {
            let mut sim = release(analysis.clone());
            Arc::make_mut(&mut sim.snapshot.settings).no_cross_namespace_refs = flag;
            sim.run(30);
            let expected = refusal.filter(|_| flag);
            let refused = |text: &str| sim.notified.iter().any(|line| line.contains(text));
            assert_eq!(refused("cross-namespace"), expected.is_some(), "{analysis}");
            assert!(expected.is_none_or(refused), "{:?}", sim.notified);
            let is_run = sim.snapshot.phase() == CanaryPhase::Progressing;
            assert_eq!(is_run, expected.is_none(), "{analysis}");
        }
    }
}

/// Queries of some providers name an object of the cluster, which the operator reads with its own rights.
#[test]
fn with_the_flag_a_query_names_no_object_of_another_namespace() {
    let rows = [
        ("keptn", "keptnmetric/test/speed", None),
        (
            "keptn",
            "keptnmetric/other/speed",
            Some("can't access keptn metric speed.other, cross-namespace references are blocked"),
        ),
        (
            "keptn",
            "analysis/other/podinfo",
            Some(
                "can't access keptn analysis definition podinfo.other, cross-namespace references are blocked",
            ),
        ),
    ];
    let rows = rows.into_iter().chain([
        ("externalmetrics", "test/orders", None),
        (
            "externalmetrics",
            "other/orders",
            Some("can't access external metric orders.other, cross-namespace references are blocked"),
        ),
        (
            "externalmetrics",
            "orders",
            Some("can't access external metric orders.default, cross-namespace references are blocked"),
        ),
    ]);
    for (type_, query, refusal) in rows {
        let template = json!({"metadata": {"name": "speed"}, "spec": {"provider": {"type": type_}, "query": query}});
        let metric = json!({"name": "speed", "templateRef": {"name": "speed"}, "threshold": 5});
        for flag in [false, true] {
            let mut sim = at_a_check(&json!({"name": "request-success-rate", "threshold": 0}));
            let analysis = sim.snapshot.canary.spec.analysis.as_mut().unwrap();
            analysis.metrics = vec![serde_json::from_value(metric.clone()).unwrap()];
            Arc::make_mut(&mut sim.snapshot.settings).no_cross_namespace_refs = flag;
            let reference = sim.snapshot.reference(Kind::MetricTemplate, "speed");
            sim.snapshot.objects.insert(reference, template.clone());
            let expected = refusal.filter(|_| flag);
            let asked = (0..15).find_map(|_| {
                let asked = asked(&sim);
                sim.reconcile();
                asked
            });
            assert_eq!(asked.is_none(), expected.is_some(), "{query}");
            let text = expected.map(|why| format!("Metric query failed for speed: {why}"));
            let is_reported = |text: String| sim.notified.iter().any(|line| line.contains(&text));
            assert!(text.is_none_or(is_reported), "{:?}", sim.notified);
        }
    }
}

/// While a rollback is under way the spec is not validated, so the flag must hold where references are resolved.
#[test]
fn with_the_flag_no_phase_reads_a_template_of_another_namespace() {
    let metrics =
        json!([{"name": "errors", "templateRef": {"name": "errors", "namespace": "other"}}]);
    for phase in ["Initializing", "Progressing", "WaitingPromotion", "Failed"] {
        let mut sim = release(json!({"stepWeight": 20, "metrics": metrics}));
        let status = sim.snapshot.canary.status.as_mut().unwrap();
        status.phase = serde_json::from_value(json!(phase)).unwrap();
        for flag in [false, true] {
            Arc::make_mut(&mut sim.snapshot.settings).no_cross_namespace_refs = flag;
            let needs = rollout::needs(&sim.snapshot);
            let is_read = needs.iter().any(|object| object.namespace == "other");
            assert!(!is_read || !flag, "{phase}");
            assert_eq!(is_read, !flag && phase != "Failed", "{phase}");
        }
    }
}

#[test]
fn an_invalid_spec_is_refused_with_the_field_and_the_reason() {
    let steps = json!({"stepWeight": 20});
    let target = |version: &str, kind: &str| json!({"targetRef": {"apiVersion": version, "kind": kind, "name": "podinfo"}, "analysis": steps});
    let port = |port: i64| json!({"service": {"port": port}, "analysis": steps});
    let analysis = |analysis: Value| json!({"analysis": analysis});
    let rows = [
        (
            target("batch/v1", "Job"),
            "spec.targetRef: batch/v1 Job is no kind of target, only Deployment, DaemonSet, core Service and Knative Service are",
        ),
        (
            target("serving.knative.dev/v1beta1", "Service"),
            "spec.targetRef: serving.knative.dev/v1beta1 Service is no kind of target, only Deployment, DaemonSet, core Service and Knative Service are",
        ),
        (port(0), "spec.service.port: 0 is not a port (1 to 65535)"),
        (
            port(65536),
            "spec.service.port: 65536 is not a port (1 to 65535)",
        ),
        (
            analysis(json!({"stepWeight": 0})),
            "spec.analysis.stepWeight: must be greater than 0",
        ),
        (
            analysis(json!({"stepWeight": -1})),
            "spec.analysis.stepWeight: must be greater than 0",
        ),
        (
            analysis(json!({})),
            "spec.analysis.stepWeight: must be greater than 0",
        ),
        (
            analysis(json!({"stepWeights": [0, 10]})),
            "spec.analysis.stepWeights[0]: must be greater than 0",
        ),
        (
            analysis(json!({"stepWeights": [10, 20, 20]})),
            "spec.analysis.stepWeights[2]: must be greater than the one before",
        ),
        (
            analysis(json!({"decimalStepWeights": [0.15, 10]})),
            "spec.analysis.decimalStepWeights[0]: 0.15 is no number from 0 to 100 with at most one decimal place",
        ),
        (
            analysis(json!({"stepWeight": 20, "decimalStepWeights": [1, 100.1]})),
            "spec.analysis.decimalStepWeights[1]: 100.1 is no number from 0 to 100 with at most one decimal place",
        ),
        (
            analysis(json!({"decimalStepWeights": [-1]})),
            "spec.analysis.decimalStepWeights[0]: -1 is no number from 0 to 100 with at most one decimal place",
        ),
        (
            analysis(json!({"decimalStepWeights": [0, 0.1]})),
            "spec.analysis.decimalStepWeights[0]: must be greater than 0",
        ),
        (
            analysis(json!({"decimalStepWeights": [0.1, 0.5, 0.5]})),
            "spec.analysis.decimalStepWeights[2]: must be greater than the one before",
        ),
        (
            analysis(
                json!({"stepWeight": 20, "sessionAffinity": {"cookieName": "a", "primaryCookieName": "a"}}),
            ),
            "can't use the same cookie name for both primary and cookie name; please update them to be different",
        ),
    ];
    for (spec, expected) in rows {
        let mut sim = release(steps.clone());
        let invalid = release_spec(&sim, &spec);
        sim.snapshot.canary.spec = invalid;
        let (weights, writes) = (sim.routed.len(), sim.writes);
        sim.run(30);
        let expected = format!("Warning [Initialized] invalid canary spec: {expected}");
        assert_eq!(sim.notified, [expected], "once");
        assert_eq!(
            (sim.routed.len(), sim.writes),
            (weights, writes + 1),
            "only the condition"
        );
        sim.snapshot.canary.spec = release(steps.clone()).snapshot.canary.spec;
        sim.run_until(CanaryPhase::Succeeded);
    }
    // Neither blue/green nor a release without analysis has steps.
    for analysis in [
        json!({"iterations": 2}),
        json!({"iterations": 1, "match": [{"headers": {"x-user": {"exact": "insider"}}}]}),
    ] {
        release(analysis).run_until(CanaryPhase::Succeeded);
    }
    release_of(json!({"skipAnalysis": true, "analysis": {}})).run_until(CanaryPhase::Succeeded);
}

/// The spec of this canary, with other fields.
fn release_spec(sim: &Simulation, fields: &Value) -> flagger_rs::api::canary::CanarySpec {
    let mut spec = serde_json::to_value(&sim.snapshot.canary.spec).unwrap();
    for (field, value) in fields.as_object().unwrap() {
        spec[field] = value.clone();
    }
    serde_json::from_value(spec).unwrap()
}

#[test]
fn a_canary_without_analysis_is_refused() {
    let mut sim = release(json!({"stepWeight": 20}));
    sim.snapshot.canary.spec.analysis = None;
    sim.run(30);
    assert_eq!(
        sim.notified,
        ["Warning [Initialized] invalid canary spec: spec.analysis: required"]
    );
}
