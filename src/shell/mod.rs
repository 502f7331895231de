//! The only I/O of the operator: it observes, asks, executes, commits and reports. The pure modules decide.

pub mod api_server;
pub mod check;
pub mod clock;
pub mod controller;
pub mod notify;
pub mod outside;
pub mod telemetry;
