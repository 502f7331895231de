//! The command line of a cell: `cargo run -p testbed -- up`. The hidden subcommands of this program run the parts of a cell.

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
    client, control_plane,
};

/// Real Kubernetes with a real Istio on this machine: no containers, no root.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Start a cell and leave it running.
    Up {
        /// A program to run for an image: NAME=PROGRAM or NAME:TAG=PROGRAM, where NAME is the last part of the image's name.
        #[arg(long, value_name = "NAME=PROGRAM")]
        image: Vec<String>,
    },
    /// End the cell.
    Down,
    /// Print the cell's addresses and pods.
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
    /// Print the output of a pod's containers.
    Logs {
        /// NAMESPACE/POD; the pod may be deleted already.
        pod: String,
        /// The container; all if not given.
        #[arg(short, long)]
        container: Option<String>,
    },
    /// The server in the background that owns the cell.
    #[command(hide = true)]
    Serve { folder: PathBuf, image: Vec<String> },
    /// The first process of a cell.
    #[command(hide = true)]
    Init { folder: PathBuf },
    /// The cell's node: runs the control plane, the kubelet and the Services.
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
    /// Enters a pod's namespaces and executes a container's program.
    #[command(hide = true)]
    Enter {
        pod: PathBuf,
        container: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Executes Envoy.
    #[command(hide = true)]
    Proxy { role: String },
    /// Sends the request of a kubelet's probe.
    #[command(hide = true)]
    Probe { url: String },
    /// Sends requests, and prints how many of them each version answered.
    #[command(hide = true)]
    Call { url: String, count: usize },
}

fn main() -> ExitCode {
    run(Args::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Enters namespaces before a runtime with threads exists, because `setns` applies to one thread.
fn run(command: Action) -> Result<ExitCode, Error> {
    let result = match command {
        Action::Init { folder } => init::run(&folder),
        Action::Enter {
            pod,
            container,
            command,
        } => enter::enter(&pod, &container, &command),
        Action::Proxy { role } => proxy(&role),
        Action::Exec {
            pod,
            container,
            command,
        } => return command::exec(&pod, container, &command),
        Action::Logs { pod, container } => command::logs(&pod, container),
        Action::Up { image } => return wait_for(command::up(&image)),
        Action::Down => wait_for(command::down()),
        Action::Status => wait_for(command::status()),
        Action::Serve { folder, image } => wait_for(command::serve(folder, &image)),
        Action::Node { folder } => wait_for(node::run(&folder)),
        Action::Kubelet { folder, kubeconfig } => wait_for(kubelet(&folder, &kubeconfig)),
        Action::Services { kubeconfig, .. } => {
            wait_for(async { services::serve(control_plane::client(&kubeconfig).await?).await })
        }
        Action::Probe { url } => wait_for(probe(&url)),
        Action::Call { url, count } => wait_for(call(&url, count)),
    };
    result.map(|()| ExitCode::SUCCESS)
}

fn wait_for<T>(task: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::runtime::Runtime::new()
        .map_err(|e| Error::Failed(e.to_string()))?
        .block_on(task)
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
    // The caller has a timeout of its own, and kills this process.
    let answered = apps::probe(url, Duration::from_secs(60)).await;
    answered.map_err(Error::Failed)
}

async fn call(url: &str, count: usize) -> Result<(), Error> {
    let answers = client::answers(url, count).await?;
    println!("{}", serde_json::json!(answers));
    Ok(())
}
