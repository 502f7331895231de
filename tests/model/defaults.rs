//! The decoding of request bodies, and the default values that the API server fills in.

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    autoscaling::v2::HorizontalPodAutoscaler,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Secret, Service},
    networking::v1::Ingress,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{refusal::Refusal, resources::Resource};

/// An annotation of DaemonSets that the API server adds to complete objects, but not to their metadata alone.
pub const TEMPLATES: &str = "deprecated.daemonset.template.generation";

/// Decodes a body. Built-in kinds lose unknown fields and nulls; custom kinds are kept as they are.
pub fn decoded(resource: &Resource, body: Value) -> Result<Value, Refusal> {
    let typed = match resource.kind {
        "ConfigMap" => through::<ConfigMap>(body),
        "Secret" => through::<Secret>(body),
        "Service" if !resource.custom => through::<Service>(body),
        "Event" => through::<Event>(body),
        "Deployment" => through::<Deployment>(body),
        "DaemonSet" => through::<DaemonSet>(body),
        "HorizontalPodAutoscaler" => through::<HorizontalPodAutoscaler>(body),
        "Lease" => through::<Lease>(body),
        "Ingress" => through::<Ingress>(body),
        _ if resource.custom => Ok(body),
        other => panic!("the model cannot decode {other}"),
    };
    let mut object = typed.map_err(|error| {
        let version = resource.versions[0];
        let kind = resource.kind;
        let message =
            format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}");
        Refusal::plain(400, "BadRequest", &message)
    })?;
    object["apiVersion"] = json!(resource.api_version(resource.versions[0]));
    object["kind"] = json!(resource.kind);
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    Ok(object)
}

fn through<T: Serialize + DeserializeOwned>(body: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(body)?)
}

/// Fills in defaults. `old` is the object before an update; `number` makes the addresses of Services distinct.
pub fn fill(resource: &Resource, object: &mut Value, old: Option<&Value>, number: u64) {
    match resource.kind {
        "ConfigMap" => drop_empty(object, &["data", "binaryData"]),
        "Secret" => secret(object),
        "Service" if !resource.custom => service(object, old, number),
        "Event" => event(object),
        "Deployment" => deployment(object),
        "DaemonSet" => daemon_set(object, old),
        "HorizontalPodAutoscaler" => scaler(object),
        "Lease" => absent(object, json!({"spec": {}})),
        "Ingress" => absent(object, json!({"status": {"loadBalancer": {}}})),
        "HTTPProxy" => absent(
            object,
            json!({"status": {"currentStatus": "NotReconciled", "description": "Waiting for controller"}}),
        ),
        _ if resource.custom => {}
        other => panic!("the model does not know the defaults of {other}"),
    }
}

fn absent(object: &mut Value, defaults: Value) {
    let Value::Object(defaults) = defaults else {
        return;
    };
    for (key, value) in defaults {
        if object[&key].is_null() {
            object[&key] = value;
        }
    }
}

fn drop_empty(object: &mut Value, fields: &[&str]) {
    let map = object.as_object_mut().unwrap();
    for field in fields {
        if map
            .get(*field)
            .is_some_and(|value| value.as_object().is_some_and(serde_json::Map::is_empty))
        {
            map.remove(*field);
        }
    }
}

fn each<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

fn secret(object: &mut Value) {
    absent(object, json!({"type": "Opaque"}));
    if let Some(Value::Object(plain)) = object.as_object_mut().unwrap().remove("stringData") {
        for (key, value) in plain {
            let bytes = k8s_openapi::ByteString(value.as_str().unwrap().as_bytes().to_vec());
            object["data"][&key] = serde_json::to_value(bytes).unwrap();
        }
    }
    drop_empty(object, &["data"]);
}

