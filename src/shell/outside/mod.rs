//! Calls to servers other than the API server: webhooks, metric servers, chats.

mod destinations;
mod fair_queue;
pub mod http;
mod large_answers;
mod places;
pub mod probe;
pub mod tokens;
