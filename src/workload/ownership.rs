//! The ownership of objects: an object belongs to a Canary, to another owner, or to the user alone.
//!
//! An object belongs to a Canary if its owner with `controller: true` has the Canary's kind, group and name. The uid is not compared: two
//! Canaries of a namespace cannot have one name at the same time, so a reference with this name and another uid is to an earlier Canary,
//! for example one that was restored from a backup. Its objects belong to the new Canary, and the operator puts the new uid into the
//! reference. An object with any other controller, or with none, does not belong to the Canary. (Flagger overwrites such an object.) The
//! apex Service and its route are adopted all the same, unless another Canary controls them: see `rollout/safety/ownership.rs`.
//!
//! The user can give an object to the Canary by the annotation [`ADOPT`]. The operator then changes the object, but does not own it: the
//! object stays when the Canary is deleted. Only a copy of a config is deleted with the last Canary that uses it.

use serde_json::Value;

use super::metadata::{is_canary, is_owned, owners};
use crate::{api::canary::Canary, snapshot::ObjectRef};

/// The annotation by which a user gives an object to the Canary that needs its name. The value is `true`.
pub const ADOPT: &str = "flagger-rs.github.io/adopt";

/// The owner of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The Canary.
    Own,
    /// No controller: a user made the object, or its owner was deleted without it.
    Unowned,
    /// Another Canary, by its name.
    OtherCanary(String),
    /// Another controller, as `KIND NAME`.
    Other(String),
}

impl Ownership {
    /// The owner of an object, from the view of a Canary.
    pub fn of(object: &Value, canary: &Canary) -> Self {
        if is_owned(object, canary) || is_given(object) {
            return Self::Own;
        }
        let Some(owner) = owners(object).find(|owner| owner["controller"] == true) else {
            return Self::Unowned;
        };
        let name = text(owner, "name");
        if is_canary(owner) {
            Self::OtherCanary(name.to_owned())
        } else {
            Self::Other(format!("{} {name}", text(owner, "kind")))
        }
    }
}

/// An object of a name that a canary needs, which belongs to someone else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "canary {canary} is not run: the {} {} exists already and {why}. Delete it or give it another name, or give it to the canary with the annotation {ADOPT}: \"true\"",
    object.kind.name(), object.name
)]
pub struct Foreign {
    /// The canary, as `NAME.NAMESPACE`.
    pub canary: String,
    /// The object.
    pub object: ObjectRef,
    /// The reason why the canary may not change it.
    pub why: NotOwn,
}

/// The reason why a canary may not change an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOwn {
    /// The operator did not create it.
    #[error("belongs to no Canary")]
    Unowned,
    /// It has another controller.
    #[error("belongs to {0}")]
    Owned(String),
    /// It is a Service that leads to a name outside the cluster, and never to pods.
    #[error("is of the type ExternalName, which leads to no pods")]
    ExternalName,
    /// It is a route with settings that the Canary does not ask for. The value is the field that has them.
    #[error("its {0} would lose something that spec.service does not ask for")]
    Loses(&'static str),
}

/// Whether a user has given an object to a Canary, by the annotation [`ADOPT`].
pub fn is_given(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations");
    annotations.is_some_and(|annotations| annotations[ADOPT] == "true")
}

/// The names of the Canaries among the owners of an object.
pub fn canaries(object: &Value) -> impl Iterator<Item = &str> {
    let canaries = owners(object).filter(|owner| is_canary(owner));
    canaries.map(|owner| text(owner, "name"))
}

fn text<'a>(owner: &'a Value, field: &str) -> &'a str {
    owner.get(field).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_belongs_to_the_controller_that_it_names_or_to_the_canary_that_it_is_given_to() {
        let mut canary = Canary::default();
        canary.metadata.name = Some("podinfo".to_owned());
        let owner = |version: &str, kind: &str, name: &str, controller: bool| json!([{"apiVersion": version, "kind": kind, "name": name, "uid": "u", "controller": controller}]);
        let ours = "flagger.app/v1beta1";
        for (owners, expected) in [
            (owner(ours, "Canary", "podinfo", true), Ownership::Own),
            (
                owner("flagger.app/v2", "Canary", "podinfo", true),
                Ownership::Own,
            ),
            (owner(ours, "Canary", "podinfo", false), Ownership::Unowned),
            (
                owner(ours, "Canary", "other", true),
                Ownership::OtherCanary("other".to_owned()),
            ),
            (
                owner("birds.io/v1", "Canary", "podinfo", true),
                Ownership::Other("Canary podinfo".to_owned()),
            ),
            (
                owner("apps/v1", "Deployment", "podinfo", true),
                Ownership::Other("Deployment podinfo".to_owned()),
            ),
            (json!([]), Ownership::Unowned),
        ] {
            let mut object = json!({"metadata": {"ownerReferences": owners}});
            assert_eq!(Ownership::of(&object, &canary), expected, "{object}");
            object["metadata"]["annotations"] = json!({ADOPT: "false"});
            assert_eq!(Ownership::of(&object, &canary), expected, "{object}");
            object["metadata"]["annotations"] = json!({ADOPT: "true"});
            assert_eq!(Ownership::of(&object, &canary), Ownership::Own);
        }
    }
}
