//! A whole cell of production: a cluster whose pods are processes behind a real Istio, in namespaces of its own.

pub mod container;
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

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use kube::Client;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, Command},
    task::JoinHandle,
};

use crate::{
    Error,
    binaries::{self, Binaries},
    control_plane,
    kubectl::Kubectl,
    new_folder,
    wait::until,
};
use images::Image;

/// What is installed in each cell: istiod, the gateway, Prometheus.
const ISTIO: &str = include_str!("manifests/istio.yaml");
const MESH_CONFIG: &str = include_str!("manifests/mesh.yaml");
const PROMETHEUS_CONFIG: &str = include_str!("manifests/prometheus.yml");
/// The addresses in `manifests/istio.yaml`.
const GATEWAY: &str = "10.96.0.80:80";
const PROMETHEUS: &str = "10.96.0.90:9090";
/// The longest that a part may take to start.
const START: Duration = Duration::from_secs(60);
/// How to go on where it is forbidden.
const FORBIDDEN: &str = "this machine does not let an ordinary user make namespaces. Allow it (as root: `sysctl -w \
    kernel.unprivileged_userns_clone=1` on Debian, `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` on Ubuntu, \
    `sysctl -w user.max_user_namespaces=10000` elsewhere), or run this as root";

/// A running cell. Dropping it ends all of it.
pub struct Cell {
    /// How the API server is reached.
    kubectl: Kubectl,
    client: Client,
    folder: PathBuf,
    /// The gateway, from outside.
    pub gateway: SocketAddr,
    /// Prometheus, from outside.
    pub prometheus: SocketAddr,
    namespaces: Child,
    doors: Vec<JoinHandle<()>>,
    keep: bool,
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.doors.iter().for_each(JoinHandle::abort);
        // The init process ends with its standard input, and all in the cell with it.
        drop(self.namespaces.stdin.take());
        if self.keep || std::thread::panicking() {
            eprintln!("testbed: logs are in {}", self.folder.display());
        } else {
            // Files that cannot be removed are the system's to clean.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

impl Cell {
    /// Starts a cell with Istio, a gateway and Prometheus, and the images that are to be known in it. `program` is this crate's own
    /// binary. What is missing is built, once.
    pub async fn start(program: &Path, images: &[Image]) -> Result<Self, Error> {
        Self::start_in(new_folder()?, program, images).await
    }

    /// The same in a folder of the caller's, which is empty. Its path must be short: there are sockets in it.
    pub async fn start_in(
        folder: PathBuf,
        program: &Path,
        images: &[Image],
    ) -> Result<Self, Error> {
        let sets = [binaries::CONTROL_PLANE, binaries::MESH, binaries::CRDS];
        let find = move || binaries::find_or_build(&sets);
        let binaries = tokio::task::spawn_blocking(find)
            .await
            .map_err(|e| Error::Missing(e.to_string()))??;
        let own = own_images(program, &binaries)?;
        for image in own.iter().chain(images) {
            image.install(&folder.join("images"))?;
        }
        let mut namespaces = namespaces(&folder, program)?;
        until(START, "the cell's API server to be ready", async || {
            if folder.join(node::READY).exists() {
                return Ok(());
            }
            let ended = namespaces.try_wait().map_err(|e| e.to_string())?;
            Err(ended.map_or_else(String::new, |status| format!("the cell ended: {status}")))
        })
        .await
        .map_err(|error| Error::Start {
            error: error.to_string(),
            log: last_words(&folder.join("cell.log")),
        })?;
        let mut doors = Vec::new();
        let mut open = async |address: String| {
            let (outside, task) = door(&folder, address).await?;
            doors.push(task);
            Ok::<_, Error>(outside)
        };
        let server = open(format!("127.0.0.1:{}", network::API_PORT)).await?;
        let gateway = open(GATEWAY.to_owned()).await?;
        let prometheus = open(PROMETHEUS.to_owned()).await?;
        let kubeconfig = folder.join("kubeconfig");
        let server = format!("https://{server}");
        let text = control_plane::kubeconfig(&folder, &server, control_plane::TOKEN, None);
        fs::write(&kubeconfig, text).map_err(|e| Error::io(&kubeconfig, e))?;
        let cell = Self {
            kubectl: Kubectl::new(binaries.path("kubectl")?.to_owned(), kubeconfig.clone()),
            client: control_plane::client(&kubeconfig).await?,
            folder,
            gateway,
            prometheus,
            namespaces,
            doors,
            keep: false,
        };
        let crds = binaries.path("istio-crds.yaml")?;
        let crds = fs::read_to_string(crds).map_err(|e| Error::io(crds, e))?;
        cell.kubectl.apply(&crds).await?;
        cell.kubectl.apply(ISTIO).await?;
        for name in ["istiod", "istio-ingressgateway", "prometheus"] {
            cell.available("istio-system", name).await?;
        }
        Ok(cell)
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
        self.folder.join("kubeconfig")
    }

    /// Where logs and pods' folders are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps the folder when the cell ends.
    pub const fn keep_folder(&mut self) {
        self.keep = true;
    }

    /// Lets programs stand for one more image.
    pub fn image(&self, image: &Image) -> Result<(), Error> {
        image.install(&self.folder.join("images"))
    }

    /// Runs a command on the node; what it printed.
    pub async fn on_node(&self, command: &[&str]) -> Result<String, Error> {
        let mut words = inside(&self.folder)?;
        words.extend(command.iter().map(|word| (*word).to_owned()));
        output(&words).await
    }

    /// Ends all; the folder goes, unless it is to be kept.
    pub async fn stop(mut self) {
        drop(self.namespaces.stdin.take());
        // It was ours to wait for, and there is nothing more to do if it cannot be.
        let _ = self.namespaces.wait().await;
    }
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

/// Starts the init process in namespaces of its own. It ends when its standard input does.
fn namespaces(folder: &Path, program: &Path) -> Result<Child, Error> {
    let missing = |e| Error::io(Path::new("unshare (of util-linux)"), e);
    let common = [
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let user = ["--user", "--map-root-user"];
    let allowed = |args: &[&str]| {
        let mut unshare = std::process::Command::new("unshare");
        let tried = unshare
            .args(args)
            .args(common)
            .arg("true")
            .stderr(Stdio::null())
            .status();
        tried.map(|status| status.success()).map_err(missing)
    };
    let user: &[&str] = if allowed(&user)? {
        &user
    } else if allowed(&[])? {
        &[]
    } else {
        return Err(Error::Missing(FORBIDDEN.to_owned()));
    };
    let log = folder.join("cell.log");
    let out = File::create(&log).map_err(|e| Error::io(&log, e))?;
    let err = out.try_clone().map_err(|e| Error::io(&log, e))?;
    let child = Command::new("unshare")
        .args(user)
        .args(common)
        .arg(program)
        .arg("init")
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(err)
        // Ctrl-C is for us.
        .process_group(0)
        .spawn()
        .map_err(missing)?;
    let id = child.id().unwrap_or_default().to_string();
    fs::write(folder.join("pid"), id).map_err(|e| Error::io(folder, e))?;
    Ok(child)
}

/// The words before a command that is to run inside a cell.
pub fn inside(folder: &Path) -> Result<Vec<String>, Error> {
    let read = |file: &Path| fs::read_to_string(file).map_err(|e| Error::io(file, e));
    let unshare = read(&folder.join("pid"))?;
    let unshare = Path::new("/proc").join(unshare.trim());
    // `unshare` itself stays outside; its child is the cell's init.
    let children = read(
        &unshare
            .join("task")
            .join(unshare.file_name().unwrap_or_default())
            .join("children"),
    )?;
    let init = children.split_whitespace().next().unwrap_or_default();
    let space = |path: &str| fs::read_link(Path::new("/proc").join(path).join("ns/user"));
    let own_user = matches!((space("self"), space(init)), (Ok(ours), Ok(theirs)) if ours == theirs);
    let mut words = vec!["nsenter", "--target", init, "--net", "--mount", "--pid"];
    if !own_user {
        words.extend(["--user", "--preserve-credentials"]);
    }
    words.push("--");
    Ok(words.into_iter().map(str::to_owned).collect())
}

async fn output(words: &[String]) -> Result<String, Error> {
    let [program, args @ ..] = words else {
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
    Err(Error::Missing(format!(
        "{}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// A port of loopback that leads to an address inside.
async fn door(folder: &Path, inside: String) -> Result<(SocketAddr, JoinHandle<()>), Error> {
    let io = |e| Error::io(Path::new("loopback"), e);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(io)?;
    let outside = listener.local_addr().map_err(io)?;
    let socket = folder.join(node::DOOR);
    let task = tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            tokio::spawn(pass(from, socket.clone(), inside.clone()));
        }
    });
    Ok((outside, task))
}

async fn pass(mut from: TcpStream, socket: PathBuf, inside: String) -> std::io::Result<()> {
    let mut to = UnixStream::connect(socket).await?;
    to.write_all(format!("{inside}\n").as_bytes()).await?;
    copy_bidirectional(&mut from, &mut to).await?;
    Ok(())
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(12));
    last.flat_map(|line| ["  ", line, "\n"]).collect()
}
