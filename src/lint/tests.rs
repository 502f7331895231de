use super::*;

const GOOD: &str = "
apiVersion: flagger.app/v1beta1
kind: Canary
metadata: {name: podinfo, namespace: test}
spec:
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: podinfo}
  service: {port: 9898}
  analysis:
    interval: 1m
    threshold: 5
    stepWeight: 10
    maxWeight: 50
    metrics:
      - {name: request-success-rate, thresholdRange: {min: 99}, interval: 1m}
    webhooks:
      - {name: load-test, url: http://tester/}
";

/// The findings, one on each line.
fn found(text: &str) -> Vec<String> {
    let report = lint([("a.yaml", text)], &|_| None);
    let line = |it: &Finding| format!("{} {}: {}", it.level.as_str(), it.field, it.message);
    report.findings.iter().map(line).collect()
}

#[test]
fn a_good_canary_has_no_findings_and_other_kinds_are_ignored() {
    let files = format!(
        "apiVersion: v1\nkind: Service\nspec: {{nonsense: 1}}\n---\n{GOOD}---\n# nothing\n"
    );
    assert_eq!(found(&files), Vec::<String>::new());
    let report = lint([("a", files.as_str())], &|_| Some("refused".to_owned()));
    assert_eq!(
        (report.objects, report.findings[0].message.as_str()),
        (1, "refused")
    );
    assert_eq!(report.findings[0].object, "Canary test/podinfo");
}

#[test]
fn each_finding_names_its_field_and_what_would_be_right() {
    for (from, to, expected) in [
        (
            "stepWeight",
            "stepWieght",
            "error spec.analysis.stepWieght: is no field of this kind, and would be dropped; is it stepWeight?",
        ),
        (
            "threshold: 5",
            "threshold: '5'",
            "error spec.analysis.threshold: must be of the type number, but is \"5\"",
        ),
        (
            "interval: 1m\n",
            "interval: soon\n",
            "error spec.analysis.interval: \"soon\" does not match ^[0-9]+(h|m|s)",
        ),
        (
            "interval: 1m\n    threshold: 5\n    stepWeight: 10\n    maxWeight: 50\n    metrics:\n",
            "interval: 30s\n    threshold: 5\n    stepWeight: 10\n    maxWeight: 50\n    metrics:\n      - {name: request-duration, thresholdRange: {max: 5}, compare: {advance: early}}\n",
            "warning spec.analysis.interval: is shorter than 1m, so compare.advance: early has no effect",
        ),
        (
            "interval: 1m}",
            "interval: soon}",
            "error spec.analysis.metrics[0].interval: \"soon\" does not match ^[0-9]+(h|m|s)",
        ),
        (
            "kind: Deployment",
            "kind: StatefulSet",
            "error spec.targetRef.kind: \"StatefulSet\" is not one of DaemonSet, Deployment, Service",
        ),
        (
            "  analysis:\n",
            "  analysis_:\n",
            "error spec.analysis: is missing",
        ),
        (
            "http://tester/",
            "tester",
            "error spec.analysis.webhooks[0].url: \"tester\" cannot be called: relative URL without a base",
        ),
        (
            "request-success-rate",
            "errors",
            "error spec.analysis.metrics[0].name: \"errors\" is no built-in metric (request-success-rate, request-duration), and there is no templateRef",
        ),
        (
            "min: 99",
            "min: 99, max: 9",
            "error spec.analysis.metrics[0].thresholdRange: no value is at least 99 and at most 9",
        ),
        (
            "min: 99",
            "min: 0.99",
            "warning spec.analysis.metrics[0].thresholdRange.min: 0.99 is a percentage: write 99 for that share",
        ),
        (
            "thresholdRange: {min: 99}, ",
            "",
            "warning spec.analysis.metrics[0].thresholdRange: is missing: any value passes",
        ),
        (
            "stepWeight: 10",
            "stepWeight: 10\n    iterations: 3",
            "warning spec.analysis.stepWeight: has no effect together with iterations",
        ),
        (
            "maxWeight: 50",
            "match: [{headers: {a: {exact: b}}}]",
            "error spec.analysis.match: needs iterations: without them no A/B test is run",
        ),
        (
            "stepWeight: 10",
            "stepWeight: 60",
            "warning spec.analysis.stepWeight: 60 is more than maxWeight: there is one step of 50 %",
        ),
        (
            "  analysis:",
            "  provider: kuma\n  analysis:",
            "warning spec.revertOnDeletion: is false: with kuma, the TrafficRoute stays",
        ),
        (
            "apiVersion: flagger",
            "spec: {\napiVersion: flagger",
            "error : is no YAML",
        ),
    ] {
        let text = GOOD.replacen(from, to, 1);
        assert_ne!(text, GOOD, "{from}");
        let found = found(&text);
        assert!(
            found.iter().any(|line| line.starts_with(expected)),
            "{to}: {found:#?}"
        );
    }
}

#[test]
fn a_template_is_looked_for_among_the_files() {
    let canary = GOOD.replace(
        "request-success-rate,",
        "errors, templateRef: {name: errors},",
    );
    let template = |name: &str| {
        format!(
            "---\napiVersion: flagger.app/v1beta1\nkind: MetricTemplate\nmetadata: {{name: {name}}}\nspec: {{provider: {{type: prometheus, address: 'http://p'}}, query: up}}\n"
        )
    };
    assert_eq!(
        found(&canary),
        Vec::<String>::new(),
        "it may be in the cluster"
    );
    assert_eq!(
        found(&(canary.clone() + &template("errors"))),
        Vec::<String>::new()
    );
    let other = found(&(canary + &template("others")));
    assert_eq!(
        other,
        [
            "warning spec.analysis.metrics[0].templateRef: no MetricTemplate errors is in these files"
        ]
    );
}

#[test]
fn an_object_that_is_not_checked_is_not_passed_over_in_silence() {
    for (from, to, expected) in [
        (
            "v1beta1",
            "v1",
            "error apiVersion: Canary of flagger.app/v1 is not known; there are ",
        ),
        (
            "kind: Canary",
            "kind: Canari",
            "error apiVersion: Canari of flagger.app/v1beta1 is not known; there are ",
        ),
    ] {
        let found = found(&GOOD.replacen(from, to, 1));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(expected), "{found:?}");
        assert!(
            found[0].contains("Canary of flagger.app/v1beta1"),
            "{found:?}"
        );
    }
    assert_eq!(
        found("apiVersion: v1\nkind: Service\n"),
        ["warning : no Canary, MetricTemplate or AlertProvider is in these files"]
    );
}

