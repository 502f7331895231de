//! The list and watch of one kind. The list comes as a stream or in pages. A watch is resumed after a broken connection; if that does not
//! help, it ends, and the caller starts with a new list.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{Stream, StreamExt, future, stream};
use http::Request;
use kube::{
    Api, Client,
    client::Body,
    runtime::watcher::{self, Event},
};
use tokio::time::{Instant, error::Elapsed, sleep, timeout};
use tower::BoxError;

use crate::shell::{api_server::RawObject, lock::lock, random};

/// From this minor version on, the API server can send a list as a stream, object by object.
const STREAMS: u32 = 34;
/// How often a watch is resumed within a minute after broken connections.
const MAX_RESUMES: usize = 3;
/// The longest time that the answer to a watch request may take; its events may come later.
const WATCH_DEADLINE: Duration = Duration::from_secs(10);
/// A watch that ended sooner than this is short. The next one begins at once, but if that is short, too, the kind counts as one that cannot
/// be watched.
const SHORT: Duration = Duration::from_secs(5);
/// How often every kind is listed again, even if its watch works.
const RELIST: Duration = Duration::from_secs(3600);
/// The shortest and the longest pause before a kind that could not be watched is listed again. Jitter makes a pause up to half shorter or
/// longer.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Lists a kind and watches it. The stream resumes after a broken connection, and ends if that does not help or after about an hour: the
/// caller then starts again with a list.
pub fn until_error(
    api: &Api<RawObject>,
    config: &watcher::Config,
    streams: bool,
) -> impl Stream<Item = watcher::Result<Event<RawObject>>> + Send + use<> {
    let paged = kube::runtime::watcher(api.clone(), config.clone());
    let events = if streams {
        streamed(api, config).chain(paged).boxed()
    } else {
        paged.boxed()
    };
    let events = events.take_until(sleep(RELIST.mul_f64(0.75 + 0.5 * random::fraction())));
    let begin = (events.boxed(), false, Breaks::default());
    stream::unfold(Some(begin), async |state| {
        let (mut events, mut is_listed, mut breaks) = state?;
        loop {
            let event = events.next().await?;
            match &event {
                // Before the list has ended there is no version to resume from.
                Ok(Event::Init | Event::InitApply(_)) => is_listed = false,
                Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => is_listed = true,
                Err(error) => {
                    let can_resume = is_listed && is_temporary(error);
                    let Some(pause) = can_resume.then(|| breaks.pause()).flatten() else {
                        return Some((event, None));
                    };
                    sleep(pause).await;
                    continue;
                }
            }
            return Some((event, Some((events, is_listed, breaks))));
        }
    })
}

/// The instants at which the connection of a watch broke.
#[derive(Default)]
struct Breaks(Vec<Instant>);

impl Breaks {
    /// Returns how long to wait before the watch is resumed after another break; `None` after too many in a minute.
    fn pause(&mut self) -> Option<Duration> {
        self.0.retain(|at| at.elapsed() < Duration::from_secs(60));
        self.0.push(Instant::now());
        let pause = RETRY.0.saturating_mul(1 << self.0.len().min(10));
        (self.0.len() <= MAX_RESUMES).then(|| pause.mul_f64(0.25 + 0.5 * random::fraction()))
    }
}

/// Whether a connection failed, or the API server is busy or shutting down. A refusal is not temporary.
fn is_temporary(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchFailed(error) => matches!(error, kube::Error::ReadEvents(_)),
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            status.code == 429 || status.code >= 500
        }
        // A watch request without an answer has already taken long enough, and short watches had their second attempt.
        watcher::Error::WatchStartFailed(kube::Error::Service(error)) => {
            !error.is::<Elapsed>() && !error.is::<ShortWatches>()
        }
        watcher::Error::WatchStartFailed(_) => true,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::NoResourceVersion => false,
    }
}

/// The API server, or a proxy before it, ends each watch of a kind at once.
#[derive(Debug, thiserror::Error)]
#[error("the watches end after less than {} s", SHORT.as_secs())]
struct ShortWatches;

