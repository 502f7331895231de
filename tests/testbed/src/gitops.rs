//! Tools that apply manifests again and again, each for one namespace: Flux' kustomize-controller, and the sync of Argo CD.

use std::{
    fs,
    path::{Path, PathBuf},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    Bed, Error,
    binaries::{self, Binaries, Set},
    kubectl::Kubectl,
    process::{Process, output},
};

/// The name of the GitRepository from which [`Flux`] reads.
pub const REPOSITORY: &str = "git";

/// The seconds between two rounds of [`ArgoCd`].
const SECONDS: &str = "1";

/// Flux' kustomize-controller, for the Kustomizations of one namespace. Dropping it stops it. Its source is not Git: commits are archives on
/// a server of our own, and the status of a GitRepository leads there, as Flux' source-controller does it.
pub struct Flux {
    kubectl: Kubectl,
    namespace: String,
    /// The archives.
    folder: PathBuf,
    address: String,
    server: JoinHandle<()>,
    _controller: Process,
}

impl Drop for Flux {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Flux {
    /// Starts the controller, with administrator's rights. The first start on a machine builds it.
    pub async fn start(bed: &Bed, namespace: &str) -> Result<Self, Error> {
        let found = find(binaries::FLUX).await?;
        let crds = found.path("flux-crds.yaml")?;
        let crds = fs::read_to_string(crds).map_err(|e| Error::io(crds, e))?;
        bed.apply(&crds).await?;
        let folder = bed.folder().join(format!("flux-{namespace}"));
        let io = |e| Error::io(&folder, e);
        fs::create_dir_all(&folder).map_err(io)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
        let address = format!("http://{}", listener.local_addr().map_err(io)?);
        let router = Router::new().fallback(archive).with_state(folder.clone());
        let server = tokio::spawn(async move { drop(axum::serve(listener, router).await) });
        let args = [
            "--watch-all-namespaces=false",
            "--metrics-addr=0",
            "--health-addr=0",
            "--interval-jitter-percentage=0",
        ];
        let env = [
            ("KUBECONFIG", bed.plane.kubeconfig().display().to_string()),
            ("RUNTIME_NAMESPACE", namespace.to_owned()),
        ];
        let controller = Process::start(
            &format!("flux-{namespace}"),
            found.path("kustomize-controller")?,
            &args.map(str::to_owned),
            &env.map(|(key, value)| (key.to_owned(), value)),
            bed.folder(),
        )?;
        let flux = Self {
            kubectl: bed.cli(),
            namespace: namespace.to_owned(),
            folder,
            address,
            server,
            _controller: controller,
        };
        let metadata = json!({"name": REPOSITORY, "namespace": namespace});
        let repository = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository", "metadata": metadata,
            "spec": {"interval": "1h", "url": "https://git.invalid/shop"}});
        bed.apply(&repository.to_string()).await?;
        Ok(flux)
    }

    /// A commit: from now on, these are the manifests in Git.
    pub async fn commit(&self, manifests: &[Value]) -> Result<(), Error> {
        let io = |e| Error::io(&self.folder, e);
        let tree = self.folder.join("tree");
        write_all(&tree, manifests)?;
        let archive = self.folder.join("new.tar.gz");
        let mut tar = crate::process::guarded(Path::new("tar"));
        tar.arg("-czf").arg(&archive).arg("-C").arg(&tree).arg(".");
        let packed = output(tar).await.map_err(io)?;
        if !packed.status.success() {
            return Err(Error::Failed(
                String::from_utf8_lossy(&packed.stderr).into_owned(),
            ));
        }
        let bytes = fs::read(&archive).map_err(io)?;
        let digest = format!("{:x}", Sha256::digest(&bytes));
        let name = format!("{digest}.tar.gz");
        fs::rename(&archive, self.folder.join(&name)).map_err(io)?;
        let artifact = json!({"url": format!("{}/{name}", self.address), "path": name, "digest": format!("sha256:{digest}"),
            "revision": format!("main@sha1:{}", &digest[..40]), "lastUpdateTime": "2026-01-01T00:00:00Z", "size": bytes.len()});
        let ready = json!({"type": "Ready", "status": "True", "reason": "Succeeded", "message": "stored", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"status": {"observedGeneration": 1, "artifact": artifact, "conditions": [ready]}});
        let status = status.to_string();
        let args = [
            "-n",
            &self.namespace,
            "patch",
            "gitrepository",
            REPOSITORY,
            "--subresource=status",
            "--type=merge",
            "-p",
            &status,
        ];
        self.kubectl.run(&args).await.map(drop)
    }
}

