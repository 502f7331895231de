//! From a bare Deployment to a canary that can be released: Flagger's phase Initializing, in its order.

use super::{
    drain,
    events::{event, event_of},
    hooks::Stage,
    metric_checks,
    phase::{self, ConditionType},
    plan::{Decision, Evidence, Plan, Requeue},
    release::Release,
    rollback::{self, Outcome},
};
use crate::{
    api::canary::CanaryPhase,
    notifications::EventKind,
    snapshot::{Action, Readiness, Weights, Write},
};

/// The primary beside the target, traffic on it, the target at zero.
pub fn decide(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, String> {
    let snapshot = release.snapshot;
    release.complete().map_err(|problem| {
        format!(
            "createPrimary{} failed: {problem}",
            release.kind.kind().name()
        )
    })?;
    let mut services = release.workload_services();
    services.retain(|write| !snapshot.recently_written.contains(&write.object));
    if !services.is_empty() {
        return Ok(Decision::Do(Plan {
            writes: services,
            ..Plan::default()
        }));
    }
    let mut notifications = Vec::new();
    if !snapshot.canary.skip_analysis() {
        match metric_checks::online(snapshot, evidence) {
            Stage::Ask(questions) => return Ok(Decision::Ask(questions, Vec::new())),
            Stage::Done(result) => notifications.push(match result {
                Ok(()) => event(
                    snapshot,
                    EventKind::Normal,
                    "all the metrics providers are available!".to_owned(),
                ),
                Err(why) => event(
                    snapshot,
                    EventKind::Warning,
                    format!("Error checking metric providers: {why}"),
                ),
            }),
        }
    }
    // Until it serves anyone the primary follows the target, so that a fix of a version that never got ready is taken up.
    let mut writes = if release.is_what_the_primary_runs() {
        Vec::new()
    } else {
        release.promote()
    };
    // While it gets ready, proxies learn where traffic will go. What cannot be routed is said when it is.
    let coming = release.routes_to(&Weights::PRIMARY).unwrap_or_default();
    writes.extend(release.announce(&coming));
    if !writes.is_empty() {
        return Ok(Decision::Do(Plan {
            writes,
            status: None,
            notifications,
        }));
    }
    if !snapshot.canary.skip_analysis()
        && let Readiness::Waiting(why) | Readiness::Failed(why) = release.primary_readiness()
    {
        notifications.push(event(snapshot, EventKind::Warning, why));
        return Ok(Decision::Wait(Requeue::AtTick, notifications));
    }
    initialized(release)
}

/// Traffic moves to the primary, and only then, when every proxy knows, the target goes. (Flagger scales the target down first, and
/// routes afterwards.)
fn initialized(release: &Release<'_>) -> Result<Decision, String> {
    let snapshot = release.snapshot;
    if snapshot.canary_has_ready_pods() && !snapshot.primary_has_ready_pods() {
        let name = snapshot.canary.primary_workload_name();
        let text = format!("{name}.{} has no ready pod yet", snapshot.namespace());
        return Ok(Decision::Wait(
            Requeue::AtTick,
            vec![event(snapshot, EventKind::Warning, text)],
        ));
    }
    if let Some(wait) = release.routes_lag() {
        return Ok(wait);
    }
    let mut writes: Vec<Write> = release.primary_scaler(false)?.into_iter().collect();
    writes.extend(release.routes_to(&Weights::PRIMARY)?);
    writes.extend(release.apex_service());
    let (tried, writes): (Vec<_>, Vec<_>) = writes
        .into_iter()
        .partition(|write| release.is_tried(write));
    if !writes.is_empty() {
        return Ok(Decision::Do(Plan {
            writes,
            ..Plan::default()
        }));
    }
    // What somebody changes back all the time is not argued with. What was refused, and without which clients would not be answered
    // once the target is gone, was said, and is tried again.
    let is_missing = |write: &Write| matches!(write.action, Action::Create(_));
    if tried.iter().any(is_missing) || !(release.leads_to_primary() || tried.is_empty()) {
        return Ok(Decision::Wait(Requeue::AtTick, Vec::new()));
    }
    let down = release.scale_down();
    match drain::end(snapshot) {
        None if snapshot.canary_has_ready_pods() && !down.is_empty() => {
            return Ok(Decision::commit(
                drain::begin(phase::status(snapshot), snapshot),
                Vec::new(),
            ));
        }
        Some(end) if snapshot.now < end => return Ok(Decision::Wait(Requeue::At(end), Vec::new())),
        _ => {}
    }
    let status = phase::enter(snapshot, CanaryPhase::Initialized);
    let mut status = phase::without_condition(status, ConditionType::Draining);
    status.canary_weight = 0;
    status.iterations = 0;
    status.failed_checks = 0;
    status.last_applied_spec = Some(release.revision.clone());
    status.last_promoted_spec = Some(release.revision.clone());
    status.tracked_configs.clone_from(&release.configs);
    let text = format!("Initialization done! {}", snapshot.full_name());
    let done = event_of(&status, EventKind::Normal, text);
    Ok(Decision::Do(Plan {
        writes: down,
        status: Some(rollback::with_notification_pending(
            status,
            snapshot,
            &Outcome::Initialized,
        )),
        notifications: vec![done],
    }))
}
