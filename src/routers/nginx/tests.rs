use std::sync::Arc;

use super::*;
use crate::{
    routers::tests::{apply, canary_analysis, selector},
    snapshot::Kind,
};

fn snapshot(analysis: Value) -> Snapshot {
    let mut snapshot =
        crate::routers::tests::snapshot("nginx", json!({"port": 80}), analysis, Value::Null);
    let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
    let path = |path: &str, name: &str| json!({"path": path, "pathType": "Prefix", "backend": backend(name)});
    let source = json!({
        "metadata": {"name": "web", "namespace": "test", "labels": {"l": "1"}, "annotations": {"own": "x",
            LAST_APPLIED: "{}", "nginx.ingress.kubernetes.io/canary-weight-total": "7", "nginx.ingress.kubernetes.io/ssl-redirect": "true"}},
        "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["app.example.com"]}], "defaultBackend": backend("podinfo"),
            "rules": [{"host": "app.example.com", "http": {"paths": [path("/", "podinfo"), path("/other", "other")]}}, {"host": "none.example.com"}]}});
    let name = snapshot.reference(Kind::Ingress, "web");
    snapshot.objects.insert(name, source);
    snapshot
}

fn test(conditions: Value) -> Value {
    json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": conditions})
}

fn reconciled(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = Nginx.reconcile(&snapshot, &selector(), weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn routed(mut snapshot: Snapshot, weights: &Weights) -> Snapshot {
    let writes = Nginx.set_weights(&snapshot, weights).unwrap();
    apply(&mut snapshot, writes);
    snapshot
}

fn ours(snapshot: &Snapshot) -> &Value {
    snapshot.object(Kind::Ingress, "web-canary").unwrap()
}

fn edit(snapshot: &mut Snapshot, edit: impl FnOnce(&mut Value)) {
    let name = snapshot.reference(Kind::Ingress, "web-canary");
    edit(snapshot.objects.get_mut(&name).unwrap());
}

/// The annotations of our Ingress that begin with the prefix, without the prefix.
fn canary_annotations(snapshot: &Snapshot) -> Vec<(String, String)> {
    let annotations = metadata(ours(snapshot), "annotations");
    let ours = annotations.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(&format!(
            "{}/",
            snapshot.settings.ingress_annotations_prefix
        ))?;
        let is_ours = name.starts_with("canary");
        is_ours.then(|| (name.to_owned(), value.as_str().unwrap().to_owned()))
    });
    let mut ours: Vec<_> = ours.collect();
    ours.sort();
    ours
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_second_ingress_is_flaggers_and_the_users_ingress_is_only_read() {
    let before = snapshot(canary_analysis());
    let snapshot = reconciled(before.clone(), &Weights::PRIMARY);
    let ingress = ours(&snapshot);
    let mut spec = before.object(Kind::Ingress, "web").unwrap()["spec"].clone();
    spec["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = json!("podinfo-canary");
    assert_eq!(ingress["spec"], spec);
    assert_eq!(
        ingress["metadata"]["annotations"],
        json!({"own": "x", "nginx.ingress.kubernetes.io/ssl-redirect": "true", "nginx.ingress.kubernetes.io/canary": "true",
            "nginx.ingress.kubernetes.io/canary-weight": "0", "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
            "helm.toolkit.fluxcd.io/driftDetection": "disabled"})
    );
    assert_eq!(ingress["metadata"]["labels"], json!({"l": "1"}));
    assert_eq!(ingress["metadata"]["ownerReferences"][0]["kind"], "Canary");
    let source = |snapshot: &Snapshot| snapshot.object(Kind::Ingress, "web").cloned();
    assert_eq!(source(&snapshot), source(&before));
    let snapshot = routed(snapshot, &Weights::canary(10));
    assert_eq!(
        canary_annotations(&snapshot),
        pairs(&[("canary", "true"), ("canary-weight", "10")])
    );
    assert_eq!(Nginx.current_weights(&snapshot), Ok(Weights::canary(10)));
}

#[test]
fn the_annotations_have_the_prefix_of_the_operator() {
    let mut snapshot = snapshot(canary_analysis());
    Arc::make_mut(&mut snapshot.settings).ingress_annotations_prefix = "custom.io".to_owned();
    let snapshot = routed(
        reconciled(snapshot, &Weights::PRIMARY),
        &Weights::canary(50),
    );
    assert_eq!(
        metadata(ours(&snapshot), "annotations")["custom.io/canary-weight"],
        "50"
    );
    assert_eq!(Nginx.current_weights(&snapshot), Ok(Weights::canary(50)));
}

#[test]
fn requests_with_the_header_or_the_cookie_go_to_the_canary() {
    let at_rest = [("canary", "true"), ("canary-weight", "0")];
    for (conditions, more) in [
        (
            json!([{"headers": {"x-user": {"exact": "insider"}}}, {"headers": {"cookie": {"exact": "canary"}}}]),
            vec![
                ("canary-by-cookie", "canary"),
                ("canary-by-header", "x-user"),
                ("canary-by-header-value", "insider"),
            ],
        ),
        (
            json!([{"headers": {"x-user": {"regex": "in.*"}}}, {"headers": {"cookie": {"exact": "canary"}}}]),
            vec![
                ("canary-by-cookie", "canary"),
                ("canary-by-header", "x-user"),
                ("canary-by-header-pattern", "in.*"),
            ],
        ),
    ] {
        let snapshot = reconciled(snapshot(test(conditions)), &Weights::PRIMARY);
        assert_eq!(canary_annotations(&snapshot), pairs(&at_rest));
        let snapshot = routed(snapshot, &Weights::CANARY);
        let mut during = pairs(&[&at_rest[..], &more].concat());
        during.sort();
        assert_eq!(canary_annotations(&snapshot), during);
        assert_eq!(Nginx.current_weights(&snapshot), Ok(Weights::CANARY));
        assert_eq!(
            Nginx.reconcile(&snapshot, &selector(), &Weights::CANARY),
            Ok(vec![])
        );
        let snapshot = routed(snapshot, &Weights::PRIMARY);
        assert_eq!(canary_annotations(&snapshot), pairs(&at_rest));
        assert_eq!(Nginx.current_weights(&snapshot), Ok(Weights::PRIMARY));
    }
}

/// Flagger leaves a part of such a test out.
#[test]
fn a_test_that_nginx_cannot_express_is_refused() {
    for (conditions, why) in [
        (
            json!([{"headers": {"a": {"exact": "1"}}}, {"headers": {"b": {"exact": "2"}}}]),
            "there are several headers, or several cookies",
        ),
        (
            json!([{"headers": {"a": {"exact": "1"}, "b": {"regex": "2"}}}]),
            "there are several headers, or several cookies",
        ),
        (
            json!([{"headers": {"cookie": {"regex": "x"}}}]),
            "cookie is not exact",
        ),
        (
            json!([{"headers": {"a": {"prefix": "x"}}}]),
            "a is neither exact nor a regex",
        ),
        (json!([{"uri": {"prefix": "/api"}}]), "a condition has uri"),
        (json!([{"headers": {}}]), "a condition names no header"),
        (
            json!([{"headers": {"a": {"exact": "1"}, "cookie": {"exact": "2"}}}]),
            "a condition names a header and a cookie, of which NGINX wants one",
        ),
    ] {
        let snapshot = snapshot(test(conditions));
        let refused = Nginx
            .reconcile(&snapshot, &selector(), &Weights::PRIMARY)
            .unwrap_err()
            .to_string();
        assert!(
            refused.starts_with("spec.analysis.match: NGINX tells requests apart by one header")
                && refused.ends_with(why),
            "{refused}"
        );
        // A rollback still works.
        let half = Weights::canary(50);
        let released = routed(
            reconciled(self::snapshot(canary_analysis()), &Weights::PRIMARY),
            &half,
        );
        let edited = Snapshot {
            objects: released.objects,
            ..snapshot
        };
        assert!(Nginx.set_weights(&edited, &Weights::CANARY).is_err());
        assert_eq!(
            Nginx.set_weights(&edited, &Weights::PRIMARY).unwrap().len(),
            1
        );
    }
}

#[test]
fn an_ingress_that_is_missing_or_does_not_lead_to_the_apex_is_reported() {
    let refused = |snapshot: &Snapshot| {
        Nginx
            .reconcile(snapshot, &selector(), &Weights::PRIMARY)
            .unwrap_err()
            .to_string()
    };
    let mut one = snapshot(canary_analysis());
    let name = one.reference(Kind::Ingress, "web");
    one.objects.get_mut(&name).unwrap()["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        ["name"] = json!("another");
    assert_eq!(refused(&one), "backend podinfo not found in ingress web");
    one.objects.remove(&name);
    assert_eq!(
        refused(&one),
        "ingress web.test get query error: ingresses.networking.k8s.io \"web\" not found"
    );
    one.canary.spec.ingress_ref = None;
    assert_eq!(refused(&one), "ingress selector is empty");
    assert!(Nginx.objects(&one.canary).is_empty());
}

#[test]
fn changes_of_the_users_ingress_are_taken_over_and_the_weight_stays() {
    let mut snapshot = routed(
        reconciled(snapshot(canary_analysis()), &Weights::PRIMARY),
        &Weights::canary(30),
    );
    let name = snapshot.reference(Kind::Ingress, "web");
    let source = snapshot.objects.get_mut(&name).unwrap();
    source["spec"]["rules"][0]["host"] = json!("new.example.com");
    let mut snapshot = reconciled(snapshot, &Weights::canary(30));
    assert_eq!(
        ours(&snapshot)["spec"]["rules"][0]["host"],
        "new.example.com"
    );
    assert_eq!(Nginx.current_weights(&snapshot), Ok(Weights::canary(30)));
    // Without this annotation NGINX would treat it as a normal Ingress, with all the traffic.
    edit(&mut snapshot, |ours| {
        let annotations = ours["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove("nginx.ingress.kubernetes.io/canary");
        annotations.insert("theirs".to_owned(), json!("stays"));
    });
    let snapshot = reconciled(snapshot, &Weights::canary(30));
    assert_eq!(
        canary_annotations(&snapshot),
        pairs(&[("canary", "true"), ("canary-weight", "30")])
    );
    assert_eq!(metadata(ours(&snapshot), "annotations")["theirs"], "stays");
}

#[test]
fn a_weight_that_is_no_number_is_reported_and_repaired() {
    let mut snapshot = reconciled(snapshot(canary_analysis()), &Weights::PRIMARY);
    edit(&mut snapshot, |ours| {
        ours["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"] = json!("x");
    });
    assert_eq!(
        Nginx.current_weights(&snapshot).unwrap_err().to_string(),
        "failed to convert x to int: strconv.Atoi: parsing \"x\": invalid syntax"
    );
    let snapshot = reconciled(snapshot, &Weights::canary(20));
    assert_eq!(Nginx.current_weights(&snapshot), Ok(Weights::canary(20)));
}

/// The canary's Service may be deleted before the Ingress that leads to it.
#[test]
fn an_ingress_that_is_deleted_with_the_canary_leads_where_the_users_leads() {
    let mut snapshot = reconciled(snapshot(canary_analysis()), &Weights::PRIMARY);
    assert_eq!(Nginx.restore(&snapshot), None, "nothing is routed by it");
    snapshot = routed(snapshot, &Weights::canary(30));
    let write = Nginx.restore(&snapshot).unwrap();
    apply(&mut snapshot, vec![write]);
    let source = snapshot.object(Kind::Ingress, "web").unwrap();
    assert_eq!(ours(&snapshot)["spec"], source["spec"]);
    assert_eq!(Nginx.restore(&snapshot), None);
}

/// Each row has our Ingress' annotations without their prefix, the conditions of the test, and the canary's weight or the error.
#[test]
fn the_annotations_tell_the_weights() {
    let header = json!([{"headers": {"x": {"exact": "1"}}}]);
    for (annotations, conditions, weight) in [
        (json!({"canary-weight": "30"}), json!([]), Ok(30)),
        (json!({"canary-weight": "101"}), json!([]), Ok(100)),
        (json!({"canary-weight": "-1"}), json!([]), Ok(0)),
        (json!({"canary-weight": ""}), json!([]), Ok(0)),
        (json!({}), json!([]), Ok(0)),
        (
            json!({"canary-weight": "x"}),
            json!([]),
            Err("failed to convert x to int: strconv.Atoi: parsing \"x\": invalid syntax"),
        ),
        (
            json!({"canary-weight": "0", "canary-by-header": "x"}),
            header.clone(),
            Ok(100),
        ),
        (
            json!({"canary-weight": "0", "canary-by-cookie": "x"}),
            header.clone(),
            Ok(100),
        ),
        (
            json!({"canary-weight": "0", "canary-by-header": ""}),
            header.clone(),
            Ok(0),
        ),
        (
            json!({"canary-weight": "0", "canary-by-header": "x"}),
            json!([]),
            Ok(0),
        ),
    ] {
        let mut snapshot = reconciled(snapshot(test(conditions)), &Weights::PRIMARY);
        edit(&mut snapshot, |ingress| {
            let prefixed = annotations.as_object().unwrap().iter();
            let prefixed = prefixed.map(|(name, value)| {
                (format!("nginx.ingress.kubernetes.io/{name}"), value.clone())
            });
            ingress["metadata"]["annotations"] = Value::Object(prefixed.collect());
        });
        let seen = Nginx
            .current_weights(&snapshot)
            .map_err(|error| error.to_string());
        assert_eq!(
            seen,
            weight.map(Weights::canary).map_err(str::to_owned),
            "{annotations}"
        );
    }
}

#[test]
fn an_ingress_that_leads_elsewhere_is_named() {
    let mut snapshot = reconciled(snapshot(canary_analysis()), &Weights::PRIMARY);
    edit(&mut snapshot, |ingress| {
        ingress["spec"]["rules"] = json!([]);
    });
    let error = Nginx.current_weights(&snapshot).unwrap_err().to_string();
    assert_eq!(
        error,
        "ingress web-canary.test does not lead to podinfo-canary"
    );
}
