//! Reads the bodies of calls, within limits of their length, their time and the memory of all of them together.

use std::time::Duration;

use axum::extract::Request;
use futures::TryStreamExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tracing::error;

use super::runner::Answer;
use crate::loadtester::call::{Call, CallError};

/// The maximum length of a body, in bytes.
const MAX_BODY: usize = 1 << 20;
/// The length from which a body is large, in bytes. Webhooks are smaller, unless their metadata is long.
const LARGE: usize = 16 << 10;
/// The maximum number of large bodies that arrive at the same time.
const LARGE_BODIES: usize = 16;
/// The time within which a body must arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The bodies that arrive.
pub struct Bodies {
    large: Semaphore,
}

impl Default for Bodies {
    fn default() -> Self {
        Self {
            large: Semaphore::new(LARGE_BODIES),
        }
    }
}

/// The reason why a body was not read.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLong,
    #[error("{LARGE_BODIES} bodies longer than {LARGE} bytes arrive already: try again")]
    TooMany,
    #[error("the body did not arrive within {} s", ARRIVAL.as_secs())]
    TooSlow,
    #[error(transparent)]
    BrokeOff(#[from] axum::Error),
    #[error(transparent)]
    NotACall(#[from] CallError),
}

impl BodyError {
    const fn status(&self) -> u16 {
        match self {
            Self::TooLong => 413,
            Self::TooMany => 429,
            Self::TooSlow => 408,
            Self::BrokeOff(_) | Self::NotACall(_) => 400,
        }
    }
}

impl Bodies {
    /// Reads the call from a request. The error is the answer to a request that cannot be read.
    pub async fn call(&self, request: Request) -> Result<Call, Answer> {
        let read = timeout(ARRIVAL, self.read(request)).await;
        read.unwrap_or(Err(BodyError::TooSlow)).map_err(|error| {
            error!("decoding the request body failed: {error}");
            (error.status(), error.to_string())
        })
    }

    /// Reads a body to its end, because a caller that still sends does not read the answer. Drops a body that is too long, or that is one
    /// large body too many.
    async fn read(&self, request: Request) -> Result<Call, BodyError> {
        let mut chunks = request.into_body().into_data_stream();
        let mut body = Vec::new();
        let mut place: Option<SemaphorePermit> = None;
        let mut refused = None;
        while let Some(chunk) = chunks.try_next().await? {
            let length = body.len() + chunk.len();
            if refused.is_none() && length > MAX_BODY {
                refused = Some(BodyError::TooLong);
            } else if refused.is_none() && length > LARGE && place.is_none() {
                place = self.large.try_acquire().ok();
                refused = place.is_none().then_some(BodyError::TooMany);
            }
            if refused.is_some() {
                body = Vec::new();
            } else {
                body.extend_from_slice(&chunk);
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(Call::read(&body)?),
        }
    }
}

/// Reads a body to its end and drops it. If unread bytes were left, closing the connection could destroy the answer.
pub async fn skip(request: Request) {
    let mut chunks = request.into_body().into_data_stream();
    let end = async { while let Ok(Some(_)) = chunks.try_next().await {} };
    let _ = timeout(ARRIVAL, end).await;
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures::{StreamExt, stream};
    use tokio::time::Instant;

    use super::*;

    type Chunk = Result<Vec<u8>, std::io::Error>;

    /// A request whose body begins with this text and never ends.
    fn unfinished(text: Vec<u8>) -> Request {
        let never = stream::pending::<Chunk>();
        Request::new(Body::from_stream(
            stream::iter([Chunk::Ok(text)]).chain(never),
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let start = Instant::now();
        let request = unfinished(Vec::new());
        let (status, why) = Bodies::default().call(request).await.unwrap_err();
        assert_eq!(start.elapsed(), ARRIVAL);
        assert_eq!(status, 408);
        assert_eq!(why, "the body did not arrive within 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_seventeenth_large_body_is_refused_and_a_small_one_is_read() {
        let bodies = Bodies::default();
        let large = || vec![b' '; LARGE + 1];
        let slow = (0..LARGE_BODIES).map(|_| bodies.call(unfinished(large())));
        let slow = futures::future::join_all(slow);
        let others = async {
            let request = |text: Vec<u8>| Request::new(Body::from(text));
            // Let the slow requests begin first, so that they take all places.
            tokio::task::yield_now().await;
            let (status, why) = bodies.call(request(large())).await.unwrap_err();
            assert_eq!(status, 429, "{why}");
            assert!(why.starts_with("16 bodies longer than 16384 bytes arrive already"));
            let small = br#"{"name": "podinfo", "namespace": "test"}"#.to_vec();
            assert_eq!(bodies.call(request(small)).await.unwrap().name, "podinfo");
        };
        let (slow, ()) = futures::join!(slow, others);
        assert!(
            slow.iter()
                .all(|slow| slow.as_ref().is_err_and(|(status, _)| *status == 408))
        );
        let padded = [large(), b"{}".to_vec()].concat();
        let read = bodies.call(Request::new(Body::from(padded))).await;
        assert!(read.is_ok(), "their places are free again");
    }
}
