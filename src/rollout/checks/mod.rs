//! The checks of a step: webhooks, gates, and metrics.

pub mod gates;
pub mod hooks;
pub mod metric_query;
pub mod metric_servers;
pub mod metric_templates;
pub mod metrics;
