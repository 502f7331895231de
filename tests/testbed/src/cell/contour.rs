//! Adds Contour to a cell: its control plane, and an Envoy that it configures.

use std::fs;

use super::{Cell, forward::PortForward, images::Image};
use crate::{Error, binaries};

const MANIFEST: &str = include_str!("manifests/contour.yaml");
/// The address in `manifests/contour.yaml`.
const ENVOY: &str = "10.96.0.81:80";

impl Cell {
    /// Installs Contour, and builds it once if it is missing. Returns a forwarded port to its Envoy.
    pub async fn contour(&self) -> Result<PortForward, Error> {
        let find = || binaries::find_or_build(&[binaries::CONTOUR_PROGRAM, binaries::CRDS]);
        let binaries = tokio::task::spawn_blocking(find)
            .await
            .map_err(|e| Error::Failed(e.to_string()))??;
        let program = binaries.path("contour")?;
        self.image(&Image::new("contour", program).with("contour", program))?;
        let crds = binaries.path("contour-crds.yaml")?;
        let crds = fs::read_to_string(crds).map_err(|e| Error::io(crds, e))?;
        self.kubectl().apply(&crds).await?;
        self.kubectl().apply(MANIFEST).await?;
        self.available("projectcontour", "contour").await?;
        PortForward::open(self.folder(), ENVOY).await
    }
}
