//! Azure Monitor's managed Prometheus. It came to Flagger after 1.44.

use jiff::Timestamp;

use super::prometheus::Prometheus;
use crate::{
    metrics::{
        answer::finite,
        endpoint::{Endpoint, credential},
        error::{MetricError, OfflineError, ServerError},
        identity::{
            Identity,
            azure::{Azure, PROVIDER},
        },
        provider::{Access, Provider, Setup},
    },
    snapshot::{HttpRequest, HttpResponse},
};

/// The query endpoint of an Azure Monitor workspace, which understands Prometheus' queries.
pub struct AzureMonitor;

impl Provider for AzureMonitor {
    fn name(&self) -> &'static str {
        PROVIDER
    }

    /// A token goes to the hosts of Azure Monitor only, and only to a server that proves to be that host.
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        if setup.spec.insecure_skip_verify {
            let why = "its certificate is always verified: remove insecureSkipVerify";
            return Err(ServerError::not_allowed(PROVIDER, why));
        }
        let endpoint = Endpoint::of(setup.spec, "")?;
        let identity = match endpoint.scheme() {
            "https" => Azure::of(endpoint.host(), |key| credential(setup.credentials, key)),
            _ => None,
        };
        let identity = identity.ok_or_else(|| {
            ServerError::not_allowed(
                PROVIDER,
                "its address is not https with a host that ends with .prometheus.monitor.azure.com, .us or .cn: set the query endpoint of the workspace",
            )
        })??;
        let endpoint = endpoint.with_identity(Identity::Azure(identity));
        Ok(Access::without_window(endpoint))
    }

    fn query(&self, access: &Access, query: &str, now: Timestamp) -> HttpRequest {
        Prometheus.query(access, query, now)
    }

    fn probe(&self, access: &Access) -> HttpRequest {
        Prometheus.probe(access)
    }

    fn value(&self, response: &HttpResponse) -> Result<f64, MetricError> {
        finite(Prometheus.value(response)?).ok_or(MetricError::NoValues)
    }

    fn online(&self, answer: Result<&HttpResponse, MetricError>) -> Result<(), OfflineError> {
        Prometheus.online(answer)
    }
}
