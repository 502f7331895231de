//! The reasons why routes cannot be read or written. Users read their `Display` in events, in Flagger's words.

use crate::snapshot::references::Blocked;

/// The reason why routes cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// An object that the router needs does not exist.
    #[error("{route} {failure} {object} not found")]
    NotFound {
        /// The object, as Flagger calls it in this event.
        route: String,
        /// Flagger's words for a read that failed.
        failure: &'static str,
        /// The object, as the API server calls it.
        object: String,
    },
    /// The route has no rule that leads to the primary and the canary.
    #[error("{route} does not contain routes for {primary} and {canary}")]
    NoRoutes {
        /// Kind, name and namespace of the route.
        route: String,
        /// The Service of the primary.
        primary: String,
        /// The Service of the canary.
        canary: String,
    },
    /// The route exists, but its weights cannot be read.
    #[error("{0}")]
    NoWeights(String),
    /// The data plane has not applied the route as it is written.
    #[error("{0}")]
    NotAccepted(String),
    /// The Canary lacks a field that the router needs, or asks for something that the router cannot express.
    #[error("{0}")]
    InvalidCanary(String),
}

impl From<Blocked> for RouteError {
    fn from(blocked: Blocked) -> Self {
        Self::InvalidCanary(blocked.to_string())
    }
}
