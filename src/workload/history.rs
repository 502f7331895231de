//! The versions that a workload had, in the objects in which Kubernetes keeps them for `kubectl rollout undo`: the ReplicaSets of a
//! Deployment, the `ControllerRevision`s of a DaemonSet.

use serde_json::Value;

use super::{
    metadata::{self, FLAGGER_ID},
    patch::{Change, conditional},
};
use crate::snapshot::{Action, Kind, ObjectRef, TargetKind, Write, readiness::number};

/// The annotation with the number of a ReplicaSet's version.
const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";
/// The label that the Deployment controller adds to the pods of a ReplicaSet.
const HASH: &str = "pod-template-hash";

/// The kind of the objects that keep the versions of a workload; `None` if none do.
pub const fn kind(target: TargetKind) -> Option<Kind> {
    match target {
        TargetKind::Deployment => Some(Kind::ReplicaSet),
        TargetKind::DaemonSet => Some(Kind::ControllerRevision),
        TargetKind::Service | TargetKind::Knative => None,
    }
}

/// The pod template of the version that the primary had before the present one: the newest with another mark than the present one's.
/// `None` if `kept`, the objects that keep versions, has none.
pub fn previous_template(primary: &Value, kept: &[Value]) -> Option<Value> {
    let uid = primary.pointer("/metadata/uid")?;
    let present = mark(primary.pointer("/spec/template")?)?;
    let is_owned =
        |object: &&Value| metadata::owners(object).any(|owner| owner.get("uid") == Some(uid));
    let versions = kept.iter().filter(is_owned).filter_map(version);
    let others =
        versions.filter(|(_, template)| mark(template).is_some_and(|mark| mark != present));
    let (_, template) = others.max_by_key(|(number, _)| *number)?;
    Some(template)
}

/// The number of a version, and its pod template.
fn version(object: &Value) -> Option<(i64, Value)> {
    let (revision, template) = match object.pointer("/data/spec/template") {
        Some(template) => (number(object, "/revision"), template),
        None => {
            let revision = object.pointer(REVISION)?.as_str()?.parse().ok()?;
            (revision, object.pointer("/spec/template")?)
        }
    };
    let mut template = template.clone();
    template.as_object_mut()?.remove("$patch");
    if let Some(labels) = template.pointer_mut("/metadata/labels") {
        labels.as_object_mut()?.remove(HASH);
    }
    Some((revision, template))
}

/// The mark that the operator gives to the version of a primary. A config that is kept for the version has it, too.
pub fn mark(marked: &Value) -> Option<&str> {
    marked
        .pointer("/metadata/annotations")?
        .get(FLAGGER_ID)?
        .as_str()
}

/// The write that gives the primary this pod template.
pub fn restore(kind: TargetKind, primary: &Value, template: &Value) -> Option<Write> {
    let change = Change::of(primary, "/spec/template", Some(template.clone()))?;
    let (name, namespace) = (metadata::name(primary), metadata::namespace(primary));
    Some(Write {
        object: ObjectRef {
            kind: kind.kind(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        action: Action::Patch(conditional(primary, vec![change.operation()])),
        failure: format!("restoring {name}.{namespace} failed: "),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(id: &str) -> Value {
        json!({"metadata": {"labels": {"app": "podinfo-primary"}, "annotations": {"flagger-id": id}}, "spec": {"id": id}})
    }

    fn replica_set(number: &str, owner: &str, id: &str) -> Value {
        let mut template = template(id);
        template["metadata"]["labels"][HASH] = json!("abc");
        json!({"metadata": {"ownerReferences": [{"uid": owner}], "annotations": {"deployment.kubernetes.io/revision": number}},
            "spec": {"template": template}})
    }

    #[test]
    fn the_newest_other_version_of_the_primary_is_the_previous_one() {
        let primary = json!({"metadata": {"uid": "p"}, "spec": {"template": template("new")}});
        let kept = [
            replica_set("9", "p", "oldest"),
            replica_set("10", "p", "old"),
            replica_set("11", "p", "new"),
            replica_set("12", "q", "of another workload"),
            json!({"metadata": {"ownerReferences": [{"uid": "p"}]}, "spec": {}}),
        ];
        assert_eq!(previous_template(&primary, &kept), Some(template("old")));
        assert_eq!(previous_template(&primary, &kept[2..]), None);
        let unmarked = json!({"metadata": {"uid": "p"}, "spec": {"template": {}}});
        assert_eq!(previous_template(&unmarked, &kept), None);
    }

    #[test]
    fn a_controller_revision_has_the_version_of_a_daemon_set() {
        let primary = json!({"metadata": {"uid": "p"}, "spec": {"template": template("new")}});
        let revision = |number: i64, id: &str| {
            let mut template = template(id);
            template["$patch"] = json!("replace");
            json!({"metadata": {"ownerReferences": [{"uid": "p"}]}, "revision": number, "data": {"spec": {"template": template}}})
        };
        let kept = [revision(1, "old"), revision(2, "new")];
        assert_eq!(previous_template(&primary, &kept), Some(template("old")));
    }
}
