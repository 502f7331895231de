//! Azure Monitor's managed Prometheus (Flagger after 1.44: `pkg/metrics/providers/azuremonitor.go`).

use jiff::Timestamp;

use super::prometheus::Prometheus;
use crate::{
    metrics::{
        answer::finite,
        endpoint::{Endpoint, credential, public},
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

    /// A token is sent only to hosts of Azure Monitor, and only to a server whose certificate proves that it is that host.
    fn access(&self, setup: &Setup<'_>) -> Result<Access, ServerError> {
        let refused = |why: &str| ServerError::not_allowed(PROVIDER, why);
        if setup.spec.insecure_skip_verify {
            return Err(refused("provider does not support insecureSkipVerify"));
        }
        let endpoint = Endpoint::of(setup.spec, "")?.with_headers_of(setup.spec);
        let address = public(setup.spec.address.as_deref().unwrap_or_default());
        if endpoint.scheme() != "https" {
            return Err(refused(&format!("address {address} must use https")));
        }
        let identity = Azure::of(endpoint.host(), |key| credential(setup.credentials, key));
        let identity = identity.ok_or_else(|| {
            refused(&format!(
                "address {address} is not an Azure Monitor Workspace query endpoint, expected a host ending in \
                 .prometheus.monitor.azure.us, .prometheus.monitor.azure.cn, .prometheus.monitor.azure.com"
            ))
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
