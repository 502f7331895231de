//! The identities with which the operator asks a cloud for metrics, and the exchange of each for a token or keys. Pure:
//! `shell/outside/tokens.rs` reads the files, sends the requests that [`Identity::next`] names, and keeps the results.
//!
//! An identity is in the Secret of a MetricTemplate, or it is that of the operator's own pod. The pod's identity belongs to the
//! administrator: only variables of the pod's environment name the places from which it is read, and the token or the keys for it are sent
//! to hosts of that cloud only. A user chooses neither.
//!
//! The official libraries of the clouds are not used: they bring other versions of the HTTP client and several megabytes, and the exchanges
//! are a few documented requests.

pub mod aws;
pub mod azure;
pub mod environment;
pub mod google;
mod sigv4;
mod step;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use sigv4::Keys;
pub use step::{Grant, IdentityError, Pass, Step, refusal};

use azure::Azure;
use environment::Environment;
use google::{Google, TOKEN_HOST};

/// The identity that asks a cloud. Its `Debug` shows no credentials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The identity of the operator's pod at AWS.
    Aws,
    /// An identity of Microsoft Entra.
    Azure(Azure),
    /// An identity of Google Cloud.
    Google(Google),
}

impl Identity {
    /// The cloud, for messages.
    pub const fn cloud(&self) -> &'static str {
        match self {
            Self::Aws => "AWS",
            Self::Azure(_) => "Azure",
            Self::Google(_) => "Google Cloud",
        }
    }

    /// Whether this is the identity of the operator's pod, which no user chooses.
    pub const fn is_of_the_pod(&self) -> bool {
        match self {
            Self::Aws => true,
            Self::Azure(azure) => azure.is_of_the_pod(),
            Self::Google(google) => matches!(google, Google::Pod),
        }
    }

    /// The host that gets secret values of a MetricTemplate's Secret for this identity; `None` if no host does.
    pub fn secret_host(&self) -> Option<&'static str> {
        match self {
            Self::Aws | Self::Google(Google::Pod) => None,
            Self::Azure(azure) => azure.secret_host(),
            Self::Google(Google::Key(_)) => Some(TOKEN_HOST),
        }
    }

    /// The next step of the exchange. `seen` has the content of each file and the body of each answer so far.
    pub fn next(
        &self,
        environment: &Environment,
        seen: &[String],
        now: Timestamp,
    ) -> Result<Step, IdentityError> {
        match self {
            Self::Aws => aws::next(environment, seen, now),
            Self::Azure(azure) => azure.next(environment, seen, now),
            Self::Google(google) => google.next(environment, seen, now),
        }
    }
}
