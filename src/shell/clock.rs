//! The current time: that of the API server, as far as its answers carry a time, and otherwise the wall clock. A replica counts waits from
//! times that another replica wrote into a status, so both must use the same clock.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

/// The difference in seconds that is not corrected. Answers have whole seconds and take time, and the API servers of one cluster differ a
/// little.
const TOLERANCE: i64 = 30;

/// By how many seconds the API server's clock is ahead of the wall clock.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// Updates the correction from the time in an answer that the API server has just sent.
pub fn observe(at_api_server: Timestamp) {
    let known = AHEAD.load(Ordering::Relaxed);
    AHEAD.store(
        ahead(known, at_api_server, Timestamp::now()),
        Ordering::Relaxed,
    );
}

/// Returns the correction after an answer: `known` if it is right within the tolerance, otherwise the new difference.
fn ahead(known: i64, at_api_server: Timestamp, wall: Timestamp) -> i64 {
    let ahead = at_api_server.duration_since(wall).as_secs();
    if (ahead - known).abs() > TOLERANCE {
        ahead
    } else {
        known
    }
}

/// Returns the current time. On tokio's paused clock it advances as that clock does, so that the time in a status and the timers of the
/// process agree.
pub fn now() -> Timestamp {
    let tokio = tokio::time::Instant::now().into_std();
    let system = std::time::Instant::now();
    let moved = match tokio.checked_duration_since(system) {
        Some(ahead) => SignedDuration::try_from(ahead),
        None => SignedDuration::try_from(system.duration_since(tokio)).map(|behind| -behind),
    };
    let wall = Timestamp::now();
    let ahead =
        moved.unwrap_or_default() + SignedDuration::from_secs(AHEAD.load(Ordering::Relaxed));
    // The sum is out of range only some thousand years ahead.
    wall.checked_add(ahead).unwrap_or(wall)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_advances_with_a_clock_that_a_test_moves() {
        let start = now();
        tokio::time::advance(Duration::from_hours(1)).await;
        let passed = now().duration_since(start);
        assert_eq!(
            passed.round(jiff::Unit::Second).unwrap(),
            SignedDuration::from_hours(1)
        );
    }

    #[test]
    fn the_time_is_that_of_the_wall_clock_otherwise() {
        let apart = now().duration_since(Timestamp::now()).abs();
        assert!(apart < SignedDuration::from_secs(1), "{apart}");
    }

    #[test]
    fn a_clock_that_differs_by_more_than_the_time_of_an_answer_is_corrected() {
        let wall = Timestamp::from_second(1_000).unwrap();
        for (known, at_api_server, expected) in [
            (0, 1_000, 0),
            (0, 1_030, 0),
            (0, 970, 0),
            (0, 1_300, 300),
            (300, 1_276, 300),
            (300, 1_000, 0),
            (0, 700, -300),
        ] {
            let at = Timestamp::from_second(at_api_server).unwrap();
            assert_eq!(ahead(known, at, wall), expected, "{known} {at_api_server}");
        }
    }
}
