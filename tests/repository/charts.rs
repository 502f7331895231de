//! The charts in `deploy/charts`. The CRDs, rights, rules for actions and the Prometheus are those of `kustomize` and of the code, and each
//! flag has a value.
//!
//! After a change of one of them, write them anew:
//!
//! ```text
//! UPDATE_CHARTS=1 cargo test --test repository charts
//! ```
//!
//! The tests with the real `helm` are in `tests/it/cluster/charts`.

use std::{collections::BTreeSet, fs};

use flagger_rs::{
    cli, loadtester,
    providers::{PROVIDERS, Pattern, Support},
};
use serde_json::{Map, Value, json};

use crate::{files, queries, routers};

const UPDATE: &str = "UPDATE_CHARTS=1 cargo test --test repository charts";

/// Flags that no value sets: they have no effect, are for work outside of a cluster, or the chart sets them itself.
const WITHOUT_VALUE: [&str; 10] = [
    "control-loop-interval",
    "enable-leader-election",
    "kubeconfig",
    "kubeconfig-burst",
    "kubeconfig-qps",
    "leader-election-namespace",
    "master",
    "port",
    "threadiness",
    "version",
];

/// Flags that users set by `extraArgs` or `env`.
const IN_EXTRA_ARGS: [&str; 6] = [
    "allow",
    "concurrency",
    "gates",
    "slack-token",
    "zap-encoding",
    "zap-replace-globals",
];

#[test]
fn the_charts_have_what_kustomize_and_the_code_have() {
    let stale: Vec<_> = generated()
        .into_iter()
        .filter(|(path, text)| {
            let path = files::path(path);
            if std::env::var_os("UPDATE_CHARTS").is_some() {
                fs::write(&path, text).unwrap();
            }
            fs::read_to_string(path).unwrap_or_default() != *text
        })
        .map(|(path, _)| path)
        .collect();
    assert!(stale.is_empty(), "stale: {stale:?}: {UPDATE}");
}

/// The files of the charts that are generated from other files.
fn generated() -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(files::path(path)).unwrap();
    let head = format!("# Generated: {UPDATE}\n");
    let yaml =
        |value: &Value| head.clone() + serde_saphyr::to_string(value).unwrap().trim_end() + "\n";
    let known = |chart: &str| {
        let schema = read(&format!("deploy/charts/{chart}/values.schema.json"));
        yaml(&known_values(&serde_json::from_str(&schema).unwrap()))
    };
    let actions = ["policy", "roles"].map(|part| read(&format!("kustomize/actions/{part}.yaml")));
    [
        ("flagger/crds/crd.yaml", read("crds/ALL-IN-ONE.yaml")),
        (
            "flagger/files/prometheus.yml",
            read("kustomize/base/prometheus/prometheus.yml"),
        ),
        ("flagger/files/actions.yaml", actions.join("---\n")),
        (
            "flagger/files/alerts.yaml",
            read("deploy/monitoring/alerts.yaml"),
        ),
        ("flagger/files/dashboard.json", read(queries::DASHBOARD)),
        ("flagger/files/rights.yaml", yaml(&rights())),
        ("flagger/files/known-values.yaml", known("flagger")),
        ("loadtester/files/known-values.yaml", known("loadtester")),
    ]
    .map(|(path, text)| (format!("deploy/charts/{path}"), text))
    .to_vec()
}

/// The names of values: `true` for those with any content.
fn known_values(schema: &Value) -> Value {
    let Some(properties) = schema["properties"].as_object() else {
        return json!(true);
    };
    let names = properties
        .iter()
        .map(|(name, schema)| (name.clone(), known_values(schema)));
    Value::Object(names.collect())
}

