//! No Service may select the pods of the wrong workload. If the selectors of a canary do not distinguish the target's pods from the
//! primary's, or from those of a third workload, the operator waits for the user to correct them. Clients stay with the primary.

use crate::{
    api::{canary::CanaryPhase, percent::Percent},
    rollout::{
        blocked::Blocked,
        messages,
        plan::{Decision, Plan},
        release::Release,
        rollback,
        status::{
            Outcome, StatusChange,
            transitions::{is_in_run, is_under_analysis},
        },
    },
    snapshot::Weights,
    workload::selection::WrongSelector,
};

/// Refuses to go on while a selector is wrong; `None` if all are right. A version under analysis cannot advance, so it is rolled back.
pub fn refuse(release: &Release<'_>) -> Option<Decision> {
    let wrong = release.selection.wrong(&release.workloads());
    let wrong = wrong.or_else(|| shared_with_others(release))?;
    if is_under_analysis(release.snapshot.phase()) {
        let outcome = Outcome::Refused(wrong.to_string());
        return Some(rollback::begin(release.snapshot, &outcome));
    }
    Some(
        return_traffic(release, &wrong)
            .unwrap_or_else(|| Blocked::from(wrong).report(release.snapshot)),
    )
}

/// The selector that also selects the pods of a third workload, if the initialization or a run would begin with it, or the primary would be
/// created. A run in progress ends first, and an idle canary is not refused.
fn shared_with_others(release: &Release<'_>) -> Option<WrongSelector> {
    let snapshot = release.snapshot;
    let begins = match snapshot.phase() {
        CanaryPhase::Initializing | CanaryPhase::Waiting => true,
        phase if is_in_run(phase) => false,
        _ => snapshot.primary().is_none() || release.changed(),
    };
    begins
        .then(|| release.selection.shared_with_others(&release.workloads()))
        .flatten()
}

/// Returns the traffic that the canary still has in a promotion to the primary, because the canary's Service does not select the target's
/// pods any more; `None` if there is none to return.
fn return_traffic(release: &Release<'_>, wrong: &WrongSelector) -> Option<Decision> {
    let snapshot = release.snapshot;
    let weights = release.weights().ok()?;
    if !release.splits_traffic()
        || weights.canary == Percent::ZERO
        || !snapshot.primary_has_ready_pods()
    {
        return None;
    }
    let status = StatusChange::end_step(snapshot)
        .progress(0, 0)
        .retire_cookies();
    Some(Decision::Do(Plan {
        writes: release.set_weights(&Weights::PRIMARY).ok()?,
        status: Some(status.build()),
        notifications: vec![messages::warning(snapshot, wrong.to_string())],
    }))
}
