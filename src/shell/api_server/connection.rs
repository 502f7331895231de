//! Finds the API server, and builds the clients for it.

use std::time::Duration;

use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use tracing::info;

use super::{
    cluster::{Clients, Cluster},
    leadership::Leadership,
    lease::Candidate,
    time::keep_time,
};
use crate::{shell::telemetry::operator_metrics::OperatorMetrics, snapshot::Shard};

/// A connection without any data for this long is dead. The API server ends each watch after half a minute, so a live one is never silent
/// for longer.
const SILENCE: Duration = Duration::from_secs(40);

/// An API server that was reached.
pub struct Connection {
    config: Config,
    client: Client,
}

/// The reason why the API server could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no usable kubeconfig, neither in the file nor in the cluster.
    #[error("Error building kubeconfig: {0}")]
    Kubeconfig(String),
    /// `-master` is no address.
    #[error("-master: {0}")]
    Master(#[from] http::uri::InvalidUri),
    /// The configuration has no usable TLS or authentication.
    #[error("Error building kubernetes clientset: {0}")]
    Client(kube::Error),
    /// The API server does not report its version.
    #[error("Error calling Kubernetes API: {0}")]
    Unreachable(kube::Error),
}

impl Connection {
    /// Connects with this kubeconfig, or else as a pod in the cluster; `master` replaces the address of the API server.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn open(
        kubeconfig: Option<&str>,
        master: Option<&str>,
    ) -> Result<Self, ConnectError> {
        let invalid = |error: String| ConnectError::Kubeconfig(error);
        let mut config = match kubeconfig {
            Some(path) => {
                let kubeconfig =
                    Kubeconfig::read_from(path).map_err(|error| invalid(error.to_string()))?;
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.map_err(|error| invalid(error.to_string()))?
            }
            None => Config::infer()
                .await
                .map_err(|error| invalid(error.to_string()))?,
        };
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        config
            .headers
            .push((http::header::USER_AGENT, user_agent()));
        if let Some(master) = master {
            config.cluster_url = master.parse()?;
        }
        let builder = ClientBuilder::try_from(config.clone()).map_err(ConnectError::Client)?;
        let client = builder.with_layer(&keep_time()).build();
        let version = client
            .apiserver_version()
            .await
            .map_err(ConnectError::Unreachable)?;
        info!("Connected to Kubernetes API {}", version.git_version);
        Ok(Self { config, client })
    }

    /// Returns a cluster that only reads.
    pub fn reader(&self, metrics: OperatorMetrics) -> Cluster {
        Cluster::new(self.client.clone(), Leadership::never(), metrics)
    }

    /// Returns a candidate for the Lease of a shard in a namespace, and the leadership that it may gain.
    pub fn candidate(
        &self,
        namespace: &str,
        shard: Option<&Shard>,
        identity: String,
    ) -> (Candidate, Leadership) {
        Candidate::new(self.client.clone(), namespace, shard, identity)
    }

    /// Returns clients whose connections end together with this leadership.
    ///
    /// # Errors
    /// The configuration has no usable TLS or authentication.
    pub fn clients(&self, leadership: &Leadership) -> Result<Clients, ConnectError> {
        let mut without_retries = self.config.clone();
        without_retries.default_retry = false;
        let client = |config| leadership.client(config).map_err(ConnectError::Client);
        Ok(Clients {
            requests: client(self.config.clone())?,
            watches: client(without_retries)?,
        })
    }
}

/// The API server records the part before the slash as the manager of written fields. It is Flagger's name, because rules of other tools
/// may contain that.
pub(super) fn user_agent() -> http::HeaderValue {
    const AGENT: &str = concat!("flagger/", env!("CARGO_PKG_VERSION"), " (flagger-rs)");
    http::HeaderValue::from_static(AGENT)
}

#[cfg(test)]
mod tests;