/// The rights of the operator and of users, and which of them each provider needs.
fn rights() -> Value {
    let rules = |file: &str, name: &str| {
        let objects = files::objects(&files::path("kustomize/base/flagger").join(file));
        let mut roles = objects
            .into_iter()
            .filter(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == name);
        roles.next().unwrap()["rules"].clone()
    };
    let routers = components();
    let providers: Vec<_> = PROVIDERS
        .iter()
        .map(|provider| {
            let (name, is_prefix) = match provider.pattern {
                Pattern::Exactly(name) => (name, false),
                Pattern::Prefix(name) => (name, true),
            };
            let of = match provider.router {
                Support::Own(router) => {
                    let kinds = router
                        .objects(&routers::canary())
                        .into_iter()
                        .map(|object| {
                            let (group, _) = object.kind.group_version();
                            (group, object.kind.plural())
                        });
                    granting(&routers, &kinds.collect())
                }
                // The router is Istio's.
                Support::Istio => vec!["istio"],
            };
            json!({"name": name, "isPrefix": is_prefix, "routers": of})
        })
        .collect();
    json!({
        "base": rules("account.yaml", "flagger"),
        "routers": routers,
        "users": {"view": rules("users.yaml", "flagger-view"), "edit": rules("users.yaml", "flagger-edit")},
        "providers": providers,
    })
}

/// The rules of each component with rights: the routers, and others if there are any.
fn components() -> Map<String, Value> {
    let mut found = Map::new();
    for group in fs::read_dir(files::path("kustomize/base")).unwrap() {
        for component in fs::read_dir(group.unwrap().path()).unwrap() {
            let component = component.unwrap();
            let rights = component.path().join("rights.yaml");
            if !rights.is_file() {
                continue;
            }
            let patches = files::objects(&rights);
            let operations = patches.iter().flat_map(|patch| patch.as_array().unwrap());
            let rules: Value = operations.map(|add| add["value"].clone()).collect();
            found.insert(component.file_name().into_string().unwrap(), rules);
        }
    }
    assert!(found.len() > 5, "{found:?}");
    found
}

/// The components that grant something for one of these kinds.
fn granting<'a>(
    components: &'a Map<String, Value>,
    kinds: &BTreeSet<(&str, &str)>,
) -> Vec<&'a str> {
    let has = |rule: &Value, field: &str, name: &str| {
        let mut names = rule[field].as_array().unwrap().iter();
        names.any(|other| other == name)
    };
    let grants = |rules: &Value| {
        rules.as_array().unwrap().iter().any(|rule| {
            kinds.iter().any(|(group, plural)| {
                has(rule, "apiGroups", group) && has(rule, "resources", plural)
            })
        })
    };
    let found = components.iter().filter(|(_, rules)| grants(rules));
    found.map(|(name, _)| name.as_str()).collect()
}

#[test]
fn each_flag_has_a_value_in_its_chart() {
    let read = |path: &str| fs::read_to_string(files::path("deploy/charts").join(path)).unwrap();
    let operator = read("flagger/templates/_arguments.tpl");
    let tester = read("loadtester/templates/_helpers.tpl");
    let flags = cli::FLAGS.iter().map(|flag| (flag.name, &operator));
    let flags = flags.chain(loadtester::args::FLAGS.iter().map(|flag| (flag.0, &tester)));
    let missing = flags.filter(|(name, template)| {
        let is_set = [format!("\"{name}\""), format!("\"-{name}=")];
        !is_set.iter().any(|text| template.contains(text))
            && !WITHOUT_VALUE.contains(name)
            && !IN_EXTRA_ARGS.contains(name)
    });
    let missing: Vec<_> = missing.map(|(name, _)| name).collect();
    assert!(missing.is_empty(), "no value sets {missing:?}");
}

#[test]
fn the_versions_of_the_charts_are_that_of_the_operator() {
    for chart in ["flagger", "loadtester"] {
        let path = files::path("deploy/charts").join(chart).join("Chart.yaml");
        let [chart] = files::objects(&path).try_into().unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }
}

/// Every default has a type in the schema, and every value with a default is known.
#[test]
fn the_schema_has_each_default() {
    for chart in ["flagger", "loadtester"] {
        let folder = files::path("deploy/charts").join(chart);
        let [values] = files::objects(&folder.join("values.yaml"))
            .try_into()
            .unwrap();
        let schema = fs::read_to_string(folder.join("values.schema.json")).unwrap();
        let known = known_values(&serde_json::from_str(&schema).unwrap());
        for (name, value) in values.as_object().unwrap() {
            let names = value.as_object().filter(|_| known[name].is_object());
            let inner = names.into_iter().flatten();
            let missing: Vec<_> = inner
                .filter(|(inner, _)| known[name][*inner].is_null())
                .collect();
            assert!(
                !known[name].is_null() && missing.is_empty(),
                "{chart}: {name} {missing:?}"
            );
        }
    }
}
