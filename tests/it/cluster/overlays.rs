//! Checks that the overlays in `kustomize/` match their README, and that a real API server accepts them.

use std::collections::BTreeSet;

use flagger_rs::{
    cli::{
        self,
        client::{self, Program},
    },
    loadtester,
    shell::api_server::lease,
};
use serde_json::{Value, json};

use super::{Outcome, Rig, ensure, text};
use crate::files;

/// The kinds of objects that overlays have in their namespace.
const NAMESPACED: [&str; 8] = [
    "Deployment",
    "Service",
    "ServiceAccount",
    "ConfigMap",
    "Role",
    "RoleBinding",
    "NetworkPolicy",
    "PodDisruptionBudget",
];

/// The flags of each operator, which an overlay's arguments do not replace.
const COMMAND: [&str; 3] = [
    "./flagger",
    "-enable-leader-election=true",
    "-leader-election-namespace=$(POD_NAMESPACE)",
];

/// The description of an overlay in the README.
struct Row {
    overlay: String,
    namespace: String,
    /// Whether the overlay creates its namespace.
    is_made: bool,
    arguments: Vec<String>,
    images: BTreeSet<String>,
}

fn rows() -> Vec<Row> {
    let readme = std::fs::read_to_string(files::path("kustomize/README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<_> = line.split('|').collect();
        let code = |cell: usize| cells[cell].split('`').skip(1).step_by(2).map(str::to_owned);
        Row {
            overlay: code(1).collect(),
            namespace: code(2).collect(),
            is_made: cells[2].ends_with(", made "),
            arguments: code(3).collect(),
            images: code(4).collect(),
        }
    })
    .collect()
}

/// Builds each overlay, compares it with its description, and has the API server accept it without unknown fields.
pub async fn each_is_as_described_and_accepted(rig: &Rig) -> Outcome {
    // The CRDs of Linkerd are not installed here: a minimal CRD replaces them.
    rig.bed
        .apply(&authorization_policies().to_string())
        .await
        .map_err(text)?;
    let rows = rows();
    let described: BTreeSet<_> = rows.iter().map(|row| row.overlay.clone()).collect();
    let there = std::fs::read_dir(files::path("kustomize")).map_err(text)?;
    let there = there
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir() && entry.file_name() != "base");
    let there: BTreeSet<_> = there
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    ensure(described == there, format!("{described:?}, not {there:?}"))?;
    for row in rows {
        let with_name = |why: String| format!("kustomize/{}: {why}", row.overlay);
        let path = files::path("kustomize").join(&row.overlay);
        let path = path.display().to_string();
        let built = rig.bed.kubectl(&["kustomize", &path]).await.map_err(text)?;
        let objects: Vec<Value> = built
            .split("\n---\n")
            .map(|document| serde_saphyr::from_str(document).unwrap())
            .collect();
        described_by(&row, &objects).map_err(with_name)?;
        accepted(rig, &path, &objects).await.map_err(with_name)?;
    }
    // The additional manifests of the tutorials.
    let tutorial = files::path("examples/tutorial").display().to_string();
    let args = [
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "-f",
        &tutorial,
    ];
    let output = rig.bed.kubectl(&args).await.map_err(text)?;
    ensure(output.matches("(server dry run)").count() == 2, &output)
}

/// The objects of an overlay match its description.
fn described_by(row: &Row, objects: &[Value]) -> Outcome {
    let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let made = of("Namespace").map(|object| object["metadata"]["name"].clone());
    let expected: Vec<_> = row
        .is_made
        .then(|| json!(row.namespace))
        .into_iter()
        .collect();
    ensure(made.eq(expected), "whether it makes its namespace")?;
    let placed = |object: &Value| object["metadata"]["namespace"] == json!(row.namespace);
    for kind in NAMESPACED {
        ensure(of(kind).all(placed), format!("a {kind} elsewhere"))?;
    }
    if row.overlay == "namespaced" {
        let namespaced = |object: &Value| NAMESPACED.iter().any(|kind| object["kind"] == **kind);
        let other = objects.iter().find(|object| !namespaced(object));
        ensure(other.is_none(), format!("of the cluster: {other:?}"))?;
    }
    for binding in of("ClusterRoleBinding").chain(of("RoleBinding")) {
        ensure(
            binding["subjects"][0]["namespace"] == json!(row.namespace),
            binding,
        )?;
    }
    let containers =
        of("Deployment").map(|object| &object["spec"]["template"]["spec"]["containers"][0]);
    let images: BTreeSet<_> = containers
        .map(|container| container["image"].as_str().unwrap_or_default().to_owned())
        .collect();
    ensure(images == row.images, format!("{images:?}"))?;
    for image in images.iter().filter(|image| image.contains("flagger-rs")) {
        let ours = image.ends_with(concat!(":", env!("CARGO_PKG_VERSION")));
        ensure(ours, format!("{image} is not of this version"))?;
    }
    arguments_are_known(row, objects)
}

