//! Checks that the manifests have the protections that the documents describe, and the rights that the operator needs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use flagger_rs::{
    check::{self, Scope, Subject},
    metrics::Server,
    snapshot::Kind,
};
use serde_json::{Value, json};

use crate::files;

/// The object of this kind and name in a file of `deploy`.
fn object(file: &str, kind: &str, name: &str) -> Value {
    let objects = files::objects(&files::path("deploy").join(file)).into_iter();
    let mut found =
        objects.filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// The pods of the operator and of the load tester.
fn pods() -> [Value; 2] {
    [
        ("istio.yaml", "flagger"),
        ("loadtester.yaml", "flagger-loadtester"),
    ]
    .map(|(file, name)| object(file, "Deployment", name)["spec"]["template"]["spec"].clone())
}

/// The rules that the components in a folder of `kustomize/base` add to those of the account.
fn added_by(folder: &str) -> Value {
    let folder = files::path("kustomize/base").join(folder);
    let components = std::fs::read_dir(folder).unwrap();
    let patches =
        components.flat_map(|one| files::objects(&one.unwrap().path().join("rights.yaml")));
    let operations = patches.flat_map(|patch| patch.as_array().unwrap().clone());
    operations
        .map(|operation| operation["value"].clone())
        .collect()
}

/// The rights of these rules: API group, resource, name of the only object, verb.
fn granted(rules: &[Value]) -> BTreeSet<(String, String, Option<String>, String)> {
    let list = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .map(|item| item.as_str().unwrap().to_owned())
            .collect()
    };
    let mut granted = BTreeSet::new();
    for rule in rules {
        let [groups, resources, names, verbs] =
            ["apiGroups", "resources", "resourceNames", "verbs"].map(|field| list(&rule[field]));
        for (group, resource) in groups
            .iter()
            .flat_map(|group| resources.iter().map(move |it| (group, it)))
        {
            for verb in &verbs {
                granted.insert((
                    group.clone(),
                    resource.clone(),
                    names.first().cloned(),
                    verb.clone(),
                ));
            }
        }
    }
    granted
}

/// `it` and `conformance` release through all routers with one operator.
#[test]
fn the_overlay_of_tests_has_the_rights_for_all_routers() {
    let [overlay] = files::objects(&files::path("tests/all-routers/kustomization.yaml"))
        .try_into()
        .unwrap();
    let listed = overlay["components"].as_array().unwrap().iter();
    let listed = listed.map(|path| {
        path.as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    });
    let there = std::fs::read_dir(files::path("kustomize/base/routers")).unwrap();
    let there = there.map(|router| router.unwrap().file_name().into_string().unwrap());
    // The overlay for Istio has those of Istio, and Skipper's are those of NGINX.
    let there = there.filter(|name| name != "istio" && name != "skipper");
    assert_eq!(listed.collect::<BTreeSet<_>>(), there.collect());
}

/// The table of kinds and the manifests must change together.
#[test]
fn the_rights_for_all_kinds_are_those_of_the_manifests() {
    let account = files::objects(&files::path("kustomize/base/flagger/account.yaml"));
    let roles = account
        .iter()
        .filter(|doc| doc["kind"] == "ClusterRole" || doc["kind"] == "Role");
    let rules = roles.map(|role| role["rules"].clone());
    let rules = rules.chain(["routers", "metrics"].map(added_by));
    let rules: Vec<_> = rules
        .flat_map(|rules| rules.as_array().unwrap().clone())
        .collect();
    let alerts = json!([{"name": "chat", "severity": "info", "providerRef": {"name": "chat"}}]);
    let spec = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80},
        "revertOnDeletion": true, "analysis": {"alerts": alerts}});
    let canary = json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": spec});
    let queries = [
        ("keptn", "keptnmetric/test/speed"),
        ("keptn", "analysis/test/podinfo"),
        ("externalmetrics", "test/orders"),
    ];
    let queried = queries.map(|(type_, query)| {
        let spec = serde_json::from_value(json!({"type": type_})).unwrap();
        Server::of(&spec, None, None)
            .unwrap()
            .queried(query)
            .unwrap()
            .unwrap()
    });
    let subject = Subject {
        canary: serde_json::from_value(canary).unwrap(),
        objects: Kind::ALL
            .iter()
            .map(|kind| kind.reference("test", "podinfo"))
            .collect(),
        queried: queried.into(),
    };
    let lease = ("flagger-leader-election", "istio-system");
    let needed = check::rights(&[subject], &Scope::All, Some(lease), true);
    let needed = needed.into_keys().map(|right| {
        let [group, resource, verb] = [right.group, right.resource, right.verb].map(str::to_owned);
        (group, resource, right.name.clone(), verb)
    });
    assert_eq!(needed.collect::<BTreeSet<_>>(), granted(&rules));
}

