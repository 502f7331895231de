//! The steps of a replayed run.

use crate::api::{
    canary::{Canary, Strategy},
    percent::Percent,
};

/// The most steps of a run.
const STEPS: usize = 100;
/// The canary's share of the requests where conditions or a switch decide instead of a weight.
const EVEN: f64 = 0.5;

/// The shape of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// The canary's share of the requests in each step.
    pub shares: Vec<f64>,
    /// The minutes of a step.
    pub interval: i64,
    /// The number of failed checks at which a version is rolled back.
    pub threshold: i64,
    /// The number of steps for which a run waits for data, or because of one pod.
    pub deadline: i64,
}

impl Schedule {
    /// The minutes of a run that never waits.
    pub fn length(&self) -> i64 {
        let steps = i64::try_from(self.shares.len()).unwrap_or(i64::MAX);
        steps.saturating_mul(self.interval)
    }
}

/// The steps of a Canary's runs. Each takes at least a minute, because the history has a value for each minute.
pub fn schedule(canary: &Canary) -> Schedule {
    let minutes = |seconds: u64| i64::try_from(seconds.div_ceil(60)).unwrap_or(i64::MAX);
    let interval = minutes(canary.interval().as_secs()).max(1);
    let deadline = u64::try_from(canary.progress_deadline_seconds()).unwrap_or(0);
    Schedule {
        shares: shares(canary),
        interval,
        threshold: canary.threshold(),
        deadline: minutes(deadline) / interval,
    }
}

fn shares(canary: &Canary) -> Vec<f64> {
    let iterations = { canary.spec.analysis.as_ref() }.and_then(|analysis| analysis.iterations);
    let iterations = usize::try_from(iterations.unwrap_or(0)).unwrap_or(0);
    if canary.strategy() != Strategy::Canary {
        return vec![EVEN; iterations.clamp(1, STEPS)];
    }
    let mut weights = Vec::new();
    let mut weight = canary.next_weight(Percent::ZERO);
    // At 100 % the primary has no requests to compare with.
    while weight < Percent::ALL && weight <= canary.max_weight() && weights.len() < STEPS {
        weights.push(weight);
        let next = canary.next_weight(weight);
        if next <= weight {
            break;
        }
        weight = next;
    }
    let shares: Vec<_> = weights.into_iter().map(Percent::share).collect();
    if shares.is_empty() {
        vec![EVEN]
    } else {
        shares
    }
}
