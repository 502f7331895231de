//! A real Kubernetes control plane on this machine, for tests of operators: no containers, no root.
//!
//! Words of this crate:
//! - A *bed* ([`Bed`]) is a control plane without nodes, and starts in seconds. Pods are objects that an agent marks ready; the servers
//!   that an operator calls are fakes.
//! - A *cell* ([`Cell`]) is a complete cluster with an Istio mesh in Linux namespaces of its own. Pods are processes with IP addresses, and
//!   requests are really sent.
//! - A *set* ([`binaries::Set`]) is a group of programs, found on this machine or built once from pinned sources.
//!
//! A bed:
//!
//! ```text
//!   etcd ◄── kube-apiserver ◄── kube-controller-manager        real, as processes on loopback
//!                  ▲  ▲
//!     pod agent ───┘  └─── operator under test ──HTTP_PROXY──► fakes: Prometheus, load tester, chats, event webhook
//!    (sets pods Running and Ready)                                (metrics depend on the routed weights and ready pods)
//! ```
//!
//! A [`proxy::Proxy`] between an operator and the API server logs all requests, and holds, drops, refuses, delays or freezes those that a
//! test selects.
//!
//! A cell:
//!
//! ```text
//!  outside │ one user, network, mount and PID namespace, made without root
//!          │
//!  kubectl ┼──► kube-apiserver ◄── etcd, kube-controller-manager          node 10.244.0.1
//!          │         ▲  ▲  ▲
//!          │         │  │  └── services: a relay on each ClusterIP, DNS on 10.96.0.10
//!          │         │  └───── kubelet: a network namespace and processes for each pod
//!          │      istiod ── xDS ──┐
//!          │                      ▼                    ┌─ Envoy ─ podinfo-primary ─┐
//!  client ─┼──► istio-ingressgateway (Envoy) ──────────┤                           ├── scraped by Prometheus
//!          │                                           └─ Envoy ─ podinfo ─────────┘          ▲
//!          │    operator, load tester, … : pods like any other ───────── queries ─────────────┘
//! ```
//!
//! Both are values. When one is dropped, or when this process ends for any reason, all its processes end and its folder is deleted.
//! Several can run at once. When a start or a test fails, the folder with the logs is kept, and its path is printed.
//!
//! ```no_run
//! # async fn test(manifests: &str, operator: &std::path::Path) -> Result<(), testbed::Error> {
//! use std::time::Instant;
//! use testbed::{Cell, cell::images::Image, client::Client, programs};
//!
//! let own = programs::build(&["testbed"])?.join("testbed");
//! let cell = Cell::start(&own, &[Image::new("my-operator", operator)]).await?;
//! cell.kubectl().apply(manifests).await?;
//! cell.available("my-system", "my-operator").await?;
//! let client = Client::start(cell.gateway(), "app.example.com", 200)?;
//! let start = Instant::now();
//! // The test releases a version here.
//! assert_eq!(client.since(start).await.lost(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run -p testbed -- up` starts a cell from the command line. [`Cell::contour`] adds Contour and its Envoy, and
//! [`Cell::envoy_gateway`] adds Envoy Gateway and its Envoy.
//!
//! A cell does not support init containers, pods that complete, and environment and volumes from ConfigMaps and Secrets: the status of a
//! pod that needs one of these gives the reason why it does not start. Nor does it have other volumes, resource limits, several users,
//! mutual TLS, metrics.k8s.io, and the kubelet's API for `kubectl logs`, `exec` and `port-forward`.

pub mod agent;
pub mod apps;
pub mod bed;
pub mod binaries;
pub mod cell;
pub mod client;
pub mod control_plane;
pub mod fakes;
pub mod folder;
pub mod gitops;
pub mod grpc;
pub mod helm;
pub mod https;
mod knative;
pub mod kubectl;
pub mod operator;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod wait;

use std::path::Path;

pub use bed::{Audit, Bed};
pub use cell::Cell;

/// The reason why a bed, a cell or a part of one failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Access to a file, or the start of a program, failed.
    #[error("{path}: {error}")]
    Io {
        /// The file or program.
        path: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// Any other failure, with the remedy if there is one.
    #[error("{0}")]
    Failed(String),
    /// A command exited with an error.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its error output.
        output: String,
    },
    /// A program that must keep running has exited.
    #[error("{name} exited unexpectedly ({status}); the end of its log:\n{log}")]
    Ended {
        /// The program.
        name: String,
        /// Its exit status.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A component did not start.
    #[error("{error}; the end of its log:\n{log}")]
    Start {
        /// The reason.
        error: String,
        /// The last lines of its log.
        log: String,
    },
    /// A condition did not hold in time.
    #[error("timed out waiting for {what}; last seen: {last}")]
    Timeout {
        /// The condition.
        what: String,
        /// The last observation.
        last: String,
    },
    /// A request to the API server failed.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl Error {
    /// An error of a file or a program.
    pub fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            error,
        }
    }
}
