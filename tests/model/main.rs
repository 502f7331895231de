//! A model of the Kubernetes API server, and the whole operator on it, on virtual time.

#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests say what they mean by their names, and end where something is wrong"
)]

mod call;
mod conformance;
mod defaults;
mod faults;
mod patch;
mod refusal;
mod resources;
mod selector;
mod server;
mod store;
mod watch;
