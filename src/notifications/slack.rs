//! Slack's incoming webhooks, and its bot API where a token is given (`pkg/notifier/slack.go`). Discord and Rocket.Chat understand
//! the same form.

use serde_json::{Value, json};
use url::Url;

use super::alert::{AlertMessage, Chat, Post, Severity};

/// A message for Slack.
pub fn post(chat: &Chat, address: Url, message: &AlertMessage) -> Post {
    Post {
        address,
        token: chat.token.clone(),
        body: attachment(chat, message, COLOURS),
    }
}

/// How a message is coloured if it is as it should be, and if it is an error.
pub type Colours = [&'static str; 2];

/// Slack's own.
pub const COLOURS: Colours = ["good", "danger"];

/// A message as Slack wants it.
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
