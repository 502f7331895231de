//! The reasons why a decision cannot go on for now.

use super::{
    messages,
    plan::{Decision, Requeue},
};
use crate::{
    routers::RouteError,
    snapshot::{Kind, Snapshot},
    workload::{
        daemon_set::NotRollingUpdate,
        ownership::Foreign,
        scaler::ScalerNotFound,
        selection::{NoSelectorLabel, WrongSelector},
    },
};

/// An obstacle. The operator reports it as a Warning event at each tick, in this wording, and changes nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// This version releases no workloads of that kind.
    #[error("{0} is no kind of target")]
    UnknownTargetKind(String),
    /// The target does not exist.
    #[error("{} {name}.{namespace} get query error: {resource} {name:?} not found", in_messages(*kind))]
    TargetNotFound {
        /// The kind of the target.
        kind: Kind,
        /// `plural.group`, as the API server names the resource.
        resource: String,
        /// The name of the target.
        name: String,
        /// The Canary's namespace.
        namespace: String,
    },
    /// Knative has not made a Revision of the target yet.
    #[error("Knative Service {0} has no Revision yet")]
    NoRevision(String),
    /// A user's routes send requests to an older Revision. The initialization would send them to the latest Revision without an analysis,
    /// as Flagger does.
    #[error(
        "Knative Service {target} leads requests to {revision}, which is not its latest Revision: let a route of spec.traffic with latestRevision have all of them first"
    )]
    OlderRevision {
        /// The target, as `NAME.NAMESPACE`.
        target: String,
        /// The Revision.
        revision: String,
    },
    /// A config that the pods cannot start without does not exist.
    #[error("{}", config_not_found(*kind, name, namespace))]
    ConfigNotFound {
        /// ConfigMap or Secret.
        kind: Kind,
        /// The name of the config.
        name: String,
        /// The Canary's namespace.
        namespace: String,
    },
    /// The primary cannot be created.
    #[error("createPrimary{} failed: {cause}", kind.name())]
    CannotCreatePrimary {
        /// The kind of the primary.
        kind: Kind,
        /// The obstacle.
        cause: Box<Blocked>,
    },
    /// Traffic would move to a workload that has no ready pod.
    #[error("{workload}.{namespace} has no ready pod: traffic stays where it is")]
    NoReadyPod {
        /// The workload that would get the traffic.
        workload: String,
        /// The Canary's namespace.
        namespace: String,
    },
    /// The canary needs the name of an object that belongs to another owner.
    #[error(transparent)]
    Foreign(#[from] Foreign),
    /// The operator tried to continue a rollback that has not begun. This is a defect of the operator.
    #[error("no rollback is under way")]
    NoRollback,
    /// The routes cannot be read or written.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The target's selector has no label that distinguishes its pods from the primary's.
    #[error(transparent)]
    Selector(#[from] NoSelectorLabel),
    /// A selector would lead requests to the wrong pods.
    #[error(transparent)]
    WrongSelector(#[from] WrongSelector),
    /// The target DaemonSet does not replace its pods one after another.
    #[error(transparent)]
    UpdateStrategy(#[from] NotRollingUpdate),
    /// The target's autoscaler does not exist.
    #[error(transparent)]
    Scaler(#[from] ScalerNotFound),
}

impl Blocked {
    /// The decision to wait for the next tick and to report the obstacle.
    pub fn report(&self, snapshot: &Snapshot) -> Decision {
        let event = messages::warning(snapshot, self.to_string());
        Decision::Wait(Requeue::AtTick, vec![event])
    }
}

/// Flagger's text for a kind of target.
fn in_messages(kind: Kind) -> String {
    match kind {
        Kind::KnativeService => "Knative Service".to_owned(),
        kind => kind.name().to_lowercase(),
    }
}

/// Flagger's text, in which each function that passes the error on adds a part.
fn config_not_found(kind: Kind, name: &str, namespace: &str) -> String {
    let (lower, plural) = (kind.name().to_lowercase(), kind.plural());
    let wrapped = format!("{lower} {name}.{namespace} get query error: ");
    format!("GetTargetConfigs failed: {wrapped}{wrapped}{plural} {name:?} not found")
}
