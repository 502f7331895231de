//! CRDs that the test bed does not have, for the scenarios of routers and targets that the operator does not support yet.

use serde_json::{Value, json};

/// Each row is a group, a kind, its versions and its scope.
const KINDS: [(&str, &str, &[&str], &str); 2] = [
    ("serving.knative.dev", "Service", &["v1"], "Namespaced"),
    ("serving.knative.dev", "Revision", &["v1"], "Namespaced"),
];

/// Returns the CRDs of these kinds, as YAML. They accept any field.
pub fn crds() -> String {
    KINDS.map(crd).map(|crd| crd.to_string()).join("\n---\n")
}

fn crd((group, kind, versions, scope): (&str, &str, &[&str], &str)) -> Value {
    let plural = crate::cluster::plural(kind);
    let versions: Vec<_> = versions
        .iter()
        .enumerate()
        .map(|(number, version)| {
            json!({"name": version, "served": true, "storage": number == 0, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
        })
        .collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": scope, "versions": versions,
            "names": {"kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase()}}})
}
