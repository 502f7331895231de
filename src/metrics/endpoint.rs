//! Where a server of metrics is, and what lets us in: what the calls of all providers have in common.

use std::{collections::BTreeMap, time::Duration};

use url::Url;

use super::shown;
use crate::{
    api::metric_template::MetricTemplateProvider,
    snapshot::{HttpRequest, Method, Secret},
};

/// The longest that an attempt may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A query that fails for a reason that may pass is sent again so often before it counts as failed. (Flagger asks once.)
const RETRIES: u32 = 2;

/// What the Secret of a MetricTemplate has, by key.
pub type Credentials = BTreeMap<String, String>;

/// A server, and how to be let in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Without user and password, so that it can be printed.
    address: Url,
    /// What user and password of the address amount to; headers that let in come before it.
    login: Option<Secret>,
    headers: Vec<(String, Secret)>,
    insecure_skip_verify: bool,
}

impl Endpoint {
    /// The server at an address; `provider` is what a message calls it.
    pub fn at(provider: &str, address: &str) -> Result<Self, String> {
        let url = Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut url = url
            .ok_or_else(|| format!("{provider} address {} is not a valid URL", public(address)))?;
        let login = login(&url);
        // Both fail only for addresses that cannot have credentials.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Ok(Self {
            address: url,
            login,
            headers: Vec::new(),
            insecure_skip_verify: false,
        })
    }

    /// The server of a MetricTemplate, or the provider's own where it names none.
    pub fn of(spec: &MetricTemplateProvider, default: &str) -> Result<Self, String> {
        let own = spec.address.as_deref().filter(|own| !own.is_empty());
        Self::at(&spec.type_, own.unwrap_or(default))
    }

    /// The same, with a header.
    #[must_use]
    pub fn with(mut self, name: &str, value: String) -> Self {
        self.headers.push((name.to_owned(), Secret(value)));
        self
    }

    /// The same, its certificate checked or not, as its MetricTemplate says.
    #[must_use]
    pub fn checked_as(self, spec: &MetricTemplateProvider) -> Self {
        Self {
            insecure_skip_verify: spec.insecure_skip_verify,
            ..self
        }
    }

    /// The call that reads what is at a path below the address.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> HttpRequest {
        let mut url = self.address.clone();
        url.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
        url.set_query(None);
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
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
        }
    }
}

/// What a Secret has under a key: without the line end that `echo` leaves there, and nothing if that is all.
pub fn credential<'a>(credentials: Option<&'a Credentials>, key: &str) -> Option<&'a str> {
    let value = credentials?.get(key)?.trim();
    (!value.is_empty()).then_some(value)
}

/// The header of user and password.
pub fn basic(user: &str, password: &str) -> String {
    use k8s_openapi::ByteString;
    // A ByteString is base64 in JSON: the one encoder that is here already.
    let encoded = serde_json::to_value(ByteString(format!("{user}:{password}").into_bytes()))
        .unwrap_or_default();
    format!("Basic {}", encoded.as_str().unwrap_or_default())
}

/// The header of the user and password in a Secret, where both must be; none if one of them is empty, as in Flagger.
pub fn basic_of(provider: &str, credentials: &Credentials) -> Result<Option<String>, String> {
    let find = |key: &str| {
        credentials
            .get(key)
            .ok_or_else(|| format!("{provider} credentials does not contain a {key}"))
    };
    let (user, password) = (find("username")?, find("password")?);
    let is_whole = !user.is_empty() && !password.is_empty();
    Ok(is_whole.then(|| basic(user, password)))
}

/// An address fit to be shown: without user and password, also where it cannot be parsed.
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
    shown(&public)
}

fn is_authorization((name, _): &(String, Secret)) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

/// What user and password in an address amount to; there they are percent-encoded.
fn login(address: &Url) -> Option<Secret> {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let (user, password) = (address.username(), address.password().unwrap_or_default());
    (!user.is_empty()).then(|| Secret(basic(&decoded(user), &decoded(password))))
}
