//! The rules that no phase may break.

pub mod audit;
pub mod grpc_route;
pub mod own_routes;
pub mod ownership;
pub mod selectors;
pub mod stale_reads;
pub mod validation;
pub mod withdrawal;
