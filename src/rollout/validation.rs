//! Canaries that are not run: suspended, invalid, or second to another one with the same target.

use super::{
    events::event,
    phase::{self, ConditionType},
    plan::{Decision, Requeue},
    rollback,
};
use crate::{
    api::canary::{CanaryPhase, Strategy},
    notifications::EventKind,
    providers,
    routers::Router,
    snapshot::{Snapshot, TargetKind},
};

/// The decision about a canary that must not be run as it is; `None` if it can be.
pub fn refuse(snapshot: &Snapshot) -> Option<Decision> {
    if rollback::is_under_way(snapshot) || rollback::is_notification_pending(snapshot) {
        // Traffic returns to the primary, and people hear of it, whatever the spec says by now.
        return None;
    }
    // A new one becomes known first: its status says so, whether it is suspended or not.
    if snapshot.canary.spec.suspend && snapshot.phase() != CanaryPhase::New {
        let text = "skipping canary run as object is suspended".to_owned();
        return Some(Decision::Wait(
            Requeue::Change,
            vec![event(snapshot, EventKind::Normal, text)],
        ));
    }
    let conflicting_canary = snapshot
        .conflicting_canary
        .as_ref()
        .map(|conflicting_canary| {
            format!(
                "canary {} is not run: {conflicting_canary} has the same target {}",
                snapshot.full_name(),
                snapshot.full_target()
            )
        });
    say(
        snapshot,
        ConditionType::TargetConflict,
        "SameTarget",
        conflicting_canary,
    )
    .or_else(|| {
        say(
            snapshot,
            ConditionType::Invalid,
            "InvalidSpec",
            invalid(snapshot),
        )
    })
}

/// Says a problem once, in the status and in an event, and takes it back when it is gone.
fn say(
    snapshot: &Snapshot,
    condition: ConditionType,
    reason: &str,
    problem: Option<String>,
) -> Option<Decision> {
    let known = phase::condition(snapshot, condition).map(|(_, message)| message.to_owned());
    if known == problem {
        // The other canary of a conflict may go without a sign.
        return problem.map(|_| Decision::Wait(Requeue::AtTick, Vec::new()));
    }
    let status = phase::status(snapshot);
    Some(match problem {
        Some(problem) => {
            let status = phase::with_condition(status, snapshot, condition, reason, &problem);
            Decision::commit(status, vec![event(snapshot, EventKind::Warning, problem)])
        }
        None => Decision::commit(phase::without_condition(status, condition), Vec::new()),
    })
}

/// What is wrong with a spec, if anything: the field, and why.
fn invalid(snapshot: &Snapshot) -> Option<String> {
    let problem = target(snapshot)
        .or_else(|| references(snapshot))
        .or_else(|| analysis(snapshot))
        .or_else(|| {
            let metrics = || super::metric_checks::unsupported(snapshot);
            let unrouted = providers::router(snapshot).err();
            let problem = unrouted.map(|error| error.to_string()).or_else(metrics)?;
            Some(format!("spec.provider: {problem}"))
        })?;
    Some(format!("invalid canary spec: {problem}"))
}

fn target(snapshot: &Snapshot) -> Option<String> {
    let spec = &snapshot.canary.spec;
    if TargetKind::of(&snapshot.canary).is_none() {
        return Some(format!(
            "spec.targetRef: {} {} is not supported yet, only Deployment, DaemonSet and core Service are",
            spec.target_ref.api_version, spec.target_ref.kind
        ));
    }
    if !(1..=65535).contains(&spec.service.port) {
        return Some(format!(
            "spec.service.port: {} is not a port (1 to 65535)",
            spec.service.port
        ));
    }
    None
}

fn references(snapshot: &Snapshot) -> Option<String> {
    if !snapshot.settings.no_cross_namespace_refs {
        return None;
    }
    let namespace = snapshot.namespace();
    let foreign = |other: &Option<String>| {
        other
            .as_deref()
            .filter(|other| !other.is_empty() && *other != namespace)
            .map(str::to_owned)
    };
    let analysis = snapshot.canary.spec.analysis.as_ref()?;
    let templates = analysis
        .metrics
        .iter()
        .filter_map(|m| m.template_ref.as_ref())
        .map(|r| ("metric template", &r.name, &r.namespace));
    let providers = analysis.alerts.iter().map(|a| {
        (
            "alert provider",
            &a.provider_ref.name,
            &a.provider_ref.namespace,
        )
    });
    templates.chain(providers).find_map(|(what, name, other)| {
        foreign(other).map(|other| {
            format!("can't access {what} {name}.{other}, cross-namespace references are blocked")
        })
    })
}

fn analysis(snapshot: &Snapshot) -> Option<String> {
    let canary = &snapshot.canary;
    let Some(analysis) = &canary.spec.analysis else {
        return Some("spec.analysis: required".to_owned());
    };
    if let Some(affinity) = &analysis.session_affinity
        && affinity.primary_cookie_name.as_ref() == Some(&affinity.cookie_name)
    {
        return Some(
            "can't use the same cookie name for both primary and cookie name; please update them to be different"
                .to_owned(),
        );
    }
    if canary.skip_analysis() {
        return None;
    }
    let splits = providers::router(snapshot).is_ok_and(Router::splits_traffic);
    if canary.strategy() != Strategy::Canary || !splits {
        return None;
    }
    let weights = analysis.step_weights.as_deref().unwrap_or_default();
    if let Some(i) = weights
        .windows(2)
        .position(|pair| matches!(pair, [a, b] if a >= b))
    {
        return Some(format!(
            "spec.analysis.stepWeights[{}]: must be greater than the one before",
            i + 1
        ));
    }
    if weights.is_empty() && analysis.step_weight.unwrap_or(0) <= 0 {
        return Some("spec.analysis.stepWeight: must be greater than 0".to_owned());
    }
    if weights.first().is_some_and(|first| *first <= 0) {
        return Some("spec.analysis.stepWeights[0]: must be greater than 0".to_owned());
    }
    None
}
