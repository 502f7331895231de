//! The contract between this crate and one provider of metrics. `providers/` has an implementation per file.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    endpoint::{Endpoint, SecretValues},
    error::{MetricError, OfflineError, ServerError},
    identity::Identity,
};
use crate::{
    api::{duration, metric_template::MetricTemplateProvider},
    snapshot::{HttpRequest, HttpResponse, excerpt},
};

/// The window of a metric without `interval`. (Flagger's providers that need one fail instead.)
const WINDOW: Duration = Duration::from_secs(60);

/// An object of the cluster that a query names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queried {
    /// The words for the object in messages.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The rights that the operator needs for the query: group, resource and verbs.
    pub rights: Option<(&'static str, &'static str, &'static [&'static str])>,
}

/// A query in progress.
pub struct Exchange<'a> {
    /// The server.
    pub access: &'a Access,
    /// The query.
    pub query: &'a str,
    /// When the query began.
    pub begun: Timestamp,
    /// How long all its requests together may take.
    pub budget: Duration,
    /// The answers to its requests so far, in order.
    pub answers: &'a [Result<HttpResponse, MetricError>],
}

impl Exchange<'_> {
    /// The answer to the last request.
    pub fn last(&self) -> Result<&HttpResponse, MetricError> {
        match self.answers.last() {
            Some(answer) => answer.as_ref().map_err(Clone::clone),
            None => Err(MetricError::NoValues),
        }
    }
}

/// The continuation of a query after an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Send another request, after a pause.
    Send(Box<HttpRequest>, Duration),
    /// The query has this value, or none for this reason.
    Value(Result<f64, MetricError>),
}

/// A kind of metric server: how to build requests for it and how to read its answers.
pub trait Provider: Sync {
    /// The `type` of its MetricTemplates.
    fn name(&self) -> &'static str;

    /// Reads address, credentials and window for a metric.
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError>;

    /// The hosts that get values of the template's Secret, or a token for these values. The first is the server itself.
    fn hosts(&self, access: &Access) -> Vec<String> {
        let identity = access.endpoint.identity();
        let hosts = [access.endpoint.host()].into_iter();
        let hosts = hosts.chain(identity.and_then(Identity::secret_host));
        hosts.map(str::to_owned).collect()
    }

    /// Returns the object of the cluster that a query names, or the reason why the query cannot be sent. Most queries name none.
    fn queried(&self, _access: &Access, _query: &str) -> Result<Option<Queried>, MetricError> {
        Ok(None)
    }

    /// The request for the value of a query. `now` is the end of the window.
    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest;

    /// The request that shows whether the server is reachable and accepts the credentials.
    fn probe(&self, access: &Access) -> HttpRequest;

    /// Reads the value from the answer to a query. The caller turns `NaN` into [`MetricError::NoValues`].
    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError>;

    /// The next request, or the value, after the last answer to a query. Most providers read the value from that answer.
    fn next(&self, exchange: &Exchange<'_>) -> Next {
        Next::Value(exchange.last().and_then(|response| self.value(response)))
    }

    /// Reads the answer to the probe. Unless a provider decides otherwise, the server is online if it answers with status 200.
    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        match answer {
            Ok(HttpResponse { status: 200, .. }) => Ok(()),
            Ok(response) => {
                let refused = MetricError::Refused(excerpt(&response.body));
                Err(OfflineError::Call(refused))
            }
            Err(error) => Err(OfflineError::Call(error)),
        }
    }
}

/// The settings that a provider builds its access from.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// The `provider` of the MetricTemplate.
    pub spec: &'a MetricTemplateProvider,
    /// The values of the template's Secret, if it names one.
    pub credentials: Option<&'a SecretValues>,
    /// The metric's `interval`.
    pub interval: Option<&'a str>,
}

impl Setup<'_> {
    /// The time that a metric is measured over; one minute if the metric has no `interval`.
    pub fn window(&self) -> Result<Duration, ServerError> {
        match self.interval.filter(|interval| !interval.is_empty()) {
            Some(interval) => duration::read(interval).map_err(ServerError::InvalidInterval),
            None => Ok(WINDOW),
        }
    }
}

/// The address of one server, the credentials for it, and the window of a metric. Its `Debug` shows no credentials.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// The address and the credentials.
    pub endpoint: Endpoint,
    /// How far back a query reaches. Zero for providers whose queries contain their window.
    pub window: Duration,
}

impl Access {
    /// Access for a provider whose queries contain their window.
    pub const fn without_window(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            window: Duration::ZERO,
        }
    }
}

/// Replaces each run of white space by one space (Flagger: `prometheus.go` and `graphite.go`).
pub fn collapsed(query: &str) -> String {
    let mut collapsed = String::with_capacity(query.len());
    for c in query.chars() {
        if !c.is_whitespace() {
            collapsed.push(c);
        } else if !collapsed.ends_with(' ') {
            collapsed.push(' ');
        }
    }
    collapsed
}

// Providers are printed and compared by their names, so that servers can be printed and compared.

impl fmt::Debug for dyn Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for dyn Provider {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Provider {}

impl PartialOrd for dyn Provider {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Provider {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl Hash for dyn Provider {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}
