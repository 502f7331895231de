//! The address of a metric server and the credentials for it; builds the requests of all providers.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use url::Url;

use super::{error::ServerError, identity::Identity};
use crate::{
    api::metric_template::MetricTemplateProvider,
    snapshot::{HttpRequest, Method, Origin, Secret, excerpt},
};

/// The longest that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a failed query is repeated if the failure may be temporary. (Flagger does not repeat queries.)
const RETRIES: u32 = 2;

/// The values of a MetricTemplate's Secret, by key.
pub type SecretValues = BTreeMap<String, String>;

/// The address of a server and the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address without user and password, so that it can be printed.
    address: Url,
    /// The `Authorization` header made of user and password in the address. A header of that name in `headers` wins.
    login: Option<Secret>,
    headers: Vec<(String, Secret)>,
    /// The parameters of all requests.
    parameters: Vec<(&'static str, String)>,
    insecure_skip_verify: bool,
    origin: Origin,
    identity: Option<Identity>,
}

impl Endpoint {
    /// The endpoint at an address. `provider` is the name in the error text.
    pub fn at(provider: &str, address: &str) -> Result<Self, ServerError> {
        let url = Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut url = url.ok_or_else(|| ServerError::InvalidAddress {
            provider: provider.to_owned(),
            address: public(address),
        })?;
        let login = login(&url);
        // Both fail only for addresses that cannot have credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            address: url,
            login,
            headers: Vec::new(),
            parameters: Vec::new(),
            insecure_skip_verify: false,
            origin: Origin::User,
            identity: None,
        })
    }

    /// The API server, which the operator calls with its own client and rights. No credentials of a template are sent.
    pub fn api_server(provider: &str) -> Result<Self, ServerError> {
        // The host is a placeholder: it only serves to limit the concurrent calls, as for any other host.
        let endpoint = Self::at(provider, "https://kubernetes.default.svc")?;
        Ok(endpoint.with_origin(Origin::ApiServer))
    }

    /// Whether this is the API server.
    pub fn is_api_server(&self) -> bool {
        self.origin == Origin::ApiServer
    }

    /// Sets the author of the address. The default is a user.
    #[must_use]
    pub const fn with_origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// The endpoint at a MetricTemplate's address, or at the provider's default address if the template has none.
    pub fn of(spec: &MetricTemplateProvider, default: &str) -> Result<Self, ServerError> {
        let own = spec.address.as_deref().filter(|own| !own.is_empty());
        Self::at(&spec.type_, own.unwrap_or(default))
    }

    /// The host that all requests go to.
    pub fn host(&self) -> &str {
        self.address.host_str().unwrap_or_default()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &str {
        self.address.scheme()
    }

    /// Makes all requests prove this identity.
    #[must_use]
    pub fn with_identity(self, identity: Identity) -> Self {
        Self {
            identity: Some(identity),
            ..self
        }
    }

    /// The identity that all requests prove.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Adds a path to the address; later requests are below it.
    #[must_use]
    pub fn below(mut self, path: &str) -> Self {
        self.address = joined(&self.address, path);
        self
    }

    /// Replaces the first label of the host's name, if it is `from`.
    #[must_use]
    pub fn with_first_label(mut self, from: &str, to: &str) -> Self {
        let rest = self.host().strip_prefix(from);
        let rest = rest.filter(|rest| rest.starts_with('.')).map(str::to_owned);
        if let Some(rest) = rest {
            // Fails only for a label that a name cannot have.
            let _ = self.address.set_host(Some(&format!("{to}{rest}")));
        }
        self
    }

    /// Adds a header to all requests.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: String) -> Self {
        self.headers.push((name.to_owned(), Secret(value)));
        self
    }

    /// Adds the template's `headers` to all requests.
    #[must_use]
    pub fn with_headers_of(mut self, spec: &MetricTemplateProvider) -> Self {
        for (name, values) in spec.headers.iter().flatten() {
            for value in values {
                self = self.with_header(name, value.clone());
            }
        }
        self
    }

    /// Adds a parameter to all requests.
    #[must_use]
    pub fn with_parameter(mut self, name: &'static str, value: &str) -> Self {
        self.parameters.push((name, value.to_owned()));
        self
    }

    /// Adds the `Authorization` header to all requests, if there is one.
    #[must_use]
    pub fn with_authorization(self, value: Option<String>) -> Self {
        match value {
            Some(value) => self.with_header("Authorization", value),
            None => self,
        }
    }

    /// Applies the template's `insecureSkipVerify`.
    #[must_use]
    pub fn with_verification_of(self, spec: &MetricTemplateProvider) -> Self {
        Self {
            insecure_skip_verify: spec.insecure_skip_verify,
            ..self
        }
    }

    /// A GET request for a path below the address.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> HttpRequest {
        let mut url = joined(&self.address, path);
        if !(self.parameters.is_empty() && parameters.is_empty()) {
            url.query_pairs_mut()
                .extend_pairs(&self.parameters)
                .extend_pairs(parameters);
        }
        let mut headers = self.headers.clone();
        if !headers.iter().any(is_authorization) {
            let login = self.login.clone();
            headers.extend(login.map(|login| ("Authorization".to_owned(), login)));
        }
        HttpRequest {
            method: Method::Get,
            url: Secret(url.into()),
            headers,
            body: None,
            timeout: TIMEOUT,
            retries: RETRIES,
            budget: None,
            proxy: None,
            insecure_skip_verify: self.insecure_skip_verify,
            origin: self.origin,
        }
    }

    /// A DELETE request for a path below the address.
    pub fn delete(&self, path: &str) -> HttpRequest {
        HttpRequest {
            method: Method::Delete,
            ..self.get(path, &[])
        }
    }

    /// A POST request for a path below the address, with a body of this type.
    pub fn post(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        (content_type, body): (&str, String),
    ) -> HttpRequest {
        let mut request = self.get(path, parameters);
        let content_type = ("Content-Type".to_owned(), Secret(content_type.to_owned()));
        request.headers.push(content_type);
        HttpRequest {
            method: Method::Post,
            body: Some(body),
            ..request
        }
    }
}

