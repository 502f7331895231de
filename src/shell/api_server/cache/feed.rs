//! How changes get into the cache: one list and watch for each kind, which starts again when it ends.

use std::time::Duration;

use futures::{StreamExt, future, stream};
use kube::{
    Api, Resource,
    api::{ApiResource, GroupVersionKind},
    runtime::watcher::{self, Event},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    Cache, UNLISTED,
    index::Arrival,
    watches::{pause, streams, until_error},
};
use crate::{
    shell::api_server::RawObject,
    snapshot::{Kind, ObjectRef},
};

/// The longest time that the API server may take to report its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(2);
/// The number of objects in a page, if a list comes in pages. A whole page is in memory at the same time.
const PAGE: u32 = 50;
/// A watch lasts this many seconds. A connection that is silent for five seconds more counts as dead.
const SILENCE: u32 = 30;

/// An item of the watch of a kind; `None` at its end.
type WatchItem = (Kind, Option<watcher::Result<Event<RawObject>>>);

impl Cache {
    /// Watches Canaries and all kinds that they need. Never returns.
    pub async fn run(&self, mut kinds_to_watch: mpsc::UnboundedReceiver<Kind>) {
        let mut watches = stream::SelectAll::new();
        let version = timeout(VERSION_DEADLINE, self.watch_client.apiserver_version()).await;
        let minor = version.ok().and_then(Result::ok).map(|info| info.minor);
        // If the version is not known, a stream is tried.
        let streams = minor.is_none_or(|minor| streams(&minor));
        let watch = |kind, after| self.watch(kind, streams, after);
        watches.push(watch(Kind::Canary, Duration::ZERO));
        loop {
            tokio::select! {
                Some(kind) = kinds_to_watch.recv() => watches.push(watch(kind, Duration::ZERO)),
                Some((kind, item)) = watches.next() => match item {
                    Some(event) => self.take(kind, event),
                    None => {
                        let failures = self.index().failures(kind);
                        watches.push(watch(kind, pause(failures)));
                    }
                }
            }
        }
    }

    /// Lists and watches a kind until that fails, or for about an hour.
    fn watch(
        &self,
        kind: Kind,
        streams: bool,
        after: Duration,
    ) -> stream::BoxStream<'static, WatchItem> {
        let (group, version) = kind.group_version();
        let gvk = GroupVersionKind::gvk(group, version, kind.name());
        let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
        let client = self.watch_client.clone();
        let api: Api<RawObject> = match &self.watched.namespace {
            Some(namespace) if !kind.is_cluster_scoped() => {
                Api::namespaced_with(client, namespace, &resource)
            }
            _ => Api::all_with(client, &resource),
        };
        let mut config = watcher::Config::default().page_size(PAGE).timeout(SILENCE);
        if kind == Kind::Canary
            && let Some(shard) = &self.watched.shard
        {
            config = config.labels(shard.as_str());
        }
        if kind == Kind::Secret {
            config = config.fields(&UNLISTED.map(|kind| format!("type!={kind}")).join(","));
        }
        let events =
            stream::once(sleep(after)).flat_map(move |()| until_error(&api, &config, streams));
        events
            .map(Some)
            .chain(stream::once(future::ready(None)))
            .map(move |event| (kind, event))
            .boxed()
    }

    /// Updates the cache from an event of a watch, and triggers the canaries that the change affects.
    fn take(&self, kind: Kind, event: watcher::Result<Event<RawObject>>) {
        let mut index = self.index();
        let affected = match event {
            Ok(Event::Init) => {
                index.list_started(kind);
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                index.listed(&arrival(kind, &object, &|| object.text()))
            }
            Ok(Event::Apply(object)) => index.changed(&arrival(kind, &object, &|| object.text())),
            Ok(Event::Delete(object)) => {
                let Arrival {
                    object, version, ..
                } = arrival(kind, &object, &String::new);
                index.deleted(&object, version)
            }
            Ok(Event::InitDone) => {
                let affected = index.list_ended(kind);
                self.kind_listed.notify_waiters();
                affected
            }
            Err(error) => {
                log_failure(kind, index.watch_failed(kind), &error);
                self.kind_listed.notify_waiters();
                Vec::new()
            }
        };
        drop(index);
        self.trigger(kind, affected);
    }
}

fn arrival<'a>(kind: Kind, object: &'a RawObject, text: &'a dyn Fn() -> String) -> Arrival<'a> {
    let meta = object.meta();
    Arrival {
        object: ObjectRef {
            kind,
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
        },
        version: object.version(),
        text,
    }
}

/// Logs one warning in a series of failures, with the consequence and the remedy.
fn log_failure(kind: Kind, failures: u32, error: &watcher::Error) {
    let plural = kind.plural();
    let is_forbidden = error.to_string().contains("orbidden");
    match failures {
        1 if is_forbidden => warn!(
            "{plural} cannot be watched; until the role allows to list and watch them, they are read at each step, and every five minutes between runs: {error}"
        ),
        1 => debug!("{plural} cannot be watched: {error}"),
        3 => warn!(
            "{plural} cannot be watched and are read at each step instead; check that their CRD is installed: {error}"
        ),
        _ => debug!("{plural} still cannot be watched: {error}"),
    }
}