#[test]
fn canaries_that_get_in_each_others_way_are_found_before_they_are_applied() {
    let other = |from: &str, to: &str| GOOD.replace(from, to);
    let renamed = other("{name: podinfo, namespace", "{name: second, namespace");
    let elsewhere = other("namespace: test", "namespace: prod");
    let same_services = renamed
        .replace(
            "kind: Deployment, name: podinfo",
            "kind: Deployment, name: second",
        )
        .replace("{port: 9898}", "{port: 9898, name: podinfo}");
    let other_kind = GOOD.replace("kind: Canary", "kind: AlertProvider");
    let first = "Canary test/podinfo in a.yaml";
    for (second, expected) in [
        (
            GOOD,
            Some(format!("warning metadata.name: {first} is there twice")),
        ),
        (
            &renamed,
            Some(format!(
                "warning spec.targetRef: {first} has the same target"
            )),
        ),
        (
            &same_services,
            Some(format!(
                "warning spec.service.name: {first} has the same Services"
            )),
        ),
        (&elsewhere, None),
    ] {
        let found = found(&format!("{GOOD}\n---\n{second}"));
        let is_as_expected = match &expected {
            Some(start) => found.len() == 1 && found[0].starts_with(start),
            None => found.is_empty(),
        };
        assert!(is_as_expected, "{expected:?}: {found:?}");
    }
    let names = found(&format!("{GOOD}\n---\n{other_kind}"));
    assert!(
        names.iter().all(|it| !it.contains("is there twice")),
        "{names:?}"
    );
}

#[test]
fn fields_that_a_route_of_the_user_makes_useless_are_found() {
    for (from, to, expected) in [
        (
            "{port: 9898}",
            "{port: 9898, hosts: [a.example.com], routeRefs: [{kind: HTTPRoute, name: web}]}",
            "warning spec.service.hosts: has no effect with routeRefs: the route is the user's",
        ),
        (
            "{port: 9898}",
            "{port: 9898, routeRefs: [{kind: HTTPRoute, name: Web}]}",
            "error spec.service.routeRefs: spec.service.routeRefs[0].name: \"Web\" is no name",
        ),
    ] {
        assert_eq!(found(&GOOD.replacen(from, to, 1)), [expected]);
    }
}

/// A version whose calls fail would be promoted.
#[test]
fn a_success_rate_that_counts_no_failed_call_of_grpc_is_found_and_so_is_a_provider_without_grpc_routes()
 {
    let rate = "warning spec.analysis.metrics[0].name: counts statuses of HTTP, and a call of gRPC that fails usually has the status 200: use a MetricTemplate, as in examples/metrics/success-rate-of-grpc.yaml (Linkerd's proxies count such calls as failed)";
    let made = |provider: &str| {
        format!(
            "spec.service.grpc: needs the provider gatewayapi:v1: with {provider} no GRPCRoute is made"
        )
    };
    let (istio, old) = (
        format!("warning {}", made("istio")),
        format!("error {}", made("gatewayapi:v1beta1")),
    );
    let http = "{kind: HTTPRoute, name: a}";
    let of_grpc = "{kind: GRPCRoute, name: a}";
    for (provider, service, expected) in [
        ("istio", "grpc: {}".to_owned(), vec![istio.as_str(), rate]),
        (
            "gatewayapi:v1beta1",
            "grpc: {}".to_owned(),
            vec![&old, rate],
        ),
        ("gatewayapi:v1", "grpc: {}".to_owned(), vec![rate]),
        ("gatewayapi:v1", "timeout: 1s".to_owned(), vec![]),
        ("istio", format!("routeRefs: [{of_grpc}]"), vec![rate]),
        ("istio", format!("routeRefs: [{of_grpc}, {http}]"), vec![]),
    ] {
        let canary = GOOD.replacen("{port: 9898}", &format!("{{port: 9898, {service}}}"), 1);
        let canary = canary.replacen("spec:\n", &format!("spec:\n  provider: {provider}\n"), 1);
        assert_eq!(found(&canary), expected, "{provider} {service}");
    }
    let template = include_str!("../../examples/metrics/success-rate-of-grpc.yaml");
    assert_eq!(found(template), [""; 0]);
}
