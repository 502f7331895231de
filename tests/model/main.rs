//! A model of the Kubernetes API server, and the whole operator on it, on virtual time.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests say what they mean by their names, and end where something is wrong"
)]

mod actor;
mod bulkheads;
mod call;
mod conformance;
mod defaults;
mod faults;
mod invariants;
mod outside;
mod patch;
mod refusal;
mod release;
mod resources;
mod rig;
mod selector;
mod server;
mod store;
mod story;
mod sweep;
mod watch;
