//! The loss of all ready pods during an analysis: traffic returns to the primary, and later to the canary. A condition records the progress
//! of the run, so that the run continues there when the pods are ready again. (Flagger keeps the traffic on the canary, where requests
//! fail.)

use std::{fmt, str::FromStr};

use super::StatusChange;
use crate::{
    api::{canary::CanaryStatus, percent::Percent, status::ConditionType},
    snapshot::Weights,
};

/// `reason` of the condition while the traffic is with the primary.
const WITHDRAWN: &str = "TrafficWithdrawn";
/// `reason` of the condition after the traffic has returned to the canary.
const RESTORED: &str = "TrafficRestored";

/// The number of losses of all ready pods in this run, and the progress of the run at the last loss. A condition keeps this as its
/// `message`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodsLost {
    /// The number of losses.
    pub losses: i64,
    /// The canary's weight.
    pub weight: Percent,
    /// The number of completed iterations.
    pub iterations: i64,
}

impl PodsLost {
    /// The losses of this run; none if there were none.
    pub fn of(status: &CanaryStatus) -> Self {
        let condition = status.condition(ConditionType::PodsLost);
        let message = condition.and_then(|condition| condition.message.as_deref());
        message
            .and_then(|message| message.parse().ok())
            .unwrap_or_default()
    }

    /// The last loss, if its traffic has not returned to the canary.
    pub fn withdrawn(status: &CanaryStatus) -> Option<Self> {
        let condition = status.condition(ConditionType::PodsLost)?;
        (condition.reason == WITHDRAWN).then(|| Self::of(status))
    }

    /// The losses after one more. The status may record a step whose weight is not routed yet, or the routes may have a weight that the
    /// status does not record. The smaller weight counts.
    pub fn one_more(status: &CanaryStatus, routed: Weights) -> Self {
        Self {
            losses: Self::of(status).losses + 1,
            weight: status.weight().min(routed.canary),
            iterations: status.iterations,
        }
    }

    /// Records that the traffic is withdrawn, and that the run is at its beginning.
    pub fn withdraw(self, change: StatusChange<'_>) -> StatusChange<'_> {
        let message = self.to_string();
        change
            .progress(0, 0)
            .set(ConditionType::PodsLost, WITHDRAWN, &message)
    }

    /// Records that the traffic is back, and that the run goes on where it was.
    pub fn restore(self, change: StatusChange<'_>) -> StatusChange<'_> {
        let message = self.to_string();
        change.progress(self.weight, self.iterations).set(
            ConditionType::PodsLost,
            RESTORED,
            &message,
        )
    }
}

impl fmt::Display for PodsLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            losses,
            weight,
            iterations,
        } = self;
        write!(
            f,
            "losses: {losses}, last at weight: {weight}, iterations: {iterations}"
        )
    }
}

impl FromStr for PodsLost {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split(',').map(|part| part.rsplit(' ').next());
        let mut next = || numbers.next().flatten().ok_or(());
        let (losses, weight, iterations) = (next()?, next()?, next()?);
        let count = |text: &str| text.parse().map_err(|_| ());
        Ok(Self {
            losses: count(losses)?,
            weight: weight.parse().map_err(|_| ())?,
            iterations: count(iterations)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_is_written() {
        let lost = PodsLost {
            losses: 2,
            weight: Percent::from(40),
            iterations: 3,
        };
        let text = "losses: 2, last at weight: 40, iterations: 3";
        assert_eq!(lost.to_string(), text);
        assert_eq!(text.parse(), Ok(lost));
        for edited in ["", "losses: 2", "losses: two, weight: 1, iterations: 1"] {
            assert_eq!(edited.parse::<PodsLost>(), Err(()), "{edited}");
        }
    }
}
