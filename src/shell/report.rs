//! What people are told: after the fact, in order, and never in the way of a release.
//!
//! Each canary has a lane of its own for as long as it has news: a hanging chat delays that canary's news and nothing else.

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::{Notify, Semaphore, oneshot};
use tracing::{error, warn};

use super::{clock, cluster::Cluster, http::Http, telemetry};
use crate::{
    api::canary::Canary,
    notifications::{
        EventKind, Notification, alert,
        chats::{self, Chat},
        message::AlertMessage,
        webhook::{self, WebhookError},
    },
    snapshot::{HttpRequest, Kind, ObjectRef, Secret, revision::digest},
};

/// The longest that the API server may take for an event.
const EVENT_DEADLINE: Duration = Duration::from_secs(5);
/// News that may wait for delivery, for one canary; newer news is dropped rather than memory filled.
const LANE: usize = 64;
/// As many events are counted in memory.
const COUNTED: usize = 4096;
/// As many events are written at once.
const WRITING: usize = 32;

/// Where news goes that no canary says otherwise about.
#[derive(Clone, Debug, Default)]
pub struct Global {
    /// The chat for canaries without alerts of their own.
    pub chat: Option<Chat>,
    /// The event webhook for canaries without one of their own.
    pub event_webhook: Option<Secret>,
}

/// Delivers notices.
#[derive(Clone)]
pub struct Reporter {
    shared: Arc<Shared>,
    /// By the canary's uid; a lane is there while it is being emptied.
    lanes: Arc<Mutex<HashMap<String, Lane>>>,
    /// Told when there is none any more.
    told: Arc<Notify>,
}

struct Shared {
    client: Client,
    cluster: Cluster,
    http: Http,
    global: Global,
    /// How often each event was seen: the API server cannot count for us. What is forgotten here is asked for again.
    counts: Mutex<HashMap<String, i32>>,
    writing: Semaphore,
}

/// The news of one canary, oldest first.
struct Lane {
    /// As it is now: where it wants news to go, also what waits from before. One for all news, since there may be much.
    canary: Arc<Canary>,
    news: VecDeque<News>,
}

struct News {
    notifications: Vec<Notification>,
    delivered: Option<oneshot::Sender<()>>,
}

/// A message on its way to a chat.
struct Posting {
    /// How the news that it did not arrive begins.
    failing: String,
    /// The call, or why there is none.
    request: Result<HttpRequest, String>,
}

impl Reporter {
    /// Delivers through these.
    pub fn new(client: Client, cluster: Cluster, http: Http, global: Global) -> Self {
        let shared = Shared {
            client,
            cluster,
            http,
            global,
            counts: Mutex::default(),
            writing: Semaphore::new(WRITING),
        };
        Self {
            shared: Arc::new(shared),
            lanes: Arc::default(),
            told: Arc::default(),
        }
    }

    /// Tells, at some later time.
    pub fn notify(&self, canary: &Canary, notifications: Vec<Notification>) {
        if !notifications.is_empty() {
            let delivered = None;
            self.enqueue(
                canary,
                News {
                    notifications,
                    delivered,
                },
            );
        }
    }

    /// Tells, and returns when all told so far is delivered or given up.
    pub async fn deliver(&self, canary: &Canary, notifications: Vec<Notification>) {
        let (delivered, done) = oneshot::channel();
        let delivered = Some(delivered);
        self.enqueue(
            canary,
            News {
                notifications,
                delivered,
            },
        );
        // A lane that was dropped has nothing left to deliver.
        let _ = done.await;
    }

    /// Returns when all that was to be told is told, or given up.
    pub async fn all_told(&self) {
        loop {
            let told = self.told.notified();
            if lock(&self.lanes).is_empty() {
                return;
            }
            told.await;
        }
    }

    fn enqueue(&self, canary: &Canary, news: News) {
        let uid = canary.metadata.uid.clone().unwrap_or_default();
        let canary = Arc::new(canary.clone());
        let mut lanes = lock(&self.lanes);
        if let Some(lane) = lanes.get_mut(&uid) {
            // What somebody waits for is still owed: it is not dropped.
            if lane.news.len() < LANE || news.delivered.is_some() {
                lane.news.push_back(news);
                lane.canary = canary;
            } else {
                warn!(
                    canary = telemetry::name(&canary),
                    "news is dropped: what was told before is not delivered yet"
                );
            }
            return;
        }
        let news = VecDeque::from([news]);
        lanes.insert(uid.clone(), Lane { canary, news });
        let this = self.clone();
        tokio::spawn(async move {
            while let Some((canary, news)) = this.next(&uid) {
                // A panic is this news' end, and not that of what comes after it.
                let delivery = this.shared.deliver(&canary, news.notifications);
                if AssertUnwindSafe(delivery).catch_unwind().await.is_err() {
                    let canary = telemetry::name(&canary);
                    error!(canary, "a defect: news is not told");
                }
                if let Some(delivered) = news.delivered {
                    // Nobody waits for it any more: it is delivered all the same.
                    let _ = delivered.send(());
                }
            }
        });
    }

