//! THE ONLY I/O: observes, asks, executes, commits, reports. Decisions are made elsewhere.

pub mod answer;
pub mod cache;
pub mod check;
pub mod clock;
pub mod cluster;
pub mod controller;
pub mod http;
pub mod leadership;
pub mod lease;
pub mod memory;
pub mod meters;
pub mod observe;
pub mod probe;
pub mod report;
pub mod schedule;
mod series;
pub mod served;
pub mod server;
pub mod telemetry;