fn service(object: &mut Value, old: Option<&Value>, number: u64) {
    let spec = &mut object["spec"];
    absent(
        spec,
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"}),
    );
    match old {
        // An assigned address stays if an update leaves it out.
        Some(old) => {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if spec[field].is_null() || spec[field] == "" {
                    spec[field] = old["spec"][field].clone();
                }
            }
        }
        None => {
            if spec["clusterIP"].is_null() {
                spec["clusterIP"] =
                    json!(format!("10.96.{}.{}", number / 250 % 250, number % 250 + 1));
            }
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
            absent(
                spec,
                json!({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
            );
            object["status"] = json!({"loadBalancer": {}});
        }
    }
    for port in each(object, "/spec/ports") {
        let number = port["port"].clone();
        absent(port, json!({"protocol": "TCP", "targetPort": number}));
    }
}

fn event(object: &mut Value) {
    // Go omits a zero.
    if object["count"] == 0 {
        object["count"] = Value::Null;
    }
    absent(
        object,
        json!({"reportingComponent": "", "reportingInstance": "", "source": {}}),
    );
    for time in ["firstTimestamp", "lastTimestamp"] {
        if let Some(at) = object[time]
            .as_str()
            .and_then(|at| at.parse::<jiff::Timestamp>().ok())
        {
            object[time] = json!(jiff::Timestamp::from_second(at.as_second()).unwrap());
        }
    }
}

fn deployment(object: &mut Value) {
    let spec = &mut object["spec"];
    absent(
        spec,
        json!({"replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "strategy": {"type": "RollingUpdate"}}),
    );
    absent(&mut spec["strategy"], json!({"type": "RollingUpdate"}));
    if spec["strategy"]["type"] == "RollingUpdate" {
        absent(
            &mut spec["strategy"]["rollingUpdate"],
            json!({"maxSurge": "25%", "maxUnavailable": "25%"}),
        );
    }
    template(&mut object["spec"]["template"]);
    absent(object, json!({"status": {}}));
}

fn daemon_set(object: &mut Value, old: Option<&Value>) {
    absent(
        &mut object["spec"],
        json!({"revisionHistoryLimit": 10, "updateStrategy": {"type": "RollingUpdate"}}),
    );
    let strategy = &mut object["spec"]["updateStrategy"];
    if strategy["type"] == "RollingUpdate" {
        absent(
            &mut strategy["rollingUpdate"],
            json!({"maxSurge": 0, "maxUnavailable": 1}),
        );
    }
    template(&mut object["spec"]["template"]);
    let pods = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
    absent(object, json!({"status": pods}));
    // The API server counts the templates in an annotation that clients cannot change.
    let counter = TEMPLATES;
    let count = old.map_or(0, |old| {
        let kept = old["metadata"]["annotations"][counter].as_str();
        kept.and_then(|count| count.parse::<i64>().ok())
            .unwrap_or(0)
    });
    let is_new = old.is_none_or(|old| old["spec"]["template"] != object["spec"]["template"]);
    object["metadata"]["annotations"][counter] = json!((count + i64::from(is_new)).to_string());
}

fn template(template: &mut Value) {
    if template["metadata"].is_null() {
        template["metadata"] = json!({});
    }
    let spec = &mut template["spec"];
    absent(
        spec,
        json!({"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler", "securityContext": {},
            "terminationGracePeriodSeconds": 30}),
    );
    let account = spec["serviceAccountName"].clone();
    if account.is_string() {
        absent(spec, json!({"serviceAccount": account}));
    }
    for list in ["containers", "initContainers"] {
        each(spec, &format!("/{list}")).for_each(container);
    }
    for volume in each(spec, "/volumes") {
        for kind in ["configMap", "secret"] {
            if volume[kind].is_object() {
                absent(&mut volume[kind], json!({"defaultMode": 420}));
            }
        }
        if let Some(map) = volume.as_object_mut() {
            map.retain(|_, value| !value.is_null());
        }
    }
}

fn container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let is_latest = image.ends_with(":latest")
        || !image
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .contains([':', '@']);
    let pull = if is_latest { "Always" } else { "IfNotPresent" };
    absent(
        container,
        json!({"imagePullPolicy": pull, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "resources": {}}),
    );
    each(container, "/ports").for_each(|port| absent(port, json!({"protocol": "TCP"})));
    for variable in each(container, "/env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            absent(field, json!({"apiVersion": "v1"}));
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) else {
            continue;
        };
        absent(
            probe,
            json!({"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}),
        );
        if let Some(get) = probe.get_mut("httpGet") {
            absent(get, json!({"scheme": "HTTP", "path": "/"}));
        }
    }
}

fn scaler(object: &mut Value) {
    let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    absent(
        &mut object["spec"],
        json!({"minReplicas": 1, "metrics": cpu}),
    );
    absent(
        object,
        json!({"status": {"currentMetrics": null, "desiredReplicas": 0}}),
    );
}
