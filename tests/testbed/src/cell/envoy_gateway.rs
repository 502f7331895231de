//! Adds Envoy Gateway to a cell: its control plane, a Gateway, and the Envoy of this Gateway.

use super::{Cell, forward::PortForward, images::Image};
use crate::{Error, binaries};

const MANIFEST: &str = include_str!("manifests/envoy-gateway.yaml");
const CONFIG: &str = include_str!("manifests/envoy-gateway-config.yaml");
const BOOTSTRAP: &str = include_str!("manifests/envoy-gateway-bootstrap.yaml");
/// The address in `manifests/envoy-gateway.yaml`.
const ENVOY: &str = "10.96.0.82:80";

impl Cell {
    /// Installs Envoy Gateway, and builds it once if it is missing. The CRDs of Gateway API must exist. Returns a forwarded port to the
    /// Envoy of the Gateway `public` in the namespace `envoy-gateway-system`. It serves as soon as the Gateway has a route.
    pub async fn envoy_gateway(&self) -> Result<PortForward, Error> {
        let find = || binaries::find_or_build(&[binaries::ENVOY_GATEWAY_PROGRAM]);
        let binaries = tokio::task::spawn_blocking(find)
            .await
            .map_err(|e| Error::Failed(e.to_string()))??;
        let program = binaries.path("envoy-gateway")?;
        let image = Image::new("gateway", program).with("envoy-gateway", program);
        let image = image.file("envoy-gateway.yaml", CONFIG);
        self.image(&image.file("bootstrap.yaml", BOOTSTRAP))?;
        self.kubectl().apply(MANIFEST).await?;
        PortForward::open(self.folder(), ENVOY).await
    }
}
