//! Discord's webhooks, in the form that they share with Slack (`pkg/notifier/discord.go`).

use url::Url;

use super::{
    alert::{AlertMessage, Chat, Post},
    slack,
};

/// A message for Discord, whose webhooks understand Slack's form at an address of their own.
pub fn post(chat: &Chat, mut address: Url, message: &AlertMessage) -> Post {
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
