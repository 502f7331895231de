//! Delivers one notification to all its receivers: the log, an Event, event webhooks, chats.

use std::borrow::Cow;

use tracing::warn;

use super::events::Events;
use crate::{
    api::{alert_provider::AlertProvider, canary::Canary, limits},
    notifications::{
        EventKind, Frequency, Notification, alert,
        chats::{self, Chat},
        message::AlertMessage,
        webhook::{self, WebhookError},
    },
    shell::{
        api_server::Cluster,
        clock,
        outside::http::{Caller, Http},
        telemetry::logs::{canary_name, log_event},
    },
    snapshot::{
        Failure, HttpRequest, HttpResponse, Kind, ObjectRef, Origin, OtherNamespaces, Secret,
        references,
    },
};

/// The maximum number of Events in one step among those that each step may repeat. If there are more, the last Event stands for all
/// remaining ones.
const MAX_RECURRING: usize = 10;

/// The receivers for canaries that name no receivers of their own, and the rule for the receivers that canaries may name.
#[derive(Clone, Debug, Default)]
pub struct GlobalReceivers {
    /// The chat for canaries without alerts of their own.
    pub chat: Option<Chat>,
    /// The event webhook for canaries without one of their own.
    pub event_webhook: Option<Secret>,
    /// Whether alert providers of other namespaces than the canary's get its alerts.
    pub other_namespaces: OtherNamespaces,
}

/// Delivers notifications.
pub struct Delivery {
    cluster: Cluster,
    events: Events,
    http: Http,
    global: GlobalReceivers,
}

/// A message to a chat.
struct ChatMessage {
    /// The beginning of the log line if the message cannot be delivered. It is Flagger's text.
    failing: String,
    /// The request, or why there is none.
    request: Result<HttpRequest, String>,
}

/// The Events of one step that each step may repeat.
struct StepEvents {
    /// How many there are.
    all: usize,
    /// How many of them were written.
    written: usize,
}

impl StepEvents {
    fn new(notifications: &[Notification]) -> Self {
        let recurring = notifications.iter().filter(|notification| {
            matches!(
                notification,
                Notification::Event {
                    frequency: Frequency::Recurring,
                    ..
                }
            )
        });
        Self {
            all: recurring.count(),
            written: 0,
        }
    }

    /// The text of the next Event: its own, or one about all remaining ones; `None` after that. The text about the remaining ones has no
    /// values, so that it is the same at the next step and is counted up.
    fn text<'a>(&mut self, message: &'a str) -> Option<Cow<'a, str>> {
        if self.written == MAX_RECURRING {
            return None;
        }
        self.written += 1;
        if self.written < MAX_RECURRING || self.all == MAX_RECURRING {
            return Some(Cow::Borrowed(message));
        }
        let more = self.all - MAX_RECURRING + 1;
        Some(Cow::Owned(format!(
            "{more} more events at this step, most of them failed checks; the operator's log and event webhooks have all of them"
        )))
    }
}

impl Delivery {
    pub fn new(cluster: Cluster, http: Http, global: GlobalReceivers) -> Self {
        Self {
            events: Events::new(cluster.clone()),
            cluster,
            http,
            global,
        }
    }

    /// Delivers notifications in order. Stops when this process does not lead any more: the next leader decides the same and notifies.
    pub async fn deliver(&self, canary: &Canary, notifications: Vec<Notification>) {
        let mut step = StepEvents::new(&notifications);
        for notification in notifications {
            if !self.cluster.may_write() {
                return;
            }
            match notification {
                Notification::Event {
                    kind,
                    message,
                    phase,
                    checksum,
                    frequency,
                } => {
                    log_event(canary, kind, &message);
                    match frequency {
                        Frequency::Once => self.events.write(canary, kind, &message).await,
                        Frequency::Recurring => {
                            if let Some(text) = step.text(&message) {
                                self.events.write_recurring(canary, kind, &text).await;
                            }
                        }
                    }
                    if !self.cluster.may_write() {
                        return;
                    }
                    let event = webhook::Event {
                        kind,
                        message: &message,
                        phase,
                        checksum: &checksum,
                        unix_millis: clock::now().as_millisecond(),
                    };
                    for request in event.requests(canary, self.global.event_webhook.as_ref()) {
                        self.call_event_webhook(canary, request).await;
                    }
                }
                Notification::Alert {
                    severity,
                    text,
                    fields,
                    announces: _,
                } => {
                    let message = AlertMessage::new(canary, severity, text, fields);
                    for message in self.chat_messages(canary, &message).await {
                        self.send_to_chat(canary, message).await;
                    }
                }
            }
        }
    }

