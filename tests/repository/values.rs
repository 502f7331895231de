//! The values of the charts and the arguments of the overlays reach the program that they are for. These tests read texts: Helm and
//! kustomize themselves are in `tests/it/cluster/charts` and `tests/it/cluster/overlays.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use regex::Regex;
use serde_json::Value;

use crate::files;

/// Values that templates do not read one by one.
const UNREAD: [&str; 1] = [
    // Helm has it in every chart.
    "global",
];

/// The texts of all files of a folder, and of its folders.
fn texts(folder: &Path) -> String {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let texts = entries.map(|path| {
        if path.is_dir() {
            texts(&path)
        } else {
            fs::read_to_string(path).unwrap()
        }
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn chart(name: &str) -> String {
    texts(&files::path("deploy/charts").join(name).join("templates"))
}

/// The first group of each match.
fn found<'a>(pattern: &str, text: &'a str) -> BTreeSet<&'a str> {
    let pattern = Regex::new(pattern).unwrap();
    let matches = pattern.captures_iter(text);
    matches
        .map(|found| found.get(1).unwrap().as_str())
        .collect()
}

/// The paths of all leaves.
fn leaves(known: &Value, path: &str, all: &mut BTreeSet<String>) {
    match known.as_object() {
        Some(inner) => inner.iter().for_each(|(name, value)| {
            leaves(value, &format!("{path}.{name}"), all);
        }),
        None => {
            all.insert(path.trim_start_matches('.').to_owned());
        }
    }
}

/// Helm renders a value with a misspelt name as empty, without an error.
#[test]
fn templates_read_each_value_of_the_schema_and_no_other() {
    for name in ["flagger", "loadtester"] {
        let path = format!("deploy/charts/{name}/files/known-values.yaml");
        let [known] = files::objects(&files::path(&path)).try_into().unwrap();
        let mut values = BTreeSet::new();
        leaves(&known, "", &mut values);
        let text = chart(name)
            .replace("(.Values", ".Values")
            .replace(").", ".");
        let read = found(r"\.Values((?:\.[A-Za-z]+)+)", &text);
        let read: BTreeSet<_> = read.iter().map(|path| &path[1..]).collect();
        assert!(read.len() > 20, "{read:?}");
        let is_part = |part: &str, of: &str| part == of || part.starts_with(&format!("{of}."));
        for path in &read {
            let is_known = values
                .iter()
                .any(|it| is_part(path, it) || is_part(it, path));
            assert!(is_known, "{name}: the schema has no {path}");
        }
        for value in &values {
            let is_read = read
                .iter()
                .any(|it| is_part(value, it) || is_part(it, value));
            let is_read = is_read || UNREAD.contains(&value.as_str());
            assert!(is_read, "{name}: no template reads {value}");
        }
    }
}

/// `slack-proxy-url` and `slack.proxyUrl` are both `slackProxyUrl`.
#[test]
fn each_flag_gets_the_value_of_its_name() {
    let camel_case = |words: &[&str]| -> String {
        let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
        let rest = words[1..].iter().map(|word| capital(word));
        std::iter::once(words[0].to_owned()).chain(rest).collect()
    };
    let text = chart("flagger");
    let pairs = Regex::new(r#""([a-z-]+)" \(?\.Values\)?((?:\)?\.[A-Za-z]+)+)"#).unwrap();
    let mut count = 0;
    for pair in pairs.captures_iter(&text) {
        let flag: Vec<_> = pair[1].split('-').collect();
        let value = pair[2].replace(')', "");
        let value: Vec<_> = value[1..].split('.').collect();
        assert_eq!(camel_case(&flag), camel_case(&value), "{}", &pair[0]);
        count += 1;
    }
    assert!(count > 15, "{count}");
}

/// Prometheus and the kubelet find a port by its name.
#[test]
fn each_port_that_is_named_is_a_port_of_a_container() {
    for folder in [
        "deploy/charts/flagger/templates",
        "deploy/charts/loadtester/templates",
        "kustomize/base/flagger",
        "kustomize/base/prometheus",
        "kustomize/tester",
        "kustomize/dashboard",
    ] {
        let text = texts(&files::path(folder));
        let ports = found(r"- name: ([a-z-]+)\s+containerPort: \d+", &text);
        let named = found(r"(?m)^\s*(?:- )?(?:targetP|p)ort: ([a-z][a-z-]*)$", &text);
        assert!(!ports.is_empty() && !named.is_empty(), "{folder}");
        assert!(named.is_subset(&ports), "{folder}: {named:?} of {ports:?}");
    }
}

#[test]
fn files_are_mounted_where_the_arguments_name_them() {
    let mounts = Regex::new(r"- name: ([a-z-]+)\s+mountPath: (\S+)").unwrap();
    for name in ["flagger", "loadtester"] {
        let text = chart(name);
        let volumes = found(
            r"- name: ([a-z-]+)\s+(?:secret|configMap|emptyDir|projected)\b",
            &text,
        );
        let mounts = mounts.captures_iter(&text);
        let mounts: BTreeMap<_, _> = mounts
            .map(|it| (it[1].to_owned(), it[2].to_owned()))
            .collect();
        for volume in mounts.keys() {
            assert!(volumes.contains(volume.as_str()), "{volume} of {volumes:?}");
        }
        if name == "flagger" {
            let folder = found(r"-kubeconfig-service-mesh=(/[^%]+)/%s", &text);
            assert_eq!(
                folder.first(),
                mounts.get("kubeconfig").map(String::as_str).as_ref()
            );
        }
    }
}

/// The arguments of an overlay's operator.
fn arguments(overlay: &str) -> Option<Vec<String>> {
    let patch = files::path("kustomize").join(overlay).join("patch.yaml");
    let [patch] = files::objects(patch.is_file().then_some(&patch)?)
        .try_into()
        .unwrap();
    let arguments = &patch["spec"]["template"]["spec"]["containers"][0]["args"];
    Some(serde_json::from_value(arguments.clone()).unwrap())
}

#[test]
fn each_overlay_has_the_arguments_that_the_readme_lists() {
    let readme = fs::read_to_string(files::path("kustomize/README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    let mut count = 0;
    for row in rows {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let Some(arguments) = arguments(cells[1].trim_matches('`')) else {
            continue;
        };
        let own = cells[3].split('`').filter(|text| text.starts_with('-'));
        let all = ["-log-level=info", "-include-label-prefix=app.kubernetes.io"];
        let expected: Vec<_> = all.into_iter().chain(own).collect();
        assert_eq!(arguments, expected, "{row}");
        count += 1;
    }
    assert_eq!(count, 15);
}

/// If an operator cannot reach its Prometheus, it rolls every version back.
#[test]
fn an_operator_with_a_prometheus_of_its_own_asks_it() {
    let service = files::path("kustomize/base/prometheus/service.yaml");
    let [service] = files::objects(&service).try_into().unwrap();
    let name = service["metadata"]["name"].as_str().unwrap();
    let port = &service["spec"]["ports"][0]["port"];
    let own = format!("-metrics-server=http://{name}:{port}");
    let mut with_own = 0;
    for overlay in fs::read_dir(files::path("kustomize")).unwrap() {
        let overlay = overlay.unwrap().file_name().into_string().unwrap();
        let Some(arguments) = arguments(&overlay) else {
            continue;
        };
        let file = files::path("kustomize")
            .join(&overlay)
            .join("kustomization.yaml");
        let text = fs::read_to_string(file).unwrap();
        let has_own = text.contains("- ../base/prometheus\n");
        assert_eq!(
            arguments.contains(&own),
            has_own,
            "{overlay}: {arguments:?}"
        );
        with_own += usize::from(has_own);
    }
    assert!(with_own > 5);
    // The chart's Service has the same port, and the name of the release.
    let text = chart("flagger");
    let asked = r#""http://%s-prometheus:(\d+)" \(include "flagger.fullname" \.\)"#;
    let asked = found(asked, &text);
    let named = r#"\$name := printf "(%s-prometheus)" \(include "flagger.fullname" \.\)"#;
    assert_eq!(found(named, &text).len(), 1, "the name of the Service");
    let service =
        r"kind: Service\nmetadata:\n  name: \{\{ \$name \}\}\n(?s:.*?)\n      port: (\d+)\n";
    assert_eq!(asked, found(service, &text));
    assert_eq!(asked, BTreeSet::from([port.to_string().as_str()]));
}
