//! The only way to the API server.

pub mod cache;
pub mod cluster;
pub mod leadership;
pub mod lease;
pub mod raw_object;