    async fn call_event_webhook(
        &self,
        canary: &Canary,
        request: Result<HttpRequest, WebhookError>,
    ) {
        let problem = match request {
            Ok(request) => match self.send(canary, &request).await {
                Ok(response) if (200..300).contains(&response.status) => return,
                Ok(response) => format!("bad response {}", response.status),
                Err(failure) => failure.why,
            },
            Err(problem) => problem.to_string(),
        };
        warn!(
            canary = canary_name(canary),
            "error sending event to webhook: {problem}"
        );
    }

    /// Sends a call to a receiver. A call to a receiver of the administrator is one of the operator's own calls. All others count for the
    /// canary's namespace.
    async fn send(&self, canary: &Canary, request: &HttpRequest) -> Result<HttpResponse, Failure> {
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        let caller = match request.origin {
            Origin::Administrator => Caller::Operator,
            Origin::User | Origin::ApiServer => Caller::Namespace(namespace),
        };
        self.http.send_for(caller, request).await
    }

    /// Sends a message to a chat. If the chat's webhook was removed, also writes an Event, because people who get no alerts any more will
    /// read the events of the Canary.
    async fn send_to_chat(&self, canary: &Canary, message: ChatMessage) {
        let ChatMessage { failing, request } = message;
        let problem = match request {
            Ok(request) => match self.send(canary, &request).await {
                Ok(response) if (200..300).contains(&response.status) => return,
                Ok(response) => {
                    let text = format!("{failing}: {}", chats::refused(&response));
                    if chats::is_gone(&response) {
                        log_event(canary, EventKind::Warning, &text);
                        let kind = EventKind::Warning;
                        return self.events.write_recurring(canary, kind, &text).await;
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
        warn!(canary = canary_name(canary), "{problem}");
    }

    /// Returns the messages for all chats that want this alert.
    async fn chat_messages(&self, canary: &Canary, message: &AlertMessage) -> Vec<ChatMessage> {
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
                .map(|chat| ChatMessage {
                    failing: failing.to_owned(),
                    request: chat
                        .request(message)
                        .map_err(|problem| format!("{failing}: {problem}")),
                })
                .collect();
        }
        let mut messages = Vec::new();
        // A Canary with more alerts than the limit is not run, but the alert that reports this goes to its receivers. Limit these, too.
        for alert in own
            .iter()
            .take(limits::ALERTS)
            .filter(|alert| alert::wants(alert, message.severity))
        {
            let reference = &alert.provider_ref;
            let own = canary.metadata.namespace.as_deref().unwrap_or_default();
            let namespace = references::namespace(reference.namespace.as_deref(), own);
            let full = format!("alert provider {}.{namespace}", reference.name);
            let others = self.global.other_namespaces;
            let chat = match references::alert_provider(reference, own, others) {
                Ok(provider) => self.chat(&provider).await,
                Err(blocked) => Err(format!("error: {blocked}")),
            };
            messages.push(ChatMessage {
                failing: format!("{full} send error"),
                request: chat
                    .and_then(|chat| chat.request(message).map_err(|e| e.to_string()))
                    .map_err(|problem| format!("{full} {problem}")),
            });
        }
        messages
    }

    /// Returns the chat of an `AlertProvider`, whose address may be in a Secret.
    async fn chat(&self, provider: &ObjectRef) -> Result<Chat, String> {
        let get = async |kind, name: &str| {
            let object = ObjectRef {
                kind,
                namespace: provider.namespace.clone(),
                name: name.to_owned(),
            };
            match self.cluster.get(&object).await {
                Ok(Some(object)) => object.value().map_err(|error| error.to_string()),
                Ok(None) => Err(format!("{} {name:?} not found", kind.plural())),
                Err(error) => Err(error.to_string()),
            }
        };
        let provider = get(provider.kind, &provider.name)
            .await
            .map_err(|e| format!("error: {e}"))?;
        let provider: AlertProvider =
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
}

#[cfg(test)]
mod tests;
