//! Calls to servers other than the API server.

pub mod http;
pub mod probe;
