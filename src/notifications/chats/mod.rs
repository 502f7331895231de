//! The table of chat services, and the chats of AlertProviders.
//!
//! A new service is a file here, a row of [`SERVICES`], a row of the table in `notifications/tests.rs`, an example in `examples/alerts`,
//! and its `type` in the schema of the AlertProvider; the tests fail while one is missing.

mod chat;
mod discord;
mod google_chat;
mod rocket;
mod slack;
mod teams;

pub use chat::{Chat, ChatError, ChatService, Post, is_gone, refused};
pub use slack::Slack;
pub use teams::Teams;

use serde_json::Value;

use crate::{
    api::alert_provider::AlertProvider,
    snapshot::{Secret, secret},
};

/// All chat services.
pub static SERVICES: &[&dyn ChatService] = &[
    &Slack,
    &Teams,
    &discord::Discord,
    &rocket::Rocket,
    &google_chat::GoogleChat,
];

/// Returns the names of all services, in the order of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    SERVICES.iter().map(|service| service.name())
}

/// Returns the service of AlertProviders with this `type`.
pub fn named(name: &str) -> Option<&'static dyn ChatService> {
    SERVICES
        .iter()
        .copied()
        .find(|service| service.name() == name)
}

/// The chat of an AlertProvider. The address in `secret`, the provider's Secret object, wins over the provider's own.
pub fn chat_of(provider: &AlertProvider, secret: Option<&Value>) -> Result<Chat, ChatError> {
    let spec = &provider.spec;
    let in_secret = |key: &str| secret.and_then(|object| secret::value(object, key));
    let address = match secret {
        Some(_) => in_secret("address").ok_or(ChatError::NoAddress)?,
        None => spec.address.clone().unwrap_or_default(),
    };
    let or = |value: &Option<String>, default: &str| {
        value
            .clone()
            .filter(|value| !value.is_empty())
            .unwrap_or_else(|| default.to_owned())
    };
    let service = named(&spec.type_).ok_or_else(|| ChatError::NotSupported(spec.type_.clone()))?;
    let token = in_secret("token").filter(|token| !token.is_empty());
    let proxy = spec.proxy.clone().filter(|proxy| !proxy.is_empty());
    Ok(Chat {
        service,
        address: Secret(address.trim().to_owned()),
        token: token.map(|token| Secret(token.trim().to_owned())),
        proxy: proxy.map(Secret),
        username: or(&spec.username, "flagger"),
        channel: or(&spec.channel, "general"),
    })
}