    /// The next news of a lane; one without any ends.
    fn next(&self, uid: &str) -> Option<(Arc<Canary>, News)> {
        let mut lanes = lock(&self.lanes);
        let lane = lanes.get_mut(uid)?;
        if let Some(news) = lane.news.pop_front() {
            return Some((lane.canary.clone(), news));
        }
        lanes.remove(uid);
        if lanes.is_empty() {
            self.told.notify_waiters();
        }
        None
    }
}

impl Shared {
    async fn deliver(&self, canary: &Canary, notifications: Vec<Notification>) {
        for notification in notifications {
            if !self.cluster.may_write() {
                // Whoever leads now sees the same, and tells it.
                return;
            }
            match notification {
                Notification::Event {
                    kind,
                    message,
                    phase,
                    checksum,
                } => {
                    telemetry::event(canary, kind, &message);
                    self.event(canary, kind, &message).await;
                    if !self.cluster.may_write() {
                        return;
                    }
                    let event = webhook::Event {
                        kind,
                        message: &message,
                        phase,
                        checksum: &checksum,
                        unix_millis: now_ms(),
                    };
                    for request in event.requests(canary, self.global.event_webhook.as_ref()) {
                        self.send(canary, "error sending event to webhook", request)
                            .await;
                    }
                }
                Notification::Alert {
                    severity,
                    text,
                    fields,
                    opens: _,
                } => {
                    let message = AlertMessage::new(canary, severity, text, fields);
                    for posting in self.alerts(canary, &message).await {
                        self.post(canary, posting).await;
                    }
                }
            }
        }
    }

    async fn send(&self, canary: &Canary, what: &str, request: Result<HttpRequest, WebhookError>) {
        let problem = match request {
            Ok(request) => match self.http.send(&request).await {
                Ok(response) if (200..300).contains(&response.status) => return,
                Ok(response) => format!("bad response {}", response.status),
                Err(failure) => failure.why,
            },
            Err(problem) => problem.to_string(),
        };
        warn!(canary = telemetry::name(canary), "{what}: {problem}");
    }

    /// Writes to a chat. One that is gone for good is told on the Canary too: whom its alerts no longer reach will look there.
    async fn post(&self, canary: &Canary, posting: Posting) {
        let Posting { failing, request } = posting;
        let problem = match request {
            Ok(request) => match self.http.send(&request).await {
                Ok(response) if (200..300).contains(&response.status) => return,
                Ok(response) => {
                    let text = format!("{failing}: {}", chats::refused(&response));
                    if chats::is_gone(&response) {
                        telemetry::event(canary, EventKind::Warning, &text);
                        return self.event(canary, EventKind::Warning, &text).await;
                    }
                    text
                }
                Err(failure) => format!(
                    "{failing}: postMessage failed: sending notification failed to send: {}",
                    failure.why
                ),
            },
            Err(problem) => problem,
        };
        warn!(canary = telemetry::name(canary), "{problem}");
    }

    /// What goes to the chats that want this alert.
    async fn alerts(&self, canary: &Canary, message: &AlertMessage) -> Vec<Posting> {
        let own = canary
            .spec
            .analysis
            .as_ref()
            .map(|analysis| analysis.alerts.as_slice())
            .unwrap_or_default();
        if own.is_empty() {
            let failing = "alert can't be sent";
            let chat = self.global.chat.iter();
            return chat
                .map(|chat| Posting {
                    failing: failing.to_owned(),
                    request: chat
                        .request(message)
                        .map_err(|problem| format!("{failing}: {problem}")),
                })
                .collect();
        }
        let mut postings = Vec::new();
        for alert in own
            .iter()
            .filter(|alert| alert::wants(alert, message.severity))
        {
            let reference = &alert.provider_ref;
            let own = canary.metadata.namespace.clone().unwrap_or_default();
            let namespace = reference.namespace.clone().filter(|n| !n.is_empty());
            let namespace = namespace.unwrap_or(own);
            let full = format!("alert provider {}.{namespace}", reference.name);
            let chat = self.chat(&namespace, &reference.name).await;
            postings.push(Posting {
                failing: format!("{full} send error"),
                request: chat
                    .and_then(|chat| chat.request(message).map_err(|e| e.to_string()))
                    .map_err(|problem| format!("{full} {problem}")),
            });
        }
        postings
    }

