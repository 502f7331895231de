//! Slack's incoming webhooks, and its bot API if there is a token (Flagger: `pkg/notifier/slack.go`). Discord and Rocket.Chat accept the
//! same form.

use serde_json::{Value, json};
use url::Url;

use super::chat::{Chat, ChatService, Post};
use crate::notifications::{Severity, message::AlertMessage};

/// Slack, or a service that accepts its webhooks.
pub struct Slack;

impl ChatService for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn address_name(&self) -> &'static str {
        "Slack hook URL"
    }

    fn post(&self, chat: &Chat, address: Url, message: &AlertMessage) -> Post {
        Post {
            address,
            token: chat.token.clone(),
            body: attachment(chat, message, COLOURS),
        }
    }
}

/// The colours of a message about success and of one about an error.
pub type Colours = [&'static str; 2];

/// Slack's own colours.
pub const COLOURS: Colours = ["good", "danger"];

/// A message in Slack's form.
pub fn attachment(chat: &Chat, message: &AlertMessage, [good, bad]: Colours) -> Value {
    let fields: Vec<_> = message
        .fields
        .iter()
        .map(|(title, value)| json!({"title": title, "value": value, "short": false}))
        .collect();
    let mut attachment = json!({
        "color": if message.severity == Severity::Error { bad } else { good },
        "author_name": message.canary, "mrkdwn_in": ["text"], "fields": fields});
    if !message.text.is_empty() {
        attachment["text"] = json!(message.text);
    }
    json!({"channel": chat.channel, "username": chat.username, "icon_url": "", "icon_emoji": ":rocket:",
        "attachments": [attachment]})
}
