//! What was heard of an object may be old. What that does to a plan is mended by the next look, when the news is here; but pods that were
//! given up on, and a version that was promoted, are not taken back.

use super::{
    phase::ConditionType,
    plan::Plan,
    rollback::{self, Outcome},
};
use crate::snapshot::{ObjectRef, Snapshot, TargetKind};

/// The objects that a plan must not know by hearsay: the workloads whose pods it gives up on, and the target that it copies.
pub fn stale_reads(snapshot: &Snapshot, plan: &Plan) -> Vec<ObjectRef> {
    let Some(kind) = TargetKind::of(&snapshot.canary) else {
        return Vec::new();
    };
    let workload = |name: &str| snapshot.reference(kind.kind(), name);
    let target = workload(&snapshot.canary.spec.target_ref.name);
    let primary = workload(&snapshot.canary.primary_workload_name());
    if gives_up(snapshot, plan) {
        vec![target, primary]
    } else if plan.writes.iter().any(|write| write.object == primary) {
        vec![target]
    } else {
        Vec::new()
    }
}

fn gives_up(snapshot: &Snapshot, plan: &Plan) -> bool {
    let conditions = plan
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut begun = conditions.into_iter().flatten();
    let begun = begun.find(|condition| condition.type_ == ConditionType::RollingBack.as_str());
    let outcome = begun.map(|c| Outcome::read(&c.reason, c.message.as_deref().unwrap_or_default()));
    let is_of_pods = matches!(
        outcome,
        Some(Outcome::NotReady(_) | Outcome::FailedPromotion(_))
    );
    is_of_pods && !rollback::is_under_way(snapshot)
}
