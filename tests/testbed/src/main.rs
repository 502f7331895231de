//! A cell on the command line: `cargo run -p testbed -- up`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use clap::{Parser, Subcommand};
use testbed::{
    Cell, Error, binaries,
    cell::{self, enter, envoy, images::Image, init, kubelet, node, redirect, services},
    control_plane, programs,
    wait::until,
};

/// Real Kubernetes with a real Istio on this machine: no containers, no root.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Do,
}

#[derive(Subcommand)]
enum Do {
    /// Start a cell and leave it running.
    Up {
        /// A program that stands for an image: NAME=PROGRAM or NAME:TAG=PROGRAM, where NAME is the last part of the image's name.
        #[arg(long, value_name = "NAME=PROGRAM")]
        image: Vec<String>,
    },
    /// End it.
    Down,
    /// Say what runs in it.
    Status,
    /// Run a command in a pod, or on the node.
    Exec {
        /// NAMESPACE/POD, or `node`.
        pod: String,
        /// The container, if the pod has several.
        #[arg(short, long)]
        container: Option<String>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Print what a pod's containers said.
    Logs {
        /// NAMESPACE/POD
        pod: String,
    },
    #[command(hide = true)]
    Serve { folder: PathBuf, image: Vec<String> },
    #[command(hide = true)]
    Init { folder: PathBuf },
    #[command(hide = true)]
    Node { folder: PathBuf },
    #[command(hide = true)]
    Kubelet {
        folder: PathBuf,
        kubeconfig: PathBuf,
    },
    #[command(hide = true)]
    Services {
        folder: PathBuf,
        kubeconfig: PathBuf,
    },
    #[command(hide = true)]
    Enter {
        pod: PathBuf,
        container: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    #[command(hide = true)]
    Proxy { role: String },
    #[command(hide = true)]
    Probe { url: String },
}

fn main() -> ExitCode {
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What enters namespaces does so before there is a runtime with threads.
fn run(command: Do) -> Result<(), Error> {
    match command {
        Do::Init { folder } => init::run(&folder),
        Do::Enter {
            pod,
            container,
            command,
        } => enter::enter(&pod, &container, &command),
        Do::Proxy { role } => {
            if role == "sidecar" {
                redirect::install()
                    .map_err(|e| Error::Missing(format!("redirecting the pod's traffic: {e}")))?;
            }
            envoy::proxy(&role)
        }
        Do::Exec {
            pod,
            container,
            command,
        } => exec(&pod, container, &command),
        Do::Logs { pod } => logs(&pod),
        other => tokio::runtime::Runtime::new()
            .map_err(|e| Error::Missing(e.to_string()))?
            .block_on(run_async(other)),
    }
}

async fn run_async(command: Do) -> Result<(), Error> {
    match command {
        Do::Up { image } => up(&image).await,
        Do::Down => down().await,
        Do::Status => status().await,
        Do::Serve { folder, image } => serve(folder, &image).await,
        Do::Node { folder } => node::run(&folder).await,
        Do::Kubelet { folder, kubeconfig } => {
            let binaries = binaries::find_or_build(&[binaries::MESH])?;
            kubelet::serve(
                control_plane::client(&kubeconfig).await?,
                &folder,
                &binaries,
            )
            .await
        }
        Do::Services { kubeconfig, .. } => {
            services::serve(control_plane::client(&kubeconfig).await?).await
        }
        Do::Probe { url } => probe(&url).await,
        Do::Init { .. }
        | Do::Enter { .. }
        | Do::Proxy { .. }
        | Do::Exec { .. }
        | Do::Logs { .. } => Ok(()),
    }
}

/// The one cell of the command line.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("testbed-cell-{}", nix::unistd::getuid()))
}

fn served() -> Result<PathBuf, Error> {
    let folder = folder();
    if folder.join("kubeconfig").exists() && folder.join("serve").exists() {
        return Ok(folder);
    }
    Err(Error::Missing(
        "no cell is up: `cargo run -p testbed -- up`".to_owned(),
    ))
}

async fn up(images: &[String]) -> Result<(), Error> {
    let folder = folder();
    let io = |e| Error::io(&folder, e);
    if folder.exists() {
        if alive(&folder) {
            return Err(Error::Missing(
                "a cell is up already: `status` shows it, `down` ends it".to_owned(),
            ));
        }
        // Of one whose server was killed.
        fs::remove_dir_all(&folder).map_err(io)?;
    }
    fs::create_dir_all(&folder).map_err(io)?;
    programs::build(&["podinfo", "loadtester"])?;
    binaries::find_or_build(&[binaries::CONTROL_PLANE, binaries::MESH, binaries::CRDS])?;
    let log = fs::File::create(folder.join("serve.log")).map_err(io)?;
    let err = log.try_clone().map_err(io)?;
    let own = std::env::current_exe().map_err(io)?;
    let mut server = Command::new(own);
    std::os::unix::process::CommandExt::process_group(&mut server, 0);
    let mut server = server
        .arg("serve")
        .arg(&folder)
        .args(images)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(err)
        .spawn()
        .map_err(io)?;
    eprintln!("testbed: starting a cell in {}", folder.display());
    let told = folder.join("serve");
    until(Duration::from_secs(120), "the cell to be up", async || {
        if told.exists() {
            return Ok(());
        }
        let said = fs::read_to_string(folder.join("serve.log")).unwrap_or_default();
        match server.try_wait() {
            Ok(None) => Err(said),
            _ => Ok(()),
        }
    })
    .await?;
    if !told.exists() {
        let said = fs::read_to_string(folder.join("serve.log")).map_err(io)?;
        return Err(Error::Missing(format!("the cell did not start:\n{said}")));
    }
    print!("{}", fs::read_to_string(&told).map_err(io)?);
    Ok(())
}

async fn serve(folder: PathBuf, images: &[String]) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(|e| Error::io(&folder, e))?;
    let beside = own.parent().unwrap_or(&folder).to_owned();
    let mut all = programs::images(&beside);
    for image in images {
        let (name, program) = image
            .split_once('=')
            .ok_or_else(|| Error::Missing(format!("--image {image}: NAME=PROGRAM is expected")))?;
        let program = fs::canonicalize(program).map_err(|e| Error::io(Path::new(program), e))?;
        let file = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        all.push(Image::new(name, &program).with(&file, &program));
    }
    let id = std::process::id();
    let io = |e| Error::io(&folder, e);
    fs::write(folder.join("serve.pid"), id.to_string()).map_err(io)?;
    let cell = Cell::start_in(folder.clone(), &own, &all).await?;
    let said = format!(
        "The cell is up. Point kubectl at it:\n\n  export KUBECONFIG={}\n  kubectl get pods -A\n\n\
         gateway     http://{}\nPrometheus  http://{}\n\nEnd it with: cargo run -p testbed -- down\n",
        cell.kubeconfig().display(),
        cell.gateway,
        cell.prometheus
    );
    let file = folder.join("serve.new");
    fs::write(&file, said).map_err(io)?;
    fs::rename(&file, folder.join("serve")).map_err(io)?;
    let mut end =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).map_err(io)?;
    end.recv().await;
    cell.stop().await;
    Ok(())
}

