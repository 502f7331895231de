//! PURE: the objects wanted beside the target: the primary and its copies, the Services, the autoscaler. One file per kind of target.

pub mod config;
pub mod daemon_set;
pub mod deployment;
pub mod metadata;
pub mod primary;
pub mod scaler;
pub mod service;
pub mod service_target;

use serde_json::Value;

use crate::snapshot::{Action, ObjectRef, TargetKind, Write};
use primary::{Change, conditional, text};

/// Takes the target's pods away: nothing, if they are, or if it has none.
pub fn scale_to_zero(kind: TargetKind, target: &Value, failure: String) -> Option<Write> {
    let change = match kind {
        TargetKind::Deployment => deployment::scale(target, 0),
        TargetKind::DaemonSet => daemon_set::scale_to_zero(target),
        TargetKind::Service => None,
    };
    Some(scaled(kind, target, change?, failure))
}

/// Brings the target's pods back, so many where it can be said: nothing, if they are there, or if it has none.
pub fn scale_from_zero(
    kind: TargetKind,
    target: &Value,
    replicas: i64,
    failure: String,
) -> Option<Write> {
    let change = match kind {
        TargetKind::Deployment => deployment::scale(target, replicas),
        TargetKind::DaemonSet => daemon_set::scale_from_zero(target),
        TargetKind::Service => None,
    };
    Some(scaled(kind, target, change?, failure))
}

fn scaled(kind: TargetKind, target: &Value, change: Change, failure: String) -> Write {
    Write {
        object: ObjectRef {
            kind: kind.kind(),
            namespace: text(target, "/metadata/namespace").to_owned(),
            name: text(target, "/metadata/name").to_owned(),
        },
        action: Action::Patch(conditional(target, vec![change.operation()])),
        failure,
    }
}
