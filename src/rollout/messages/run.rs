//! The events of a run: initialization, start, steps, promotion, deletion.

use std::fmt::Display;

use jiff::Timestamp;

use super::{alert, announcing, describing_alert, event_in, normal, normal_after, warning};
use crate::{
    api::{
        action::Verb,
        canary::{CanaryPhase, CanaryStatus},
        percent::Percent,
    },
    notifications::{EventKind, Notification, Severity},
    routers::provider_name,
    snapshot::{ObjectRef, Snapshot, excerpt},
    workload::ports::Port,
};

/// The alert about an initialization that takes longer than the progress deadline.
pub fn not_initialized(snapshot: &Snapshot, why: &str) -> Notification {
    let text = format!("Initialization not completed until the progress deadline: {why}");
    alert(snapshot, Severity::Error, &text)
}

/// The providers of all metrics can be reached.
pub fn metric_providers_available(snapshot: &Snapshot) -> Notification {
    let text = "all the metrics providers are available!";
    normal(snapshot, text.to_owned())
}

/// The provider of a metric cannot be reached, for this reason.
pub fn metric_provider_missing(snapshot: &Snapshot, why: &str) -> Notification {
    let text = format!("Error checking metric providers: {why}");
    warning(snapshot, text)
}

/// Traffic cannot move to the primary yet.
pub fn primary_without_ready_pod(snapshot: &Snapshot) -> Notification {
    let text = format!("{} has no ready pod yet", primary(snapshot));
    warning(snapshot, text)
}

/// A Service keeps its selector, because the pods that it selects are ready and the primary's are not.
pub fn keeps_selector(snapshot: &Snapshot, service: &str, serving: &str) -> Notification {
    let namespace = snapshot.namespace();
    let primary = snapshot.canary.primary_workload_name();
    let text = format!(
        "service {service}.{namespace} still leads to {serving}, because {primary}.{namespace} has no ready pod; it is changed once {primary} has one"
    );
    warning(snapshot, text)
}

/// The initialization is complete; `status` is committed with it.
pub fn initialized(snapshot: &Snapshot, status: &CanaryStatus) -> Notification {
    let text = format!("Initialization done! {}", snapshot.full_name());
    normal_after(status, text)
}

/// A user suspended the canary.
pub fn suspended(snapshot: &Snapshot) -> Notification {
    let text = "skipping canary run as object is suspended";
    normal(snapshot, text.to_owned())
}

/// A run starts: the target is scaled up.
pub fn started(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "New revision detected! Scaling up {}",
        snapshot.full_target()
    );
    event_in(snapshot, EventKind::Normal, text, CanaryPhase::Progressing)
}

/// The alert that a run has started. `entered` is the time of the start, if the alert may have to be repeated.
pub fn start_alert(snapshot: &Snapshot, entered: Option<Timestamp>) -> Notification {
    let text = "New revision detected, progressing canary analysis.";
    announcing(describing_alert(snapshot, text), entered)
}

/// The event about further ports to which the router splits no requests; `None` if there are none. (Flagger sends no such event.)
pub fn unsplit_ports(snapshot: &Snapshot, ports: &[Port]) -> Option<Notification> {
    let ports: Vec<_> = ports
        .iter()
        .map(|port| format!("{}/{}", port.number, port.protocol))
        .collect();
    let target = snapshot.full_target();
    let text = format!(
        "Requests to the ports {} of {target} are not split, they reach the primary: with the provider {}, only the port {} of the Service is analysed",
        ports.join(", "),
        provider_name(snapshot),
        snapshot.canary.spec.service.port
    );
    let event = || normal(snapshot, text);
    (!ports.is_empty()).then(event)
}

/// The target changed during a run.
pub fn restarted(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "New revision detected! Restarting analysis for {}",
        snapshot.full_target()
    );
    normal(snapshot, text)
}

