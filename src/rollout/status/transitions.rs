//! The phases that may follow each phase.

use crate::api::{
    canary::{CanaryPhase, CanaryStatus},
    status::ConditionType,
};

/// Whether a release may go from one phase to another. The audit checks every plan against this table.
pub fn may_follow(from: CanaryPhase, to: CanaryPhase) -> bool {
    use CanaryPhase as P;
    let allowed: &[CanaryPhase] = match from {
        P::New => &[P::Initializing, P::Terminating],
        P::Initializing => &[P::Initialized, P::Failed, P::Terminating],
        P::Initialized | P::Succeeded | P::Failed => {
            &[P::Progressing, P::Waiting, P::Failed, P::Terminating]
        }
        P::Waiting => &[P::Progressing, P::Failed, P::Succeeded, P::Terminating],
        P::Progressing => &[
            P::WaitingPromotion,
            P::Promoting,
            P::Succeeded,
            P::Failed,
            P::Terminating,
        ],
        P::WaitingPromotion => &[
            P::Progressing,
            P::Promoting,
            P::Succeeded,
            P::Failed,
            P::Terminating,
        ],
        P::Promoting => &[
            P::Progressing,
            P::Finalising,
            P::Succeeded,
            P::Failed,
            P::Terminating,
        ],
        P::Finalising => &[P::Succeeded, P::Failed, P::Terminating],
        P::Terminating => &[P::Terminated],
        P::Terminated => &[],
    };
    from == to || allowed.contains(&to)
}

/// Whether a version is under analysis in this phase.
pub const fn is_under_analysis(phase: CanaryPhase) -> bool {
    matches!(
        phase,
        CanaryPhase::Progressing | CanaryPhase::WaitingPromotion
    )
}

/// Whether a version that passed its analysis is promoted in this phase.
pub const fn is_in_promotion(phase: CanaryPhase) -> bool {
    matches!(phase, CanaryPhase::Promoting | CanaryPhase::Finalising)
}

/// Whether a run is in progress in this phase.
pub const fn is_in_run(phase: CanaryPhase) -> bool {
    is_under_analysis(phase) || is_in_promotion(phase)
}

/// Whether a release or an initialization is in progress, or a primary gets its last good version back. Otherwise a write is only a repair.
pub fn needs_writes(status: &CanaryStatus) -> bool {
    is_in_run(status.phase)
        || status.phase == CanaryPhase::Initializing
        || status.has_condition(ConditionType::PromotionFailed)
}

/// Whether a canary in this phase is between two runs.
pub const fn is_between_runs(phase: CanaryPhase) -> bool {
    use CanaryPhase as P;
    match phase {
        P::Initialized | P::Waiting | P::Succeeded | P::Failed => true,
        P::New
        | P::Initializing
        | P::Progressing
        | P::WaitingPromotion
        | P::Promoting
        | P::Finalising
        | P::Terminating
        | P::Terminated => false,
    }
}
