//! Secrets: values that must not be printed, and the reading of Kubernetes' Secret objects.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::ByteString;
use serde_json::Value;

use super::{excerpt, hosts::HostList};

/// A credential, or an address that contains one. Its `Debug` is redacted, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The annotation of a Secret with the hosts that its values may be sent to: a comma-separated list, see [`HostList`].
pub const ALLOWED_HOSTS: &str = "flagger-rs.github.io/allowed-hosts";

/// The type of Secrets with the token of a ServiceAccount. A server that gets such a token can act as that account.
const SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";

/// The reason why a Secret's values are not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The Secret has the token of a ServiceAccount.
    #[error(
        "the Secret {name} has the token of a ServiceAccount, which is sent to no other server: create a Secret of type Opaque with the credentials of the server"
    )]
    ServiceAccountToken {
        /// The name of the Secret.
        name: String,
    },
    /// The Secret's annotation does not list the host.
    #[error(
        "the Secret {name} is not sent to {host}: its annotation {ALLOWED_HOSTS} allows only {allowed:?}"
    )]
    OtherHost {
        /// The name of the Secret.
        name: String,
        /// The host.
        host: String,
        /// The hosts that are allowed.
        allowed: String,
    },
}

impl SecretError {
    /// The name of the Secret.
    pub fn secret(&self) -> &str {
        match self {
            Self::ServiceAccountToken { name } | Self::OtherHost { name, .. } => name,
        }
    }
}

/// A Secret object whose values may be sent to other servers.
pub struct Credentials {
    name: String,
    values: BTreeMap<String, String>,
    /// `None` if the values may be sent to any host.
    hosts: Option<HostList>,
}

impl Credentials {
    /// Reads a Secret object. This is the only way to its values.
    pub fn of(object: &Value) -> Result<Self, SecretError> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").unwrap_or_default().to_owned();
        if text("/type") == Some(SERVICE_ACCOUNT_TOKEN) {
            return Err(SecretError::ServiceAccountToken { name });
        }
        let annotations = object.pointer("/metadata/annotations");
        let hosts = annotations.and_then(|all| all.get(ALLOWED_HOSTS)?.as_str());
        let data = object.get("data").and_then(Value::as_object);
        let data = data.into_iter().flatten();
        Ok(Self {
            name,
            values: data
                .filter_map(|(key, value)| Some((key.clone(), self::text(value)?)))
                .collect(),
            hosts: hosts.map(HostList::read),
        })
    }

    /// Returns all values that are UTF-8, by key.
    pub const fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Returns one value. `None` if the key is missing or its value is not UTF-8.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// Checks that the values may be sent to a host.
    pub fn check_host(&self, host: &str) -> Result<(), SecretError> {
        match &self.hosts {
            Some(hosts) if !hosts.contains(host) => Err(SecretError::OtherHost {
                name: self.name.clone(),
                host: excerpt(host),
                allowed: excerpt(&hosts.to_string()),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

/// The text of a value without the line end that `echo TOKEN | base64` leaves: no header may contain it.
fn text(base64: &Value) -> Option<String> {
    let bytes: ByteString = serde_json::from_value(base64.clone()).ok()?;
    let text = String::from_utf8(bytes.0).ok()?;
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}
