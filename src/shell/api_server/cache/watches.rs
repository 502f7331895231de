//! How a kind is listed and watched: as a stream or in pages, on through broken connections, and from the beginning when that does not
//! help.

use std::time::Duration;

use futures::{Stream, StreamExt, future, stream};
use http::Request;
use kube::{
    Api, Client,
    client::Body,
    runtime::watcher::{self, Event},
};
use tokio::time::{Instant, error::Elapsed, sleep, timeout};
use tower::BoxError;

use super::super::raw_object::Served;

/// From this minor version on, the API server sends the list of a kind as a stream, object by object.
const STREAMS: u32 = 34;
/// How often in a minute a watch goes on where its connection broke.
const RESUMED: usize = 3;
/// The longest until a watch is answered: its news may take longer.
const WATCHING: Duration = Duration::from_secs(10);
/// How often everything is listed anew, whatever watches say.
const RELIST: Duration = Duration::from_secs(3600);
/// The pause before a kind that could not be watched is listed again, at first and at most; half of it more or less.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A watch that goes on where it was when a connection breaks, and ends when that does not help, so that what follows begins with a list.
/// So it does after an hour.
pub fn until_error(
    api: &Api<Served>,
    config: &watcher::Config,
    streams: bool,
) -> impl Stream<Item = watcher::Result<Event<Served>>> + Send + use<> {
    let paged = kube::runtime::watcher(api.clone(), config.clone());
    let events = if streams {
        streamed(api, config).chain(paged).boxed()
    } else {
        paged.boxed()
    };
    let events = events.take_until(sleep(RELIST.mul_f64(0.75 + 0.5 * jitter())));
    let begin = (events.boxed(), false, Breaks::default());
    stream::unfold(Some(begin), async |state| {
        let (mut events, mut is_listed, mut breaks) = state?;
        loop {
            let event = events.next().await?;
            match &event {
                // Until the list is here there is nowhere to go on from.
                Ok(Event::Init | Event::InitApply(_)) => is_listed = false,
                Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => is_listed = true,
                Err(error) => {
                    let passes = is_listed && is_passing(error);
                    let Some(pause) = passes.then(|| breaks.pause()).flatten() else {
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

/// When the connection of a watch broke.
#[derive(Default)]
struct Breaks(Vec<Instant>);

impl Breaks {
    /// How long to wait before going on after another one; `None` after too many in a minute.
    fn pause(&mut self) -> Option<Duration> {
        self.0.retain(|at| at.elapsed() < Duration::from_secs(60));
        self.0.push(Instant::now());
        let pause = RETRY.0.saturating_mul(1 << self.0.len().min(10));
        (self.0.len() <= RESUMED).then(|| pause.mul_f64(0.25 + 0.5 * jitter()))
    }
}

/// Whether it is a connection that failed, or an API server that is busy or about to end, and not one that said no.
fn is_passing(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchFailed(error) => matches!(error, kube::Error::ReadEvents(_)),
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            status.code == 429 || status.code >= 500
        }
        // One that is not answered was waited for long enough.
        watcher::Error::WatchStartFailed(kube::Error::Service(error)) => !error.is::<Elapsed>(),
        watcher::Error::WatchStartFailed(_) => true,
        watcher::Error::InitialListFailed(_)
        | watcher::Error::WatchError(_)
        | watcher::Error::NoResourceVersion => false,
    }
}

/// A client that asks for what there is: kube's watcher takes for a stream what an API server has, which may be old. A list at the start
/// must not be: nothing is known yet that would be newer.
/// A watch that is not answered in time has failed. Lists are another client's, which tries again what the API server had no time for.
pub fn up_to_date(watching: Client, listing: Client) -> Client {
    let namespace = watching.default_namespace().to_owned();
    let as_it_is = tower::service_fn(move |mut request: Request<Body>| {
        let uri = request.uri().to_string();
        if uri.contains("sendInitialEvents=true")
            && let Ok(uri) = uri.replace("resourceVersion=0", "resourceVersion=").parse()
        {
            *request.uri_mut() = uri;
        }
        let (watching, listing) = (watching.clone(), listing.clone());
        async move {
            if !uri.contains("watch=true") {
                return listing.send(request).await.map_err(BoxError::from);
            }
            let answer = timeout(WATCHING, watching.send(request)).await;
            answer.map_err(BoxError::from)?.map_err(BoxError::from)
        }
    });
    Client::new(as_it_is, namespace)
}

/// A watch whose list is a stream. It ends where the API server does not know how, or did not get to the end of the list in the time of
/// a watch.
fn streamed(
    api: &Api<Served>,
    config: &watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<Served>>> + Send + use<> {
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

/// Whether an API server of this minor version, which may be followed by a plus, sends lists as streams.
pub fn streams(minor: &str) -> bool {
    let digits = minor.trim_end_matches(|c: char| !c.is_ascii_digit());
    digits.parse().is_ok_and(|minor: u32| minor >= STREAMS)
}

/// How long to wait before a kind is listed again that could not be watched so often in a row.
pub fn pause(failures: u32) -> Duration {
    let pause = RETRY.0.saturating_mul(1 << failures.min(10));
    pause.min(RETRY.1).mul_f64(0.5 + jitter())
}

/// Between 0 and 1, so that not all begin again at once.
fn jitter() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a fraction")]
    let jitter = (crate::shell::controller::observe::nonce() >> 11) as f64 / (1_u64 << 53) as f64;
    jitter
}
