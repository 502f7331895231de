//! Calls to servers other than the API server: webhooks, metric servers, chats.

pub mod http;
pub mod probe;