#[test]
fn the_operator_may_delete_nothing_but_its_records() {
    let mut rules = vec![
        object("istio.yaml", "ClusterRole", "flagger")["rules"].clone(),
        object("istio.yaml", "Role", "flagger-leader-election")["rules"].clone(),
    ];
    rules.push(added_by("routers"));
    // Besides its records, the operator deletes only Analyses of Keptn. That right is in a component of its own, `base/metrics/keptn`.
    let rules = rules.iter().flat_map(|rules| rules.as_array().unwrap());
    let rules = rules.filter(|rule| rule["resources"] != json!(["releases"]));
    let verbs: Vec<_> = rules
        .flat_map(|rule| rule["verbs"].as_array().unwrap())
        .collect();
    assert!(verbs.len() > 30, "{verbs:?}");
    for verb in verbs {
        let deletes = ["delete", "deletecollection", "*"].iter();
        assert!(deletes.clone().all(|deletes| verb != deletes), "{verb}");
    }
}

#[test]
fn the_containers_have_no_root_no_capabilities_and_a_read_only_file_system() {
    for pod in pods() {
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        let context = &pod["containers"][0]["securityContext"];
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
    }
}

/// The images run on their own, in manifests of Flagger, and in ours: by the same command, at the same port, as the same user.
#[test]
fn the_images_start_as_the_manifests_start_them() {
    let dockerfile = std::fs::read_to_string(files::path("Dockerfile")).unwrap();
    // The last two stages are the images: the load tester's, and then the operator's.
    let stages: Vec<_> = dockerfile.split("\nFROM ").collect();
    let images = stages.iter().rev();
    for (pod, image) in pods().into_iter().zip(images) {
        let instruction = |name: &str| {
            let mut lines = image.lines();
            lines.find_map(|line| line.strip_prefix(name)).unwrap()
        };
        let container = &pod["containers"][0];
        let command: Value = serde_json::from_str(instruction("ENTRYPOINT ")).unwrap();
        assert_eq!(command[0], container["command"][0]);
        let port = &container["ports"][0]["containerPort"];
        assert_eq!(instruction("EXPOSE "), port.to_string());
        let context = &pod["securityContext"];
        let user = format!("{}:{}", context["runAsUser"], context["runAsGroup"]);
        assert_eq!(instruction("USER "), user);
        let folder = Path::new(instruction("WORKDIR "));
        let program = folder.join(command[0].as_str().unwrap());
        let program = program.components().collect::<PathBuf>();
        assert!(
            dockerfile.contains(program.to_str().unwrap()),
            "{program:?}"
        );
    }
}

/// Anyone who can reach the load tester can run commands in its pod.
#[test]
fn the_pod_of_the_load_tester_has_no_token_and_only_operators_and_their_prometheus_reach_its_port()
{
    let [_, tester] = pods();
    assert_eq!(tester["automountServiceAccountToken"], false);
    let policy = object("loadtester.yaml", "NetworkPolicy", "flagger-loadtester");
    let port = |rule: &&Value| {
        let mut ports = rule["ports"].as_array().unwrap().iter();
        ports.any(|port| port["port"] == 8080)
    };
    let rules = policy["spec"]["ingress"].as_array().unwrap();
    let admitting: Vec<_> = rules.iter().filter(port).collect();
    let [rule] = admitting.as_slice() else {
        panic!("{policy}");
    };
    let [own, others] = rule["from"].as_array().unwrap().as_slice() else {
        panic!("{rule}");
    };
    assert_eq!(
        *own,
        json!({"podSelector": {"matchLabels": {"app": "flagger"}}})
    );
    let expected =
        json!([{"key": "app", "operator": "In", "values": ["flagger", "flagger-prometheus"]}]);
    assert_eq!(others["podSelector"]["matchExpressions"], expected);
    let namespaces = &others["namespaceSelector"]["matchExpressions"][0]["values"];
    let mut overlays = namespaces_of_operators();
    overlays.sort();
    overlays.dedup();
    let mut admitted: Vec<String> = serde_json::from_value(namespaces.clone()).unwrap();
    admitted.sort();
    assert_eq!(admitted, overlays);
}

/// The namespaces of the overlays with an operator, except that of the load tester itself.
fn namespaces_of_operators() -> Vec<String> {
    let readme = std::fs::read_to_string(files::path("kustomize/README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    let others = ["| `namespaced`", "| `dashboard`"];
    let is_other = |row: &&str| others.iter().any(|other| row.starts_with(other));
    let rows = rows.filter(|row| row.contains("/flagger:") && !is_other(row));
    let namespaces = rows.filter_map(|row| row.split('|').nth(2)?.split('`').nth(1));
    namespaces.map(str::to_owned).collect()
}
