//! Identities of Google Cloud: the key of a service account, or the identity of the operator's pod, which is a key in a file, the workload
//! identity of GKE, or the service account of the machine.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{
    environment::Environment,
    step::{IdentityError, Step, get, oauth, post},
};
use crate::snapshot::{HttpRequest, Secret};

/// The host of the exchange. (A key has an address in `token_uri`, too. The operator does not read it, because a user could choose the
/// address.)
pub const TOKEN_HOST: &str = "oauth2.googleapis.com";
/// The right to read metrics.
const SCOPE: &str = "https://www.googleapis.com/auth/monitoring.read";
/// The metadata service of a machine, which on GKE knows the workload identity of each pod.
const METADATA: &str = "169.254.169.254";
/// The longest lifetime of an assertion, in seconds.
const LIFETIME: i64 = 3600;

/// An identity of Google Cloud. Its `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Google {
    /// A service account with this key, in JSON.
    Key(Secret),
    /// The identity of the operator's pod.
    Pod,
}

impl Google {
    /// The next step of the exchange.
    pub fn next(
        &self,
        environment: &Environment,
        seen: &[String],
        now: Timestamp,
    ) -> Result<Step, IdentityError> {
        let granted = |answer: &str| oauth("the answer of Google's token service", answer, now);
        match (
            self,
            environment.get("GOOGLE_APPLICATION_CREDENTIALS"),
            seen,
        ) {
            (Self::Pod, Some(file), []) => Ok(Step::Read(file.to_owned())),
            (Self::Key(Secret(key)), _, []) | (Self::Pod, Some(_), [key]) => exchange(key, now),
            (Self::Key(_), _, [answer, ..]) | (Self::Pod, Some(_), [_, answer, ..]) => {
                granted(answer)
            }
            (Self::Pod, None, []) => Ok(Step::Call(machine(environment))),
            (Self::Pod, None, [answer, ..]) => {
                oauth("the answer of Google's metadata service", answer, now)
            }
        }
    }
}

fn machine(environment: &Environment) -> HttpRequest {
    let host = environment.get("GCE_METADATA_HOST").unwrap_or(METADATA);
    let path = "computeMetadata/v1/instance/service-accounts/default/token";
    let url = format!("http://{host}/{path}?scopes={SCOPE}");
    get(url, &[("Metadata-Flavor", "Google")])
}

/// The key of a service account, as Google writes it.
#[derive(Deserialize)]
struct ServiceAccount {
    #[serde(rename = "type", default)]
    type_: String,
    #[serde(default)]
    client_email: String,
    #[serde(default)]
    private_key_id: String,
    #[serde(default)]
    private_key: String,
}

/// Exchanges an assertion that the key signs.
fn exchange(key: &str, now: Timestamp) -> Result<Step, IdentityError> {
    let what = "the key of the service account";
    let unreadable = |field| IdentityError::Unreadable { what, field };
    let key: ServiceAccount = serde_json::from_str(key).map_err(|_| unreadable("JSON"))?;
    if key.type_ != "service_account" {
        return Err(unreadable("type (it must be service_account)"));
    }
    if key.client_email.is_empty() {
        return Err(unreadable("client_email"));
    }
    let pair = pair(&key.private_key).ok_or_else(|| unreadable("private_key"))?;
    let issued = now.as_second();
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": key.private_key_id});
    let claims = json!({
        "iss": key.client_email,
        "scope": SCOPE,
        "aud": format!("https://{TOKEN_HOST}/token"),
        "iat": issued,
        "exp": issued.saturating_add(LIFETIME),
    });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let text = format!("{header}.{claims}");
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
        .map_err(|_| unreadable("private_key"))?;
    let assertion = format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature));
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", assertion.as_str()),
    ];
    let url = format!("https://{TOKEN_HOST}/token");
    Ok(Step::Call(post(url, &form)))
}

/// Reads a private key in PEM.
fn pair(pem: &str) -> Option<RsaKeyPair> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (text, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let text: String = text.split_whitespace().collect();
    let bytes = STANDARD.decode(text).ok()?;
    RsaKeyPair::from_pkcs8(&bytes).ok()
}

#[cfg(test)]
mod tests;
