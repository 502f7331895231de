//! What was heard of an object may be old. What that does to a plan is mended by the next look, when the news is here; but pods that were
//! given up on, and a version that was promoted, are not taken back.

use super::{
    phase::Intent,
    plan::Plan,
    rollback::{self, Cause},
};
use crate::world::{ObjectRef, TargetKind, World};

/// The objects that a plan must not know by hearsay: the workloads whose pods it gives up on, and the target that it copies.
pub fn hearsay(world: &World, plan: &Plan) -> Vec<ObjectRef> {
    let Some(kind) = TargetKind::of(&world.canary) else {
        return Vec::new();
    };
    let workload = |name: &str| world.reference(kind.kind(), name);
    let target = workload(&world.canary.spec.target_ref.name);
    let primary = workload(&world.canary.primary_workload_name());
    if gives_up(world, plan) {
        vec![target, primary]
    } else if plan.effects.iter().any(|effect| effect.object == primary) {
        vec![target]
    } else {
        Vec::new()
    }
}

fn gives_up(world: &World, plan: &Plan) -> bool {
    let conditions = plan
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let mut begun = conditions.into_iter().flatten();
    let begun = begun.find(|condition| condition.type_ == Intent::RollingBack.as_str());
    let cause = begun.map(|c| Cause::read(&c.reason, c.message.as_deref().unwrap_or_default()));
    let is_of_pods = matches!(cause, Some(Cause::NotReady(_) | Cause::FailedPromotion(_)));
    is_of_pods && !rollback::is_under_way(world)
}
