//! Checks that the CRDs are generated from the current code and agree with Flagger's. `fields.txt` lists each field of Flagger's CRDs in a
//! line.

use serde_json::{Map, Value};

use crate::files;

#[test]
fn the_crds_in_the_repository_are_those_of_the_types() {
    let yaml = flagger_rs::api::crds_yaml().unwrap();
    let file = std::fs::read_to_string(files::path("crds/ALL-IN-ONE.yaml")).unwrap();
    assert!(
        yaml == file,
        "crds/ALL-IN-ONE.yaml is stale: cargo run --bin flagger -- crds > crds/ALL-IN-ONE.yaml"
    );
}

/// The test on a real control plane compares the whole file with what kustomize builds.
#[test]
fn the_manifest_has_the_same_crds() {
    // kustomize writes `1.0` as `1`.
    let text = |spec: &Value| spec.to_string().replace(".0,", ",").replace(".0}", "}");
    let manifest = files::objects(&files::path("deploy/istio.yaml"));
    for crd in flagger_rs::api::crds() {
        let name = &crd["metadata"]["name"];
        let mut installed = manifest.iter();
        let installed = installed.find(|object| object["metadata"]["name"] == *name);
        assert!(
            installed.is_some_and(|installed| text(&installed["spec"]) == text(&crd["spec"])),
            "{name} in deploy/istio.yaml is stale: kubectl kustomize kustomize/istio > deploy/istio.yaml"
        );
    }
}

#[test]
fn every_field_is_as_in_flagger() {
    let mut lines = Vec::new();
    for crd in flagger_rs::api::flagger_crds() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            flatten(
                &format!("{kind}.{part}"),
                &schema["properties"][part],
                schema["required"]
                    .as_array()
                    .is_some_and(|r| r.contains(&part.into())),
                &mut lines,
            );
        }
    }
    let table = include_str!("fields.txt");
    let expected: Vec<&str> = table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    let missing: Vec<_> = expected
        .iter()
        .filter(|line| !lines.iter().any(|l| l == *line))
        .collect();
    let extra: Vec<_> = lines
        .iter()
        .filter(|line| !expected.contains(&line.as_str()))
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "in the table only:\n{missing:#?}\nin the schema only:\n{extra:#?}"
    );
}

#[test]
fn the_names_and_columns_are_flaggers() {
    let text: Vec<String> = flagger_rs::api::flagger_crds()
        .iter()
        .map(|crd| {
            let version = &crd["spec"]["versions"][0];
            let columns: Vec<String> = version["additionalPrinterColumns"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| {
                    format!(
                        "{}={}:{}{}",
                        c["name"].as_str().unwrap(),
                        c["jsonPath"].as_str().unwrap(),
                        c["type"].as_str().unwrap(),
                        if c["priority"] == 1 { "*" } else { "" }
                    )
                })
                .collect();
            assert_eq!(
                crd["metadata"]["annotations"]["helm.sh/resource-policy"],
                "keep"
            );
            assert_eq!(
                crd["spec"]["names"]["categories"],
                serde_json::json!(["all"])
            );
            assert_eq!(crd["spec"]["names"].get("shortNames"), None);
            assert_eq!(version["subresources"], serde_json::json!({"status": {}}));
            format!(
                "{} {} {}",
                crd["metadata"]["name"].as_str().unwrap(),
                crd["spec"]["scope"].as_str().unwrap(),
                columns.join(" ")
            )
        })
        .collect();
    assert_eq!(
        text,
        [
            "alertproviders.flagger.app Namespaced Type=.spec.type:string",
            "canaries.flagger.app Namespaced Status=.status.phase:string Weight=.status.canaryWeight:string Suspended=.spec.suspend:boolean* FailedChecks=.status.failedChecks:string* Interval=.spec.analysis.interval:string* Mirror=.spec.analysis.mirror:boolean* StepWeight=.spec.analysis.stepWeight:string* StepWeights=.spec.analysis.stepWeights:string* MaxWeight=.spec.analysis.maxWeight:string* LastTransitionTime=.status.lastTransitionTime:string",
            "metrictemplates.flagger.app Namespaced Provider=.spec.provider.type:string",
        ]
    );
}

/// One line for each field: its path, its type, and all other properties of its schema except the description.
fn flatten(path: &str, schema: &Value, required: bool, lines: &mut Vec<String>) {
    let map = schema.as_object().cloned().unwrap_or_default();
    let kind = map.get("type").and_then(Value::as_str).unwrap_or("any");
    let rest: Map<_, _> = map
        .iter()
        .filter(|(key, _)| {
            !matches!(
                key.as_str(),
                "type"
                    | "description"
                    | "properties"
                    | "items"
                    | "additionalProperties"
                    | "required"
            )
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let rest = if rest.is_empty() {
        String::new()
    } else {
        format!(" {}", Value::Object(rest))
    };
    lines.push(format!(
        "{path}: {kind}{}{rest}",
        if required { " required" } else { "" }
    ));
    let names: Vec<&Value> = map
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    for (name, inner) in map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        flatten(
            &format!("{path}.{name}"),
            inner,
            names.iter().any(|n| n.as_str() == Some(name)),
            lines,
        );
    }
    if let Some(items) = map.get("items") {
        flatten(&format!("{path}[]"), items, false, lines);
    }
    if let Some(values) = map.get("additionalProperties") {
        flatten(&format!("{path}.*"), values, false, lines);
    }
}
