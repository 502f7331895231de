//! THE ONLY I/O of the load tester: listens, runs commands, calls other servers, keeps the gates. What is meant is decided elsewhere.

pub mod command;
pub mod gates;
pub mod init;
pub mod metrics;
pub mod remote;
pub mod runner;
pub mod server;
