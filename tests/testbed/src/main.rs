//! A cell on the command line: `cargo run -p testbed -- up`. The same program is all that is ours inside of a cell.

mod command;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use testbed::{
    Error, apps, binaries,
    cell::{enter, envoy, init, kubelet, node, redirect, services},
    control_plane,
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
    /// Say how to reach it, and what runs in it.
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
        /// NAMESPACE/POD, also of one that is gone.
        pod: String,
        /// The container, if not all.
        #[arg(short, long)]
        container: Option<String>,
    },
    /// Holds the cell of the command line.
    #[command(hide = true)]
    Serve { folder: PathBuf, image: Vec<String> },
    /// The first process of a cell.
    #[command(hide = true)]
    Init { folder: PathBuf },
    /// Runs the cell's other parts.
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
    /// Becomes a container's program.
    #[command(hide = true)]
    Enter {
        pod: PathBuf,
        container: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Becomes Envoy.
    #[command(hide = true)]
    Proxy { role: String },
    /// Asks an address, as a kubelet does.
    #[command(hide = true)]
    Probe { url: String },
}

fn main() -> ExitCode {
    run(Args::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// What enters namespaces does so before there is a runtime with threads.
fn run(command: Do) -> Result<ExitCode, Error> {
    let done = match command {
        Do::Init { folder } => init::run(&folder),
        Do::Enter {
            pod,
            container,
            command,
        } => enter::enter(&pod, &container, &command),
        Do::Proxy { role } => proxy(&role),
        Do::Exec {
            pod,
            container,
            command,
        } => return command::exec(&pod, container, &command),
        Do::Logs { pod, container } => command::logs(&pod, container),
        Do::Up { image } => return wait_for(command::up(&image)),
        Do::Down => wait_for(command::down()),
        Do::Status => wait_for(command::status()),
        Do::Serve { folder, image } => wait_for(command::serve(folder, &image)),
        Do::Node { folder } => wait_for(node::run(&folder)),
        Do::Kubelet { folder, kubeconfig } => wait_for(kubelet(&folder, &kubeconfig)),
        Do::Services { kubeconfig, .. } => {
            wait_for(async { services::serve(control_plane::client(&kubeconfig).await?).await })
        }
        Do::Probe { url } => wait_for(probe(&url)),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn wait_for<T>(what: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Runtime::new()
        .map_err(|e| Error::Failed(e.to_string()))?
        .block_on(what)
}

async fn kubelet(folder: &Path, kubeconfig: &Path) -> Result<(), Error> {
    let binaries = binaries::find_or_build(&[binaries::MESH])?;
    let client = control_plane::client(kubeconfig).await?;
    kubelet::serve(client, folder, &binaries).await
}

fn proxy(role: &str) -> Result<(), Error> {
    if role == "sidecar" {
        redirect::install()
            .map_err(|e| Error::Failed(format!("redirecting the pod's traffic: {e}")))?;
    }
    envoy::proxy(role)
}

async fn probe(url: &str) -> Result<(), Error> {
    if let Some(address) = url.strip_prefix("tcp://") {
        let connected = tokio::net::TcpStream::connect(address).await;
        return connected
            .map(|_| ())
            .map_err(|e| Error::io(Path::new(address), e));
    }
    // Who asks has a limit of its own, and ends this process.
    let asked = apps::probe(url, Duration::from_secs(60)).await;
    asked.map_err(Error::Failed)
}
