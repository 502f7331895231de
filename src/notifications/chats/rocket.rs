//! Rocket.Chat's incoming webhooks (Flagger: `pkg/notifier/rocket.go`).

use url::Url;

use super::{
    chat::{Chat, ChatService, Post},
    slack,
};
use crate::notifications::message::AlertMessage;

/// Rocket.Chat.
pub struct Rocket;

impl ChatService for Rocket {
    fn name(&self) -> &'static str {
        "rocket"
    }

    fn address_name(&self) -> &'static str {
        "Rocket hook URL"
    }

    /// Slack's form, with colours by number, since Rocket.Chat has no names for colours.
    fn post(&self, chat: &Chat, address: Url, message: &AlertMessage) -> Post {
        Post {
            address,
            token: None,
            body: slack::attachment(chat, message, ["#0076D7", "#FF0000"]),
        }
    }
}
