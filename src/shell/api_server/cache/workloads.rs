//! The labels of the pods of all Deployments and DaemonSets, so that a canary's selectors select no pods of others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::snapshot::{Kind, ObjectRef, Pods};

/// The workloads that lists and watches brought, by namespace.
#[derive(Default)]
pub struct Workloads {
    namespaces: HashMap<String, Namespace>,
}

#[derive(Default)]
struct Namespace {
    /// The snapshots of the namespace's canaries share this map. It is copied only if it changes while a snapshot is in use.
    pods: Arc<BTreeMap<ObjectRef, Pods>>,
    known: HashMap<ObjectRef, Known>,
}

struct Known {
    version: u64,
    /// Whether the current list has named the workload, or a change since the list began.
    is_listed: bool,
}

impl Workloads {
    /// Returns the pods of the workloads of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> Arc<BTreeMap<ObjectRef, Pods>> {
        let workloads = self.namespaces.get(namespace);
        workloads.map_or_else(Arc::default, |workloads| workloads.pods.clone())
    }

    /// A list of a kind begins.
    pub fn list_started(&mut self, kind: Kind) {
        let known = self.namespaces.values_mut();
        for (name, known) in known.flat_map(|workloads| &mut workloads.known) {
            known.is_listed &= name.kind != kind;
        }
    }

    /// The list of a kind has ended. Workloads that it did not contain are gone.
    pub fn list_ended(&mut self, kind: Kind) {
        self.namespaces.retain(|_, workloads| {
            let is_gone =
                |(name, known): &(&ObjectRef, &Known)| name.kind == kind && !known.is_listed;
            let gone: Vec<_> = workloads
                .known
                .iter()
                .filter(is_gone)
                .map(|(name, _)| name.clone())
                .collect();
            for name in &gone {
                workloads.remove(name);
            }
            !workloads.known.is_empty()
        });
    }

    /// A workload was listed, created or changed. Other objects are ignored; `text` returns the JSON.
    pub fn changed(&mut self, object: &ObjectRef, version: u64, text: &dyn Fn() -> String) {
        if !matches!(object.kind, Kind::Deployment | Kind::DaemonSet) {
            return;
        }
        let workloads = self.namespaces.entry(object.namespace.clone());
        let workloads = workloads.or_default();
        if let Some(known) = workloads.known.get_mut(object) {
            known.is_listed = true;
            if version != 0 && known.version >= version {
                return;
            }
            known.version = version;
        } else {
            let known = Known {
                version,
                is_listed: true,
            };
            workloads.known.insert(object.clone(), known);
        }
        let pods = Pods::parse(&text());
        if workloads.pods.get(object) != Some(&pods) {
            Arc::make_mut(&mut workloads.pods).insert(object.clone(), pods);
        }
    }

    /// A workload was deleted at this version.
    pub fn deleted(&mut self, object: &ObjectRef, at: u64) {
        let Some(workloads) = self.namespaces.get_mut(&object.namespace) else {
            return;
        };
        let known = workloads.known.get(object);
        if known.is_some_and(|known| known.version <= at || at == 0) {
            workloads.remove(object);
        }
        if workloads.known.is_empty() {
            self.namespaces.remove(&object.namespace);
        }
    }
}

impl Namespace {
    fn remove(&mut self, workload: &ObjectRef) {
        self.known.remove(workload);
        Arc::make_mut(&mut self.pods).remove(workload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(name: &str) -> ObjectRef {
        ObjectRef {
            kind: Kind::Deployment,
            namespace: "test".to_owned(),
            name: name.to_owned(),
        }
    }

    fn change(workloads: &mut Workloads, name: &str, version: u64, label: &str) {
        let text = || {
            format!(
                r#"{{"spec":{{"template":{{"metadata":{{"labels":{{"app":"{label}"}}}}}}}},"status":{{"readyReplicas":1}}}}"#
            )
        };
        workloads.changed(&deployment(name), version, &text);
    }

    fn shown(workloads: &Workloads) -> Vec<(String, String)> {
        let all = workloads.in_namespace("test");
        let all = all.iter();
        all.map(|(name, pods)| (name.name.clone(), pods.labels["app"].clone()))
            .collect()
    }

    #[test]
    fn the_newest_labels_of_each_workload_count_until_it_is_deleted() {
        let pair = |name: &str, label: &str| (name.to_owned(), label.to_owned());
        let mut workloads = Workloads::default();
        change(&mut workloads, "a", 2, "new");
        change(&mut workloads, "a", 1, "old");
        change(&mut workloads, "b", 3, "b");
        assert_eq!(shown(&workloads), [pair("a", "new"), pair("b", "b")]);
        workloads.deleted(&deployment("b"), 2);
        assert_eq!(shown(&workloads).len(), 2, "it was created again");
        workloads.deleted(&deployment("b"), 4);
        assert_eq!(shown(&workloads), [pair("a", "new")]);
    }

    #[test]
    fn a_workload_that_the_next_list_does_not_name_is_gone() {
        let mut workloads = Workloads::default();
        change(&mut workloads, "a", 1, "a");
        change(&mut workloads, "b", 2, "b");
        workloads.list_started(Kind::DaemonSet);
        workloads.list_ended(Kind::DaemonSet);
        assert_eq!(shown(&workloads).len(), 2, "another kind was listed");
        workloads.list_started(Kind::Deployment);
        change(&mut workloads, "b", 2, "b");
        workloads.list_ended(Kind::Deployment);
        assert_eq!(shown(&workloads), [("b".to_owned(), "b".to_owned())]);
        workloads.list_started(Kind::Deployment);
        workloads.list_ended(Kind::Deployment);
        assert!(workloads.namespaces.is_empty());
    }
}
