//! The custom resources: Canary, MetricTemplate and AlertProvider, which users write, and Release, which the operator writes. The doc
//! comments of their fields are the descriptions in the CRDs, which `kubectl explain` prints.

mod analysis;
mod lenient;
mod schema;
mod service;
pub mod status;
mod traffic;

pub mod action;
pub mod alert_provider;
pub mod canary;
pub mod compare;
pub mod duration;
pub mod limits;
pub mod metric_template;
pub mod percent;
pub mod release;
pub mod route_refs;

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

/// Returns the CRDs, as `flagger crds` prints them and `crds/` contains them: Flagger's three, and the one of records.
pub fn crds() -> Vec<Value> {
    let mut crds = flagger_crds();
    crds.extend(
        serde_json::to_value(release::Release::crd()).map(|mut crd| {
            if let Some(spec) =
                crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
            {
                simplify(spec);
            }
            crd
        }),
    );
    crds
}

/// The CRDs that Flagger has, too.
pub fn flagger_crds() -> Vec<Value> {
    [
        alert_provider::AlertProvider::crd(),
        canary::Canary::crd(),
        metric_template::MetricTemplate::crd(),
    ]
    .into_iter()
    .filter_map(|crd| serde_json::to_value(crd).ok())
    .map(|mut crd| {
        let crd_kind = crd
            .pointer("/spec/names/kind")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        align_with_flagger(&mut crd);
        let spec = crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
        match (spec, crd_kind.as_str()) {
            (Some(spec), "Canary") => {
                spec["required"] = json!(["targetRef", "analysis"]);
                traffic::put_in_place(spec);
                limits::put_in_place(spec);
            }
            (Some(spec), "AlertProvider") => {
                spec["oneOf"] =
                    json!([{"required": ["type", "address"]}, {"required": ["type", "secretRef"]}]);
            }
            _ => {}
        }
        crd
    })
    .collect()
}

/// Returns the CRDs as one YAML file.
pub fn crds_yaml() -> Result<String, serde_saphyr::ser::Error> {
    crds()
        .iter()
        .map(|crd| Ok(format!("---\n{}", serde_saphyr::to_string(crd)?)))
        .collect()
}

/// Removes everything that the derives add and Flagger's CRDs do not have (`nullable`, formats of numbers, defaults of Rust types), and
/// adds the schema of a status that has no Rust type, so that the API server keeps its fields.
fn align_with_flagger(crd: &mut Value) {
    let Some(versions) = crd
        .pointer_mut("/spec/versions")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    for version in versions {
        let Some(properties) = version.pointer_mut("/schema/openAPIV3Schema/properties") else {
            continue;
        };
        if let Some(spec) = properties.get_mut("spec") {
            simplify(spec);
        }
        match properties.get_mut("status") {
            Some(status) => simplify(status),
            None => {
                properties["status"] =
                    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
            }
        }
        version["subresources"] = json!({"status": {}});
    }
}

fn simplify(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.remove("nullable");
    map.remove("default");
    if map.get("type") == Some(&json!("number")) {
        map.remove("format");
    }
    for keyword in ["properties", "items", "additionalProperties"] {
        match map.get_mut(keyword) {
            Some(Value::Object(inner)) if keyword == "properties" => {
                inner.values_mut().for_each(simplify);
            }
            Some(inner) => simplify(inner),
            None => {}
        }
    }
    without_null(map);
}

/// Removes `null` from the values of an enum: the derive adds it for an optional field.
fn without_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
}

#[cfg(test)]
mod tests;
