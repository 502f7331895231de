//! Checks that the manifests have the protections that the documents describe.

use std::path::{Path, PathBuf};

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

#[test]
fn the_operator_may_delete_nothing_but_its_records() {
    let mut rules = vec![
        object("istio.yaml", "ClusterRole", "flagger")["rules"].clone(),
        object("istio.yaml", "Role", "flagger-leader-election")["rules"].clone(),
    ];
    for router in std::fs::read_dir(files::path("kustomize/base/routers")).unwrap() {
        let patch = files::objects(&router.unwrap().path().join("rights.yaml"));
        let added = patch.iter().flat_map(|patch| patch.as_array().unwrap());
        rules.push(added.map(|operation| operation["value"].clone()).collect());
    }
    // (An Analysis of Keptn is the only object that the operator deletes; the right is in a component of its own, `base/metrics/keptn`.)
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
        assert!(dockerfile.contains(program.to_str().unwrap()), "{program:?}");
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
    let rows = rows.filter(|row| row.contains("/flagger:") && !row.starts_with("| `namespaced`"));
    let namespaces = rows.filter_map(|row| row.split('|').nth(2)?.split('`').nth(1));
    namespaces.map(str::to_owned).collect()
}
