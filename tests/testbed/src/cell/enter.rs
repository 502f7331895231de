//! Enters a pod's namespaces and executes a container's program there.
//!
//! The pod's folder has all it needs: `hostname`, `hosts`, `resolv.conf`, `netns` (absent for a pod in the node's network),
//! `serviceaccount/`, and for each container `NAME.json`, a [`Launch`].

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    unistd::sethostname,
};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The path at which pods find their token.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// The working directory and environment of a container's programs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Launch {
    /// The working directory.
    pub folder: PathBuf,
    /// The complete environment.
    pub env: BTreeMap<String, String>,
}

/// Replaces this process with the command; returns only on failure. This process must have one thread, because `setns` and `unshare` apply
/// to the calling thread.
pub fn enter(pod: &Path, container: &str, command: &[String]) -> Result<(), Error> {
    let file = pod.join(format!("{container}.json"));
    let text = fs::read(&file).map_err(|e| Error::io(&file, e))?;
    let launch: Launch = serde_json::from_slice(&text).map_err(|e| Error::Failed(e.to_string()))?;
    let nix = |e: nix::Error| Error::io(pod, e.into());
    if let Ok(name) = fs::read_to_string(pod.join("netns")) {
        let netns = Path::new("/run/netns").join(name);
        let netns =
            File::open(&netns).map_err(|_| Error::Failed("this pod is deleted".to_owned()))?;
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(nix)?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).map_err(nix)?;
    let hostname = fs::read_to_string(pod.join("hostname")).map_err(|e| Error::io(pod, e))?;
    sethostname(hostname).map_err(nix)?;
    // Mounts of this namespace must not propagate to others.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(nix)?;
    for (from, to) in [
        ("resolv.conf", "/etc/resolv.conf"),
        ("hosts", "/etc/hosts"),
        ("serviceaccount", ACCOUNT),
    ] {
        mount(Some(&pod.join(from)), to, none, MsFlags::MS_BIND, none).map_err(nix)?;
    }
    let [program, args @ ..] = command else {
        return Err(Error::Failed("no command to run".to_owned()));
    };
    std::env::set_current_dir(&launch.folder).map_err(|e| Error::io(&launch.folder, e))?;
    let path = launch
        .env
        .get("PATH")
        .map(String::as_str)
        .unwrap_or_default();
    // The program is looked up in the container's PATH, not in this process's.
    let found = std::env::split_paths(path)
        .map(|folder| folder.join(program))
        .find(|file| !program.contains('/') && file.is_file());
    let error = Command::new(found.as_deref().unwrap_or(Path::new(program)))
        .arg0(program)
        .args(args)
        .env_clear()
        .envs(&launch.env)
        .exec();
    Err(Error::io(Path::new(program), error))
}

/// Creates the files that [`enter`] mounts on, once for all pods, in the cell's mount namespace.
pub fn prepare() -> Result<(), Error> {
    // Files of /etc may be links into /run, on which an empty file system is mounted below.
    let links = ["/etc/resolv.conf", "/etc/hosts"].map(fs::canonicalize);
    let none: Option<&str> = None;
    let nix = |e: nix::Error| Error::io(Path::new("/run"), e.into());
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).map_err(nix)?;
    mount(none, "/run", Some("tmpfs"), MsFlags::empty(), none).map_err(nix)?;
    for folder in ["/run/netns", ACCOUNT] {
        fs::create_dir_all(folder).map_err(|e| Error::io(Path::new(folder), e))?;
    }
    for file in links.into_iter().flatten().filter(|file| !file.exists()) {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        File::create(&file).map_err(|e| Error::io(&file, e))?;
    }
    Ok(())
}
