//! The writes that several phases have in common.

mod configs;
mod traffic;
mod workloads;
