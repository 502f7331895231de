//! A cell's node: runs the control plane, the kubelet, the relay of Services, and the inner half of port forwarding.

use std::{fs, path::Path};

use super::forward::Forwarder;
use crate::{
    Error, binaries,
    control_plane::{ControlPlane, Place},
    process::Process,
};

/// The file that exists once the API server is ready.
pub const READY: &str = "ready";

/// Runs until the process is killed.
pub async fn run(folder: &Path) -> Result<(), Error> {
    let binaries = binaries::find_or_build(&[binaries::CONTROL_PLANE, binaries::MESH])?;
    let forwarder = Forwarder::bind(folder)?;
    let plane = ControlPlane::start(binaries, folder, Place::Cell).await?;
    let own = std::env::current_exe().map_err(|e| Error::io(folder, e))?;
    let kubeconfig = plane.kubeconfig().display().to_string();
    // Each is a process, so that a test can stop one while the others go on.
    let mut parts = Vec::new();
    for part in ["kubelet", "services"] {
        let args = [
            part.to_owned(),
            folder.display().to_string(),
            kubeconfig.clone(),
        ];
        parts.push(Process::start(part, &own, &args, &[], folder)?);
    }
    fs::write(folder.join(READY), "").map_err(|e| Error::io(folder, e))?;
    forwarder.serve().await
}
