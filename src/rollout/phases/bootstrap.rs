//! The initialization (Flagger's phase Initializing): creates the primary, moves traffic to it, and scales the target to zero.

use crate::{
    api::{canary::CanaryPhase, status::ConditionType},
    notifications::Notification,
    rollout::{
        blocked::Blocked,
        checks::{hooks::Stage, metric_servers},
        messages::{self, run},
        plan::{Decision, Evidence, Plan, Requeue},
        release::Release,
        status::{Outcome, StatusChange, draining, verdict},
    },
    snapshot::{Action, Readiness, Snapshot, TargetKind, Weights, Write, knative},
};

/// One reconcile of the initialization.
pub fn decide(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    release
        .has_all_configs()
        .map_err(|cause| Blocked::CannotCreatePrimary {
            kind: release.kind.kind(),
            cause: Box::new(cause),
        })?;
    if let Some(wait) = first_revision(release)? {
        return Ok(wait);
    }
    let mut services = release.workload_services();
    services.retain(|write| !snapshot.leaves_out(write));
    if !services.is_empty() {
        return Ok(Decision::write(services));
    }
    if let Some(decision) = before_pods(release)? {
        return Ok(decision);
    }
    let mut notifications = Vec::new();
    if !snapshot.canary.skip_analysis() {
        match metric_servers::online(snapshot, evidence) {
            Stage::Ask(questions) => return Ok(Decision::Ask(questions, Vec::new())),
            Stage::Done(Ok(())) => notifications.push(run::metric_providers_available(snapshot)),
            Stage::Done(Err(why)) => {
                notifications.push(run::metric_provider_missing(snapshot, &why.to_string()));
            }
        }
    }
    let writes = primary_and_announcements(release);
    if !writes.is_empty() {
        return Ok(Decision::Do(Plan {
            writes,
            status: None,
            notifications,
        }));
    }
    wait_for_primary(release, notifications)
}

/// A wait of an initialization that has taken longer than the progress deadline is recorded and alerted once (not in Flagger, whose
/// events are the only sign of it). All other decisions stay as they are.
pub fn overdue(snapshot: &Snapshot, decision: Decision) -> Decision {
    let status = snapshot.status();
    let is_overdue = status.phase == CanaryPhase::Initializing
        && snapshot.tick.is_some()
        && !snapshot.canary.spec.suspend
        && snapshot.canary.metadata.deletion_timestamp.is_none()
        && !status.has_condition(ConditionType::Verdict)
        && snapshot.exceeds_deadline(status.last_transition_time.as_ref());
    let why = match &decision {
        Decision::Wait(_, events) => events.iter().rev().find_map(messages::warned),
        Decision::Ask(..) | Decision::Do(_) => None,
    };
    let Some(why) = why.filter(|_| is_overdue) else {
        return decision;
    };
    let change = verdict::not_initialized(StatusChange::within_step(snapshot), why);
    Decision::commit(change.build(), vec![run::not_initialized(snapshot, why)])
}

/// Waits until the Revision that becomes the primary of a Knative Service is ready, because the same write sends all requests to it. `None`
/// if it is ready. It is an error if a user has sent requests to another Revision. (Flagger checks neither.)
fn first_revision(release: &Release<'_>) -> Result<Option<Decision>, Blocked> {
    if release.kind != TargetKind::Knative {
        return Ok(None);
    }
    let snapshot = release.snapshot;
    if let Some(revision) = knative::older(release.target) {
        return Err(Blocked::OlderRevision {
            target: snapshot.full_target(),
            revision: revision.to_owned(),
        });
    }
    let wait = |why| Decision::Wait(Requeue::AtTick, vec![messages::warning(snapshot, why)]);
    Ok(match release.canary_readiness() {
        Readiness::Ready => None,
        Readiness::Waiting(why) | Readiness::Failed(why) => Some(wait(why)),
    })
}

