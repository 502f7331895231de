//! flagger-rs: releases workloads progressively on Kubernetes, wire-compatible with Flagger.

pub mod api;
pub mod args;
pub mod measure;
pub mod notice;
pub mod rollout;
pub mod route;
pub mod shell;
pub mod workload;
pub mod world;
