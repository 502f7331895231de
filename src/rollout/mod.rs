//! The decision: the next action for one canary, as a pure function of a snapshot and of the answers received so far.
//!
//! - [`decide`]: the entry point, which shows the order of all rules.
//! - `release`: the facts about a release that nearly every decision needs, derived once from the snapshot.
//! - [`plan`]: the result of a decision: a plan, a question or a wait.
//! - `reads`: the objects that a decision needs.
//! - `progress`: the progress of the objects for which a run waits, from which the deadline counts.
//! - `blocked`: the obstacles that hold up a release, such as a missing target.
//! - `actions`: a person promotes, skips, pauses, resumes, aborts or retries a release.
//! - `rollback`: the beginning of a rollback; a phase completes it.
//! - `phases`: one file per phase of a release, or per group of phases.
//! - `ended`: how a run ended, for its record.
//! - `checks`: hooks, gates and metrics of a step.
//! - `objects`: the writes of workloads, Services and routes that the phases have in common.
//! - `safety`: the rules that no phase may break: validation, audit, traffic only to ready pods, no irreversible step on stale reads.
//! - `status`: changes of the status: phases, conditions, outcomes.
//! - [`messages`]: the exact texts of events and alerts.
//! - [`preview`]: the first decision, as `flagger check` shows it.

pub mod messages;
pub mod plan;

mod actions;
mod blocked;
mod checks;
mod ended;
mod objects;
mod phases;
mod preview;
mod progress;
mod reads;
mod release;
mod rollback;
mod safety;
mod status;

pub use checks::{
    comparisons::{Comparable, comparable, series_question},
    measurements::{Measurements, MetricState, measurements, metric_measurements},
    metric_query::queried,
    metrics::samples,
};
pub use ended::of_end;
pub use messages::{another_operator, undone, warning};
pub use plan::{Answer, Decision, Evidence, Plan, Question, Requeue};
pub use preview::{FirstAction, Preview, preview};
pub use progress::progress;
pub use reads::{claims, needed_in_full, needs, users_routes};
pub use release::{new_version, version};
pub use safety::{audit::audit, stale_reads::stale_reads, validation::spec_problem};
pub use status::transitions::is_in_run;

use crate::{
    api::canary::CanaryPhase,
    notifications::Notification,
    providers,
    routers::RouteError,
    snapshot::{Snapshot, Weights, Write},
};
use blocked::Blocked;
use phases::{
    analysis, bootstrap, deletion, end, finish_rollback, idle, new_revision, promotion, restore,
};
use release::Release;
use safety::{grpc_route, own_routes, ownership, selectors, validation, withdrawal};

use status::{
    Outcome, StatusChange, outcome, refused,
    transitions::{is_between_runs, is_in_promotion, is_under_analysis},
};

/// Decides the next action. The function is total: there is a decision for every snapshot.
pub fn decide(snapshot: &Snapshot, evidence: &Evidence) -> Decision {
    bootstrap::overdue(snapshot, in_any_phase(snapshot, evidence))
}

fn in_any_phase(snapshot: &Snapshot, evidence: &Evidence) -> Decision {
    if snapshot.canary.metadata.deletion_timestamp.is_some() {
        return deletion::decide(snapshot);
    }
    // The owner is renewed even if the Canary is not run. Otherwise Kubernetes deletes the primary.
    if let Some(renewal) = ownership::renew(snapshot) {
        return renewal;
    }
    if let Some(decision) = validation::refuse(snapshot) {
        let is_idle = matches!(decision, Decision::Wait(..));
        let refusal = actions::refuse(snapshot).filter(|_| is_idle);
        return refusal.unwrap_or(decision);
    }
    if let Some(decision) = deletion::prepare(snapshot) {
        return decision;
    }
    if snapshot.phase() == CanaryPhase::New {
        let known = StatusChange::enter(snapshot, CanaryPhase::Initializing);
        return Decision::commit(known.build(), Vec::new());
    }
    if let Some(report) = refused::report(snapshot) {
        return report;
    }
    let release = match Release::of(snapshot) {
        Ok(release) => release,
        Err(blocked) => {
            return withdrawal::decide(snapshot).unwrap_or_else(|| blocked.report(snapshot));
        }
    };
    if let Some(action) = actions::decide(&release) {
        return action;
    }
    if let Some(scale_down) = end::finish_draining(&release, evidence) {
        return scale_down;
    }
    if !rollback::is_under_way(snapshot)
        && let Some(withdrawal) = withdrawal::decide(snapshot)
    {
        // The pods of a newer version are replacing those of the older one, so the older version did not fail.
        return if new_revision::is_overtaken(&release) {
            new_revision::changed(&release).unwrap_or(withdrawal)
        } else {
            withdrawal
        };
    }
    if !rollback::is_under_way(snapshot)
        && let Some(decision) = own_routes::follow_spec(&release)
    {
        return decision;
    }
    if let Some(decision) = grpc_route::record(snapshot) {
        return decision;
    }
    in_phase(&release, evidence)
        .or_else(|blocked| awaken(&release, blocked))
        .and_then(|decision| ownership::checked(snapshot, decision))
        .unwrap_or_else(|blocked| {
            overdue_promotion(&release, &blocked).unwrap_or_else(|| blocked.report(snapshot))
        })
}

/// The rollback of a promotion that has been blocked until the progress deadline, before the primary got the version.
fn overdue_promotion(release: &Release<'_>, blocked: &Blocked) -> Option<Decision> {
    let snapshot = release.snapshot;
    let since = snapshot.status().last_transition_time.as_ref();
    let is_overdue = snapshot.phase() == CanaryPhase::Promoting
        && !release.is_promoted()
        && !rollback::is_under_way(snapshot)
        && snapshot.exceeds_deadline(since);
    is_overdue.then(|| rollback::begin(snapshot, &Outcome::Refused(blocked.to_string())))
}

