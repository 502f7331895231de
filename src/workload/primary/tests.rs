use super::*;

fn target() -> Value {
    json!({"metadata": {"name": "podinfo", "namespace": "test", "uid": "u", "generation": 3,
            "labels": {"app": "podinfo", "team": "a"}, "annotations": {"note": "x", "kustomize.toolkit.fluxcd.io/reconcile": "disabled"}},
        "spec": {"replicas": 0, "minReadySeconds": 3, "strategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": {"app": "podinfo", "other": "y"}},
            "template": {"metadata": {"labels": {"app": "podinfo", "other": "y"}, "annotations": {"scrape": "true"}},
                "spec": {"containers": [{"name": "podinfod", "image": "podinfo:1"}],
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                        {"podAffinityTerm": {"labelSelector": {"matchLabels": {"app": "podinfo", "other": "podinfo"}}}}]}},
                    "topologySpreadConstraints": [{"labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["podinfo"]}]}}]}}}})
}

fn with<T>(test: impl FnOnce(Primary<'_>) -> T) -> T {
    let target = target();
    let label = || [("app".to_owned(), "podinfo-primary".to_owned())];
    let selection = Selection {
        label: ("app".to_owned(), "podinfo".to_owned()),
        canary: [("app".to_owned(), "podinfo".to_owned())].into(),
        primary: label().into(),
        of_primary_pods: label().into(),
    };
    test(Primary {
        kind: TargetKind::Deployment,
        target: &target,
        name: "podinfo-primary",
        selection: &selection,
        selector_labels: &["app".to_owned(), "name".to_owned()],
        include_label_prefix: &["te".to_owned()],
        tracked: &BTreeMap::new(),
        flagger_id: "id",
        owner: json!({"uid": "c"}),
        autoscaled: false,
    })
}

#[test]
fn the_primary_is_the_target_under_its_own_label() {
    with(|primary| {
        let Action::Create(object) = primary.create().unwrap().action else {
            panic!("not a create")
        };
        assert_eq!(
            object["metadata"]["labels"],
            json!({"app": "podinfo-primary", "team": "a"})
        );
        assert_eq!(object["metadata"]["annotations"], json!({"note": "x"}));
        assert_eq!(
            object["spec"]["selector"],
            json!({"matchLabels": {"app": "podinfo-primary"}})
        );
        assert_eq!(
            object["spec"]["replicas"], 1,
            "0 replicas are never copied to the primary"
        );
        assert_eq!(object["spec"]["minReadySeconds"], 3);
        let template = &object["spec"]["template"];
        assert_eq!(
            template["metadata"]["labels"],
            json!({"app": "podinfo-primary", "other": "y"})
        );
        assert_eq!(
            template["metadata"]["annotations"],
            json!({"scrape": "true", "flagger-id": "id"})
        );
        assert_eq!(
            template.pointer("/spec/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/0/podAffinityTerm/labelSelector/matchLabels"),
            Some(&json!({"app": "podinfo-primary", "other": "podinfo"}))
        );
        assert_eq!(
            template.pointer(
                "/spec/topologySpreadConstraints/0/labelSelector/matchExpressions/0/values/0"
            ),
            Some(&json!("podinfo-primary"))
        );
    });
}

#[test]
fn a_repeated_promotion_changes_nothing() {
    with(|primary| {
        let Action::Create(mut object) = primary.create().unwrap().action else {
            panic!("not a create")
        };
        assert_eq!(primary.promote(&object, false), None);
        assert!(primary.runs_the_target(&object, "") && primary.was_promoted(&object, "id", ""));
        object["spec"]["template"]["metadata"]["annotations"]["flagger-id"] = json!("other");
        assert!(primary.runs_the_target(&object, "") && !primary.was_promoted(&object, "id", ""));
        object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("podinfo:0");
        object["metadata"]["uid"] = json!("p");
        object["metadata"]["generation"] = json!(7);
        assert!(!primary.runs_the_target(&object, ""));
        let Some(Write {
            action: Action::Patch(patch),
            ..
        }) = primary.promote(&object, false)
        else {
            panic!("not a patch")
        };
        assert_eq!(
            patch[0],
            json!({"op": "test", "path": "/metadata/uid", "value": "p"})
        );
        assert_eq!(
            patch[1],
            json!({"op": "test", "path": "/metadata/generation", "value": 7})
        );
        assert_eq!(patch[2]["path"], "/spec/template");
        assert!(
            !patch.to_string().contains("/spec/replicas"),
            "0 replicas are never copied to the primary"
        );
    });
}

/// Flagger removes such labels and annotations.
#[test]
fn a_promotion_leaves_the_labels_and_annotations_of_others() {
    with(|primary| {
        let Action::Create(mut object) = primary.create().unwrap().action else {
            panic!("not a create")
        };
        object["spec"]["template"] = json!({});
        object["metadata"]["labels"]["cost"] = json!("7");
        object["metadata"]["labels"]["team"] = json!("before");
        object["metadata"]["annotations"] = json!({"reloader": "true", "note": "of the target", "te/old": "of the target, which has it no more"});
        let Some(Action::Patch(patch)) = primary.promote(&object, false).map(|write| write.action)
        else {
            panic!("not a patch")
        };
        let operations = patch.as_array().unwrap();
        let value = |path: &str| {
            let mut found = operations.iter().filter(|it| it["path"] == path);
            found.next().unwrap()["value"].clone()
        };
        assert_eq!(
            value("/metadata/labels"),
            json!({"app": "podinfo-primary", "team": "a", "cost": "7"})
        );
        assert_eq!(value("/metadata/annotations"), json!({"reloader": "true"}));
    });
}

#[test]
fn a_list_contains_another_if_it_has_its_objects_in_the_same_order() {
    for (live, wanted, expected) in [
        (json!([{"name": "a", "x": 1}]), json!([{"name": "a"}]), true),
        (
            json!([{"name": "p"}, {"name": "a"}, {"name": "q"}, {"name": "b"}]),
            json!([{"name": "a"}, {"name": "b"}]),
            true,
        ),
        (
            json!([{"name": "b"}, {"name": "a"}]),
            json!([{"name": "a"}, {"name": "b"}]),
            false,
        ),
        (
            json!([{"name": "a"}]),
            json!([{"name": "a"}, {"name": "a"}]),
            false,
        ),
        (json!([{"name": "a"}]), json!([]), true),
        (json!(["-v"]), json!([]), false),
        (json!(["-v", "-x"]), json!(["-v"]), false),
        (json!(null), json!([{"name": "a"}]), false),
    ] {
        assert_eq!(contains(&live, &wanted), expected, "{live} {wanted}");
    }
}

#[test]
fn the_same_promotion_has_the_same_id() {
    assert_eq!(flagger_id("u", "v1-a", "{}"), flagger_id("u", "v1-a", "{}"));
    assert_ne!(flagger_id("u", "v1-a", "{}"), flagger_id("u", "v1-b", "{}"));
    assert_eq!(flagger_id("u", "v1-a", "{}").len(), 36);
}