/// Creates the objects that must exist before the primary's pods; `None` if they exist.
fn before_pods(release: &Release<'_>) -> Result<Option<Decision>, Blocked> {
    let mut writes = release.before_pods()?;
    if writes.is_empty() {
        return Ok(None);
    }
    writes.retain(|write| !release.snapshot.leaves_out(write));
    if writes.is_empty() {
        // All these writes were tried since the last tick, or are paused.
        return Ok(Some(Decision::wait(Requeue::AtTick)));
    }
    Ok(Some(Decision::write(writes)))
}

/// Creates or updates the primary. Also announces the Services, so that proxies know them when traffic moves.
fn primary_and_announcements(release: &Release<'_>) -> Vec<Write> {
    // Until the primary gets traffic, it is updated with the target. So it gets the fix of a version that never became ready.
    let mut writes = if release.primary_runs_the_target() {
        Vec::new()
    } else {
        release.promote()
    };
    // An error of the routes is reported when they are written.
    let coming = release.routes_to(&Weights::PRIMARY).unwrap_or_default();
    writes.extend(release.announce(&coming));
    writes
}

fn wait_for_primary(
    release: &Release<'_>,
    mut notifications: Vec<Notification>,
) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    if !snapshot.canary.skip_analysis()
        && let Readiness::Waiting(why) | Readiness::Failed(why) = release.primary_readiness()
    {
        notifications.push(messages::warning(snapshot, why));
        return Ok(Decision::Wait(Requeue::AtTick, notifications));
    }
    if snapshot.canary_has_ready_pods() && !snapshot.primary_has_ready_pods() {
        let event = run::primary_without_ready_pod(snapshot);
        return Ok(Decision::Wait(Requeue::AtTick, vec![event]));
    }
    let kept = release.kept_selectors();
    if !kept.is_empty() {
        return Ok(Decision::Wait(Requeue::AtTick, kept));
    }
    if let Some(wait) = release.routes_lag() {
        return Ok(wait);
    }
    move_traffic(release)
}

/// Moves traffic to the primary, waits some seconds for the proxies, then scales the target down. Flagger scales the target down first and
/// routes afterwards.
fn move_traffic(release: &Release<'_>) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    let mut writes: Vec<Write> = release.primary_scaler(false)?.into_iter().collect();
    writes.extend(release.routes_to(&Weights::PRIMARY)?);
    writes.extend(release.apex_service());
    let (tried, writes): (Vec<_>, Vec<_>) = writes
        .into_iter()
        .partition(|write| release.is_tried(write));
    if !writes.is_empty() {
        return Ok(Decision::write(writes));
    }
    // If another actor keeps reverting a write, the initialization goes on without it. But it waits for the next tick, and tries again, if
    // an object does not exist or if traffic does not reach the primary: clients would get no answer.
    let is_missing = |write: &Write| matches!(write.action, Action::Create(_));
    if tried.iter().any(is_missing) || !(release.leads_to_primary() || tried.is_empty()) {
        return Ok(Decision::wait(Requeue::AtTick));
    }
    let down = release.scale_down();
    match draining::end(snapshot) {
        None if snapshot.canary_has_ready_pods() && !down.is_empty() => {
            let draining = draining::begin(StatusChange::within_step(snapshot));
            Ok(Decision::commit(draining.build(), Vec::new()))
        }
        Some(end) if snapshot.now < end => Ok(Decision::wait(Requeue::At(end))),
        _ => Ok(initialized(release, down)),
    }
}

/// Completes the initialization.
fn initialized(release: &Release<'_>, scale_down: Vec<Write>) -> Decision {
    let snapshot = release.snapshot;
    let status = StatusChange::enter(snapshot, CanaryPhase::Initialized)
        .clear(ConditionType::Draining)
        .progress(0, 0)
        .without_failed_checks()
        .with(|status| {
            status.last_applied_spec = Some(release.revision.clone());
            status.last_promoted_spec = Some(release.revision.clone());
            status.tracked_configs.clone_from(&release.configs);
        })
        .pending(&Outcome::Initialized)
        .build();
    let event = run::initialized(snapshot, &status);
    Decision::Do(Plan {
        writes: scale_down,
        status: Some(status),
        notifications: [event].into_iter().chain(release.unsplit_ports()).collect(),
    })
}