/// The first checks of a run begin.
pub fn analysis_starts(snapshot: &Snapshot) -> Notification {
    let text = format!("Starting canary analysis for {}", snapshot.full_target());
    normal(snapshot, text)
}

/// The weight of the canary rises.
pub fn canary_weight(snapshot: &Snapshot, weight: Percent) -> Notification {
    let name = snapshot.full_name();
    normal(snapshot, format!("Advance {name} canary weight {weight}"))
}

/// Another iteration begins.
pub fn iteration(snapshot: &Snapshot, iteration: i64, all: i64) -> Notification {
    let name = snapshot.full_name();
    let text = format!("Advance {name} canary iteration {iteration}/{all}");
    normal(snapshot, text)
}

/// All traffic moves to the canary, the last step of blue/green.
pub fn all_traffic_to_canary(snapshot: &Snapshot, was_mirrored: bool) -> Notification {
    let text = if was_mirrored {
        "Stop traffic mirroring and route all traffic to canary"
    } else {
        "Routing all traffic to canary"
    };
    normal(snapshot, text.to_owned())
}

/// The spec asks for A/B testing, but the provider cannot route.
pub fn no_ab_testing(snapshot: &Snapshot) -> Notification {
    let text = "A/B testing is not supported when using the kubernetes provider";
    warning(snapshot, text.to_owned())
}

/// The spec asks for weights, but the provider cannot route; iterations are used instead.
pub fn no_weights(snapshot: &Snapshot, iterations: i64) -> [Notification; 2] {
    let text = "Progressive traffic is not supported when using the kubernetes provider";
    let instead = format!("Setting canaryAnalysis.iterations: {iterations}");
    [text.to_owned(), instead].map(|text| warning(snapshot, text))
}

/// The canary lost its pods and gets no traffic any more.
pub fn withdrawn(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "Halt {} advancement {} has no ready pod: routing all traffic to primary",
        snapshot.full_name(),
        snapshot.full_target()
    );
    warning(snapshot, text)
}

/// The canary has ready pods again and gets the traffic that it had.
pub fn restored(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "{} has ready pods again: routing traffic to canary as before",
        snapshot.full_target()
    );
    normal(snapshot, text)
}

/// A version that was rolled back still gets requests, so it keeps its pods.
pub fn still_served(snapshot: &Snapshot, canary: f64, all: f64) -> Notification {
    let text = format!(
        "{} served {canary:.0} of {all:.0} requests after its traffic had moved away: it keeps its pods for now",
        snapshot.full_target()
    );
    warning(snapshot, text)
}

/// The primary was deleted during a run, or after a failed one.
pub fn primary_lost(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "{} was deleted and its version is lost: it is created again with the version of {}, which was not promoted",
        primary(snapshot),
        snapshot.full_target()
    );
    warning(snapshot, text)
}

/// After a failed promotion, the primary gets its previous version.
pub fn restoring_primary(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "Restoring {} to the version before the failed promotion",
        primary(snapshot)
    );
    normal(snapshot, text)
}

/// The primary is ready with its previous version.
pub fn restored_primary(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "{} is restored: routing all traffic to primary",
        primary(snapshot)
    );
    normal(snapshot, text)
}

/// The primary keeps the version with which it did not become ready, for this reason.
pub fn primary_not_restored(snapshot: &Snapshot, why: &str) -> Notification {
    let text = format!(
        "{} cannot be restored to the version before the failed promotion: {why}",
        primary(snapshot)
    );
    warning(snapshot, text)
}

fn primary(snapshot: &Snapshot) -> String {
    let name = snapshot.canary.primary_workload_name();
    format!("{name}.{}", snapshot.namespace())
}

/// The promotion begins: the primary gets the target's template.
pub fn copying(snapshot: &Snapshot) -> Notification {
    let text = format!(
        "Copying {} template spec to {}-primary.{}",
        snapshot.full_target(),
        snapshot.canary.spec.target_ref.name,
        snapshot.namespace()
    );
    normal(snapshot, text)
}