    /// The chat that an `AlertProvider` names; its address may be in a Secret.
    async fn chat(&self, namespace: &str, name: &str) -> Result<Chat, String> {
        let get = async |kind, name: &str| {
            let object = ObjectRef {
                kind,
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            match self.cluster.get(&object).await {
                Ok(Some(served)) => served.value().map_err(|error| error.to_string()),
                Ok(None) => Err(format!("{} {name:?} not found", kind.plural())),
                Err(error) => Err(error.to_string()),
            }
        };
        let provider = get(Kind::AlertProvider, name)
            .await
            .map_err(|e| format!("error: {e}"))?;
        let provider: crate::api::alert_provider::AlertProvider =
            serde_json::from_value(provider).map_err(|e| format!("error: {e}"))?;
        let secret = match &provider.spec.secret_ref {
            Some(secret) => Some(
                get(Kind::Secret, &secret.name)
                    .await
                    .map_err(|e| format!("secretRef error: {e}"))?,
            ),
            None => None,
        };
        chats::chat_of(&provider, secret.as_ref()).map_err(|e| e.to_string())
    }

    /// One Event object per canary, type and message; a repeat counts up.
    async fn event(&self, canary: &Canary, kind: EventKind, message: &str) {
        let uid = canary.metadata.uid.as_deref().unwrap_or_default();
        let canary_name = canary.metadata.name.as_deref().unwrap_or_default();
        let name = format!(
            "{canary_name}.{}",
            digest(&format!("{uid}/{}/{message}", kind.as_str()), 8)
        );
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let written = tokio::time::timeout(EVENT_DEADLINE, async {
            // Fails only for a semaphore that was closed, and none is.
            let _place = self.writing.acquire().await;
            let known = lock(&self.counts).get(&name).copied();
            if let Some(count) = known
                && self.repeat(&api, &name, count + 1).await?
            {
                return Ok(count + 1);
            }
            self.cluster.count("create", "Event");
            match api
                .create(
                    &PostParams::default(),
                    &new_event(canary, &name, kind, message),
                )
                .await
            {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    // Told before a restart: go on counting from there.
                    self.cluster.count("get", "Event");
                    let count = api.get(&name).await?.count.unwrap_or(1) + 1;
                    self.repeat(&api, &name, count).await?;
                    Ok(count)
                }
                other => other.map(|_| 1),
            }
        })
        .await;
        match written {
            Ok(Ok(count)) => {
                let mut counts = lock(&self.counts);
                if counts.len() >= COUNTED {
                    counts.clear();
                }
                counts.insert(name, count);
            }
            Ok(Err(error)) => warn!(
                canary = telemetry::name(canary),
                "event cannot be written: {error}"
            ),
            Err(_) => warn!(
                canary = telemetry::name(canary),
                "event cannot be written: the API server does not answer"
            ),
        }
    }

    /// Counts an event up; false if it expired.
    async fn repeat(&self, api: &Api<Event>, name: &str, count: i32) -> Result<bool, kube::Error> {
        self.cluster.count("patch", "Event");
        let patch = json!({"count": count, "lastTimestamp": Time(now())});
        match api
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            other => other.map(|_| true),
        }
    }
}

fn new_event(canary: &Canary, name: &str, kind: EventKind, message: &str) -> Event {
    let meta = &canary.metadata;
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: meta.namespace.clone(),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(Kind::Canary.api_version()),
            kind: Some("Canary".to_owned()),
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            ..ObjectReference::default()
        },
        type_: Some(kind.as_str().to_owned()),
        reason: Some("Synced".to_owned()),
        message: Some(message.to_owned()),
        source: Some(EventSource {
            component: Some("flagger".to_owned()),
            host: None,
        }),
        first_timestamp: Some(Time(now())),
        last_timestamp: Some(Time(now())),
        count: Some(1),
        reporting_component: Some("flagger".to_owned()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}

fn now() -> Timestamp {
    // Events have whole seconds.
    Timestamp::from_second(clock::now().as_second()).unwrap_or_default()
}

fn now_ms() -> i64 {
    clock::now().as_millisecond()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::{
        api::canary::CanaryPhase,
        shell::{leadership::Leadership, telemetry::Recorder},
        snapshot::HttpResponse,
    };

    fn event(message: &str) -> Vec<Notification> {
        vec![Notification::Event {
            kind: EventKind::Warning,
            message: message.to_owned(),
            phase: CanaryPhase::Progressing,
            checksum: String::new(),
        }]
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_is_told_however_much_news_waits_before_it() {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| {
            pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        });
        let client = Client::new(nobody, "default");
        let meters = Recorder::new().unwrap().meters().unwrap();
        let cluster = Cluster::new(client.clone(), Leadership::always(), meters);
        let told = Arc::new(Mutex::new(Vec::new()));
        let http = Http::played({
            let told = told.clone();
            Arc::new(move |request: &HttpRequest| {
                lock(&told).push(request.body.clone().unwrap_or_default());
                Box::pin(async {
                    Ok(HttpResponse {
                        status: 200,
                        body: String::new(),
                    })
                })
            })
        });
        let global = Global {
            event_webhook: Some(Secret("http://events/".to_owned())),
            ..Global::default()
        };
        let reporter = Reporter::new(client, cluster, http, global);
        let canary = Canary::default();
        for n in 0..2 * LANE {
            reporter.notify(&canary, event(&format!("halt {n}")));
        }
        reporter.deliver(&canary, event("rolled back")).await;
        let last = lock(&told).last().cloned().unwrap_or_default();
        assert!(last.contains("rolled back"), "{last}");
    }
}
