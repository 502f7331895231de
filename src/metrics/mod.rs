//! Metrics: the requests that ask a server for a value, and the value in each answer. Pure: `shell` sends the requests.
//!
//! [`providers`] has one file per kind of server and the table of them; [`observer`] has Flagger's built-in queries; [`template`] renders
//! the queries of users; [`counting`] asks for the requests of both versions; [`identity`] has the tokens and signatures that clouds ask
//! for.

mod answer;
pub mod counting;
pub mod endpoint;
mod error;
pub mod identity;
pub mod observer;
mod provider;
pub mod providers;
pub mod template;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

pub use error::{MetricError, OfflineError, ServerError};

use crate::{
    api::metric_template::MetricTemplateProvider,
    snapshot::{HttpRequest, HttpResponse, Origin},
};
use endpoint::{Endpoint, SecretValues};
use identity::Identity;
use provider::{Access, Exchange, Provider, Setup};
pub use provider::{Next, Queried};
use providers::prometheus;
pub use providers::prometheus::TimeSeries;

/// A metric server: its provider, its address and the credentials for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    provider: &'static dyn Provider,
    access: Access,
}

impl Server {
    /// The server of a MetricTemplate for a metric with this `interval`. `credentials` are the values of the template's Secret.
    pub fn of(
        spec: &MetricTemplateProvider,
        credentials: Option<&SecretValues>,
        interval: Option<&str>,
    ) -> Result<Self, ServerError> {
        let provider = providers::named(&spec.type_).ok_or_else(|| ServerError::NotSupported {
            supported: providers::listed(),
        })?;
        let access = provider.access(&Setup {
            spec,
            credentials,
            interval,
        })?;
        Ok(Self { provider, access })
    }

    /// The Prometheus server at an address, for built-in metrics and inline queries. User and password may be in the address.
    pub fn prometheus(address: &str, origin: Origin) -> Result<Self, ServerError> {
        let provider = &providers::prometheus::Prometheus;
        let endpoint = Endpoint::at(provider.name(), address)?.with_origin(origin);
        Ok(Self {
            provider,
            access: Access::without_window(endpoint),
        })
    }

    /// The `type` of its MetricTemplate.
    pub fn name(&self) -> &'static str {
        self.provider.name()
    }

    /// The hosts that get values of the template's Secret, or a token for these values. The API server gets none.
    pub fn hosts(&self) -> Vec<String> {
        if self.access.endpoint.is_api_server() {
            return Vec::new();
        }
        self.provider.hosts(&self.access)
    }

    /// The object of the cluster that a query names, or the reason why the query cannot be sent.
    pub fn queried(&self, query: &str) -> Result<Option<Queried>, MetricError> {
        self.provider.queried(&self.access, query)
    }

    /// The identity that all requests prove; the shell gets the token or the keys for it.
    pub const fn identity(&self) -> Option<&Identity> {
        self.access.endpoint.identity()
    }

    /// Reads the value from an answer. `NaN` counts as no value, since every comparison with a threshold would pass it.
    pub fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        self.provider.value(response).and_then(no_nan)
    }

    /// Reads the answer to [`Asks::Series`].
    pub fn series(&self, response: &HttpResponse) -> Result<Vec<TimeSeries>, MetricError> {
        prometheus::series(response)
    }

    /// Reads the answer to [`Asks::Online`].
    pub fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        self.provider.online(answer)
    }
}

/// A question to a metric server. Only the question for series has an instant, so that any other question is equal at any time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Query {
    /// The server.
    pub server: Server,
    /// The question.
    pub asks: Asks,
    /// The longest that all attempts together may take.
    pub budget: Duration,
}

/// A question to a metric server, without the server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asks {
    /// The value of this query.
    Value(String),
    /// Whether the server is reachable and accepts the credentials.
    Online,
    /// The series of this query of Prometheus at this instant.
    Series {
        /// The query.
        query: String,
        /// The instant.
        at: Timestamp,
    },
}

impl Query {
    /// The query that asks for a value; empty if the question is whether the server is online.
    pub fn text(&self) -> &str {
        match &self.asks {
            Asks::Value(query) | Asks::Series { query, .. } => query,
            Asks::Online => "",
        }
    }

    /// The request as it is sent at this instant. Some providers need the ends of the window in the request.
    pub fn request(&self, now: Timestamp) -> HttpRequest {
        let Server { provider, access } = &self.server;
        let request = match &self.asks {
            Asks::Value(query) => provider.query(access, query, now),
            Asks::Online => provider.probe(access),
            Asks::Series { query, at } => prometheus::at(access, query, *at),
        };
        HttpRequest {
            budget: Some(self.budget),
            ..request
        }
    }

    /// The next request, or the value, after these answers to the requests of a query that began at this instant.
    pub fn next(&self, begun: Timestamp, answers: &[Result<HttpResponse, MetricError>]) -> Next {
        let Server { provider, access } = &self.server;
        let Asks::Value(query) = &self.asks else {
            return Next::Value(Err(MetricError::NoValues));
        };
        let next = provider.next(&Exchange {
            access,
            query,
            begun,
            budget: self.budget,
            answers,
        });
        match next {
            Next::Send(mut request, pause) => {
                request.budget = Some(self.budget);
                Next::Send(request, pause)
            }
            Next::Value(value) => Next::Value(value.and_then(no_nan)),
        }
    }
}

fn no_nan(value: f64) -> Result<f64, MetricError> {
    if value.is_nan() {
        Err(MetricError::NoValues)
    } else {
        Ok(value)
    }
}
