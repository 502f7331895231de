//! Microsoft Teams: workflows, and the connectors that preceded them (Flagger: `pkg/notifier/teams.go`).

use serde_json::{Value, json};
use url::Url;

use super::chat::{Chat, ChatService, Post};
use crate::notifications::{Severity, message::AlertMessage};

/// Microsoft Teams.
pub struct Teams;

impl ChatService for Teams {
    fn name(&self) -> &'static str {
        "msteams"
    }

    fn address_name(&self) -> &'static str {
        "MS Teams webhook URL"
    }

    /// An adaptive card for a workflow, since workflows made from Microsoft's template accept nothing else. Any other address gets the
    /// older card, which is the only one that Flagger sends.
    fn post(&self, _chat: &Chat, address: Url, message: &AlertMessage) -> Post {
        let body = if is_workflow(&address) {
            adaptive_card(message)
        } else {
            message_card(message)
        };
        Post {
            address,
            token: None,
            body,
        }
    }
}

/// Whether an address is that of a workflow of Power Automate. Its host depends on Microsoft's cloud, its path does not.
fn is_workflow(address: &Url) -> bool {
    let path = address.path().to_ascii_lowercase();
    path.contains("/workflows/") && path.contains("/paths/invoke")
}

fn message_card(message: &AlertMessage) -> Value {
    let facts: Vec<_> = message
        .fields
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"@type": "MessageCard", "@context": "http://schema.org/extensions",
        "themeColor": if message.severity == Severity::Error { "FF0000" } else { "0076D7" },
        "summary": message.canary,
        "sections": [{"activityTitle": message.text, "activitySubtitle": message.canary, "facts": facts}]})
}

/// Teams shows adaptive cards up to version 1.4.
fn adaptive_card(message: &AlertMessage) -> Value {
    let color = match message.severity {
        Severity::Info => "default",
        Severity::Warn => "warning",
        Severity::Error => "attention",
    };
    let mut body = vec![
        json!({"type": "TextBlock", "text": message.text, "wrap": true, "size": "medium", "weight": "bolder", "color": color}),
        json!({"type": "TextBlock", "text": message.canary, "wrap": true, "isSubtle": true, "spacing": "none"}),
    ];
    if !message.fields.is_empty() {
        let facts = message.fields.iter();
        let facts: Vec<_> = facts
            .map(|(title, value)| json!({"title": title, "value": value}))
            .collect();
        body.push(json!({"type": "FactSet", "facts": facts}));
    }
    let card = json!({"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
        "msteams": {"width": "Full"}, "body": body});
    json!({"type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": card}]})
}
