//! The control plane's programs: found where they are installed, or else built once from pinned Go modules.

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use crate::Error;

const ETCD: &str = "v3.6.5";
const KUBERNETES: &str = "v1.35.4";
/// The version of Kubernetes' own libraries, which are modules of their own.
const STAGING: &str = "v0.35.4";
const NAMES: [&str; 4] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kubectl",
];

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd
    pub etcd: PathBuf,
    /// kube-apiserver
    pub apiserver: PathBuf,
    /// kube-controller-manager
    pub controller_manager: PathBuf,
    /// kubectl
    pub kubectl: PathBuf,
}

/// Finds the programs in `KUBEBUILDER_ASSETS`, in `PATH`, or in the user's cache folder, where they are built if they are nowhere.
pub fn find_or_build() -> Result<Binaries, Error> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = assets
        .into_iter()
        .chain(std::env::split_paths(&path))
        .collect();
    let find = |name: &str| {
        folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    };
    let found: Vec<_> = NAMES.iter().filter_map(|name| find(name)).collect();
    // A kubectl alone is on many machines, and says nothing about the rest.
    if let [etcd, apiserver, controller_manager, kubectl] = found.as_slice() {
        return Ok(Binaries {
            etcd: etcd.clone(),
            apiserver: apiserver.clone(),
            controller_manager: controller_manager.clone(),
            kubectl: kubectl.clone(),
        });
    }
    let folder = cache()?.join(format!("etcd-{ETCD}-kubernetes-{KUBERNETES}"));
    if !NAMES.iter().all(|name| folder.join(name).is_file()) {
        build_once(&folder)?;
    }
    let [etcd, apiserver, controller_manager, kubectl] = NAMES.map(|name| folder.join(name));
    Ok(Binaries {
        etcd,
        apiserver,
        controller_manager,
        kubectl,
    })
}

fn cache() -> Result<PathBuf, Error> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Ok(base
        .or(home)
        .ok_or_else(|| Error::Missing("HOME or XDG_CACHE_HOME must be set".to_owned()))?
        .join("flagger-rs"))
}

/// Builds under a lock, so that of several processes one builds and the others wait for it.
fn build_once(folder: &Path) -> Result<(), Error> {
    let io = |e| Error::io(folder, e);
    fs::create_dir_all(folder).map_err(io)?;
    let lock = fs::File::create(folder.join("lock")).map_err(io)?;
    lock.lock().map_err(io)?;
    if NAMES.iter().all(|name| folder.join(name).is_file()) {
        return Ok(());
    }
    if Command::new("go")
        .arg("version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return Err(Error::Missing(
            "the control plane is built with Go, which is not installed: install Go 1.25 or newer (https://go.dev/dl), or set \
             KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver, kube-controller-manager and kubectl"
                .to_owned(),
        ));
    }
    eprintln!(
        "testbed: building a control plane, once, into {} (about 5 minutes on 2 cores)",
        folder.display()
    );
    let work = folder.join("build");
    etcd(&work.join("etcd"), folder)?;
    kubernetes(&work.join("kubernetes"), folder)?;
    fs::remove_dir_all(&work).map_err(io)
}

fn etcd(work: &Path, into: &Path) -> Result<(), Error> {
    module(work, "")?;
    go(
        work,
        "etcd: fetching",
        &["get", &format!("go.etcd.io/etcd/server/v3@{ETCD}")],
    )?;
    let out = work.join("etcd");
    go(
        work,
        "etcd: building",
        &[
            "build",
            "-ldflags",
            "-s -w",
            "-o",
            &out.to_string_lossy(),
            "go.etcd.io/etcd/server/v3",
        ],
    )?;
    fs::rename(&out, into.join("etcd")).map_err(|e| Error::io(&out, e))
}

fn kubernetes(work: &Path, into: &Path) -> Result<(), Error> {
    module(work, "")?;
    // A dependency's `replace` lines do not count: its libraries are named here again, by their published versions.
    let info = go(
        work,
        "kubernetes: fetching",
        &[
            "mod",
            "download",
            "-json",
            &format!("k8s.io/kubernetes@{KUBERNETES}"),
        ],
    )?;
    let info: serde_json::Value =
        serde_json::from_str(&info).map_err(|e| Error::Missing(format!("go mod download: {e}")))?;
    let file = info["GoMod"].as_str().unwrap_or_default();
    let theirs = fs::read_to_string(file).map_err(|e| Error::io(Path::new(file), e))?;
    let mut replace = String::new();
    for library in theirs.lines().filter_map(|line| {
        line.trim()
            .trim_start_matches("replace ")
            .split_once(" => ./staging/")
    }) {
        let _ = writeln!(replace, "replace {} => {} {STAGING}", library.0, library.0);
    }
    module(work, &replace)?;
    go(
        work,
        "kubernetes: resolving",
        &["get", &format!("k8s.io/kubernetes@{KUBERNETES}")],
    )?;
    let (major, minor) = ("1", KUBERNETES.split('.').nth(1).unwrap_or_default());
    let mut flags = "-s -w".to_owned();
    for (name, value) in [
        ("gitVersion", KUBERNETES),
        ("gitMajor", major),
        ("gitMinor", minor),
        ("gitTreeState", "clean"),
        ("gitCommit", "0000000000000000000000000000000000000000"),
        ("buildDate", "1970-01-01T00:00:00Z"),
    ] {
        let _ = write!(flags, " -X k8s.io/component-base/version.{name}={value}");
    }
    for name in NAMES.iter().skip(1) {
        let out = work.join(name);
        let package = format!("k8s.io/kubernetes/cmd/{name}");
        go(
            work,
            &format!("{name}: building"),
            &[
                "build",
                "-ldflags",
                &flags,
                "-o",
                &out.to_string_lossy(),
                &package,
            ],
        )?;
        fs::rename(&out, into.join(name)).map_err(|e| Error::io(&out, e))?;
    }
    Ok(())
}

fn module(work: &Path, replace: &str) -> Result<(), Error> {
    fs::create_dir_all(work).map_err(|e| Error::io(work, e))?;
    fs::write(
        work.join("go.mod"),
        format!("module build\n\ngo 1.25.0\n\n{replace}"),
    )
    .map_err(|e| Error::io(work, e))
}

fn go(work: &Path, what: &str, args: &[&str]) -> Result<String, Error> {
    let start = Instant::now();
    eprintln!("testbed: {what} …");
    let output = Command::new("go")
        .args(args)
        .current_dir(work)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod")
        .env("GOWORK", "off")
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| Error::io(Path::new("go"), e))?;
    if !output.status.success() {
        return Err(Error::Missing(format!(
            "{what} failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    eprintln!("testbed: {what} took {} s", start.elapsed().as_secs());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
