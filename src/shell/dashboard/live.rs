//! Server-sent events: the content of an open page, whenever it changes.
//!
//! A message is the complete content, with a mark of it as its id. A client that connects again names the mark of what it has, and gets a
//! message only if the content is another one. Nothing is queued for a client: as long as it does not read, no further message is made, and
//! after some time its connection is closed.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures::stream;
use http::{HeaderMap, header};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep, timeout_at},
};

use super::{gate::Caller, refusal::Refusal, state::Dashboard};
use crate::{
    dashboard::{Place, Row},
    shell::http_server::{ClientClock, Peer},
};

/// A silent connection may be a dead one, so a comment is sent after this time.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// After this time, the objects of a canary in a run are read again, because no watch reports its pods. The page of the installation, which is
/// read rarely, follows the canaries at this pace.
const REREAD: Duration = Duration::from_secs(5);

/// The login of the client is over.
const LOGIN: &[u8] = b"event: login\ndata: \n\n";
/// The API server does not answer, so the content may be old.
const STALE: &[u8] = b"event: stale\ndata: \n\n";
/// The content is current again.
const CURRENT: &[u8] = b"event: current\ndata: \n\n";

/// An open page.
pub struct Live {
    /// The server.
    pub dashboard: Arc<Dashboard>,
    /// The headers of the request, by which the visitor is found.
    pub headers: HeaderMap,
    /// The address of the client.
    pub peer: Peer,
    /// The time that the client has for reading.
    pub clock: ClientClock,
    /// The page.
    pub place: Place,
    /// Whether the page is in a frame of another page.
    pub embed: bool,
    /// The mark of the content that the client has.
    pub has: String,
    /// The places that the page takes.
    pub _places: [OwnedSemaphorePermit; 2],
}

impl Live {
    /// The answer, which ends only when the client goes, or the login expires.
    pub fn response(self) -> Response {
        let changes = self.dashboard.contents.fleet.changes();
        let started = Following {
            live: self,
            changes,
            row: None,
            has_begun: false,
            is_stale: false,
            is_over: false,
        };
        let messages = stream::unfold(started, async |mut following| {
            let message = following.next().await?;
            Some((Ok::<_, Infallible>(message), following))
        });
        stream_of(Body::from_stream(messages))
    }
}

/// An answer with a stream of events.
pub fn stream_of(body: Body) -> Response {
    let mut response = Response::new(body);
    let value = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    // A proxy that waits for the end of an answer would wait forever.
    let value = http::HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", value);
    response
}

/// The message for a client that cannot be served now: it shall come again later.
pub fn busy() -> Response {
    stream_of(Body::from("event: busy\nretry: 15000\ndata: \n\n"))
}

/// The message for a client whose login is over.
pub fn login() -> Response {
    stream_of(Body::from(LOGIN))
}

struct Following {
    live: Live,
    changes: watch::Receiver<u64>,
    /// The canary that the last message was about, if the page is about one.
    row: Option<Arc<Row>>,
    /// Whether the content was looked at before.
    has_begun: bool,
    /// Whether the client knows that the content may be old.
    is_stale: bool,
    is_over: bool,
}

impl Following {
    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        // While this function runs, the client waits for the server. When it returns, the client has its full time to read the message.
        let _waiting = self.live.clock.clone().pause();
        let heartbeat = Instant::now() + HEARTBEAT;
        loop {
            if self.has_begun {
                self.changed(heartbeat).await?;
            }
            self.has_begun = true;
            match self.live.content().await {
                Ok(content) if self.is_stale => {
                    self.is_stale = false;
                    let content = content.unwrap_or_default();
                    return Some([CURRENT, &content].concat().into());
                }
                Ok(Some(content)) => return Some(content),
                Ok(None) => {}
                // The API server may be back soon.
                Err(Refusal::Unreachable(_) | Refusal::TooMany) if self.is_stale => {}
                Err(Refusal::Unreachable(_) | Refusal::TooMany) => {
                    self.is_stale = true;
                    return Some(Bytes::from_static(STALE));
                }
                Err(_) => {
                    self.is_over = true;
                    return Some(Bytes::from_static(LOGIN));
                }
            }
            if Instant::now() >= heartbeat {
                return Some(Bytes::from_static(b": heartbeat\n\n"));
            }
        }
    }

    /// Waits until the content may be another one, or until the heartbeat; `None` if the process ends.
    async fn changed(&mut self, heartbeat: Instant) -> Option<()> {
        if self.live.place == Place::Setup {
            sleep(REREAD).await;
            return Some(());
        }
        let is_in_run = self
            .row
            .as_ref()
            .is_some_and(|row| row.view.state.is_in_run());
        let end = if is_in_run {
            heartbeat.min(Instant::now() + REREAD)
        } else {
            heartbeat
        };
        while let Ok(changed) = timeout_at(end, self.changes.changed()).await {
            changed.ok()?;
            let Some(canary) = self.live.place.canary() else {
                break;
            };
            // The page of one canary does not change with the others.
            let row = self.live.dashboard.contents.fleet.row(canary);
            let is_same = self.row.as_ref().map(Arc::as_ptr) == row.as_ref().map(Arc::as_ptr);
            self.row = row;
            if !is_same {
                break;
            }
        }
        Some(())
    }
}

impl Live {
    /// A message with the content, unless the client has it. The login is checked each time, because it may be over.
    async fn content(&mut self) -> Result<Option<Bytes>, Refusal> {
        let caller = Caller {
            headers: &self.headers,
            peer: self.peer.0.ip(),
        };
        let visitor = self.dashboard.gate.admit(caller).await?;
        let contents = &self.dashboard.contents;
        if self.place.canary().is_none() && !contents.fleet.is_current() {
            return Err(Refusal::Unreachable("the watch has failed".to_owned()));
        }
        let content = contents.of(&visitor, &self.place, self.embed).await?;
        if content.mark == self.has {
            return Ok(None);
        }
        self.has.clone_from(&content.mark);
        Ok(Some(content.message.clone()))
    }
}
