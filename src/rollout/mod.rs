//! PURE: what to do about a canary, given what was seen of it and what was answered so far.

pub mod plan;

mod analysis;
mod audit;
mod bootstrap;
mod deletion;
mod drain;
mod events;
mod gate;
mod hooks;
mod idle;
mod metric_checks;
mod metric_template;
mod objects;
mod phase;
mod preview;
mod promotion;
mod release;
mod rollback;
mod stale_reads;
mod traffic;
mod validation;
mod withdrawal;

pub use audit::audit;
pub use metric_checks::samples;
pub use plan::{Answer, Decision, Evidence, Plan, Question, Requeue};
pub use preview::{Preview, Verdict, preview};
pub use release::{needed_in_full, needs, new_version};
pub use stale_reads::stale_reads;

use crate::{
    api::canary::CanaryPhase,
    notifications::{EventKind, Notification},
    providers,
    snapshot::{Snapshot, Weights, Write},
};
use events::event;
use release::Release;

/// The decision. Total: whatever was seen, there is one, and it is one of [`Decision`]'s.
pub fn decide(snapshot: &Snapshot, evidence: &Evidence) -> Decision {
    if snapshot.canary.metadata.deletion_timestamp.is_some() {
        return deletion::decide(snapshot);
    }
    if let Some(decision) = validation::refuse(snapshot).or_else(|| deletion::prepare(snapshot)) {
        return decision;
    }
    if snapshot.phase() == CanaryPhase::New {
        return Decision::commit(
            phase::enter(snapshot, CanaryPhase::Initializing),
            Vec::new(),
        );
    }
    let release = match Release::of(snapshot) {
        Ok(release) => release,
        Err(problem) => {
            return withdrawal::decide(snapshot).unwrap_or_else(|| warn(snapshot, problem));
        }
    };
    if let Some(finish) = drain::finish(&release) {
        return finish;
    }
    if !rollback::is_under_way(snapshot)
        && let Some(withdrawal) = withdrawal::decide(snapshot)
    {
        // Pods that make room for those of a newer version are no fault of the one before.
        return if analysis::is_overtaken(&release) {
            analysis::changed(&release).unwrap_or(withdrawal)
        } else {
            withdrawal
        };
    }
    let decision = match snapshot.phase() {
        _ if rollback::is_under_way(snapshot) => rollback::proceed(&release),
        _ if rollback::is_notification_pending(snapshot) => Ok(idle::notify(snapshot, evidence)),
        CanaryPhase::Initializing => bootstrap::decide(&release, evidence),
        CanaryPhase::New | CanaryPhase::Terminating | CanaryPhase::Terminated => {
            Ok(Decision::Wait(Requeue::Change, Vec::new()))
        }
        phase => upkeep(&release).and_then(|writes| match phase {
            _ if !writes.is_empty() => Ok(Decision::Do(Plan {
                writes,
                ..Plan::default()
            })),
            CanaryPhase::Progressing | CanaryPhase::WaitingPromotion => {
                let news = idle::start_notification(snapshot);
                analysis::decide(&release, evidence).map(|decision| decision.notifying(news))
            }
            CanaryPhase::Promoting => promotion::promoting(&release),
            CanaryPhase::Finalising => promotion::finalising(&release),
            _ => idle::decide(&release, evidence),
        }),
    };
    decision.unwrap_or_else(|problem| warn(snapshot, problem))
}

/// The weights that are routed, if they can be told.
pub fn weights(snapshot: &Snapshot) -> Option<Weights> {
    providers::router(snapshot)
        .ok()?
        .current_weights(snapshot)
        .ok()
}

/// A warning about a canary, as of its phase now.
pub fn warning(snapshot: &Snapshot, message: String) -> Notification {
    event(snapshot, EventKind::Warning, message)
}

/// What stands in the way is said, at every tick again; nothing else is touched.
fn warn(snapshot: &Snapshot, problem: String) -> Decision {
    Decision::Wait(
        Requeue::AtTick,
        vec![event(snapshot, EventKind::Warning, problem)],
    )
}

/// Keeps the objects that carry a release as they should be: whoever deleted or changed one, it is repaired with the weights that are
/// routed now; between runs, with those that belong there. Who changes it back is not argued with before the next tick, and nothing
/// else waits for it.
fn upkeep(release: &Release<'_>) -> Result<Vec<Write>, String> {
    let snapshot = release.snapshot;
    let mut writes: Vec<Write> = release.workload_services();
    if snapshot.primary().is_none() {
        // Without all its configs it would get those that were not promoted.
        release.complete()?;
        writes.extend(release.promote());
    }
    // A promotion says what is wrong with the target's scaler.
    writes.extend(release.primary_scaler(false).unwrap_or_default());
    writes.extend(release.apex_service());
    writes.extend(release.routes()?);
    writes.retain(|write| !snapshot.recently_written.contains(&write.object));
    Ok(writes)
}
