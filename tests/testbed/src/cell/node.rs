//! What runs on a cell's node: the control plane, the kubelet, the relay of Services, and the way in from outside.

use std::{fs, path::Path};

use tokio::{
    io::{AsyncBufReadExt, BufReader, copy_bidirectional},
    net::{TcpStream, UnixListener, UnixStream},
};

use crate::{
    Error, binaries,
    control_plane::{ControlPlane, Place},
    process::Process,
};

/// Where the outside comes in: a line with the address to call, then what is said to it.
pub const DOOR: &str = "door.sock";
/// Says that the API server is ready.
pub const READY: &str = "ready";

/// Runs all until the process is killed.
pub async fn run(folder: &Path) -> Result<(), Error> {
    let binaries = binaries::find_or_build(&[binaries::CONTROL_PLANE, binaries::MESH])?;
    let door = folder.join(DOOR);
    let door = UnixListener::bind(&door).map_err(|e| Error::io(&door, e))?;
    let plane = ControlPlane::start(binaries, folder, Place::Cell).await?;
    let own = std::env::current_exe().map_err(|e| Error::io(folder, e))?;
    let kubeconfig = plane.kubeconfig().display().to_string();
    // Apart, so that one can be stopped while the others go on.
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
    loop {
        let accepted = door.accept().await;
        let (from, _) = accepted.map_err(|e| Error::io(Path::new(DOOR), e))?;
        tokio::spawn(let_in(from));
    }
}

async fn let_in(from: UnixStream) -> std::io::Result<()> {
    let mut from = BufReader::new(from);
    let mut address = String::new();
    from.read_line(&mut address).await?;
    let mut to = TcpStream::connect(address.trim()).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}
