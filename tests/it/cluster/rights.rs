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
        // `canaries/finalizers` is for owner references on clusters that check them. Events are read after a conflict: other tests need
        // this right. The operator reads an object of a watched kind only if a Canary names it after the list, and lists the kind only if
        // the API server does not stream lists.
        .filter(|(group, resource, verb)| {
            let is_watched =
                granted.contains(&(group.clone(), resource.clone(), "watch".to_owned()));
            resource != "canaries/finalizers"
                && !(verb == "get" && resource == "events")
                // The fifth run of a Canary deletes its first record.
                && !(verb == "delete" && resource == "releases")
                && !(matches!(verb.as_str(), "get" | "list") && is_watched)
        })
        .collect();
    if unused.is_empty() {
        Ok(())
    } else {
        Err(format!("rights: granted and never used: {unused:?}"))
    }
}

/// The rights of the ClusterRole and of all routers, one by one.
fn granted() -> Vec<(String, String, String)> {
    let base = files::path("kustomize/base");
    let account = files::objects(&base.join("flagger/account.yaml"));
    let role = account
        .into_iter()
        .find(|doc: &Value| doc["kind"] == "ClusterRole")
        .unwrap();
    let mut rules = role["rules"].as_array().unwrap().clone();
    for router in std::fs::read_dir(base.join("routers")).unwrap() {
        let patch = files::objects(&router.unwrap().path().join("rights.yaml"));
        let added = patch.iter().flat_map(|patch| patch.as_array().unwrap());
        rules.extend(added.map(|operation| operation["value"].clone()));
    }
    let list = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
    let mut all = Vec::new();
    for rule in &rules {
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
