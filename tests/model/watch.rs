//! Watches: each change after a revision, once and in order; bookmarks; and an end.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use axum::body::Body;
use futures::stream;
use http::Response;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    faults::Streams,
    refusal::Refusal,
    request::ApiRequest,
    selector::Selector,
    server::{Model, served},
    store::Change,
};

/// The interval of bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);
/// The duration of a watch without a timeout.
const LONGEST: Duration = Duration::from_secs(1800);

/// A running watch.
struct Watch {
    model: Model,
    call: ApiRequest,
    selector: Selector,
    revisions: watch::Receiver<u64>,
    /// The changes up to this revision have been sent.
    sent: u64,
    /// The number of changes of this kind so far, sent or lost.
    count: usize,
    ready: VecDeque<Value>,
    bookmark: Option<Instant>,
    end: Instant,
    is_over: bool,
    /// The number of broken connections when the watch began.
    breaks: usize,
}

/// The answer to a watch: a line for each event.
pub fn changes(model: Model, call: ApiRequest) -> Result<Response<Body>, Refusal> {
    if is_stream(&call) && model.plan().streams == Streams::Refused {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
            sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return Err(Refusal::plain(422, "Invalid", message));
    }
    let start = Instant::now();
    let timeout = call
        .number("timeoutSeconds")
        .map_or(LONGEST, Duration::from_secs);
    let breaks = model.plan().breaks;
    let mut watch = Watch {
        selector: call.selector(),
        revisions: model.revisions(),
        sent: 0,
        count: 0,
        ready: VecDeque::new(),
        bookmark: (call.param("allowWatchBookmarks") == "true").then(|| start + BOOKMARK),
        end: start + timeout,
        is_over: false,
        breaks,
        model,
        call,
    };
    watch.begin();
    let lines = stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        if watch.breaks < watch.model.plan().breaks {
            return Some((Err(io::ErrorKind::ConnectionReset.into()), watch));
        }
        // Like the real API server, the type of an event comes first.
        let line = format!(
            "{{\"type\":{},\"object\":{}}}\n",
            event["type"], event["object"]
        );
        Some((Ok::<_, io::Error>(line), watch))
    });
    let response = Response::builder()
        .status(200)
        .header("content-type", "application/json");
    Ok(response.body(Body::from_stream(lines)).unwrap())
}

/// Whether the watch begins with all objects, and a bookmark after them.
fn is_stream(call: &ApiRequest) -> bool {
    call.param("sendInitialEvents") == "true"
}

impl Watch {
    /// Begins at the requested revision. Without one, or with 0, all objects are sent first. With 0 they may be stale, like a cache:
    /// delayed changes are missing from them.
    fn begin(&mut self) {
        let store = self.model.store();
        let from = self.call.number("resourceVersion").filter(|from| *from > 0);
        self.sent = from.unwrap_or(store.revision);
        if from.is_none() {
            let unknown = store.since(0).iter().find(|change| {
                self.call.param("resourceVersion") == "0" && self.delivery(change) > Instant::now()
            });
            self.sent = unknown.map_or(store.revision, |change| change.revision - 1);
            let objects = store.at(self.call.resource.plural, self.sent);
            let found = objects
                .values()
                .filter(|object| self.selector.matches(object));
            self.ready = found
                .map(|object| event("ADDED", &self.call, object))
                .collect();
            let is_sent = self.model.plan().streams == Streams::Sent;
            if is_stream(&self.call) && self.bookmark.is_some() && is_sent {
                let mut end = self.bookmark_event();
                end["object"]["metadata"]["annotations"] =
                    json!({"k8s.io/initial-events-end": "true"});
                self.ready.push_back(end);
            }
        } else if self.sent < store.compacted {
            let (from, compacted) = (self.sent, store.compacted);
            let refusal =
                Refusal::expired(&format!("too old resource version: {from} ({compacted})"));
            self.ready = [json!({"type": "ERROR", "object": refusal.status()})].into();
            self.is_over = true;
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.is_over {
                return None;
            }
            self.revisions.mark_unchanged();
            let next = self.model.store().since(self.sent).first().cloned();
            let delivery = next.as_ref().map(|change| self.delivery(change));
            if let Some(change) = next.filter(|_| delivery.is_some_and(|at| at <= Instant::now())) {
                self.sent = change.revision;
                let event = self.events(&change);
                self.ready.extend(event);
                continue;
            }
            let now = Instant::now();
            if now >= self.end {
                self.is_over = true;
                let mark = self.bookmark.map(|_| self.bookmark_event());
                self.ready.extend(mark);
                continue;
            }
            if self.bookmark.is_some_and(|at| now >= at) {
                self.bookmark = Some(now + BOOKMARK);
                return Some(self.bookmark_event());
            }
            let until = [Some(self.end), self.bookmark, delivery]
                .into_iter()
                .flatten()
                .min()?;
            tokio::select! {
                () = sleep_until(until) => {}
                changed = self.revisions.changed() => changed.ok()?,
            }
        }
    }

    /// When a change is sent on this watch.
    fn delivery(&self, change: &Change) -> Instant {
        let late = self
            .model
            .plan()
            .late
            .get(self.call.resource.plural)
            .copied()
            .unwrap_or_default();
        self.model.instant(change.at) + late
    }

    /// The events for a change: none if it does not match or is lost, two if events are sent twice.
    fn events(&mut self, change: &Change) -> Vec<Value> {
        if change.key.plural != self.call.resource.plural {
            return Vec::new();
        }
        let matches = |object: &Option<Arc<Value>>| {
            object
                .as_ref()
                .is_some_and(|object| self.selector.matches(object))
        };
        let (was, is) = (matches(&change.before), matches(&change.after));
        let with_revision = |object: &Value| {
            let mut object = object.clone();
            object["metadata"]["resourceVersion"] = json!(change.revision.to_string());
            object
        };
        let event = match (&change.before, &change.after) {
            (_, Some(after)) if is => {
                let kind = if was { "MODIFIED" } else { "ADDED" };
                event(kind, &self.call, after)
            }
            (Some(before), _) if was => event("DELETED", &self.call, &with_revision(before)),
            _ => return Vec::new(),
        };
        self.count += 1;
        let mut plan = self.model.plan();
        let dropped = plan.dropped.get_mut(change.key.plural);
        let is_dropped = dropped.is_some_and(|dropped| dropped.remove(&self.count));
        let times = match plan.twice.contains(change.key.plural) {
            _ if is_dropped => 0,
            false => 1,
            true => 2,
        };
        vec![event; times]
    }

    fn bookmark_event(&self) -> Value {
        let mut object = served(
            &self.call,
            &json!({"kind": self.call.resource.kind, "metadata": {}}),
        );
        object["metadata"] =
            json!({"resourceVersion": self.sent.to_string(), "creationTimestamp": null});
        json!({"type": "BOOKMARK", "object": object})
    }
}

fn event(kind: &str, call: &ApiRequest, object: &Value) -> Value {
    json!({"type": kind, "object": served(call, object)})
}
