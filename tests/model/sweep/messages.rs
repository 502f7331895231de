//! The messages of a run to its users: alerts, hooks, Events and event webhooks.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use super::super::{fake_servers::Delivered, rig::Rig, store::Change};

/// The channel of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// To the chat.
    Alert,
    /// A hook of a release.
    Hook,
    /// A gate, which is called at each tick.
    Gate,
    /// An Event on the Canary. A repetition counts too.
    Event,
    /// The payload of an event webhook.
    EventWebhook,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub channel: Channel,
    pub text: String,
}

impl Message {
    /// Whether it is an event of the type Warning.
    pub fn is_warning(&self) -> bool {
        self.text.starts_with("Warning ") || self.text.ends_with(" eventType=Warning")
    }

    /// Whether it is a Warning that the run waits for pods.
    pub fn is_reason_to_wait(&self) -> bool {
        let reasons = [" not ready", " has no ready pod yet"];
        self.is_warning() && reasons.iter().any(|reason| self.text.contains(reason))
    }

    /// The message without the parts that depend on timing: the numbers of ready pods, and the words of the last step of a promotion.
    fn without_timing(&self) -> Self {
        let last_step = "Advance podinfo.test primary weight 100";
        if self.text.contains(last_step) {
            let text = self
                .text
                .replace(last_step, "Routing all traffic to primary");
            return Self { text, ..*self };
        }
        let begin = self.text.find(": waiting for rollout to finish");
        let Some(begin) = begin else {
            return self.clone();
        };
        // The type of an event comes after its text.
        let end = self.text.rfind(" eventType=").unwrap_or(self.text.len());
        let text = format!("{}{}", &self.text[..begin], &self.text[end..]);
        Self { text, ..*self }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channel = match self.channel {
            Channel::Alert => "alert",
            Channel::Hook => "hook",
            Channel::Gate => "gate",
            Channel::Event => "event",
            Channel::EventWebhook => "webhook",
        };
        write!(f, "{channel:<8} {}", self.text)
    }
}

/// The messages of a run, in order.
pub fn of_run(rig: &Rig) -> Vec<Message> {
    let history = rig.model.history();
    let events = history
        .iter()
        .filter(|change| change.key.plural == "events");
    let events = events.filter_map(|change| Some((change.revision, event(change)?)));
    let requests = rig.servers.received();
    let requests = requests
        .iter()
        .map(|request| (request.revision, to_server(request)));
    let mut all: Vec<(u64, Message)> = events.chain(requests).collect();
    all.sort_by_key(|(revision, _)| *revision);
    all.into_iter().map(|(_, message)| message).collect()
}

fn event(change: &Change) -> Option<Message> {
    let event = change.after.as_ref()?;
    let text = format!("{} {}", word(&event["type"]), word(&event["message"]));
    Some(Message {
        channel: Channel::Event,
        text,
    })
}

fn to_server(request: &Delivered) -> Message {
    let Delivered { url, body, .. } = request;
    let (channel, text) = match url.as_str() {
        "http://slack/global" => {
            let alert = &body["attachments"][0];
            (Channel::Alert, word(&alert["text"]).to_owned())
        }
        "http://events/all" => (Channel::EventWebhook, payload(body)),
        url if url.starts_with("http://gate/") => {
            (Channel::Gate, format!("{url} {}", payload(body)))
        }
        url => (Channel::Hook, format!("{url} {}", payload(body))),
    };
    Message { channel, text }
}

/// The payload of a webhook without its time.
fn payload(body: &Value) -> String {
    let mut text = format!("{} {}", word(&body["phase"]), word(&body["checksum"]));
    for (field, value) in body["metadata"].as_object().into_iter().flatten() {
        if field != "timestamp" {
            text += &format!(" {field}={}", word(value));
        }
    }
    text
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// How often each message was sent, apart from the parts that depend on timing.
pub fn counts(messages: &[Message]) -> BTreeMap<Message, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        *counts.entry(message.without_timing()).or_default() += 1;
    }
    counts
}