async fn archive(State(folder): State<PathBuf>, uri: Uri) -> Result<Vec<u8>, StatusCode> {
    let name = uri.path().trim_start_matches('/');
    fs::read(folder.join(name)).map_err(|_| StatusCode::NOT_FOUND)
}

/// The sync of Argo CD in a loop, as its application controller makes it for an Application with automated syncs. Dropping it stops it.
pub struct ArgoCd {
    git: PathBuf,
    log: PathBuf,
    process: Process,
}

impl ArgoCd {
    /// Starts the loop, with administrator's rights. There are no manifests before the first commit. The first start on a machine builds
    /// it.
    pub async fn start(bed: &Bed, name: &str, application: &Value) -> Result<Self, Error> {
        let found = find(binaries::ARGO_CD).await?;
        let name = format!("argo-cd-{name}");
        let folder = bed.folder().join(format!("{name}-files"));
        let git = folder.join("git");
        fs::create_dir_all(&git).map_err(|e| Error::io(&git, e))?;
        let file = folder.join("application.json");
        fs::write(&file, application.to_string()).map_err(|e| Error::io(&file, e))?;
        let args = [
            file.display().to_string(),
            git.display().to_string(),
            SECONDS.to_owned(),
        ];
        let kubeconfig = bed.plane.kubeconfig().display().to_string();
        let env = [("KUBECONFIG".to_owned(), kubeconfig)];
        let program = found.path("argo-sync")?;
        let process = Process::start(&name, program, &args, &env, bed.folder())?;
        let log = bed.folder().join(format!("{name}.log"));
        Ok(Self { git, log, process })
    }

    /// A commit: from now on, these are the manifests in Git.
    pub fn commit(&self, manifests: &[Value]) -> Result<(), Error> {
        write_all(&self.git, manifests)
    }

    /// The kinds of the objects that each sync so far has applied.
    pub fn syncs(&mut self) -> Result<Vec<String>, Error> {
        self.process.must_run()?;
        let log = fs::read_to_string(&self.log).map_err(|e| Error::io(&self.log, e))?;
        let syncs = log
            .lines()
            .filter_map(|line| line.strip_prefix("synced ").map(str::to_owned));
        Ok(syncs.collect())
    }
}

async fn find(set: Set) -> Result<Binaries, Error> {
    let find = move || binaries::find_or_build(&[set]);
    let found = tokio::task::spawn_blocking(find).await;
    found.map_err(|e| Error::Failed(e.to_string()))?
}

/// Writes each manifest into a file, as JSON, which is YAML (Flux reads no other names), and deletes the other files. A reader never sees a
/// part of a file.
fn write_all(folder: &Path, manifests: &[Value]) -> Result<(), Error> {
    let io = |e| Error::io(folder, e);
    fs::create_dir_all(folder).map_err(io)?;
    let files: Vec<_> = (0..manifests.len())
        .map(|place| folder.join(format!("{place}.yaml")))
        .collect();
    for (file, manifest) in files.iter().zip(manifests) {
        let new = folder.join("new");
        fs::write(&new, manifest.to_string()).map_err(io)?;
        fs::rename(&new, file).map_err(io)?;
    }
    for known in fs::read_dir(folder).map_err(io)? {
        let known = known.map_err(io)?.path();
        if !files.contains(&known) {
            fs::remove_file(&known).map_err(io)?;
        }
    }
    Ok(())
}
