use super::*;

fn canary(service: Value) -> Canary {
    serde_json::from_value(
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "podinfo", "namespace": "test", "uid": "u"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": service, "analysis": {"interval": "1m", "threshold": 1, "stepWeight": 10}}}),
    )
    .unwrap()
}

fn template() -> Value {
    json!({"spec": {"containers": [
        {"name": "podinfod", "ports": [{"name": "http", "containerPort": 9898}, {"containerPort": 9999}]},
        {"name": "istio-proxy", "ports": [{"containerPort": 15090}]}]}})
}

fn selection() -> &'static Selection {
    static SELECTION: std::sync::LazyLock<Selection> = std::sync::LazyLock::new(|| {
        let label = |value: &str| [("app".to_owned(), value.to_owned())].into();
        Selection {
            label: ("app".to_owned(), "podinfo".to_owned()),
            canary: label("podinfo"),
            primary: label("podinfo-primary"),
            of_primary_pods: label("podinfo-primary"),
        }
    });
    &SELECTION
}

fn services<'a>(canary: &'a Canary, template: &'a Value) -> Services<'a> {
    Services {
        canary,
        selection: selection(),
        template,
    }
}

fn created(canary: &Canary) -> Value {
    let template = template();
    match services(canary, &template).apex(None).unwrap().action {
        Action::Create(object) => object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_apex_selects_the_primary() {
    let service = created(&canary(
        json!({"port": 80, "targetPort": 9898, "appProtocol": "http", "headless": true}),
    ));
    assert_eq!(
        service["spec"]["selector"],
        json!({"app": "podinfo-primary"})
    );
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(
        service["spec"]["ports"],
        json!([{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 9898, "appProtocol": "http"}])
    );
    assert_eq!(service["metadata"]["labels"], json!({"app": "podinfo"}));
    assert_eq!(
        service["metadata"]["annotations"]
            .as_object()
            .unwrap()
            .len(),
        2
    );
}

#[test]
fn port_discovery_skips_the_proxys_ports() {
    let service = created(&canary(
        json!({"port": 80, "targetPort": "http", "portDiscovery": true}),
    ));
    let names: Vec<_> = service["spec"]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["http", "tcp-podinfod-1"]);
}

#[test]
fn the_repair_of_an_owned_service_keeps_unmanaged_metadata() {
    let canary = canary(
        json!({"port": 9898, "apex": {"annotations": {"test": "expected"}}, "unmanagedMetadata": {"annotations": ["unmanaged"]}}),
    );
    let template = template();
    let services = services(&canary, &template);
    let mut live = created(&canary);
    assert_eq!(services.apex(Some(&live)), None);
    live["metadata"]["annotations"]["unmanaged"] = json!("a");
    live["metadata"]["annotations"]["removable"] = json!("b");
    live["spec"]["ports"][0]["nodePort"] = json!(30000);
    live["spec"]["ports"][0]["port"] = json!(8080);
    let Some(Write {
        action: Action::Replace(repaired),
        ..
    }) = services.apex(Some(&live))
    else {
        panic!("no repair")
    };
    assert_eq!(repaired["spec"]["ports"][0]["port"], 9898);
    assert_eq!(repaired["spec"]["ports"][0]["nodePort"], 30000);
    let annotations = repaired["metadata"]["annotations"].as_object().unwrap();
    assert_eq!(
        (
            annotations.contains_key("unmanaged"),
            annotations.contains_key("removable")
        ),
        (true, false)
    );
    assert_eq!(services.apex(Some(&repaired)), None);
}

#[test]
fn a_service_without_our_owner_keeps_its_labels() {
    let canary = canary(json!({"port": 9898}));
    let template = template();
    let services = services(&canary, &template);
    let live = json!({"metadata": {"name": "podinfo", "labels": {"team": "a"}}, "spec": {"selector": {"app": "podinfo"}, "ports": [], "clusterIP": "10.0.0.1"}});
    let Some(Write {
        action: Action::Replace(repaired),
        ..
    }) = services.apex(Some(&live))
    else {
        panic!("no repair")
    };
    assert_eq!(repaired["metadata"]["labels"], json!({"team": "a"}));
    assert_eq!(
        repaired["spec"]["selector"],
        json!({"app": "podinfo-primary"})
    );
    assert_eq!(repaired["spec"]["clusterIP"], "10.0.0.1");
}

/// Each row has the owner, kubectl's last configuration, and the selector after the deletion of the Canary.
#[test]
fn a_deletion_gives_the_apex_the_selector_of_the_user_or_of_the_target() {
    let canary = canary(json!({"port": 9898}));
    let template = template();
    let services = services(&canary, &template);
    let applied = json!({"spec": {"selector": {"app": "mine"}}}).to_string();
    for (is_owned, applied, selector) in [
        (true, Some(applied.as_str()), Some("podinfo")),
        (true, None, Some("podinfo")),
        (false, Some(applied.as_str()), Some("mine")),
        (false, None, Some("podinfo")),
        (false, Some("?"), Some("podinfo")),
        (false, Some("{}"), Some("podinfo")),
    ] {
        let mut live = created(&canary);
        if !is_owned {
            live["metadata"]["ownerReferences"] = json!([]);
        }
        if let Some(applied) = applied {
            live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
                json!(applied);
        }
        let write = services.restored_apex(Some(&live)).unwrap();
        assert_eq!(
            write.refusal("no"),
            "reconcileService failed: service podinfo update error: no"
        );
        let mut expected = live.clone();
        expected["spec"]["selector"] = json!({"app": selector});
        let annotations = expected["metadata"]["annotations"].as_object_mut().unwrap();
        annotations.retain(|key, _| is_owned || !key.contains("toolkit.fluxcd.io"));
        if annotations.is_empty() {
            expected["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("annotations");
        }
        assert_eq!(
            write.action,
            Action::Replace(expected.clone()),
            "{is_owned} {applied:?}"
        );
        assert_eq!(services.restored_apex(Some(&expected)), None);
    }
    assert_eq!(services.restored_apex(None), None);
}

#[test]
fn the_order_of_ports_is_no_drift() {
    let canary = canary(json!({"port": 9898, "targetPort": "http", "portDiscovery": true}));
    let template = template();
    let services = services(&canary, &template);
    let mut live = created(&canary);
    live["spec"]["ports"].as_array_mut().unwrap().reverse();
    assert_eq!(services.apex(Some(&live)), None);
    live["spec"]["ports"].as_array_mut().unwrap().pop();
    assert!(services.apex(Some(&live)).is_some());
}
