//! Google Chat's webhooks (Flagger: `pkg/notifier/gchat.go`). As in Flagger, the message does not show the severity, because the cards have
//! no colours.

use serde_json::{Value, json};
use url::Url;

use super::chat::{Chat, ChatService, Post};
use crate::notifications::message::AlertMessage;

/// Google Chat.
pub struct GoogleChat;

impl ChatService for GoogleChat {
    fn name(&self) -> &'static str {
        "gchat"
    }

    fn address_name(&self) -> &'static str {
        "Google Chat webhook URL"
    }

    fn post(&self, _chat: &Chat, address: Url, message: &AlertMessage) -> Post {
        Post {
            address,
            token: None,
            body: card(message),
        }
    }
}

/// A card with a section for the text and one for each field.
fn card(message: &AlertMessage) -> Value {
    let strong = |text: &str| format!("<font color=#848484><strong>{text}</strong></font>");
    let section = |text: String| json!({"widgets": [{"textParagraph": {"text": text}}]});
    let fields = message.fields.iter();
    let fields = fields.map(|(name, value)| section(format!("{name}<br>{}", strong(value))));
    let sections: Vec<Value> = std::iter::once(section(strong(&message.text)))
        .chain(fields)
        .collect();
    let header = json!({"title": "Flagger", "subtitle": message.canary, "imageUrl": "https://flagger.app/favicon.png"});
    json!({"cards": [{"header": header, "sections": sections}]})
}
