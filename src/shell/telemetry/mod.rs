//! Logs, metrics and health of the operator.

pub mod canary_metrics;
pub mod operator_metrics;
mod series;
pub mod server;

pub use canary_metrics::{event, name, start_logging};