fn server(folder: &Path) -> Option<nix::unistd::Pid> {
    let id = fs::read_to_string(folder.join("serve.pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(nix::unistd::Pid::from_raw(id))
}

fn alive(folder: &Path) -> bool {
    server(folder).is_some_and(|server| {
        let command = fs::read_to_string(format!("/proc/{server}/cmdline")).unwrap_or_default();
        command.contains("serve")
    })
}

async fn down() -> Result<(), Error> {
    let folder = folder();
    if let Some(server) = server(&folder).filter(|_| alive(&folder)) {
        nix::sys::signal::kill(server, nix::sys::signal::Signal::SIGTERM)
            .map_err(|e| Error::io(&folder, e.into()))?;
        until(Duration::from_secs(30), "the cell to end", async || {
            if alive(&folder) {
                Err("it runs".to_owned())
            } else {
                Ok(())
            }
        })
        .await?;
    }
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    }
    Ok(())
}

async fn status() -> Result<(), Error> {
    let folder = served()?;
    print!(
        "{}",
        fs::read_to_string(folder.join("serve")).map_err(|e| Error::io(&folder, e))?
    );
    let binaries = binaries::find_or_build(&[binaries::CONTROL_PLANE])?;
    let kubectl = testbed::kubectl::Kubectl::new(
        binaries.path("kubectl")?.to_owned(),
        folder.join("kubeconfig"),
    );
    println!(
        "\n{}",
        kubectl
            .run(&["get", "nodes,deployments,pods", "-A"])
            .await?
    );
    Ok(())
}

fn pod_folder(pod: &str) -> Result<PathBuf, Error> {
    let folder = served()?.join("pods").join(pod.replacen('/', "_", 1));
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(Error::Missing(format!(
        "no pod {pod} here: `status` lists them, as NAMESPACE and NAME"
    )))
}

fn exec(pod: &str, container: Option<String>, command: &[String]) -> Result<(), Error> {
    let mut words = cell::inside(&served()?)?;
    if pod != "node" {
        let folder = pod_folder(pod)?;
        let container = match container {
            Some(container) => container,
            None => containers(&folder, "json")?
                .into_iter()
                .find(|name| name != "istio-proxy")
                .unwrap_or_default(),
        };
        let own = std::env::current_exe().map_err(|e| Error::io(&folder, e))?;
        let more = [
            own.display().to_string(),
            "enter".to_owned(),
            folder.display().to_string(),
            container,
            "--".to_owned(),
        ];
        words.extend(more);
    }
    words.extend_from_slice(command);
    let [program, args @ ..] = words.as_slice() else {
        return Ok(());
    };
    let status = Command::new(program)
        .args(args)
        .status()
        .map_err(|e| Error::io(Path::new(program), e))?;
    std::process::exit(status.code().unwrap_or(1));
}

fn logs(pod: &str) -> Result<(), Error> {
    let folder = pod_folder(pod)?;
    for container in containers(&folder, "log")? {
        let file = folder.join(format!("{container}.log"));
        println!(
            "==> {container}\n{}",
            fs::read_to_string(&file).map_err(|e| Error::io(&file, e))?
        );
    }
    Ok(())
}

/// The containers of a pod that have a file of this kind.
fn containers(pod: &Path, kind: &str) -> Result<Vec<String>, Error> {
    let files = fs::read_dir(pod).map_err(|e| Error::io(pod, e))?;
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    let of_kind = paths.filter(|path| path.extension().is_some_and(|extension| extension == kind));
    let names = of_kind.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()));
    Ok(names.collect())
}

async fn probe(url: &str) -> Result<(), Error> {
    if let Some(address) = url.strip_prefix("tcp://") {
        let connected = tokio::net::TcpStream::connect(address).await;
        return connected
            .map(|_| ())
            .map_err(|e| Error::io(Path::new(address), e));
    }
    let client = reqwest::Client::builder().no_proxy().build();
    let answer = client
        .map_err(|e| Error::Missing(e.to_string()))?
        .get(url)
        .send()
        .await;
    let answer = answer.and_then(reqwest::Response::error_for_status);
    answer
        .map(|_| ())
        .map_err(|e| Error::Missing(e.to_string()))
}
