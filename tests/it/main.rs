//! Tests of the operator and the load tester as processes. Releases run on a real control plane (etcd, API server, controllers) without
//! nodes; `tests/decisions` and `tests/repository` need no control plane and are faster.
//!
//! | question | file |
//! | --- | --- |
//! | do releases work on a real API server? | `cluster/` |
//! | does the load tester work? | `loadtester/` |
//! | what do people and pipelines get from the command line? | `client/` |
//! | how does the operator's process start and end without a cluster? | `command_line.rs` |
//! | which clock does the operator use? | `clocks.rs` |

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the names of tests are their documentation, and a panic is how a test fails"
)]

mod client;
mod clocks;
mod cluster;
mod command_line;
#[path = "../files/mod.rs"]
mod files;
mod loadtester;
