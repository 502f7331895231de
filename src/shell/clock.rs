//! The current time: the wall clock, shifted along with tokio's clock where a test moves that clock.

use jiff::{SignedDuration, Timestamp};

/// Returns the current time. In production this is the wall clock. On tokio's paused clock it advances as that clock does, so that
/// the time in a status and the timers of the process agree.
pub fn now() -> Timestamp {
    let tokio = tokio::time::Instant::now().into_std();
    let system = std::time::Instant::now();
    let ahead = match tokio.checked_duration_since(system) {
        Some(ahead) => SignedDuration::try_from(ahead),
        None => SignedDuration::try_from(system.duration_since(tokio)).map(|behind| -behind),
    };
    let wall = Timestamp::now();
    // The sum is out of range only some thousand years ahead.
    wall.checked_add(ahead.unwrap_or_default()).unwrap_or(wall)
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
}
