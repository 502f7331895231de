//! Computes the objects beside the target and the routes, as they should be: the primary, its copies of configs, the Services and the
//! autoscaler. Each kind of target has a file of its own: [`deployment`], [`daemon_set`], [`service_target`], [`knative`].

mod adoption;
pub mod config;
pub mod daemon_set;
pub mod deployment;
pub mod history;
pub mod keep_apart;
pub mod knative;
pub mod label_selector;
pub mod metadata;
pub mod ownership;
pub mod patch;
pub mod ports;
pub mod primary;
pub mod scaler;
pub mod selection;
pub mod service;
pub mod service_target;
mod share;
pub mod strategy;

use serde_json::Value;

use crate::snapshot::{Action, ObjectRef, TargetKind, Write};
use patch::{Change, conditional};

/// Scales the target to zero. Returns no write if the target is already scaled to zero, or if its kind has no pods.
pub fn scale_to_zero(kind: TargetKind, target: &Value, failure: String) -> Option<Write> {
    let change = match kind {
        TargetKind::Deployment => deployment::scale(target, 0),
        TargetKind::DaemonSet => daemon_set::scale_to_zero(target),
        TargetKind::Service | TargetKind::Knative => None,
    };
    Some(change_write(kind, target, change?, failure))
}

/// Scales the target up: a Deployment to this number of replicas, a DaemonSet to all its nodes. Returns no write if the target is
/// scaled up already, or if its kind has no pods.
pub fn scale_from_zero(
    kind: TargetKind,
    target: &Value,
    replicas: i64,
    failure: String,
) -> Option<Write> {
    let change = match kind {
        TargetKind::Deployment => deployment::scale(target, replicas),
        TargetKind::DaemonSet => daemon_set::scale_from_zero(target),
        TargetKind::Service | TargetKind::Knative => None,
    };
    Some(change_write(kind, target, change?, failure))
}

/// The write of a change of one field of a workload.
pub fn change_write(kind: TargetKind, target: &Value, change: Change, failure: String) -> Write {
    Write {
        object: ObjectRef {
            kind: kind.kind(),
            namespace: metadata::namespace(target).to_owned(),
            name: metadata::name(target).to_owned(),
        },
        action: Action::Patch(conditional(target, vec![change.operation()])),
        failure,
    }
}
