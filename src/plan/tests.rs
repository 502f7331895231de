use serde_json::{Value, json};

use super::*;
use crate::{
    snapshot::{HttpRequest, Kind, Method, Origin, Secret},
    view::render::paint,
};

fn object(kind: Kind) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: "test".to_owned(),
        name: "podinfo".to_owned(),
    }
}

fn difference(kind: Kind, before: Option<&Value>, after: &Value) -> String {
    diff::diff(&object(kind), before, after).unwrap_or_default()
}

#[test]
fn an_object_that_changes_is_a_unified_diff_without_the_part_of_the_api_server() {
    let before = json!({"apiVersion": "v1", "kind": "Service", "status": {"loadBalancer": {}}, "metadata": {"name": "podinfo",
        "resourceVersion": "7", "uid": "u", "generation": 1, "managedFields": [{}], "annotations": {LAST: "{}"}},
        "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "podinfo"}}});
    let mut after = before.clone();
    after["metadata"]["resourceVersion"] = json!("8");
    after["metadata"]["generation"] = json!(2);
    after["status"] = json!({});
    assert_eq!(difference(Kind::Service, Some(&before), &after), "");
    after["metadata"]["ownerReferences"] =
        json!([{"kind": "Canary", "name": "podinfo", "uid": "x"}]);
    after["spec"]["selector"]["app"] = json!("podinfo-primary");
    assert_eq!(
        difference(Kind::Service, Some(&before), &after),
        "--- live/Service/test/podinfo
+++ planned/Service/test/podinfo
@@ -2,7 +2,10 @@
 kind: Service
 metadata:
   name: podinfo
+  ownerReferences:
+  - kind: Canary
+    name: podinfo
 spec:
   clusterIP: \"10.0.0.1\"
   selector:
-    app: podinfo
+    app: podinfo-primary
"
    );
    let created = difference(Kind::Service, None, &after);
    assert!(
        created.starts_with("--- /dev/null\n+++ planned/Service/test/podinfo\n@@ -0,0 +1,"),
        "{created}"
    );
    assert!(!created.contains("10.0.0.1"), "{created}");
}

const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[test]
fn values_of_secrets_are_never_shown_but_which_of_them_differ() {
    let secret = |token: &str| {
        json!({"kind": "Secret", "metadata": {"name": "podinfo", "annotations": {LAST: token}},
            "data": {"token": token, "user": "dXNlcg=="}, "stringData": token})
    };
    let (before, after) = (secret("b2xk"), secret("bmV3"));
    let shown = difference(Kind::Secret, Some(&before), &after);
    assert!(
        shown.contains("-  token: (hidden, before)\n+  token: (hidden, after)\n"),
        "{shown}"
    );
    let created = difference(Kind::Secret, None, &after);
    for text in [shown, created] {
        assert!(
            ["b2xk", "bmV3", "dXNlcg"]
                .iter()
                .all(|value| !text.contains(value)),
            "{text}"
        );
    }
    assert_eq!(difference(Kind::Secret, Some(&before), &before), "");
}

#[test]
fn a_large_or_hostile_object_is_cut_and_cannot_steer_a_terminal() {
    let lines: Vec<_> = (0..20_000).map(|line| format!("line {line}")).collect();
    let text = lines.join("\n");
    let map = json!({"kind": "ConfigMap", "data": {"a": "x".repeat(1 << 20), "b": text, "c\u{1b}[2J\u{202e}": "\u{1b}[31mred\u{9b}2J\r\n\u{1b}"}});
    let shown = difference(Kind::ConfigMap, None, &map);
    assert!(shown.lines().count() <= 501, "{}", shown.lines().count());
    assert!(shown.lines().all(|line| line.chars().count() < 450));
    assert!(shown.contains("more characters") && shown.ends_with("more lines\n"));
    let is_mark = |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
    assert!(!shown.contains(is_mark));
    let other =
        json!({"kind": "ConfigMap", "data": {"a": "short", "b": text.replace("line 1", "row 1")}});
    let changed = difference(Kind::ConfigMap, Some(&map), &other);
    assert!(
        changed.lines().count() <= 501 && changed.contains("+  a: short"),
        "{changed}"
    );
}

#[test]
fn a_canary_gets_the_spec_of_its_manifest_and_others_keep_what_it_does_not_name() {
    let live = json!({"metadata": {"name": "podinfo", "resourceVersion": "7", "labels": {"a": "1", "b": "2"}},
        "spec": {"replicas": 3, "old": true}, "status": {"phase": "Succeeded"}});
    let manifest = json!({"metadata": {"name": "podinfo", "labels": {"b": "3"}}, "spec": {"new": true}, "status": {"phase": "Failed"}});
    let applied = |kind| {
        let write = write(&object(kind), Some(&live), &manifest);
        result(&write, Some(&live)).unwrap()
    };
    let canary = applied(Kind::Canary);
    assert_eq!(canary["spec"], json!({"new": true}));
    assert_eq!(canary["metadata"]["labels"], json!({"a": "1", "b": "3"}));
    assert_eq!(canary["status"], live["status"]);
    let deployment = applied(Kind::Deployment);
    assert_eq!(
        deployment["spec"],
        json!({"replicas": 3, "old": true, "new": true})
    );
    let changed = json!({"metadata": {"resourceVersion": "8"}});
    let write = write(&object(Kind::Canary), Some(&live), &manifest);
    assert_eq!(
        result(&write, Some(&changed)),
        None,
        "it was changed meanwhile"
    );
}

/// The user's VirtualService is of Istio's newest version, and the API server refuses an object of another version than the request's.
#[test]
fn a_manifest_of_istio_may_be_of_any_version() {
    for version in ["v1", "v1beta1", "v1alpha3"] {
        let api_version = format!("networking.istio.io/{version}");
        let manifest = json!({"apiVersion": api_version, "kind": "VirtualService", "metadata": {"name": "web"}});
        assert_eq!(kind(&manifest), Some(Kind::VirtualService));
        let write = super::write(&object(Kind::VirtualService), None, &manifest);
        let crate::snapshot::Action::Create(created) = write.action else {
            panic!()
        };
        assert_eq!(created["apiVersion"], "networking.istio.io/v1beta1");
    }
    let other = json!({"apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TLSRoute"});
    assert_eq!(kind(&other), None);
}

/// As `kubectl apply` does.
#[test]
fn a_field_that_the_last_manifest_had_and_this_one_has_not_is_removed() {
    let last = json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}, "x": 1}}}});
    let live = json!({"metadata": {"resourceVersion": "7", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": last.to_string()}},
        "spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}, "x": 1, "default": true}}}});
    let manifest = json!({"spec": {"template": {"spec": {"x": 1}}}});
    let write = write(&object(Kind::Deployment), Some(&live), &manifest);
    let applied = result(&write, Some(&live)).unwrap();
    assert_eq!(
        applied["spec"]["template"]["spec"],
        json!({"x": 1, "default": true})
    );
}

fn request(url: &str) -> HttpRequest {
    HttpRequest {
        method: Method::Get,
        url: Secret(url.to_owned()),
        headers: Vec::new(),
        body: None,
        timeout: std::time::Duration::ZERO,
        retries: 0,
        budget: None,
        proxy: None,
        insecure_skip_verify: false,
        origin: Origin::User,
    }
}

#[test]
fn services_are_asked_through_the_api_server_and_others_from_here() {
    let proxied = |url: &str| match way(&request(url), Some("istio-system"), true) {
        Way::ApiServer(request) => request.url.0,
        other => panic!("{url}: {other:?}"),
    };
    let proxy = "https://kubernetes.default.svc/api/v1/namespaces";
    for (url, path) in [
        (
            "http://prometheus:9090/api/v1/query?query=up",
            "/istio-system/services/http:prometheus:9090/proxy/api/v1/query?query=up",
        ),
        (
            "http://prometheus.monitoring/a",
            "/monitoring/services/http:prometheus:80/proxy/a",
        ),
        (
            "https://prometheus.monitoring.svc/",
            "/monitoring/services/https:prometheus:443/proxy/",
        ),
        (
            "http://p.m.svc.cluster.local:1/",
            "/m/services/http:p:1/proxy/",
        ),
    ] {
        assert_eq!(proxied(url), format!("{proxy}{path}"));
    }
    for url in [
        "http://10.0.0.1:9090/",
        "https://prometheus.example.com/",
        "http://localhost:9090/",
        "http://[::1]/",
    ] {
        assert_eq!(way(&request(url), None, true), Way::Direct, "{url}");
    }
    assert!(
        matches!(way(&request("http://prometheus:9090/"), None, true), Way::None(why) if why.contains("--account"))
    );
}

/// The manifests may belong to a change that nobody has reviewed yet.
#[test]
fn no_service_is_asked_for_a_template_that_is_not_in_the_cluster() {
    let url = "http://admin.kube-system/";
    assert!(
        matches!(way(&request(url), None, false), Way::None(why) if why.contains("no Service"))
    );
    // The operator's own metrics server is not named in the manifests.
    let mut own = request("http://prometheus.monitoring/");
    own.origin = Origin::Administrator;
    assert!(matches!(way(&own, None, false), Way::ApiServer(_)));
}

#[test]
fn credentials_leave_only_with_tls_and_only_for_templates_of_the_cluster() {
    let with = |url: &str, trusted: bool| {
        let mut request = request(url);
        request.headers = vec![
            ("Content-Type".to_owned(), Secret("text/plain".to_owned())),
            ("DD-API-KEY".to_owned(), Secret("key".to_owned())),
        ];
        way(&request, Some("flagger"), trusted)
    };
    assert_eq!(with("https://api.datadoghq.com/", true), Way::Direct);
    for (url, trusted) in [
        ("https://api.datadoghq.com/", false),
        ("http://api.example.com/", true),
        ("https://prometheus.monitoring/", true),
    ] {
        assert!(
            matches!(with(url, trusted), Way::None(_)),
            "{url} {trusted}"
        );
    }
    let mut write = request("https://kubernetes.default.svc/apis/metrics.keptn.sh/v1/analyses");
    write.origin = Origin::ApiServer;
    assert!(matches!(way(&write, None, true), Way::ApiServer(_)));
    write.method = Method::Post;
    assert!(matches!(way(&write, None, true), Way::None(why) if why.contains("creates")));
}

fn example() -> Plan {
    let metric = |name: &str, unit: &str, query: &str| release::Metric {
        name: name.to_owned(),
        provider: "prometheus".to_owned(),
        host: "prometheus".to_owned(),
        query: query.to_owned(),
        unit: unit.to_owned(),
        min: Some(99.0),
        ..release::Metric::default()
    };
    let measured = |metric, value, failure: Option<&str>, not_asked: Option<&str>| Metric {
        metric,
        value,
        failure: failure.map(str::to_owned),
        not_asked: not_asked.map(str::to_owned),
    };
    let right = |who: &str, verb: &str, resource: &str| MissingRight {
        who: who.to_owned(),
        verb: verb.to_owned(),
        group: "flagger.app".to_owned(),
        resource: resource.to_owned(),
        namespace: Some("test".to_owned()),
    };
    let service = json!({"kind": "Service", "metadata": {"name": "podinfo"}, "spec": {"ports": [{"port": 80}]}});
    let mut changes = Changes::default();
    let tried = |kind, before, after, refused: Option<&str>, untried: Option<&str>| Tried {
        object: object(kind),
        by: By::Operator,
        before,
        after: Some(after),
        refused: refused.map(str::to_owned),
        untried: untried.map(str::to_owned),
    };
    let mut scaled = json!({"kind": "Deployment", "spec": {"replicas": 2}});
    let live = scaled.clone();
    changes.add(tried(
        Kind::Deployment,
        Some(live),
        scaled.clone(),
        None,
        None,
    ));
    changes.add(tried(
        Kind::Service,
        None,
        service,
        None,
        Some("you may not create services"),
    ));
    changes.add(tried(
        Kind::ConfigMap,
        None,
        json!({"kind": "ConfigMap"}),
        Some("exceeded quota"),
        None,
    ));
    scaled["spec"]["replicas"] = json!(0);
    changes.add(tried(Kind::Deployment, None, scaled, None, None));
    Plan {
        namespace: "test".to_owned(),
        name: "podinfo".to_owned(),
        changes: changes.shown(),
        first_step: Vec::new(),
        problems: vec!["canary podinfo.test is not run: an \u{1b}[31mobstacle".to_owned()],
        conflicts: vec![Conflict {
            canary: "older".to_owned(),
            object: "Service podinfo".to_owned(),
            not_run: "podinfo".to_owned(),
        }],
        missing_rights: vec![
            right(YOU, "create", "canaries"),
            right(
                "system:serviceaccount:flagger:flagger",
                "patch",
                "canaries/status",
            ),
        ],
        metrics: vec![
            measured(metric("success", "%", "sum(a)"), Some(99.5), None, None),
            measured(
                metric("latency", "", "sum(b)"),
                None,
                Some("latency had no value"),
                None,
            ),
            measured(
                metric("errors", "", ""),
                None,
                None,
                Some("the server needs credentials"),
            ),
        ],
        comparisons: vec![
            compared(Some((36_000.0, 40.0)), None),
            compared(Some((0.0, 0.0)), None),
            compared(None, Some("--ask=false")),
        ],
        not_checked: vec!["conflicts with other canaries".to_owned()],
        then: "goes on".to_owned(),
    }
}

fn compared(counts: Option<(f64, f64)>, not_asked: Option<&str>) -> Comparison {
    Comparison {
        metric: "success".to_owned(),
        counter: "requests{a=\"b\"}".to_owned(),
        requests: counts.map(|(requests, _)| requests),
        bad: counts.map(|(_, bad)| bad),
        not_asked: not_asked.map(str::to_owned),
    }
}

#[test]
fn a_plan_for_people_names_each_object_and_all_that_is_in_its_way() {
    let shown: String = lines(&example(), 100)
        .iter()
        .map(|line| paint(line, false, None) + "\n")
        .collect();
    assert_eq!(
        shown,
        "Canary test/podinfo
  update Deployment podinfo (by the operator)
--- live/Deployment/test/podinfo
+++ planned/Deployment/test/podinfo
@@ -1,3 +1,3 @@
 kind: Deployment
 spec:
-  replicas: 2
+  replicas: 0
  create Service podinfo (by the operator)
  not tried: you may not create services
--- /dev/null
+++ planned/Service/test/podinfo
@@ -0,0 +1,6 @@
+kind: Service
+metadata:
+  name: podinfo
+spec:
+  ports:
+  - port: 80
  create ConfigMap podinfo (by the operator)
  refused: exceeded quota
--- /dev/null
+++ planned/ConfigMap/test/podinfo
@@ -0,0 +1 @@
+kind: ConfigMap
  problem: canary podinfo.test is not run: an [31mobstacle
  conflict: canary older has the Service podinfo, too, so podinfo is not run
  missing right: you may not create canaries.flagger.app in namespace test
  missing right: system:serviceaccount:flagger:flagger may not patch canaries.flagger.app/status in
    namespace test
  not checked: conflicts with other canaries
  metric: success is 99.5 %, at least 99 %; prometheus at prometheus: sum(a)
  metric: latency would fail now: latency had no value, at least 99; prometheus at prometheus:
    sum(b)
  metric: errors not asked: the server needs credentials, at least 99
  comparison: success: the primary had 36000 requests in the last hour, 40 of them failed;
    requests{a=\"b\"}
  comparison: success: the primary had no requests in the last hour, so a step would wait;
    requests{a=\"b\"}
  comparison: success: not asked: --ask=false; requests{a=\"b\"}
  then: goes on
"
    );
}

#[test]
fn a_plan_for_scripts_is_json() {
    let all = list_json(&[example()]);
    assert_eq!(
        (&all["apiVersion"], &all["kind"]),
        (&json!("flagger-rs/v1"), &json!("PlanList"))
    );
    let plan = &all["items"][0];
    let fields: Vec<_> = plan
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        fields,
        [
            "changes",
            "comparisons",
            "conflicts",
            "firstStep",
            "metrics",
            "missingRights",
            "name",
            "namespace",
            "notChecked",
            "problems",
            "then"
        ]
    );
    let change = &plan["changes"][1];
    assert_eq!(
        (
            &change["verb"],
            &change["by"],
            &change["kind"],
            &change["untried"],
            &change["refused"]
        ),
        (
            &json!("create"),
            &json!("operator"),
            &json!("Service"),
            &json!("you may not create services"),
            &Value::Null
        )
    );
    assert_eq!(
        plan["conflicts"][0],
        json!({"canary": "older", "object": "Service podinfo", "notRun": "podinfo"})
    );
    assert_eq!(
        plan["missingRights"][0],
        json!({"who": "you", "verb": "create", "group": "flagger.app", "resource": "canaries", "namespace": "test"})
    );
    let metric = &plan["metrics"][0];
    assert_eq!(
        (
            &metric["name"],
            &metric["query"],
            &metric["value"],
            &metric["failure"],
            &metric["notAsked"]
        ),
        (
            &json!("success"),
            &json!("sum(a)"),
            &json!(99.5),
            &Value::Null,
            &Value::Null
        )
    );
}

#[test]
fn what_a_person_may_not_do_is_no_problem_but_leaves_a_plan_incomplete() {
    assert_eq!(example().answer(), Answer::Bad);
    let mut plan = Plan::default();
    assert_eq!(plan.answer(), Answer::Good);
    plan.not_checked = vec!["a".to_owned()];
    assert_eq!(plan.answer(), Answer::Incomplete);
    plan.missing_rights = example().missing_rights;
    assert_eq!(plan.answer(), Answer::Bad, "the operator lacks a right");
    plan.missing_rights.truncate(1);
    assert_eq!(plan.answer(), Answer::Incomplete);
    plan.metrics = example().metrics;
    assert_eq!(
        plan.answer(),
        Answer::Incomplete,
        "a value now decides nothing"
    );
}
