//! The operator as its users meet it: the CRDs, the manifests, and releases on a real control plane; and the load tester.

#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests say what they mean by their names, and end where something is wrong"
)]

mod cluster;
#[path = "../files/mod.rs"]
mod files;
mod loadtester;
