//! The HTTP clients behind [`super::Http`]: one for each combination of proxy and trust that some request needs.

use std::sync::{Arc, Mutex};

use reqwest::{Client, redirect};
use url::Url;

use crate::{
    shell::{
        lock::lock,
        outside::destinations::{Refused, Resolver, are_open, check_url, is_link_local},
    },
    snapshot::{Destinations, HttpRequest, Origin, excerpt},
};

/// The maximum number of redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// The maximum number of clients that are kept. Users choose proxies, and each of them needs a client.
const MAX_CLIENTS: usize = 32;

/// The clients that were used last. Clones share them.
#[derive(Clone, Default)]
pub struct Clients {
    /// The client that was used last is at the end.
    built: Arc<Mutex<Vec<(ClientKey, Client)>>>,
    /// The destinations of requests of users.
    destinations: Arc<Destinations>,
}

/// The properties of a request for which it needs a client of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    proxy: Option<String>,
    skips_verification: bool,
    /// Whether the request carries headers that no other host may see.
    has_credentials: bool,
    /// Whether the request goes to this machine or to the metadata service of its cloud: then a proxy of the environment is bypassed, as in
    /// Go and in the libraries of the clouds.
    is_local: bool,
    /// Whether the request is the administrator's: a user's may only go to some destinations.
    origin: Origin,
    idle: IdleConnections,
}

/// Connections after their request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum IdleConnections {
    /// They are kept for the next request.
    Kept,
    /// They are closed: users choose the servers, and each idle connection takes memory.
    Closed,
}

impl Clients {
    /// Creates clients. Requests of users may go to these destinations only, and requests of the administrator to all.
    pub fn new(destinations: Destinations) -> Self {
        Self {
            destinations: Arc::new(destinations),
            ..Self::default()
        }
    }

    /// Returns the client for a request.
    ///
    /// # Errors
    /// A user may not call this destination or this proxy, or the address of the proxy cannot be parsed.
    pub fn get(&self, request: &HttpRequest) -> Result<Client, String> {
        let mut key = ClientKey::of(request);
        if are_open(&self.destinations) {
            key.origin = Origin::Administrator;
        }
        if key.origin == Origin::User {
            self.check(request)?;
        }
        let mut built = lock(&self.built);
        let known = built.iter().position(|(known, _)| *known == key);
        let client = match known {
            Some(known) => built.remove(known).1,
            None => key.build(&self.destinations)?,
        };
        if built.len() >= MAX_CLIENTS {
            built.remove(0);
        }
        built.push((key, client.clone()));
        Ok(client)
    }

    /// Returns the proxies of the clients that are kept.
    #[cfg(test)]
    pub fn proxies(&self) -> Vec<String> {
        let built = lock(&self.built);
        let proxies = built.iter().map(|(key, _)| key.proxy.clone());
        proxies.map(Option::unwrap_or_default).collect()
    }

    fn check(&self, request: &HttpRequest) -> Result<(), String> {
        // A URL that cannot be parsed is not called either.
        let url = Url::parse(&request.url.0).ok();
        let proxy = match &request.proxy {
            Some(proxy) => Some(proxy_url(&proxy.0).ok_or(INVALID_PROXY)?),
            None => None,
        };
        for url in url.iter().chain(&proxy) {
            check_url(&self.destinations, url).map_err(|refused| refused.to_string())?;
        }
        Ok(())
    }
}

/// Flagger's text.
const INVALID_PROXY: &str = "unable to parse proxy URL";

/// Parses the address of a proxy, whose scheme may be missing.
fn proxy_url(address: &str) -> Option<Url> {
    let complete = Url::parse(address).ok().filter(Url::has_host);
    complete.or_else(|| Url::parse(&format!("http://{address}")).ok())
}

