//! Google Chat's webhooks (`pkg/notifier/gchat.go`). It has no colours, so that the severity goes unsaid, as in Flagger.

use serde_json::{Value, json};
use url::Url;

use super::alert::{AlertMessage, Post};

/// A message for Google Chat: a card with a section for the text and one for each field.
pub fn post(address: Url, message: &AlertMessage) -> Post {
    let strong = |text: &str| format!("<font color=#848484><strong>{text}</strong></font>");
    let section = |text: String| json!({"widgets": [{"textParagraph": {"text": text}}]});
    let fields = message.fields.iter();
    let fields = fields.map(|(name, value)| section(format!("{name}<br>{}", strong(value))));
    let sections: Vec<Value> = std::iter::once(section(strong(&message.text)))
        .chain(fields)
        .collect();
    let header = json!({"title": "Flagger", "subtitle": message.canary, "imageUrl": "https://flagger.app/favicon.png"});
    Post {
        address,
        token: None,
        body: json!({"cards": [{"header": header, "sections": sections}]}),
    }
}
