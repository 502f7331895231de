//! THE ONLY I/O of the load tester: listens, runs commands, calls other servers, keeps the gates. What is meant is decided elsewhere.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell does the I/O"
)]

pub mod command;
pub mod gates;
pub mod init;
pub mod metrics;
pub mod remote;
pub mod runner;
pub mod server;