impl ClientKey {
    fn of(request: &HttpRequest) -> Self {
        let host = url::Url::parse(&request.url.0)
            .ok()
            .and_then(|url| url.host().map(|host| host.to_owned()));
        let is_local = match &host {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => {
                address.is_loopback() || is_link_local((*address).into())
            }
            Some(url::Host::Ipv6(address)) => {
                address.is_loopback() || is_link_local((*address).into())
            }
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
            origin: request.origin,
            idle: match request.origin {
                Origin::Administrator => IdleConnections::Kept,
                Origin::User | Origin::ApiServer => IdleConnections::Closed,
            },
        }
    }

    fn build(&self, destinations: &Arc<Destinations>) -> Result<Client, String> {
        let mut builder = Client::builder()
            // Go writes header names in this case, and some servers compare them byte by byte.
            .http1_title_case_headers()
            .tls_danger_accept_invalid_certs(self.skips_verification)
            // Send no Referer: the address that redirects may be a secret, such as the address of a chat.
            .referer(false)
            .redirect(redirects(self.has_credentials));
        if self.is_local {
            builder = builder.no_proxy();
        }
        if self.idle == IdleConnections::Closed {
            builder = builder.pool_max_idle_per_host(0);
        }
        if self.origin == Origin::User {
            builder = builder.dns_resolver(Arc::new(Resolver(destinations.clone())));
        }
        if let Some(proxy) = &self.proxy {
            builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|_| INVALID_PROXY)?);
        }
        builder.build().map_err(|error| describe(&error))
    }
}

/// A redirect to another host is an error, because only the server has chosen that host. With credentials, a redirect from HTTPS to HTTP is
/// not followed.
fn redirects(has_credentials: bool) -> redirect::Policy {
    redirect::Policy::custom(move |attempt| {
        let from = attempt.previous().last();
        let leaves_host = from.is_some_and(|from| from.host() != attempt.url().host());
        let loses_tls =
            from.is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
        if leaves_host {
            let host = attempt.url().host_str().unwrap_or_default();
            let refused = Refused::Redirect(excerpt(host));
            attempt.error(refused)
        } else if has_credentials && loses_tls {
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
    !error.is_builder()
        && !error.is_redirect()
        && !is_about_certificates(error)
        && Refused::among_causes(error).is_none()
}

/// Whether the certificate of a server was rejected; the next attempt would get the same certificate.
pub fn is_about_certificates(error: &dyn std::error::Error) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.to_string().starts_with("invalid peer certificate"))
}

/// An error of the operating system, without its number: `connection refused`, as in Flagger.
fn without_number(error: &str) -> String {
    match error.split_once(" (os error ") {
        Some((text, _)) => text.to_lowercase(),
        None => error.to_owned(),
    }
}

/// Returns an error and its first cause, without the URL, which may contain a secret.
pub fn describe(error: &reqwest::Error) -> String {
    if let Some(refused) = Refused::among_causes(error) {
        return refused.to_string();
    }
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
            text = format!("{text}: {}", without_number(&error.to_string()));
        }
        cause = error.source();
    }
    excerpt(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::identity::testing::request;

    /// Through a proxy, the tokens and keys of the cloud would be sent in plain text.
    #[test]
    fn what_only_this_machine_reaches_is_called_without_the_proxy_of_the_environment() {
        let hosts = [
            ("localhost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            // The metadata services of the clouds, and the agents of AWS.
            ("169.254.169.254", true),
            ("169.254.170.2", true),
            ("169.254.170.23", true),
            ("100.100.100.200", true),
            ("[fd00:ec2::254]", true),
            ("[fd00:ec2::23]", true),
            ("[fe80::1]", true),
            ("[::ffff:169.254.169.254]", true),
            ("prometheus", false),
            ("localhost.example.com", false),
            ("10.0.0.1", false),
            ("169.253.0.1", false),
            ("[fd00::1]", false),
        ];
        for (host, expected) in hosts {
            for url in [
                format!("http://{host}/latest"),
                format!("https://{host}:8443/"),
            ] {
                let key = ClientKey::of(&request(&url));
                assert_eq!(key.is_local, expected, "{url}");
            }
        }
    }
}
