use super::*;

#[test]
fn checksums_are_flaggers() {
    let sum = |data: Value| checksum(&json!({"data": data}));
    assert_eq!(sum(json!({"color": "red"})), "241889ca0604e333");
    assert_eq!(checksum(&json!({})), "74234e98afe7498f");
    assert_eq!(sum(json!({})), "44136fa355b3678a");
    assert_eq!(sum(json!({"apiKey": "dGVzdA=="})), "3930f0692c2295eb");
    assert_eq!(sum(json!({"a": "<b>&"})), "a4e4bfa3763b0559");
}

#[test]
fn a_change_of_binary_data_changes_the_checksum() {
    let with = |bytes: &str| checksum(&json!({"data": {"a": "b"}, "binaryData": {"f": bytes}}));
    assert_ne!(with("AA=="), with("AQ=="));
}

/// The usual name of each copy.
fn usual(references: BTreeMap<ConfigName, bool>) -> BTreeMap<ConfigName, String> {
    let references = references.into_keys();
    references
        .map(|config| (config.clone(), copy_name(&config.1)))
        .collect()
}

fn template() -> Value {
    json!({"spec": {
        "volumes": [
            {"name": "a", "configMap": {"name": "files"}},
            {"name": "b", "secret": {"secretName": "keys", "optional": true}},
            {"name": "c", "projected": {"sources": [{"configMap": {"name": "more"}}, {"secret": {"name": "certs"}}]}},
            {"name": "d", "emptyDir": {}}],
        "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "init"}}]}],
        "containers": [{"name": "c",
            "env": [{"name": "X", "value": "1"}, {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}],
            "envFrom": [{"secretRef": {"name": "env", "optional": true}}]}]}})
}

#[test]
fn references_are_found_and_renamed_in_every_place() {
    let found = references(&template());
    let names: Vec<_> = found
        .iter()
        .map(|((kind, name), optional)| format!("{} {optional}", status_key(*kind, name)))
        .collect();
    assert_eq!(
        names,
        [
            "configmap/files false",
            "configmap/init false",
            "configmap/more false",
            "secret/certs false",
            "secret/env true",
            "secret/keys false"
        ]
    );
    let renamed = with_primary_names(template(), &usual(found));
    let copies: Vec<_> = references(&renamed)
        .into_keys()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(
        copies,
        [
            "files-primary",
            "init-primary",
            "more-primary",
            "certs-primary",
            "env-primary",
            "keys-primary"
        ]
    );
}

#[test]
fn an_untracked_config_keeps_its_name() {
    assert_eq!(with_primary_names(template(), &BTreeMap::new()), template());
    assert!(!is_tracked(
        &json!({"metadata": {"annotations": {TRACKING: "disabled"}}})
    ));
    assert!(!is_tracked(
        &json!({"type": "kubernetes.io/service-account-token"})
    ));
    assert!(is_tracked(&json!({"type": "Opaque"})) && is_tracked(&json!({"data": {}})));
}

/// The cache keeps no content, but a decision must see the same config.
#[test]
fn a_hashed_config_is_the_same_config_without_its_content() {
    let owners = json!([{"kind": "Canary", "name": "c"}]);
    let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "ownerReferences": owners,
        "labels": {"l": "1"}, "annotations": {TRACKING: "disabled", ADOPT: "true", "other": "x"}});
    let full = json!({"metadata": metadata, "type": "Opaque", "immutable": true, "data": {"k": "v"}, "binaryData": {"b": "AA=="}});
    let hashed = hashed(&full);
    assert_eq!(
        hashed,
        json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "ownerReferences": owners,
            "annotations": {TRACKING: "disabled", ADOPT: "true"}}, "immutable": true, "type": "Opaque", "checksum": checksum(&full)})
    );
    assert_eq!(checksum(&hashed), checksum(&full));
    assert_eq!([is_tracked(&hashed), is_tracked(&full)], [false; 2]);
    assert!(is_complete(&full) && !is_complete(&hashed));
    assert!(copies::is_same(&hashed, &full) && copies::is_same(&full, &hashed));
    let untracked = json!({"metadata": {"name": "a"}, "data": {}});
    assert_eq!(super::hashed(&untracked)["metadata"], json!({"name": "a"}));
}

/// The types that Flagger tracks (`pkg/canary/config_tracker.go`), and values of the annotation.
#[test]
fn secrets_of_users_are_tracked_unless_an_annotation_disables_it() {
    for (type_, is_tracked) in [
        ("Opaque", true),
        ("kubernetes.io/basic-auth", true),
        ("kubernetes.io/ssh-auth", true),
        ("kubernetes.io/tls", true),
        ("kubernetes.io/dockerconfigjson", false),
        ("helm.sh/release.v1", false),
    ] {
        assert_eq!(
            super::is_tracked(&json!({"type": type_})),
            is_tracked,
            "{type_}"
        );
    }
    for (value, is_tracked) in [
        ("disabled", false),
        ("disable", false),
        ("enabled", true),
        ("", true),
    ] {
        let object = json!({"metadata": {"annotations": {"flagger.app/config-tracking": value}}});
        assert_eq!(super::is_tracked(&object), is_tracked, "{value}");
    }
    assert_eq!(status_key(Kind::Secret, "a"), "secret/a");
}

/// If a template refers to a config twice, the last reference decides whether it is optional.
#[test]
fn each_place_of_a_template_can_name_a_config() {
    for (pod, name) in [
        (
            json!({"volumes": [{"configMap": {"name": "a", "optional": true}}]}),
            "configmap/a",
        ),
        (
            json!({"volumes": [{"secret": {"secretName": "a", "optional": true}}]}),
            "secret/a",
        ),
        (
            json!({"volumes": [{"projected": {"sources": [{"configMap": {"name": "a", "optional": true}}]}}]}),
            "configmap/a",
        ),
        (
            json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "a", "optional": true}}]}}]}),
            "secret/a",
        ),
        (
            json!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "a", "optional": true}}}]}]}),
            "configmap/a",
        ),
        (
            json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "optional": true}}}]}]}),
            "secret/a",
        ),
        (
            json!({"containers": [{"envFrom": [{"configMapRef": {"name": "a", "optional": true}}]}]}),
            "configmap/a",
        ),
        (
            json!({"containers": [{"envFrom": [{"secretRef": {"name": "a", "optional": true}}]}]}),
            "secret/a",
        ),
        (
            json!({"initContainers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "a", "optional": true}}}]}]}),
            "secret/a",
        ),
        (
            json!({"volumes": [{"secret": {"secretName": "a"}}], "containers": [{"envFrom": [{"secretRef": {"name": "a", "optional": true}}]}]}),
            "secret/a",
        ),
    ] {
        let template = json!({"spec": pod});
        let found = references(&template).into_iter();
        let found: Vec<_> = found
            .map(|((kind, name), optional)| (status_key(kind, &name), optional))
            .collect();
        assert_eq!(found, [(name.to_owned(), true)], "{template}");
        let tracked = usual(references(&template));
        let renamed = with_primary_names(template.clone(), &tracked).to_string();
        assert_eq!(
            renamed,
            template.to_string().replace("\"a\"", "\"a-primary\"")
        );
    }
    let ignored = json!({"spec": {"imagePullSecrets": [{"name": "a"}], "ephemeralContainers": [{"envFrom": [{"secretRef": {"name": "a"}}]}]}});
    assert!(references(&ignored).is_empty(), "as in Flagger");
}