/// Returns a credential without blanks around it. `None` if the key is missing or its value is empty.
pub fn credential<'a>(credentials: Option<&'a SecretValues>, key: &str) -> Option<&'a str> {
    let value = credentials?.get(key)?.trim();
    (!value.is_empty()).then_some(value)
}

/// The header of basic authentication from the keys `username` and `password`. Both keys must exist; if one of the values is empty,
/// there is no header (Flagger: the same).
pub fn basic_authorization(
    provider: &'static str,
    credentials: &SecretValues,
) -> Result<Option<String>, ServerError> {
    let find = |key: &str, shown: &'static str| {
        credentials.get(key).ok_or(ServerError::MissingCredential {
            provider,
            key: shown,
        })
    };
    let user = find("username", "a username")?;
    let password = find("password", "a password")?;
    let is_complete = !user.is_empty() && !password.is_empty();
    Ok(is_complete.then(|| basic(user, password)))
}

/// Returns an address without user and password, as an excerpt for messages. The address may be invalid.
pub fn public(address: &str) -> String {
    let public = match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => {
            format!(
                "{}{}",
                address.get(..scheme + 3).unwrap_or_default(),
                address.get(at + 1..).unwrap_or_default()
            )
        }
        _ => address.to_owned(),
    };
    excerpt(&public)
}

fn is_authorization((name, _): &(String, Secret)) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

fn joined(address: &Url, path: &str) -> Url {
    let mut url = address.clone();
    url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
    url.set_query(None);
    url
}

/// The `Authorization` header for user and password in an address, where they are percent-encoded.
fn login(address: &Url) -> Option<Secret> {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let (user, password) = (address.username(), address.password().unwrap_or_default());
    (!user.is_empty()).then(|| Secret(basic(&decoded(user), &decoded(password))))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
