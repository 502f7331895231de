//! The HTTP clients behind [`super::Http`]: one for each combination of proxy and trust that some request needs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use reqwest::{Client, redirect};

use crate::{
    shell::lock::lock,
    snapshot::{HttpRequest, excerpt},
};

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// The clients built so far. Clones share them.
#[derive(Clone, Default)]
pub struct Clients(Arc<Mutex<HashMap<ClientKey, Client>>>);

/// The properties of a request for which it needs a client of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    proxy: Option<String>,
    skips_verification: bool,
    /// Whether the request carries headers that no other host may see.
    has_credentials: bool,
    /// Whether the request goes to this machine: then a proxy of the environment is bypassed, as in Go.
    is_local: bool,
}

impl Clients {
    /// Returns the client for a request.
    ///
    /// # Errors
    /// The address of the proxy cannot be parsed.
    pub fn get(&self, request: &HttpRequest) -> Result<Client, String> {
        let key = ClientKey::of(request);
        let mut clients = lock(&self.0);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = key.build()?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

impl ClientKey {
    fn of(request: &HttpRequest) -> Self {
        let host = url::Url::parse(&request.url.0)
            .ok()
            .and_then(|url| url.host().map(|host| host.to_owned()));
        let is_local = match &host {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        Self {
            proxy: request.proxy.as_ref().map(|proxy| proxy.0.clone()),
            skips_verification: request.insecure_skip_verify,
            has_credentials: request
                .headers
                .iter()
                .any(|(name, _)| !name.eq_ignore_ascii_case("content-type")),
            is_local,
        }
    }

    fn build(&self) -> Result<Client, String> {
        let mut builder = Client::builder()
            // Go writes header names in this case, and some servers compare them byte by byte.
            .http1_title_case_headers()
            .tls_danger_accept_invalid_certs(self.skips_verification)
            // The address that redirects may be a secret, as that of a chat is: the next host must not learn it.
            .referer(false)
            .redirect(redirects(self.has_credentials));
        if self.is_local {
            builder = builder.no_proxy();
        }
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(
                reqwest::Proxy::all(proxy).map_err(|_| "unable to parse proxy URL".to_owned())?,
            );
        }
        builder.build().map_err(|error| describe(&error))
    }
}

/// With credentials, a redirect to another host or from HTTPS to HTTP is not followed.
fn redirects(has_credentials: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let leaves_host = attempt.previous().last().is_some_and(|from| {
            let loses_tls = from.scheme() == "https" && attempt.url().scheme() != "https";
            loses_tls || from.host_str() != attempt.url().host_str()
        });
        if has_credentials && leaves_host {
            attempt.stop()
        } else if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    })
}

/// Whether another attempt may succeed.
pub fn is_temporary(error: &reqwest::Error) -> bool {
    !error.is_builder() && !error.is_redirect() && !is_about_certificates(error)
}

/// Whether the certificate of a server was rejected; the next attempt would get the same certificate.
pub fn is_about_certificates(error: &dyn std::error::Error) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.to_string().starts_with("invalid peer certificate"))
}

/// Returns an error and its first cause, without the URL, which may contain a secret.
pub fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() {
        "cannot connect".to_owned()
    } else if error.is_redirect() {
        "too many redirects".to_owned()
    } else if error.is_body() || error.is_decode() {
        "the answer broke off".to_owned()
    } else {
        "the call failed".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if std::error::Error::source(error).is_none() {
            text = format!("{text}: {error}");
        }
        cause = error.source();
    }
    excerpt(&text)
}
