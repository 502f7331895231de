use std::sync::Arc;

use super::*;
use crate::route::tests::{apply, canary_analysis};

fn world(analysis: Value) -> World {
    let mut world = crate::route::tests::world("nginx", json!({"port": 80}), analysis, Value::Null);
    let backend = |name: &str| json!({"service": {"name": name, "port": {"number": 80}}});
    let path = |path: &str, name: &str| json!({"path": path, "pathType": "Prefix", "backend": backend(name)});
    let source = json!({
        "metadata": {"name": "web", "namespace": "test", "labels": {"l": "1"}, "annotations": {"own": "x",
            LAST_APPLIED: "{}", "nginx.ingress.kubernetes.io/canary-weight-total": "7", "nginx.ingress.kubernetes.io/ssl-redirect": "true"}},
        "spec": {"ingressClassName": "nginx", "tls": [{"hosts": ["app.example.com"]}], "defaultBackend": backend("podinfo"),
            "rules": [{"host": "app.example.com", "http": {"paths": [path("/", "podinfo"), path("/other", "other")]}}, {"host": "none.example.com"}]}});
    let name = world.reference(Kind::Ingress, "web");
    world.objects.insert(name, source);
    world
}

fn test(conditions: Value) -> Value {
    json!({"interval": "1m", "threshold": 1, "iterations": 2, "match": conditions})
}

fn reconciled(mut world: World, weights: &Weights) -> World {
    let effects = reconcile(&world, weights).unwrap();
    apply(&mut world, effects);
    world
}

fn routed(mut world: World, weights: &Weights) -> World {
    let effects = set(&world, weights).unwrap();
    apply(&mut world, effects);
    world
}

fn ours(world: &World) -> &Value {
    world.object(Kind::Ingress, "web-canary").unwrap()
}

fn edit(world: &mut World, edit: impl FnOnce(&mut Value)) {
    let name = world.reference(Kind::Ingress, "web-canary");
    edit(world.objects.get_mut(&name).unwrap());
}

/// The annotations about the version, without their prefix.
fn said(world: &World) -> Vec<(String, String)> {
    let annotations = metadata(ours(world), "annotations");
    let said = annotations.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(&format!("{}/", world.settings.ingress_annotations_prefix))?;
        let is_ours = name.starts_with("canary");
        is_ours.then(|| (name.to_owned(), value.as_str().unwrap().to_owned()))
    });
    let mut said: Vec<_> = said.collect();
    said.sort();
    said
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn the_second_ingress_is_flaggers_and_the_users_is_only_read() {
    let before = world(canary_analysis());
    let world = reconciled(before.clone(), &Weights::PRIMARY);
    let ingress = ours(&world);
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
    let source = |world: &World| world.object(Kind::Ingress, "web").cloned();
    assert_eq!(source(&world), source(&before));
    let world = routed(world, &Weights::canary(10));
    assert_eq!(
        said(&world),
        pairs(&[("canary", "true"), ("canary-weight", "10")])
    );
    assert_eq!(read(&world), Ok(Weights::canary(10)));
}

#[test]
fn the_annotations_have_the_prefix_that_the_operator_was_started_with() {
    let mut world = world(canary_analysis());
    Arc::make_mut(&mut world.settings).ingress_annotations_prefix = "custom.io".to_owned();
    let world = routed(reconciled(world, &Weights::PRIMARY), &Weights::canary(50));
    assert_eq!(
        metadata(ours(&world), "annotations")["custom.io/canary-weight"],
        "50"
    );
    assert_eq!(read(&world), Ok(Weights::canary(50)));
}

#[test]
fn who_has_the_header_or_the_cookie_meets_the_version() {
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
            json!([{"headers": {"x-user": {"regex": "in.*"}, "cookie": {"exact": "canary"}}}]),
            vec![
                ("canary-by-cookie", "canary"),
                ("canary-by-header", "x-user"),
                ("canary-by-header-pattern", "in.*"),
            ],
        ),
    ] {
        let world = reconciled(world(test(conditions)), &Weights::PRIMARY);
        assert_eq!(said(&world), pairs(&at_rest));
        let world = routed(world, &Weights::CANARY);
        let mut during = pairs(&[&at_rest[..], &more].concat());
        during.sort();
        assert_eq!(said(&world), during);
        assert_eq!(read(&world), Ok(Weights::CANARY));
        assert_eq!(reconcile(&world, &Weights::CANARY), Ok(vec![]));
        let world = routed(world, &Weights::PRIMARY);
        assert_eq!(said(&world), pairs(&at_rest));
        assert_eq!(read(&world), Ok(Weights::PRIMARY));
    }
}