/// The watches of one kind.
#[derive(Default)]
struct Beginnings {
    last: Option<Instant>,
    /// The number of short watches in a row.
    short: u32,
}

impl Beginnings {
    /// Records that a watch begins. Kube's watcher begins one again without a pause when it has ended without an error.
    fn another(&mut self) -> Result<(), ShortWatches> {
        let is_short = self.last.is_some_and(|last| last.elapsed() < SHORT);
        self.short = if is_short { self.short + 1 } else { 0 };
        if self.short > 1 {
            return Err(ShortWatches);
        }
        self.last = Some(Instant::now());
        Ok(())
    }
}

/// Returns a client for watches that start with current objects. For a streamed list, kube's watcher accepts whatever the API server has
/// cached, which may be old; this client asks for the current state instead. A watch request that is not answered in time fails, and so does
/// one after two short watches. Lists go through the client `listing`, which retries while the API server is busy.
pub fn up_to_date(watching: Client, listing: Client) -> Client {
    let namespace = watching.default_namespace().to_owned();
    let watches: Arc<Mutex<HashMap<String, Beginnings>>> = Arc::default();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let uri = request.uri().to_string();
        if uri.contains("sendInitialEvents=true")
            && let Ok(uri) = uri.replace("resourceVersion=0", "resourceVersion=").parse()
        {
            *request.uri_mut() = uri;
        }
        let (watching, listing, watches) = (watching.clone(), listing.clone(), watches.clone());
        async move {
            if !uri.contains("watch=true") {
                return listing.send(request).await.map_err(BoxError::from);
            }
            let path = request.uri().path().to_owned();
            lock(&watches).entry(path).or_default().another()?;
            let answer = timeout(WATCH_DEADLINE, watching.send(request)).await;
            answer.map_err(BoxError::from)?.map_err(BoxError::from)
        }
    });
    Client::new(service, namespace)
}

/// Watches with a streamed list. The stream ends if the API server does not support that, or could not send the list within the duration of
/// a watch.
fn streamed(
    api: &Api<RawObject>,
    config: &watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<RawObject>>> + Send + use<> {
    let mut begins = 0;
    kube::runtime::watcher(api.clone(), config.clone().streaming_lists()).take_while(move |event| {
        begins += usize::from(matches!(event, Ok(Event::Init)));
        let is_refused = matches!(
            event,
            Err(watcher::Error::WatchStartFailed(kube::Error::Api(status)))
                if matches!(status.code, 400 | 422)
        );
        future::ready(begins < 2 && !is_refused)
    })
}

/// Whether an API server of this minor version can stream lists; some versions end with a plus.
pub fn streams(minor: &str) -> bool {
    let digits = minor.trim_end_matches(|c: char| !c.is_ascii_digit());
    digits.parse().is_ok_and(|minor: u32| minor >= STREAMS)
}

/// Returns how long to wait before a kind is listed again that could not be watched this many times in a row.
pub fn pause(failures: u32) -> Duration {
    let pause = RETRY.0.saturating_mul(1 << failures.min(10));
    pause.min(RETRY.1).mul_f64(0.5 + random::fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_streamed_by_api_servers_that_can_do_it() {
        for (minor, expected) in [
            ("33", false),
            ("34", true),
            ("34+", true),
            ("100", true),
            ("9", false),
            ("", false),
        ] {
            assert_eq!(streams(minor), expected, "{minor:?}");
        }
    }

    #[test]
    fn a_kind_that_cannot_be_listed_is_tried_again_within_a_minute() {
        for failures in [0, 1, 3, 10, 1_000_000] {
            let pause = pause(failures);
            assert!(pause >= RETRY.0 / 2, "{failures}: {pause:?}");
            assert!(pause <= RETRY.1.mul_f64(1.5), "{failures}: {pause:?}");
        }
        assert!(pause(6) > 4 * pause(1), "the pauses grow");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_is_resumed_three_times_in_a_minute() {
        let mut breaks = Breaks::default();
        for n in 0..3 {
            assert!(breaks.pause().is_some(), "{n}");
        }
        assert!(breaks.pause().is_none());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(breaks.pause().is_some(), "a minute later");
    }
}
