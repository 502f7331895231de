use serde_json::json;

use super::*;
use crate::{
    plan::UNTRUSTED,
    shell::{
        api_server::{
            fake::{FakeApiServer, Request},
            person::Person,
        },
        client::output::Output,
    },
    view::Typed,
};

/// The value of the Secret, and as the API server has it.
const HUSH: [&str; 2] = ["hush-hush", "aHVzaC1odXNo"];

fn canary() -> Value {
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "podinfo", "namespace": "test"}, "spec": {
        "provider": "istio", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80},
        "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "metrics": [
            {"name": "errors", "thresholdRange": {"max": 1}, "templateRef": {"name": "errors"}}]}}})
}

/// A template with credentials for this address.
fn template(name: &str, address: &str) -> Value {
    let type_ = if address.ends_with("azure.com") {
        "azuremonitor"
    } else {
        "prometheus"
    };
    let provider = json!({"type": type_, "address": address, "secretRef": {"name": "server"}});
    json!({"apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate", "metadata": {"name": name, "namespace": "test"},
        "spec": {"provider": provider, "query": "vector(1)"}})
}

fn secret(keys: &[&str]) -> Value {
    let data: Value = keys.iter().map(|key| (*key, HUSH[1])).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "server", "namespace": "test"}, "data": data})
}

/// Plans the Canary of these manifests in a cluster with these objects. The API server refuses writes of this kind with this status.
async fn plan(manifests: &[Value], cluster: Vec<Value>, refused: Option<(Kind, u16)>) -> Plan {
    Box::pin(plan_with(manifests, cluster, refused, None)).await
}

/// The same with a metric server that gives this answer to each query.
async fn plan_with(
    manifests: &[Value],
    cluster: Vec<Value>,
    refused: Option<(Kind, u16)>,
    metrics: Option<(u16, Value)>,
) -> Plan {
    let server = FakeApiServer::answering(move |request: &Request| {
        let (verb, path) = request.line.split_once(' ').unwrap();
        if path.contains("/proxy/api/v1/query") {
            return metrics.clone();
        }
        let path = path.split('?').next().unwrap_or_default();
        if path.ends_with("reviews") {
            return Some((201, json!({"spec": {}, "status": {"allowed": true}})));
        }
        let is_write = verb != "GET";
        if let Some((kind, code)) = refused.filter(|_| is_write)
            && path.contains(kind.plural())
        {
            let message = format!(
                "\"server\" is invalid: data[token]: {} {}",
                HUSH[0], HUSH[1]
            );
            return Some((
                code,
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Invalid", "message": message}),
            ));
        }
        let is_named = |object: &&Value| {
            let name = object["metadata"]["name"].as_str().unwrap();
            let plural = kind(object).unwrap().plural();
            path.ends_with(&format!("/{plural}/{name}"))
        };
        let found = cluster.iter().find(is_named);
        if is_write {
            let patch = serde_json::from_value::<json_patch::Patch>(request.body.clone());
            let patched = found.zip(patch.ok()).and_then(|(object, patch)| {
                let mut object = object.clone();
                json_patch::patch(&mut object, &patch).ok()?;
                Some((200, object))
            });
            return Some(patched.unwrap_or_else(|| (201, request.body.clone())));
        }
        if let Some(found) = found {
            return Some((200, found.clone()));
        }
        let is_list =
            ["canaries", "deployments", "daemonsets"].map(|plural| path.ends_with(plural));
        if is_list.contains(&true) {
            return Some((200, json!({"kind": "List", "metadata": {}, "items": []})));
        }
        Some((
            404,
            json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "not found"}),
        ))
    });
    let context = Context {
        person: Person::of(server.client(), "test"),
        output: Output::new(false, false),
        typed: Typed::new("kubectl flagger", &[]),
    };
    let args = client::Plan {
        name: None,
        filename: Vec::new(),
        account: None,
        ask: true,
        output: Format::Json,
        flags: Vec::new(),
    };
    let config = operator(Vec::new()).unwrap();
    let applied: Vec<_> = manifests
        .iter()
        .filter_map(|manifest| named(&context, manifest.clone()))
        .collect();
    let planning = Planning {
        context: &context,
        args: &args,
        settings: &Arc::new(config.settings.clone()),
        config: &config,
        canary: applied[0].0.clone(),
        manifests: &applied,
        changes: Changes::default(),
        unread: BTreeSet::new(),
        plan: Plan::default(),
    };
    Box::pin(planning.plan()).await.unwrap()
}

