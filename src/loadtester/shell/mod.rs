//! The only I/O of the load tester: listens, runs commands, calls other servers and stores the gates. All decisions are made in the pure
//! modules beside this folder.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell does the I/O"
)]

pub mod bodies;
pub mod command;
pub mod gates;
pub mod init;
pub mod metrics;
pub mod remote;
pub mod runner;
pub mod server;
