//! `helm template` gives what `kubectl kustomize` gives, but for names of labels and the objects that only a chart has.

use flagger_rs::{cli, loadtester, shell::api_server::lease, snapshot::Shard};
use serde_json::{Value, json};

use super::{Charts, strings};
use crate::{
    cluster::{Outcome, ensure, text},
    files,
};

/// The values of the chart for the flags that overlays set.
const VALUES: [(&str, &str); 6] = [
    ("-log-level", "logLevel"),
    ("-include-label-prefix", "includeLabelPrefix"),
    ("-mesh-provider", "meshProvider"),
    ("-metrics-server", "metricsServer"),
    ("-ingress-class", "ingressClass"),
    ("-namespace", "namespace"),
];

/// The objects that both install. Overlays may have further objects, for example of a mesh.
const KINDS: [&str; 13] = [
    "AuthorizationPolicy",
    "ClusterRole",
    "ClusterRoleBinding",
    "ConfigMap",
    "Deployment",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "Role",
    "RoleBinding",
    "Service",
    "ServiceAccount",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

pub async fn each_is_the_chart_with_values(charts: &Charts<'_>) -> Outcome {
    let folders = std::fs::read_dir(files::path("kustomize")).map_err(text)?;
    let folders = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others = [
        "README.md",
        "actions",
        "base",
        "dashboard",
        "podinfo",
        // A further operator: the names of its objects differ.
        "shard",
        "tester",
    ];
    let mut count = 0;
    for overlay in folders.filter(|name| !others.contains(&name.as_str())) {
        let mut expected = kustomized(charts, &overlay).await?;
        let (namespace, values) = values(&expected)?;
        let mut args = vec!["template", "flagger", "CHART", "-n", &namespace];
        args.extend(["--set", "actions.enabled=true"]);
        args.extend(values.iter().flat_map(|value| ["--set", value.as_str()]));
        let chart = files::documents(&charts.run("flagger", &args).await?);
        expected.extend(kustomized(charts, "actions").await?);
        compared(&overlay, &expected, &chart)?;
        count += 1;
    }
    ensure(count > 7, format!("{count} overlays"))?;
    each_shard_may_hold_its_lease(charts).await?;
    let args = ["template", "flagger-loadtester", "CHART", "-n", "test"];
    let chart = files::documents(&charts.run("loadtester", &args).await?);
    compared("tester", &kustomized(charts, "tester").await?, &chart)
}

async fn each_shard_may_hold_its_lease(charts: &Charts<'_>) -> Outcome {
    for selector in ["sharding.fluxcd.io/key=one", "!sharding.fluxcd.io/key"] {
        let value = format!("watchLabelSelector={selector}");
        let args = ["template", "flagger", "CHART", "--set", &value];
        let objects = files::documents(&charts.run("flagger", &args).await?);
        let shard = Shard::parse(selector).map_err(text)?;
        let expected = json!([lease::name(Some(&shard))]);
        let roles = objects.iter().filter(|object| object["kind"] == "Role");
        let leases: Vec<_> = roles
            .map(|role| &role["rules"][1]["resourceNames"])
            .filter(|names| names.is_array())
            .collect();
        ensure(leases == [&expected], format!("{leases:?}, not {expected}"))?;
        let operator = objects.iter().find(|object| object["kind"] == "Deployment");
        let container =
            &operator.ok_or("no operator")?["spec"]["template"]["spec"]["containers"][0];
        let flag = format!("-watch-label-selector={selector}");
        let arguments = container.to_string();
        ensure(
            arguments.contains(&flag),
            format!("{arguments} without {flag}"),
        )?;
    }
    Ok(())
}

/// The namespace of an overlay, and the values with which the chart is the same.
fn values(objects: &[Value]) -> Result<(String, Vec<String>), String> {
    let mut found = objects
        .iter()
        .filter(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == "flagger");
    let operator = found.next().ok_or("the overlay has no operator")?;
    let namespace = operator["metadata"]["namespace"].as_str().unwrap();
    let mut values = Vec::new();
    for flag in strings(&operator["spec"]["template"]["spec"]["containers"][0]["args"]) {
        let (name, value) = flag.split_once('=').unwrap_or_default();
        let row = VALUES.iter().find(|(flag, _)| *flag == name);
        let (_, of) = row.ok_or_else(|| format!("no value for {flag}"))?;
        let value = value.replace("$(POD_NAMESPACE)", namespace);
        values.push(match value.as_str() {
            "http://flagger-prometheus:9090" => "prometheus.install=true".to_owned(),
            _ => format!("{of}={value}"),
        });
    }
    if objects
        .iter()
        .any(|object| object["kind"] == "AuthorizationPolicy")
    {
        values.push("linkerdAuthPolicy.create=true".to_owned());
    }
    Ok((namespace.to_owned(), values))
}

async fn kustomized(charts: &Charts<'_>, overlay: &str) -> Result<Vec<Value>, String> {
    let path = files::path("kustomize").join(overlay).display().to_string();
    let args = ["kustomize", &path];
    let built = charts.rig.bed.kubectl(&args).await.map_err(text)?;
    Ok(files::documents(&built))
}

/// Each object of the overlay is in the chart, with the same meaning.
fn compared(overlay: &str, expected: &[Value], chart: &[Value]) -> Outcome {
    for object in expected {
        let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
        if !KINDS.iter().any(|known| kind == known) {
            continue;
        }
        let mut found = chart
            .iter()
            .filter(|other| other["kind"] == *kind && is_named(other, object));
        let found = found
            .next()
            .ok_or_else(|| format!("{overlay}: the chart has no {kind} {name}"))?;
        let placed = found["metadata"]["namespace"] == object["metadata"]["namespace"];
        ensure(placed, format!("{overlay}: the namespace of {kind} {name}"))?;
        let (expected, found) = (meaning(object), meaning(found));
        ensure(
            expected == found,
            format!("{overlay}: {kind} {name}:\n{expected:#}\nin the chart:\n{found:#}"),
        )?;
    }
    Ok(())
}

/// Whether an object of the chart has the name of this one. kustomize adds a hash to that of a ConfigMap.
fn is_named(found: &Value, object: &Value) -> bool {
    let name = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (found, object_name) = (name(found), name(object));
    let hash = object_name.strip_prefix(&found);
    let is_hashed = hash.is_some_and(|hash| hash.starts_with('-') && hash.len() == 11);
    found == object_name || object["kind"] == "ConfigMap" && is_hashed
}

/// The compared fields of an object. Labels, and the selectors that refer to them, have other names in a chart.
fn meaning(object: &Value) -> Value {
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => pods(object),
        "ClusterRole" | "Role" => object["rules"].clone(),
        "ClusterRoleBinding" | "RoleBinding" => json!([object["roleRef"], object["subjects"]]),
        "ConfigMap" => {
            let text = object["data"]["prometheus.yml"].as_str();
            serde_saphyr::from_str(text.unwrap_or_default()).unwrap()
        }
        "Service" => {
            let mut ports = object["spec"]["ports"].clone();
            let ports_of = ports.as_array_mut().into_iter().flatten();
            ports_of.for_each(|port| port["protocol"] = json!("TCP"));
            ports
        }
        "NetworkPolicy" => {
            let rules = object["spec"]["ingress"].as_array().unwrap();
            rules.iter().map(|rule| rule["ports"].clone()).collect()
        }
        // The chart and the overlay state differently that one of two operators must stay.
        "PodDisruptionBudget" | "ServiceAccount" => json!(null),
        _ => object["spec"].clone(),
    }
}

