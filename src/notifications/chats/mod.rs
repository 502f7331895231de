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
use url::Url;

use crate::{
    api::alert_provider::AlertProvider,
    snapshot::{
        Origin, Secret,
        secret::{Credentials, SecretError},
    },
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

/// The chat of an AlertProvider. `secret` is the provider's Secret object; its address replaces the provider's own.
pub fn chat_of(provider: &AlertProvider, secret: Option<&Value>) -> Result<Chat, ChatError> {
    let spec = &provider.spec;
    let secret = secret.map(Credentials::of).transpose()?;
    let in_secret = |key: &str| secret.as_ref()?.value(key).map(str::to_owned);
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
    if let Some(secret) = &secret {
        check_hosts(secret, &address, proxy.as_deref())?;
    }
    Ok(Chat {
        service,
        address: Secret(address.trim().to_owned()),
        token: token.map(|token| Secret(token.trim().to_owned())),
        proxy: proxy.map(Secret),
        username: or(&spec.username, "flagger"),
        channel: or(&spec.channel, "general"),
        origin: Origin::User,
    })
}

/// Checks the hosts that get the values of a Secret: the chat's, and that of a proxy that can read an unencrypted request. Invalid
/// addresses are not checked, because no request is sent to them.
fn check_hosts(
    secret: &Credentials,
    address: &str,
    proxy: Option<&str>,
) -> Result<(), SecretError> {
    let Ok(address) = Url::parse(address.trim()) else {
        return Ok(());
    };
    secret.check_host(address.host_str().unwrap_or_default())?;
    let Some(proxy) = proxy.filter(|_| address.scheme() != "https") else {
        return Ok(());
    };
    let proxy = Url::parse(proxy).ok();
    let proxy = proxy.as_ref().and_then(Url::host_str);
    secret.check_host(proxy.unwrap_or_default())
}