/// The program of the overlay has the described arguments, and accepts them.
fn arguments_are_known(row: &Row, objects: &[Value]) -> Outcome {
    let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let main = |object: &&Value| object["metadata"]["name"] != "flagger-prometheus";
    let Some(main) = of("Deployment").find(main) else {
        return ensure(row.images.is_empty(), "no Deployment");
    };
    let container = &main["spec"]["template"]["spec"]["containers"][0];
    let list = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone());
    match main["metadata"]["name"].as_str() {
        Some("flagger" | "flagger-shard-one") => {
            let found = list(&container["args"]).map_err(text)?;
            let mut expected = vec![
                "-log-level=info".to_owned(),
                "-include-label-prefix=app.kubernetes.io".to_owned(),
            ];
            expected.extend(row.arguments.iter().cloned());
            ensure(found == expected, format!("{found:?}"))?;
            let brought = found
                .iter()
                .any(|arg| arg.ends_with("http://flagger-prometheus:9090"));
            let served = |object: &Value| {
                object["metadata"]["name"] == "flagger-prometheus"
                    && object["spec"]["ports"][0]["port"] == 9090
            };
            ensure(of("Service").any(served) == brought, "its Prometheus")?;
            let command = list(&container["command"]).map_err(text)?;
            ensure(command == COMMAND, format!("{command:?}"))?;
            let flags = command.into_iter().skip(1).chain(found);
            let read = cli::parse(flags, |_| None).map_err(|exit| exit.text)?;
            let cli::Command::Run(config) = read else {
                return ensure(false, "no operator");
            };
            let lease = lease::name(config.watched.shard.as_ref());
            let leases = of("Role").map(|role| &role["rules"][1]["resourceNames"]);
            let leases: Vec<_> = leases.filter(|names| names.is_array()).collect();
            ensure(
                leases == [&json!([lease])],
                format!("{leases:?}, not {lease}"),
            )
        }
        Some("flagger-loadtester") => {
            let found = list(&container["command"]).map_err(text)?.split_off(1);
            ensure(found == row.arguments, format!("{found:?}"))?;
            let read = loadtester::args::parse(found, |_| None);
            read.map(drop).map_err(|exit| exit.text)
        }
        Some("flagger-dashboard") => {
            let found = list(&container["command"]).map_err(text)?.split_off(1);
            ensure(found[1..] == row.arguments, format!("{found:?}"))?;
            let read = client::parse(Program::Flagger, &found, false);
            read.map(drop).map_err(|exit| exit.text)
        }
        _ => ensure(row.arguments.is_empty(), "no program of ours"),
    }
}

/// The API server accepts all objects in a dry run.
async fn accepted(rig: &Rig, path: &str, objects: &[Value]) -> Outcome {
    let named = objects.iter().flat_map(|object| {
        let made = (object["kind"] == "Namespace").then(|| &object["metadata"]["name"]);
        [Some(&object["metadata"]["namespace"]), made]
    });
    let namespaces: BTreeSet<_> = named.flatten().filter_map(Value::as_str).collect();
    for name in namespaces {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        rig.bed.apply(&namespace.to_string()).await.map_err(text)?;
    }
    let args = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "--validate=strict",
        "-k",
        path,
    ];
    let output = rig.bed.kubectl(&args).await.map_err(text)?;
    let accepted = output
        .lines()
        .filter(|line| line.contains("(server dry run)"));
    ensure(accepted.count() == objects.len(), &output)
}

/// Linkerd's AuthorizationPolicy.
fn authorization_policies() -> Value {
    let names = |fields: &[&str]| -> Value {
        let fields = fields
            .iter()
            .map(|field| ((*field).to_owned(), json!({"type": "string"})));
        json!({"type": "object", "properties": fields.collect::<serde_json::Map<_, _>>(), "required": ["kind", "name"]})
    };
    let client = names(&["group", "kind", "name", "namespace"]);
    let spec = json!({"type": "object", "required": ["targetRef", "requiredAuthenticationRefs"], "properties": {
        "targetRef": names(&["group", "kind", "name"]), "requiredAuthenticationRefs": {"type": "array", "items": client}}});
    let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": spec}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "authorizationpolicies.policy.linkerd.io"},
        "spec": {"group": "policy.linkerd.io", "scope": "Namespaced",
            "names": {"kind": "AuthorizationPolicy", "plural": "authorizationpolicies", "singular": "authorizationpolicy"},
            "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}})
}
