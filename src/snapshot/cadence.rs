//! The ticks of a canary: the instants at which its steps may begin.

use std::time::Duration;

use jiff::Timestamp;

/// An instant at which a step may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick {
    /// A multiple of the interval after `status.lastTransitionTime`.
    pub at: Timestamp,
    /// Whether the step had to wait beyond its tick, for example for pods to become ready. The cadence then starts anew.
    pub late: bool,
}

/// When the target began to differ from the status, and when it last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// When the target was first seen to differ.
    pub first: Timestamp,
    /// When it last changed again.
    pub last: Timestamp,
}

/// The last tick before `now`; `None` if there was none. Ticks are `interval` apart and count from the last transition that the status
/// records, so neither a restart of the operator nor an unrelated write shortens the time for which a version is watched.
pub fn last_tick(transition: Timestamp, interval: Duration, now: Timestamp) -> Option<Timestamp> {
    let interval = i64::try_from(interval.as_nanos())
        .ok()
        .filter(|nanos| *nanos > 0)?;
    let elapsed = i64::try_from(now.as_nanosecond() - transition.as_nanosecond()).ok()?;
    let steps = elapsed.div_euclid(interval);
    (steps >= 1).then(|| {
        Timestamp::from_nanosecond(transition.as_nanosecond() + i128::from(steps * interval)).ok()
    })?
}

/// The first whole second that is not before an instant. The status has no finer times, and a time in it must not lie in the past.
pub fn whole_second_after(instant: Timestamp) -> Timestamp {
    let seconds = instant.as_second() + i64::from(instant.subsec_nanosecond() > 0);
    Timestamp::from_second(seconds).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn ticks_are_whole_intervals_after_the_last_transition() {
        let start = at("2026-01-01T00:00:00Z");
        let tick = |now| last_tick(start, Duration::from_secs(10), at(now));
        assert_eq!(tick("2026-01-01T00:00:09.999Z"), None);
        assert_eq!(
            tick("2026-01-01T00:00:10Z"),
            Some(at("2026-01-01T00:00:10Z"))
        );
        assert_eq!(
            tick("2026-01-01T00:00:29.5Z"),
            Some(at("2026-01-01T00:00:20Z"))
        );
        assert_eq!(tick("2025-12-31T00:00:00Z"), None);
    }

    #[test]
    fn a_transition_is_never_recorded_in_the_past() {
        assert_eq!(
            whole_second_after(at("2026-01-01T00:00:00Z")),
            at("2026-01-01T00:00:00Z")
        );
        assert_eq!(
            whole_second_after(at("2026-01-01T00:00:00.001Z")),
            at("2026-01-01T00:00:01Z")
        );
    }
}
