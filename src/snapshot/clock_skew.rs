//! Times in a status that lie in the future of this process's clock. Another replica, whose clock is ahead, wrote them, or the clock of
//! this machine was set back. Waits that counted from them would last longer by the difference of the clocks, while a bad version keeps its
//! share of the traffic.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::canary::CanaryStatus;

/// How far a time may be ahead: the operator rounds times up to whole seconds.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// The times of a canary's status that were in the future when this process first saw them, with the instant that replaces each.
#[derive(Debug, Default)]
pub struct FutureTimes(BTreeMap<Timestamp, Timestamp>);

impl FutureTimes {
    /// Replaces each time of a status that is in the future by the last whole second before this process first saw it.
    pub fn clamp(&mut self, status: &mut CanaryStatus, now: Timestamp) {
        let conditions = status.conditions.iter_mut().flatten();
        let of_conditions = conditions.flat_map(|condition| {
            [
                &mut condition.last_update_time,
                &mut condition.last_transition_time,
            ]
        });
        let times = of_conditions.chain([&mut status.last_transition_time]);
        let mut known = BTreeMap::new();
        for Time(time) in times.flatten() {
            if let Some((written, seen)) = self.known(*time) {
                known.insert(written, seen);
                *time = seen;
            } else if time.duration_since(now) > TOLERANCE {
                let seen = Timestamp::from_second(now.as_second() - 1).unwrap_or(now);
                known.insert(*time, seen);
                *time = seen;
            }
        }
        self.0 = known;
    }

    /// The entry of a time, which may have been replaced already.
    fn known(&self, time: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let mut known = self.0.iter().map(|(written, seen)| (*written, *seen));
        known.find(|(written, seen)| *written == time || *seen == time)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(transition: i64, condition: i64) -> CanaryStatus {
        let [transition, condition] = [transition, condition].map(|second| at(second).to_string());
        serde_json::from_value(json!({"phase": "Progressing", "lastTransitionTime": transition,
            "conditions": [{"type": "Promoted", "status": "Unknown", "reason": "Progressing", "lastUpdateTime": condition,
                "lastTransitionTime": condition}]}))
        .unwrap()
    }

    #[test]
    fn a_time_in_the_future_counts_from_when_it_was_first_seen() {
        let mut times = FutureTimes::default();
        for now in [1000, 1001, 1400] {
            let mut seen = status(1300, 1300);
            times.clamp(&mut seen, at(now));
            assert_eq!(seen, status(999, 999), "{now}");
            // A status that is already clamped stays as it is.
            times.clamp(&mut seen, at(now));
            assert_eq!(seen, status(999, 999), "{now}");
        }
        let mut later = status(1900, 1300);
        times.clamp(&mut later, at(1500));
        assert_eq!(later, status(1499, 999), "a later write");
    }

    /// Without the replacement, each check and each deadline would be late by the difference of the clocks.
    #[test]
    fn no_time_is_more_than_two_seconds_ahead() {
        for ahead in (3..60).chain([120, 180, 240, 300, 3600, 86400]) {
            let mut seen = status(1000 + ahead, 1000 + ahead);
            FutureTimes::default().clamp(&mut seen, at(1000));
            assert_eq!(seen, status(999, 999), "{ahead}");
        }
    }

    #[test]
    fn other_times_stay() {
        let mut times = FutureTimes::default();
        for second in [900, 1000, 1002] {
            let mut seen = status(second, 500);
            times.clamp(&mut seen, at(1000));
            assert_eq!(seen, status(second, 500));
        }
    }
}