/// Scales up a primary without pods, if the lack of pods is the only obstacle to the return of its traffic.
fn awaken(release: &Release<'_>, blocked: Blocked) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    let primary = snapshot.canary.primary_workload_name();
    let lacks_primary =
        matches!(&blocked, Blocked::NoReadyPod { workload, .. } if *workload == primary);
    let write = lacks_primary.then(|| release.wake_primary()).flatten();
    let Some(write) = write.filter(|write| !snapshot.leaves_out(write)) else {
        return Err(blocked);
    };
    let event = messages::run::wakes_primary(snapshot);
    Ok(Decision::write(vec![write]).notifying(vec![event]))
}

/// The decision of the phase, for a valid canary whose target exists.
fn in_phase(release: &Release<'_>, evidence: &Evidence) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    if rollback::is_under_way(snapshot) {
        return finish_rollback::proceed(release);
    }
    if outcome::is_pending(snapshot) {
        return Ok(end::send_outcome(snapshot, evidence));
    }
    match snapshot.phase() {
        CanaryPhase::Initializing => {
            // Ownership is checked first: the operator must not judge the selectors of a primary that belongs to another owner.
            let refusal = ownership::refuse(snapshot).or_else(|| selectors::refuse(release));
            return match refusal {
                Some(refusal) => Ok(refusal),
                None => bootstrap::decide(release, evidence),
            };
        }
        CanaryPhase::New | CanaryPhase::Terminating | CanaryPhase::Terminated => {
            return Ok(Decision::wait(Requeue::OnChange));
        }
        _ => {}
    }
    if let Some(refusal) = selectors::refuse(release) {
        return Ok(refusal);
    }
    let repairs = match repairs(release) {
        Ok(repairs) => repairs,
        Err(Blocked::Route(why)) => return without_routes(release, why),
        Err(blocked) => return Err(blocked),
    };
    if !repairs.is_empty() {
        let events = lost_primary(release).into_iter().collect();
        return Ok(Decision::write(repairs).notifying(events));
    }
    if let Some(decision) = restore::decide(release, evidence)? {
        return Ok(decision);
    }
    if is_between_runs(snapshot.phase())
        && let Some(refusal) = ownership::refuse(snapshot)
    {
        return Ok(refusal);
    }
    let decision = match snapshot.phase() {
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion => {
            let announcement = idle::start_announcement(snapshot);
            analysis::decide(release, evidence).map(|decision| decision.notifying(announcement))
        }
        CanaryPhase::Promoting => promotion::promoting(release),
        CanaryPhase::Finalising => promotion::finalising(release),
        _ => idle::decide(release, evidence),
    };
    decision.map(|decision| decision.notifying(release.kept_selectors()))
}

/// Rolls a version back whose routes cannot be written, because it would keep its traffic without checks: at once if the router cannot
/// express a condition of the Canary, after the progress deadline if a route of the user cannot be used.
fn without_routes(release: &Release<'_>, why: RouteError) -> Result<Decision, Blocked> {
    let snapshot = release.snapshot;
    if is_under_analysis(snapshot.phase()) && matches!(why, RouteError::InvalidCanary(_)) {
        let outcome = Outcome::Refused(why.to_string());
        return Ok(rollback::begin(snapshot, &outcome));
    }
    let takes_steps = snapshot.phase() == CanaryPhase::Progressing;
    let overdue = takes_steps.then(|| release.routes_overdue()).flatten();
    overdue.map_or(Err(why.into()), |why| {
        Ok(rollback::routes_not_accepted(snapshot, why))
    })
}

/// The routed weights; `None` if they cannot be read.
pub fn weights(snapshot: &Snapshot) -> Option<Weights> {
    providers::router(snapshot).current_weights(snapshot).ok()
}

/// The event about a deleted primary that is created again from the target, although that version was not promoted: no other version is
/// left.
fn lost_primary(release: &Release<'_>) -> Option<Notification> {
    let snapshot = release.snapshot;
    let promoted = snapshot.status().last_promoted_spec.as_ref();
    let is_lost = snapshot.primary().is_none() && promoted != Some(&release.revision);
    (is_lost && release.unmarked_primary().is_none()).then(|| messages::run::primary_lost(snapshot))
}

/// Repairs the objects of a release after someone deleted or changed one. During a run, repaired routes keep the weights that are routed
/// now; between runs they get the weights of that phase. If another actor reverts a repair, the operator repeats only this repair at the
/// next tick; all else continues.
fn repairs(release: &Release<'_>) -> Result<Vec<Write>, Blocked> {
    let snapshot = release.snapshot;
    let mut writes: Vec<Write> = release.workload_services();
    if snapshot.primary().is_none() {
        // A config that is missing now would be missing in the new primary, too.
        release.has_all_configs()?;
        writes.extend(release.promote());
    }
    writes.extend(release.config_repairs());
    // The promotion reports an error of the target's scaler.
    writes.extend(release.primary_scaler(false).unwrap_or_default());
    if is_between_runs(snapshot.phase()) {
        writes.extend(release.restored_strategy());
    }
    writes.extend(release.apex_service());
    match release.routes() {
        // The version passed its analysis, and its promotion changes only weights.
        Err(Blocked::Route(RouteError::InvalidCanary(_))) if is_in_promotion(snapshot.phase()) => {}
        routes => writes.extend(routes?),
    }
    writes.retain(|write| {
        !release.leaves_out_repair(write) && !ownership::is_of_others(snapshot, &write.object)
    });
    Ok(writes)
}
