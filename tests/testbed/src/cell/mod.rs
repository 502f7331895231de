//! A whole cell of production: a cluster whose pods are processes behind a real Istio, in namespaces of its own.

pub mod container;
mod contour;
pub mod door;
pub mod enter;
pub mod envoy;
pub mod images;
pub mod init;
pub mod kubelet;
pub mod network;
pub mod node;
pub mod pod;
pub mod redirect;
pub mod services;
pub mod spaces;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use kube::Client;
use tokio::process::Command;

use crate::{
    Error,
    binaries::{self, Binaries},
    control_plane,
    folder::Folder,
    kubectl::Kubectl,
    process::last_words,
    wait::until,
};
use door::Door;
use images::Image;

/// What is installed in each cell: istiod, the gateway, Prometheus.
const ISTIO: &str = include_str!("manifests/istio.yaml");
const MESH_CONFIG: &str = include_str!("manifests/mesh.yaml");
const PROMETHEUS_CONFIG: &str = include_str!("manifests/prometheus.yml");
/// The addresses in `manifests/istio.yaml`.
const GATEWAY: &str = "10.96.0.80:80";
const PROMETHEUS: &str = "10.96.0.90:9090";
/// The administrator's kubeconfig, in the cell's folder.
pub const KUBECONFIG: &str = "kubeconfig";
/// The longest that a part may take to start.
const START: Duration = Duration::from_secs(60);

/// A running cell. Dropping it ends all of it.
pub struct Cell {
    kubectl: Kubectl,
    client: Client,
    doors: [Door; 3],
    spaces: Spaces,
    /// The last to be dropped: the others write to it.
    folder: Folder,
}

/// The namespaces, and all that runs in them. They end with this process, whatever it dies of.
struct Spaces(Child);

impl Drop for Spaces {
    fn drop(&mut self) {
        // The cell's first process ends with its standard input, and takes all others with it.
        drop(self.0.stdin.take());
        // It was ours to wait for, and there is nothing more to do if it cannot be.
        let _ = self.0.wait();
    }
}

impl Cell {
    /// Starts a cell with Istio, a gateway and Prometheus, and the images that are to be known in it. `program` is this crate's own
    /// binary. What is missing is built, once.
    pub async fn start(program: &Path, images: &[Image]) -> Result<Self, Error> {
        Self::start_in(Folder::new()?, program, images).await
    }

    /// The same in a folder of the caller's, which is empty. Its path must be short: there are sockets in it.
    pub async fn start_in(
        mut folder: Folder,
        program: &Path,
        images: &[Image],
    ) -> Result<Self, Error> {
        // It is better known before a long build than after it.
        spaces::allowed()?;
        let sets = [binaries::CONTROL_PLANE, binaries::MESH, binaries::CRDS];
        let find = move || binaries::find_or_build(&sets);
        let binaries = tokio::task::spawn_blocking(find)
            .await
            .map_err(|e| Error::Failed(e.to_string()))??;
        let own = own_images(program, &binaries)?;
        for image in own.iter().chain(images) {
            image.install(&folder.path().join("images"))?;
        }
        let begun = begin(folder.path(), program, binaries.path("kubectl")?).await;
        let (spaces, doors, kubectl, client) = begun.inspect_err(|_| folder.keep())?;
        let mut cell = Self {
            kubectl,
            client,
            doors,
            spaces,
            folder,
        };
        let installed = cell.install(binaries.path("istio-crds.yaml")?).await;
        installed.inspect_err(|_| cell.keep_folder())?;
        Ok(cell)
    }

    async fn install(&self, crds: &Path) -> Result<(), Error> {
        let crds = fs::read_to_string(crds).map_err(|e| Error::io(crds, e))?;
        self.kubectl.apply(&crds).await?;
        self.kubectl.apply(ISTIO).await?;
        for name in ["istiod", "istio-ingressgateway", "prometheus"] {
            self.available("istio-system", name).await?;
        }
        Ok(())
    }

