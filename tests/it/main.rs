//! The operator as its users meet it: the CRDs, the manifests, and releases on a real control plane.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod api;
mod cluster;
mod decisions;
mod tidy;