/// A change that was not reviewed could name any address in a template, and the plan would send the credentials of the Secret there.
#[tokio::test]
async fn credentials_are_kept_from_templates_that_are_not_in_the_cluster() {
    // Without TLS, none of these addresses gets credentials anyway.
    let plain = "http://metrics.example.com";
    let azure = "https://w.eastus.prometheus.monitor.azure.com";
    let token = secret(&["token"]);
    let principal = secret(&["clientId", "tenantId", "clientSecret"]);
    let provider = json!({"apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider", "metadata": {"name": "chat"}, "spec": {"type": "slack"}});
    for (manifests, cluster, is_untrusted) in [
        (vec![template("errors", plain)], vec![token.clone()], true),
        (vec![template("errors", azure)], vec![principal], true),
        // The Canary uses the template of the cluster. The files have another template, so templates are not trusted.
        (
            vec![template("other", plain)],
            vec![token.clone(), template("errors", plain)],
            true,
        ),
        (
            vec![provider],
            vec![token.clone(), template("errors", plain)],
            false,
        ),
        (vec![], vec![token, template("errors", plain)], false),
    ] {
        let manifests = [vec![canary()], manifests].concat();
        let planned = Box::pin(plan(&manifests, cluster, None)).await;
        let [metric] = planned.metrics.as_slice() else {
            panic!("{planned:?}");
        };
        let why = metric.not_asked.as_deref().unwrap();
        assert_eq!(why == UNTRUSTED, is_untrusted, "{why}");
        assert!(is_untrusted || why.contains("without TLS"), "{why}");
    }
}