    /// Until a Deployment is available.
    pub async fn available(&self, namespace: &str, deployment: &str) -> Result<(), Error> {
        let deployment = format!("deployment/{deployment}");
        let args = [
            "-n",
            namespace,
            "wait",
            "--for=condition=Available",
            "--timeout=60s",
            &deployment,
        ];
        self.kubectl.run(&args).await.map(|_| ())
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// kubectl with all rights.
    pub const fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join(KUBECONFIG)
    }

    /// The gateway, from outside.
    pub const fn gateway(&self) -> SocketAddr {
        let [_, gateway, _] = &self.doors;
        gateway.outside
    }

    /// Prometheus, from outside.
    pub const fn prometheus(&self) -> SocketAddr {
        let [_, _, prometheus] = &self.doors;
        prometheus.outside
    }

    /// Where logs and pods' folders are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder when the cell ends.
    pub const fn keep_folder(&mut self) {
        self.folder.keep();
    }

    /// Lets programs stand for one more image, or others than before for the same.
    pub fn image(&self, image: &Image) -> Result<(), Error> {
        image.install(&self.folder().join("images"))
    }

    /// Runs a command on the node; what it printed.
    pub async fn on_node(&self, command: &[&str]) -> Result<String, Error> {
        output(spaces::inside(self.folder())?, command).await
    }

    /// Kills a container's process, as a crash or the kernel would; the kubelet starts it again.
    pub async fn crash(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        let file = pod::folder(self.folder(), namespace, pod).join(format!("{container}.pid"));
        let pid = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
        self.on_node(&["kill", "-KILL", &pid]).await.map(|_| ())
    }

    /// Fails if the cell has ended by itself.
    pub fn must_run(&mut self) -> Result<(), Error> {
        self.spaces.must_run(self.folder.path())
    }
}

impl Spaces {
    fn must_run(&mut self, folder: &Path) -> Result<(), Error> {
        match self.0.try_wait() {
            Ok(Some(status)) => Err(Error::Ended {
                name: "the cell".to_owned(),
                status: status.to_string(),
                log: last_words(&folder.join("cell.log")),
            }),
            _ => Ok(()),
        }
    }
}

/// Starts the control plane in namespaces of its own, and opens the ways in.
async fn begin(
    folder: &Path,
    program: &Path,
    kubectl: &Path,
) -> Result<(Spaces, [Door; 3], Kubectl, Client), Error> {
    let mut spaces = Spaces(spaces::make(folder, program)?);
    until(
        START,
        "the cell's API server to be ready",
        async || match spaces.must_run(folder) {
            Ok(()) if !folder.join(node::READY).exists() => {
                Err(last_words(&folder.join("cell.log")))
            }
            ready_or_ended => Ok(ready_or_ended),
        },
    )
    .await??;
    let doors = [
        Door::open(folder, &format!("127.0.0.1:{}", network::API_PORT)).await?,
        Door::open(folder, GATEWAY).await?,
        Door::open(folder, PROMETHEUS).await?,
    ];
    let kubeconfig = folder.join(KUBECONFIG);
    let server = format!("https://{}", doors[0].outside);
    let text = control_plane::kubeconfig(folder, &server, control_plane::TOKEN, None);
    fs::write(&kubeconfig, text).map_err(|e| Error::io(&kubeconfig, e))?;
    let client = control_plane::client(&kubeconfig).await?;
    let kubectl = Kubectl::new(kubectl.to_owned(), kubeconfig);
    Ok((spaces, doors, kubectl, client))
}

/// The programs of the cell's own images.
fn own_images(program: &Path, binaries: &Binaries) -> Result<[Image; 3], Error> {
    Ok([
        Image::new("pilot", binaries.path("pilot-discovery")?).file("mesh.yaml", MESH_CONFIG),
        Image::new("proxyv2", program),
        Image::new("prometheus", binaries.path("prometheus")?)
            .file("prometheus.yml", PROMETHEUS_CONFIG),
    ])
}

async fn output(inside: Vec<String>, command: &[&str]) -> Result<String, Error> {
    let words = inside
        .iter()
        .map(String::as_str)
        .chain(command.iter().copied());
    let words: Vec<&str> = words.collect();
    let [program, args @ ..] = &words[..] else {
        return Ok(String::new());
    };
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await;
    let output = output.map_err(|e| Error::io(Path::new(program), e))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: command.join(" "),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
