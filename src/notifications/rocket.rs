//! Rocket.Chat's incoming webhooks (`pkg/notifier/rocket.go`).

use url::Url;

use super::{
    alert::{AlertMessage, Chat, Post},
    slack,
};

/// A message for Rocket.Chat: Slack's form, but it knows no colours by name.
pub fn post(chat: &Chat, address: Url, message: &AlertMessage) -> Post {
    Post {
        address,
        token: None,
        body: slack::attachment(chat, message, ["#0076D7", "#FF0000"]),
    }
}