/// The pod of a Deployment, with its flags as its program reads them.
fn pods(deployment: &Value) -> Value {
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let namespace = deployment["metadata"]["namespace"].as_str();
    let namespace = namespace.unwrap_or_default();
    let all = [strings(&container["command"]), strings(&container["args"])].concat();
    let all = all
        .iter()
        .map(|arg| arg.replace("$(POD_NAMESPACE)", namespace));
    let mut all: Vec<_> = all.collect();
    let flags = match container["name"].as_str() {
        Some("flagger") => format!("{:?}", cli::parse(all.split_off(1), |_| None).unwrap()),
        Some("loadtester") => {
            let read = loadtester::args::parse(all.split_off(1), |_| None);
            format!("{:?}", read.unwrap())
        }
        _ => format!("{all:?}"),
    };
    let mut context = pod["securityContext"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    context.extend(container["securityContext"].as_object().cloned().unwrap());
    context.remove("fsGroupChangePolicy");
    let is_tester = container["name"] == "loadtester";
    let mut volumes = pod["volumes"].clone();
    for volume in volumes.as_array_mut().into_iter().flatten() {
        volume["configMap"] = json!(null);
    }
    json!({
        "replicas": deployment["spec"]["replicas"], "flags": flags, "image": container["image"], "security": context, "volumes": volumes,
        "account": pod["serviceAccountName"], "token": pod["automountServiceAccountToken"], "ports": container["ports"],
        "grace": pod["terminationGracePeriodSeconds"], "mounts": container["volumeMounts"],
        "probes": [container["livenessProbe"], container["readinessProbe"]],
        // The load tester of Flagger's chart has no limits.
        "resources": if is_tester { &Value::Null } else { &container["resources"] },
    })
}