/// Flagger leaves a part of it out.
#[test]
fn a_test_that_nginx_cannot_be_told_is_refused() {
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
        (
            json!([{"uri": {"prefix": "/"}}]),
            "a condition names no header",
        ),
    ] {
        let world = world(test(conditions));
        let refused = reconcile(&world, &Weights::PRIMARY).unwrap_err();
        assert!(
            refused.starts_with("spec.analysis.match: NGINX tells requests apart by one header")
                && refused.ends_with(why),
            "{refused}"
        );
        // In the middle of a release it still can be taken back.
        let half = Weights::canary(50);
        let released = routed(
            reconciled(self::world(canary_analysis()), &Weights::PRIMARY),
            &half,
        );
        let edited = World {
            objects: released.objects,
            ..world
        };
        assert!(set(&edited, &Weights::CANARY).is_err());
        assert_eq!(set(&edited, &Weights::PRIMARY).unwrap().len(), 1);
    }
}

#[test]
fn an_ingress_that_is_not_there_or_does_not_lead_to_the_apex_is_said() {
    let refused = |world: &World| reconcile(world, &Weights::PRIMARY).unwrap_err();
    let mut one = world(canary_analysis());
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
    assert!(objects(&one.canary).is_empty());
}

#[test]
fn the_users_changes_of_the_ingress_are_followed_with_the_weight_as_it_is() {
    let mut world = routed(
        reconciled(world(canary_analysis()), &Weights::PRIMARY),
        &Weights::canary(30),
    );
    let name = world.reference(Kind::Ingress, "web");
    let source = world.objects.get_mut(&name).unwrap();
    source["spec"]["rules"][0]["host"] = json!("new.example.com");
    let mut world = reconciled(world, &Weights::canary(30));
    assert_eq!(ours(&world)["spec"]["rules"][0]["host"], "new.example.com");
    assert_eq!(read(&world), Ok(Weights::canary(30)));
    // Without this annotation it would be an Ingress like any other, and get all the traffic.
    edit(&mut world, |ours| {
        let annotations = ours["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.remove("nginx.ingress.kubernetes.io/canary");
        annotations.insert("theirs".to_owned(), json!("stays"));
    });
    let world = reconciled(world, &Weights::canary(30));
    assert_eq!(
        said(&world),
        pairs(&[("canary", "true"), ("canary-weight", "30")])
    );
    assert_eq!(metadata(ours(&world), "annotations")["theirs"], "stays");
}

#[test]
fn a_weight_that_is_no_number_is_said_and_mended() {
    let mut world = reconciled(world(canary_analysis()), &Weights::PRIMARY);
    edit(&mut world, |ours| {
        ours["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"] = json!("x");
    });
    assert_eq!(
        read(&world).unwrap_err(),
        "failed to convert x to int: strconv.Atoi: parsing \"x\": invalid syntax"
    );
    let world = reconciled(world, &Weights::canary(20));
    assert_eq!(read(&world), Ok(Weights::canary(20)));
}

/// The canary's Service may go before the Ingress that leads to it.
#[test]
fn an_ingress_that_goes_with_the_canary_leads_where_the_users_leads() {
    let mut world = reconciled(world(canary_analysis()), &Weights::PRIMARY);
    assert_eq!(restore(&world), None, "nothing is routed by it");
    world = routed(world, &Weights::canary(30));
    let effect = restore(&world).unwrap();
    apply(&mut world, vec![effect]);
    let source = world.object(Kind::Ingress, "web").unwrap();
    assert_eq!(ours(&world)["spec"], source["spec"]);
    assert_eq!(restore(&world), None);
}