/// Pipelines print plans in their logs, where many people can read them.
#[tokio::test]
async fn a_plan_shows_no_value_of_a_secret_whatever_the_api_server_says_about_it() {
    let manifests = [canary(), secret(&["token"])];
    let template_of = json!({"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"name": "app", "image": "podinfo:1"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "test", "uid": "u"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "podinfo"}}, "template": template_of}});
    let cluster = vec![template("errors", "http://metrics.example.com"), deployment];
    for code in [400, 403, 404, 409, 413, 422, 429, 500, 503] {
        let refused = Some((Kind::Secret, code));
        let planned = Box::pin(plan(&manifests, cluster.clone(), refused)).await;
        let shown = shown(planned);
        let is_busy = code >= 500 || code == 429;
        let why = if is_busy {
            "the API server has no answer".to_owned()
        } else {
            format!("status {code}")
        };
        assert!(shown.contains(&why), "{code}: {shown}");
        for value in HUSH {
            assert!(!shown.contains(value), "{code}: {shown}");
        }
    }
    // Other refusals are shown in full.
    let refused = Some((Kind::Deployment, 422));
    let shown = shown(Box::pin(plan(&manifests, cluster, refused)).await);
    assert!(shown.contains("is invalid: data[token]"), "{shown}");
}

/// A Canary of this name that names a rule of the route `shop`.
fn with_route(name: &str) -> Value {
    let mut canary = canary();
    canary["metadata"]["name"] = json!(name);
    canary["spec"]["targetRef"]["name"] = json!(name);
    canary["spec"]["service"]["routeRefs"] =
        json!([{"kind": "HTTPRoute", "name": "shop", "rules": ["api"]}]);
    canary["spec"]["analysis"]["metrics"] = json!([]);
    canary
}

/// The target, and the route with these backends in its rule.
fn routed(backends: Value) -> Vec<Value> {
    let template_of = json!({"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"name": "app", "image": "podinfo:1"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "test", "uid": "u"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "podinfo"}}, "template": template_of}});
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "shop", "namespace": "test", "uid": "r", "generation": 1},
        "spec": {"rules": [{"name": "api", "backendRefs": backends}]}});
    vec![deployment, route]
}

fn backend(name: &str, weight: u64) -> Value {
    json!({"name": name, "port": 80, "weight": weight})
}

/// Otherwise a user sees only at the first release what the operator does with the route.
#[tokio::test]
async fn a_plan_shows_what_the_first_step_writes_into_a_route_of_the_user() {
    let cluster = routed(json!([
        backend("podinfo", 200),
        backend("podinfo-canary", 0)
    ]));
    let planned = Box::pin(plan(&[with_route("podinfo")], cluster, None)).await;
    assert_eq!(planned.problems, Vec::<String>::new());
    let is_route = |change: &&crate::plan::Change| change.kind == "HTTPRoute";
    assert_eq!(planned.changes.iter().find(is_route), None);
    let [step] = planned.first_step.as_slice() else {
        panic!("{planned:?}");
    };
    let changed = step.diff.lines().skip(2);
    let changed: Vec<_> = changed
        .filter(|line| line.starts_with(['-', '+']))
        .collect();
    let weights = ["200", "180", "0", "20"].map(|weight| format!("weight: {weight}"));
    let marks = ["-", "+", "-", "+"];
    for ((line, weight), mark) in changed.iter().zip(&weights).zip(marks) {
        assert!(
            line.starts_with(mark) && line.ends_with(weight.as_str()),
            "{changed:?}"
        );
    }
    assert_eq!(changed.len(), 4, "{changed:?}");
    assert!(shown(planned).contains(
        "  at the first step of the next run:\n  update HTTPRoute shop (by the operator)\n"
    ));
}

/// 0.1 % of 1000 is 1, and of 100 it is no whole number.
#[tokio::test]
async fn a_plan_shows_a_first_step_below_one_percent_or_why_the_route_cannot_have_it() {
    let mut canary = with_route("podinfo");
    canary["spec"]["analysis"]["decimalStepWeights"] = json!([0.1, 50]);
    let pair = |weight| json!([backend("podinfo", weight), backend("podinfo-canary", 0)]);
    let planned = Box::pin(plan(&[canary.clone()], routed(pair(1000)), None)).await;
    let [step] = planned.first_step.as_slice() else {
        panic!("{planned:?}");
    };
    for line in ["weight: 999", "weight: 1"] {
        let mut added = step.diff.lines().filter(|line| line.starts_with('+'));
        assert!(added.any(|it| it.ends_with(line)), "{}", step.diff);
    }
    let planned = Box::pin(plan(&[canary], routed(pair(100)), None)).await;
    let problem = planned.problems.concat();
    let why = "add up to 100 for both versions, of which 0.1 % is no whole number: let them add up to 1000";
    assert!(problem.contains(why), "{planned:?}");
}

#[tokio::test]
async fn a_plan_names_a_canary_that_sets_weights_in_the_same_rule() {
    let backends = ["alpha", "podinfo"]
        .map(|name| [backend(name, 100), backend(&format!("{name}-canary"), 0)]);
    let cluster = routed(json!(backends.as_flattened()));
    // Neither is in the cluster. The planned one counts as older.
    for [own, other] in [["alpha", "podinfo"], ["podinfo", "alpha"]] {
        let manifests = [with_route(own), with_route(other)];
        let planned = Box::pin(plan(&manifests, cluster.clone(), None)).await;
        let expected = Conflict {
            canary: other.to_owned(),
            object: "HTTPRoute shop".to_owned(),
            not_run: other.to_owned(),
        };
        assert_eq!(planned.conflicts, [expected]);
    }
    let apart = routed(json!(backends[1]));
    let manifests = [with_route("podinfo"), with_route("alpha")];
    let planned = Box::pin(plan(&manifests, apart, None)).await;
    assert!(planned.conflicts.is_empty(), "{planned:?}");
}

#[tokio::test]
async fn a_plan_says_why_the_operator_cannot_set_weights_in_a_route() {
    let pair = |weight| json!([backend("podinfo", weight), backend("podinfo-canary", 0)]);
    let mut sticky = routed(pair(100));
    sticky[1]["spec"]["rules"][0]["sessionPersistence"] = json!({"type": "Cookie"});
    let mut renamed = routed(pair(100));
    renamed[1]["spec"]["rules"][0]["name"] = json!("web");
    let mut missing = routed(pair(100));
    missing.pop();
    for (cluster, why) in [
        (sticky, "sessionPersistence"),
        (renamed, "has no rule named api"),
        (missing, "not found"),
        (routed(pair(1)), "add up to 1 "),
        (routed(pair(0)), "the weights 0 for both versions"),
        (
            routed(json!([backend("podinfo", 100)])),
            "does not lead to podinfo-canary",
        ),
    ] {
        let planned = Box::pin(plan(&[with_route("podinfo")], cluster, None)).await;
        assert_eq!(planned.answer(), Answer::Bad, "{planned:?}");
        let [problem] = planned.problems.as_slice() else {
            panic!("{why}: {:?}", planned.problems);
        };
        assert!(problem.contains(why), "{why}: {problem}");
        assert!(planned.first_step.is_empty(), "{planned:?}");
    }
}

#[tokio::test]
async fn a_plan_shows_an_admission_that_refuses_the_first_step() {
    let cluster = routed(json!([
        backend("podinfo", 100),
        backend("podinfo-canary", 0)
    ]));
    let refused = Some((Kind::HttpRoute, 422));
    let planned = Box::pin(plan(&[with_route("podinfo")], cluster, refused)).await;
    assert_eq!(planned.answer(), Answer::Bad, "{planned:?}");
    assert!(planned.first_step[0].refused.is_some(), "{planned:?}");
}

/// A plan in all forms.
fn shown(plan: Plan) -> String {
    let lines = lines(&plan, 200).into_iter().map(|line| line.text());
    let lines: Vec<_> = lines.collect();
    format!("{}\n{}", lines.join("\n"), list_json(&[plan]))
}

/// The history of an hour in which the primary had 600 requests a minute, of which 6 failed.
fn an_hour() -> Value {
    let series = |part: &str, each: u32| {
        let values: Vec<_> = (0..=60)
            .map(|minute: u32| json!([minute * 60, (minute * each).to_string()]))
            .collect();
        json!({"metric": {"flagger": part}, "values": values})
    };
    let result = [series("all", 600), series("good", 594)];
    json!({"status": "success", "data": {"resultType": "matrix", "result": result}})
}

/// A mistake in the labels, or a mesh without metrics, would otherwise show only when the first release waits.
#[tokio::test]
async fn a_plan_shows_whether_the_primary_has_the_counters_of_a_comparison() {
    let metrics = json!([
        {"name": "request-success-rate", "thresholdRange": {"min": 99}, "compare": {}},
        {"name": "request-duration", "thresholdRange": {"max": 500}}]);
    let mut canary = canary();
    canary["spec"]["metricsServer"] = json!("http://prometheus.istio-system:9090");
    canary["spec"]["analysis"]["metrics"] = metrics;
    for (code, answer, expected) in [
        (200, an_hour(), (Some(36_000.0), Some(360.0), None)),
        (
            200,
            json!({"status": "success", "data": {"resultType": "matrix", "result": []}}),
            (Some(0.0), Some(0.0), None),
        ),
        (
            503,
            json!({"kind": "Status", "status": "Failure", "code": 503, "message": "no endpoints"}),
            (None, None, Some("status 503")),
        ),
    ] {
        let planned = Box::pin(plan_with(
            &[canary.clone()],
            Vec::new(),
            None,
            Some((code, answer)),
        ))
        .await;
        let [comparison] = planned.comparisons.as_slice() else {
            panic!("{planned:?}");
        };
        let (requests, bad, why) = expected;
        assert_eq!((comparison.requests, comparison.bad), (requests, bad));
        let shown = comparison.not_asked.clone().unwrap_or_default();
        assert!(shown.contains(why.unwrap_or_default()), "{shown}");
        assert_eq!(shown.is_empty(), why.is_none());
        assert!(
            comparison.counter.contains("podinfo-primary"),
            "{}",
            comparison.counter
        );
    }
}
