//! Real Kubernetes on this machine, for the tests of an operator: no containers, no root.
//!
//! Two beds, of the same control plane. A [`Bed`] is fast: pods are names that become ready, and what an operator calls is a fake.
//!
//! ```text
//!   etcd ◄── kube-apiserver ◄── kube-controller-manager        real, as processes on loopback
//!                  ▲  ▲
//!     pod agent ───┘  └─── operator under test ──HTTP_PROXY──► fakes: Prometheus, load tester, chats, event webhook
//!    (pods become Running and Ready)                              (metrics follow from the routed weights and ready pods)
//! ```
//!
//! Between an operator and the API server, a [`proxy::Proxy`] can stand: it writes down what is asked, and holds, drops, refuses, delays
//! or freezes it, to a plan.
//!
//! A [`Cell`] is whole: pods are processes with addresses of their own, behind a real Istio, with requests that are really sent.
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
//! Both are values: they start all, and when they are dropped, or this process ends in whatever way, all is gone. Several can run at
//! once. Where something fails, the folder with all logs is kept and named.
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
//! // What is tested happens here.
//! assert_eq!(client.since(start).await.lost(), 0);
//! # Ok(())
//! # }
//! ```
//!
//! On the command line: `cargo run -p testbed -- up`. [`Cell::contour`] adds Contour and an Envoy that follows it.
//!
//! What a cell does not have: init containers, pods that complete, environment and volumes from ConfigMaps and Secrets (a pod that needs
//! one of these does not start, and says so in its status); other volumes, limits, several users, mutual TLS, metrics.k8s.io, and what
//! `kubectl logs`, `exec` and `port-forward` ask a kubelet for.

pub mod agent;
pub mod apps;
pub mod bed;
pub mod binaries;
pub mod cell;
pub mod client;
pub mod control_plane;
pub mod fakes;
pub mod folder;
pub mod kubectl;
pub mod operator;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod wait;

use std::path::Path;

pub use bed::{Audit, Bed};
pub use cell::Cell;

/// Why a bed, or something in it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or a program.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: String,
        /// What of it.
        error: std::io::Error,
    },
    /// Anything else, in words that say what to do where something can be done.
    #[error("{0}")]
    Failed(String),
    /// A command that was run to its end.
    #[error("`{command}` failed: {said}")]
    Command {
        /// Which.
        command: String,
        /// What it complained of.
        said: String,
    },
    /// A program ended by itself.
    #[error("{name} ended by itself ({status}); its last words:\n{log}")]
    Ended {
        /// Which.
        name: String,
        /// How.
        status: String,
        /// What it said.
        log: String,
    },
    /// A component did not start.
    #[error("{error}; its last words:\n{log}")]
    Start {
        /// Why.
        error: String,
        /// What it said.
        log: String,
    },
    /// What was waited for did not come.
    #[error("waited in vain for {what}; last seen: {last}")]
    Timeout {
        /// For what.
        what: String,
        /// What was seen instead.
        last: String,
    },
    /// The API server refused, or could not be asked.
    #[error(transparent)]
    Kube(#[from] kube::Error),
}

impl Error {
    /// Of a file or a program.
    pub fn io(path: &Path, error: std::io::Error) -> Self {
        Self::Io {
            path: path.display().to_string(),
            error,
        }
    }
}
