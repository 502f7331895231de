//! Waits for conditions. All polling of the testbed is here.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;

const EVERY: Duration = Duration::from_millis(50);

/// Polls a condition until it returns `Ok`. On a timeout the error has the last `Err`.
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
