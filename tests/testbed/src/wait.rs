//! Waiting on conditions: the only place that polls.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;

const EVERY: Duration = Duration::from_millis(50);

/// Until the condition holds: it returns what was waited for, or else what it saw last.
pub async fn until<T>(
    within: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, Error> {
    let end = Instant::now() + within;
    loop {
        match condition().await {
            Ok(found) => return Ok(found),
            Err(last) if Instant::now() >= end => {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    last,
                });
            }
            Err(_) => sleep(EVERY).await,
        }
    }
}
