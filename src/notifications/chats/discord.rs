//! Discord's webhooks, which accept Slack's form (Flagger: `pkg/notifier/discord.go`).

use url::Url;

use super::{
    chat::{Chat, ChatService, Post},
    slack,
};
use crate::notifications::message::AlertMessage;

/// Discord.
pub struct Discord;

impl ChatService for Discord {
    fn name(&self) -> &'static str {
        "discord"
    }

    fn address_name(&self) -> &'static str {
        "Discord hook URL"
    }

    /// Discord accepts Slack's form at the webhook's address followed by `/slack`.
    fn post(&self, chat: &Chat, mut address: Url, message: &AlertMessage) -> Post {
        if !address.path().ends_with("/slack") {
            let path = format!("{}/slack", address.path().trim_end_matches('/'));
            address.set_path(&path);
        }
        Post {
            address,
            token: None,
            body: slack::attachment(chat, message, slack::COLOURS),
        }
    }
}
