//! The writes that several phases have in common.

mod traffic;
mod workloads;
