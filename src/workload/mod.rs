//! PURE: the objects wanted beside the target: the primary and its copies, the Services, the autoscaler.

pub mod config;
pub mod deployment;
pub mod metadata;
pub mod scaler;
pub mod service;
