//! One request to the API server: its address, its deadline, and its errors. Everything but lists and watches of the cache is sent here.

use std::time::Duration;

use kube::{
    Client,
    core::{Request, request::Error as InvalidRequest},
};
use serde::de::DeserializeOwned;

use crate::snapshot::Kind;

/// The longest time that a read may take.
pub const READ_DEADLINE: Duration = Duration::from_secs(10);
/// The longest time that a write may take. This is less than the time between the renew deadline of the Lease and its end, so that no write
/// of a former leader is under way when the next one begins.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(4);

/// The reason why a request to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object has changed since it was observed. The canary must be observed and decided again.
    #[error("{0} has changed since it was read")]
    Lost(String),
    /// The API server refused.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// The API server's message.
        message: String,
    },
    /// The API server could not be reached, is too busy, or did not answer in time.
    #[error("API server unreachable: {0}")]
    Unreachable(String),
    /// The API server sent an object that is nested too deeply to be read.
    #[error("cannot read {0}")]
    Unreadable(String),
    /// This process does not hold the Lease any more.
    #[error("this process is not the leader any more")]
    NotLeader,
}

impl ClusterError {
    /// Returns the category of this error for metrics; there are only these.
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Refused { .. } => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Unreadable(_) => "unreadable",
            Self::NotLeader => "not_leader",
        }
    }

    /// The HTTP status of a refusal.
    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Lost(_) | Self::Unreachable(_) | Self::Unreadable(_) | Self::NotLeader => None,
        }
    }
}

/// A request that is ready to be sent, or the reason why it cannot be built.
pub type Prepared = Result<http::Request<Vec<u8>>, InvalidRequest>;

/// Returns a builder of requests for a kind, in a namespace or in all. Objects of the cluster are in none.
pub fn requests_for(kind: Kind, namespace: Option<&str>) -> Request {
    let (group, version) = kind.group_version();
    let namespace = namespace.filter(|_| !kind.is_cluster_scoped());
    requests(group, version, kind.plural(), namespace)
}

/// Returns a builder of requests for the resource `plural` of an API group; the core group has an empty name.
pub fn requests(group: &str, version: &str, plural: &str, namespace: Option<&str>) -> Request {
    let api = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    Request::new(match namespace {
        Some(namespace) => format!("{api}/namespaces/{namespace}/{plural}"),
        None => format!("{api}/{plural}"),
    })
}

/// The text of the first cause of an error: the others only say that a request failed.
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

/// Sends a request and reads the answer.
///
/// # Errors
/// The API server refused, or did not answer within the deadline.
pub async fn send<T: DeserializeOwned>(
    client: &Client,
    deadline: Duration,
    request: Prepared,
) -> Result<T, ClusterError> {
    let request = request.map_err(|error| ClusterError::Refused {
        code: 400,
        message: error.to_string(),
    })?;
    match tokio::time::timeout(deadline, client.request(request)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.code >= 500 || status.code == 429 => {
            Err(ClusterError::Unreachable(status.message.clone()))
        }
        Ok(Err(kube::Error::Api(status))) => Err(ClusterError::Refused {
            code: status.code,
            message: status.message.clone(),
        }),
        Ok(Err(error)) => Err(ClusterError::Unreachable(root_cause(&error))),
        Err(_) => Err(ClusterError::Unreachable(format!(
            "no answer within {} s",
            deadline.as_secs()
        ))),
    }
}
