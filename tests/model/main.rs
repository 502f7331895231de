//! A model of the Kubernetes API server in memory, and tests of the complete operator on it, on virtual time.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "the names of tests say what they test, and a test may panic"
)]

mod comparison;
mod controllers;
mod defaults;
mod fake_servers;
mod faults;
mod invariants;
mod isolation;
mod outcome;
mod patch;
mod records;
mod refusal;
mod release;
mod request;
mod resources;
mod rig;
#[path = "../files/routers.rs"]
mod routers;
mod scenario;
mod selector;
mod server;
mod shards;
mod store;
mod sweep;
mod watch;

/// The sweeps spend a fifth of their time on allocations with the allocator of the C library.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
