//! Checks that the operator's ClusterRole grants the rights that the operator uses, and no others.

use std::collections::BTreeSet;

use serde_json::Value;
use testbed::bed::ACCOUNT;

use super::{Outcome, Rig, text};
use crate::files;

/// No request was refused for want of a right, and no right was never used.
pub fn are_used(rig: &Rig) -> Outcome {
    let audit = rig.bed.audit().map_err(text)?;
    let ours: Vec<_> = audit.iter().filter(|line| line.user == ACCOUNT).collect();
    let refused: BTreeSet<_> = ours
        .iter()
        .filter(|line| line.code == 403)
        .map(|line| format!("{} {}", line.verb, line.resource))
        .collect();
    if !refused.is_empty() {
        return Err(format!("rights: refused: {refused:?}"));
    }
    let used: BTreeSet<_> = ours
        .iter()
        .map(|line| (line.group.clone(), line.resource.clone(), line.verb.clone()))
        .collect();
    let granted = granted();
    let unused: Vec<_> = granted
        .iter()
        .filter(|right| !used.contains(right))
        // `canaries/finalizers` is for owner references on clusters that check them. Leases are for several operators, and events are read
        // after a conflict: other tests need these rights. The operator reads an object of a watched kind only if a Canary names it after
        // the list, and lists the kind only if the API server does not stream lists.
        .filter(|(group, resource, verb)| {
            let is_watched =
                granted.contains(&(group.clone(), resource.clone(), "watch".to_owned()));
            resource != "canaries/finalizers"
                && resource != "leases"
                && !(verb == "get" && resource == "events")
                && !(matches!(verb.as_str(), "get" | "list") && is_watched)
        })
        .collect();
    if unused.is_empty() {
        Ok(())
    } else {
        Err(format!("rights: granted and never used: {unused:?}"))
    }
}

/// The rights of the ClusterRole, one by one.
fn granted() -> Vec<(String, String, String)> {
    let account =
        std::fs::read_to_string(files::path("kustomize/base/flagger/account.yaml")).unwrap();
    let role: Value = account
        .split("\n---\n")
        .map(|doc| serde_saphyr::from_str(doc).unwrap())
        .find(|doc: &Value| doc["kind"] == "ClusterRole")
        .unwrap();
    let list = |value: &Value| {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                for verb in list(&rule["verbs"]) {
                    all.push((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    all
}
