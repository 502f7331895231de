//! A cell: a complete cluster in Linux namespaces of its own, whose pods are processes behind a real Istio.

pub mod container;
mod contour;
pub mod enter;
pub mod envoy;
mod envoy_gateway;
pub mod forward;
pub mod images;
pub mod init;
pub mod kubelet;
pub mod namespaces;
pub mod network;
pub mod node;
pub mod pod;
pub mod redirect;
pub mod services;

use std::{
    collections::BTreeMap,
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
    process::log_tail,
    wait::until,
};
use forward::PortForward;
use images::Image;

/// The manifests of istiod, the gateway and Prometheus, which each cell installs.
const ISTIO: &str = include_str!("manifests/istio.yaml");
const MESH_CONFIG: &str = include_str!("manifests/mesh.yaml");
const PROMETHEUS_CONFIG: &str = include_str!("manifests/prometheus.yml");
/// Addresses of Services in `manifests/istio.yaml`.
const GATEWAY: &str = "10.96.0.80:80";
const PROMETHEUS: &str = "10.96.0.90:9090";
/// The administrator's kubeconfig, in the cell's folder.
pub const KUBECONFIG: &str = "kubeconfig";
/// The longest time in which a part must start.
const START: Duration = Duration::from_secs(60);

/// A running cell. Dropping it ends all of it.
pub struct Cell {
    /// This crate's binary.
    program: PathBuf,
    kubectl: Kubectl,
    client: Client,
    /// To the API server, the gateway and Prometheus.
    ports: [PortForward; 3],
    namespaces: Namespaces,
    /// The last field, so that it is dropped last: the others write to the folder.
    folder: Folder,
}

/// The namespaces and all their processes. They end when this process ends for any reason.
struct Namespaces(Child);

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The cell's first process ends when its standard input closes; the kernel then ends the others.
        drop(self.0.stdin.take());
        // Nothing more can be done if waiting fails.
        let _ = self.0.wait();
    }
}

impl Cell {
    /// Starts a cell with Istio, a gateway, Prometheus and these images. `program` is this crate's binary `testbed`. Missing programs are
    /// built once.
    pub async fn start(program: &Path, images: &[Image]) -> Result<Self, Error> {
        Self::start_in(Folder::new()?, program, images).await
    }

    /// Starts a cell in this folder, which must be empty. Its path must be short, because the folder has Unix sockets.
    pub async fn start_in(
        mut folder: Folder,
        program: &Path,
        images: &[Image],
    ) -> Result<Self, Error> {
        // Fail before the long build, not after it.
        namespaces::allowed()?;
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
        let (namespaces, ports, kubectl, client) = begun.inspect_err(|_| folder.keep())?;
        let mut cell = Self {
            program: program.to_owned(),
            kubectl,
            client,
            ports,
            namespaces,
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

    /// Waits until a Deployment is available.
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

    /// A client with administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A kubectl with administrator's rights.
    pub const fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join(KUBECONFIG)
    }

    /// The address of the gateway, outside of the cell.
    pub const fn gateway(&self) -> SocketAddr {
        let [_, gateway, _] = &self.ports;
        gateway.outside
    }

    /// The address of Prometheus, outside of the cell.
    pub const fn prometheus(&self) -> SocketAddr {
        let [_, _, prometheus] = &self.ports;
        prometheus.outside
    }

    /// The folder with the logs and the pods' folders.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder when the cell is dropped.
    pub const fn keep_folder(&mut self) {
        self.folder.keep();
    }

    /// Adds an image, or replaces the image of the same name.
    pub fn image(&self, image: &Image) -> Result<(), Error> {
        image.install(&self.folder().join("images"))
    }

    /// Runs a command on the node. Returns its output.
    pub async fn on_node(&self, command: &[&str]) -> Result<String, Error> {
        output(namespaces::inside(self.folder())?, command).await
    }

    /// Sends requests from a pod, through its sidecar if it has one. Returns the number of answers of each version of the application.
    pub async fn call_from(
        &self,
        namespace: &str,
        pod: &str,
        url: &str,
        count: usize,
    ) -> Result<BTreeMap<String, usize>, Error> {
        let folder = pod::folder(self.folder(), namespace, pod);
        let (program, folder) = (self.program.display(), folder.display());
        let (program, folder, count) = (program.to_string(), folder.to_string(), count.to_string());
        let enter = [program.as_str(), "enter", &folder, pod::PROXY, "--"];
        let call = [program.as_str(), "call", url, &count];
        let output = self.on_node(&[enter.as_slice(), &call].concat()).await?;
        serde_json::from_str(&output).map_err(|e| Error::Failed(format!("{e}: {output}")))
    }

    /// Kills a container's process, like a crash. The kubelet starts it again.
    pub async fn crash(&self, namespace: &str, pod: &str, container: &str) -> Result<(), Error> {
        let file = pod::folder(self.folder(), namespace, pod).join(format!("{container}.pid"));
        let pid = fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?;
        self.on_node(&["kill", "-KILL", &pid]).await.map(|_| ())
    }

    /// Fails if the cell has exited unexpectedly.
    pub fn must_run(&mut self) -> Result<(), Error> {
        self.namespaces.must_run(self.folder.path())
    }
}

impl Namespaces {
    fn must_run(&mut self, folder: &Path) -> Result<(), Error> {
        match self.0.try_wait() {
            Ok(Some(status)) => Err(Error::Ended {
                name: "the cell".to_owned(),
                status: status.to_string(),
                log: log_tail(&folder.join("cell.log")),
            }),
            _ => Ok(()),
        }
    }
}

/// Starts the control plane in new namespaces, and opens the forwarded ports.
async fn begin(
    folder: &Path,
    program: &Path,
    kubectl: &Path,
) -> Result<(Namespaces, [PortForward; 3], Kubectl, Client), Error> {
    let mut namespaces = Namespaces(namespaces::make(folder, program)?);
    until(
        START,
        "the cell's API server to be ready",
        async || match namespaces.must_run(folder) {
            Ok(()) if !folder.join(node::READY).exists() => Err(log_tail(&folder.join("cell.log"))),
            ready_or_ended => Ok(ready_or_ended),
        },
    )
    .await??;
    let ports = [
        PortForward::open(folder, &format!("127.0.0.1:{}", network::API_PORT)).await?,
        PortForward::open(folder, GATEWAY).await?,
        PortForward::open(folder, PROMETHEUS).await?,
    ];
    let kubeconfig = folder.join(KUBECONFIG);
    let server = format!("https://{}", ports[0].outside);
    let text = control_plane::kubeconfig(folder, &server, control_plane::TOKEN, None);
    fs::write(&kubeconfig, text).map_err(|e| Error::io(&kubeconfig, e))?;
    let client = control_plane::client(&kubeconfig).await?;
    let kubectl = Kubectl::new(kubectl.to_owned(), kubeconfig);
    Ok((namespaces, ports, kubectl, client))
}

/// The images that every cell has.
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
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
