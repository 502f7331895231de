//! A chat: the contract with one chat service, and the request that posts a message (Flagger: `pkg/notifier`).

use std::{fmt, time::Duration};

use serde_json::Value;
use url::Url;

use crate::{
    notifications::message::AlertMessage,
    snapshot::{HttpRequest, HttpResponse, Method, Origin, Secret, excerpt, secret::SecretError},
};

/// The longest that posting a message may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A chat service: the form in which it takes messages.
pub trait ChatService: Sync {
    /// The `type` of its AlertProviders.
    fn name(&self) -> &'static str;

    /// Flagger's name for the service's address, for the error about an invalid one.
    fn address_name(&self) -> &'static str;

    /// Puts a message in the form of the service.
    fn post(&self, chat: &Chat, address: Url, message: &AlertMessage) -> Post;
}

impl fmt::Debug for dyn ChatService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The parts of a request that differ between services.
pub struct Post {
    /// The address to post to.
    pub address: Url,
    /// The token of a bot, for services that have bots.
    pub token: Option<Secret>,
    /// The message in the form of the service.
    pub body: Value,
}

/// A chat service, its address and the credentials for it.
#[derive(Clone, Debug)]
pub struct Chat {
    /// The service.
    pub service: &'static dyn ChatService,
    /// The address of its webhook, which is a secret.
    pub address: Secret,
    /// The token of a bot, if a bot posts the messages.
    pub token: Option<Secret>,
    /// The proxy for its address.
    pub proxy: Option<Secret>,
    /// The name under which messages are posted.
    pub username: String,
    /// The channel.
    pub channel: String,
    /// Whether a user or the administrator chose the address and the proxy.
    pub origin: Origin,
}

/// The reason why no message can be posted. Each `Display` text is Flagger's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// No service has the AlertProvider's `type`.
    #[error("error: provider {0} not supported")]
    NotSupported(String),
    /// The AlertProvider's Secret has no address.
    #[error("secret does not contain an address")]
    NoAddress,
    /// The AlertProvider's Secret is not sent to the chat.
    #[error("secretRef error: {0}")]
    Secret(#[from] SecretError),
    /// The address is not a URL. The error does not show the address, which is a secret.
    #[error("error: invalid {0}")]
    InvalidAddress(&'static str),
}

impl Chat {
    /// The request that posts a message.
    pub fn request(&self, message: &AlertMessage) -> Result<HttpRequest, ChatError> {
        let address = Url::parse(&self.address.0)
            .map_err(|_| ChatError::InvalidAddress(self.service.address_name()))?;
        let Post {
            address,
            token,
            body,
        } = self.service.post(self, address, message);
        let mut headers = vec![(
            "Content-type".to_owned(),
            Secret("application/json".to_owned()),
        )];
        headers.extend(token.map(|token| {
            let bearer = Secret(format!("Bearer {}", token.0));
            ("Authorization".to_owned(), bearer)
        }));
        Ok(HttpRequest {
            method: Method::Post,
            url: Secret(address.into()),
            headers,
            body: Some(body.to_string()),
            timeout: TIMEOUT,
            retries: 0,
            budget: None,
            proxy: self.proxy.clone(),
            insecure_skip_verify: false,
            origin: self.origin,
        })
    }
}

/// Whether a chat's webhook no longer exists. No message arrives until a user changes the address.
pub const fn is_gone(response: &HttpResponse) -> bool {
    matches!(response.status, 404 | 410)
}

/// The error about a message that a chat did not accept, with advice if the webhook no longer exists.
pub fn refused(response: &HttpResponse) -> String {
    let advice = if is_gone(response) {
        "; the chat's webhook is gone, no alert will arrive until its address is that of a new one"
    } else {
        ""
    };
    let HttpResponse { status, body } = response;
    let text = if body.is_empty() {
        String::new()
    } else {
        format!(": {}", excerpt(body))
    };
    format!("postMessage failed: sending notification bad response {status}{text}{advice}")
}
