//! Calls to servers other than the API server: webhooks, metric servers, chats.

mod destinations;
pub mod http;
pub mod probe;