/// The weight of the primary rises during the promotion.
pub fn primary_weight(snapshot: &Snapshot, weight: Percent) -> Notification {
    let name = snapshot.full_name();
    normal(snapshot, format!("Advance {name} primary weight {weight}"))
}

/// All traffic moves to the promoted primary.
pub fn all_traffic_to_primary(snapshot: &Snapshot) -> Notification {
    normal(snapshot, "Routing all traffic to primary".to_owned())
}

/// The Canary was deleted and the objects that it took over are restored. As in Flagger, event webhooks receive the phase that ends.
pub fn terminating(snapshot: &Snapshot) -> Notification {
    let text = format!("Terminating canary {}", snapshot.full_name());
    normal(snapshot, text)
}

/// The target is not ready to take the traffic back.
pub fn not_ready_to_terminate(snapshot: &Snapshot, why: &str) -> Notification {
    let text = format!("canary not ready during finalizing: {why}");
    warning(snapshot, text)
}

/// A route of the user could not be given back.
pub fn not_given_back(snapshot: &Snapshot, route: &ObjectRef) -> Notification {
    let text = format!(
        "{} {} is not given back yet: another actor undoes the write of its weights, or the API server refuses it",
        route.kind.name(),
        route.full_name()
    );
    warning(snapshot, text)
}

/// The weights in a route of the user are not those of the release.
pub fn weights_changed(route: &ObjectRef) -> String {
    format!(
        "{} {} does not have the weights of the release: another actor changes them, or the API server refuses the write",
        route.kind.name(),
        route.full_name()
    )
}

/// All objects that the Canary took over are restored; the Canary can be deleted.
pub fn terminated(snapshot: &Snapshot) -> Notification {
    let text = format!("Terminated canary {}", snapshot.full_name());
    normal(snapshot, text)
}

/// The rollback moves traffic to a primary that has the failed version, too: the primary was deleted during the run and created again from
/// the target.
pub fn primary_has_failed_version(snapshot: &Snapshot) -> Notification {
    let name = snapshot.canary.primary_workload_name();
    let namespace = snapshot.namespace();
    warning(
        snapshot,
        format!(
            "{name}.{namespace} has the failed version, too, because it was deleted during the run: release a version that you trust"
        ),
    )
}

/// The primary, which has no pods, gets some before its traffic returns.
pub fn wakes_primary(snapshot: &Snapshot) -> Notification {
    let name = snapshot.canary.primary_workload_name();
    let namespace = snapshot.namespace();
    warning(
        snapshot,
        format!("{name}.{namespace} is scaled to zero: scaling it up before it gets traffic"),
    )
}

/// A person's action on the release is accepted; `who` names the author and the reason.
pub fn action_accepted(snapshot: &Snapshot, verb: Verb, who: &str) -> Notification {
    let requested = match verb {
        Verb::Promote => "Promotion without further steps and checks",
        Verb::Skip => "Skip of this step",
        Verb::Pause => "Pause",
        Verb::Resume => "End of the pause",
        Verb::Abort => "Abort",
        Verb::Retry => "Another run of the failed version",
    };
    action(snapshot, requested, who)
}

/// A person opens the gate at which a release waits; `who` names the author and the reason.
pub fn gate_opened_by(snapshot: &Snapshot, who: &str) -> Notification {
    action(snapshot, "Opening of the gate", who)
}

fn action(snapshot: &Snapshot, requested: &str, who: &str) -> Notification {
    let name = snapshot.full_name();
    normal(snapshot, format!("{name}: {requested} requested {who}"))
}

/// A person's action on the release is refused; `line` is the text of its annotation.
pub fn action_refused(snapshot: &Snapshot, line: &str, why: &impl Display) -> Notification {
    let text = format!(
        "{}: the action {:?} is refused: {why}",
        snapshot.full_name(),
        excerpt(line)
    );
    warning(snapshot, text)
}
