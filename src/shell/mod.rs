//! The only I/O of the operator: it observes, asks, executes, commits and notifies. The pure modules decide.
//!
//! | question | place |
//! | --- | --- |
//! | when is a canary reconciled, and what happens then? | [`controller`] |
//! | how does a request reach the API server, and who may write? | [`api_server`] |
//! | which objects are cached, and how do changes arrive? | [`api_server::cache`] |
//! | how are webhooks, metric servers and chats called? | [`outside`] |
//! | how do notifications reach people? | [`notify`] |
//! | how are probes and scrapes answered under load? | [`http_server`] |
//! | which logs, metrics and health checks are there? | [`telemetry`] |
//! | what does `flagger check` do? | [`check`] |
//! | what do the commands for people and pipelines do? | [`client`] |
//! | how are the pages of `flagger dashboard` served, and to whom? | [`dashboard`] |
//!
//! The folders depend on each other in one direction: `http_server` ← `telemetry` ← `outside` ← `api_server` ← `notify` ← `controller` ←
//! `check`; `client` uses `api_server` only. `dashboard` is a command of `client`: it uses `http_server`, and reads and acts as `client` does.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a shell does the I/O"
)]

pub mod api_server;
pub mod check;
pub mod client;
pub mod clock;
pub mod controller;
pub mod dashboard;
pub mod http_server;
mod lock;
pub mod notify;
pub mod outside;
mod random;
pub mod telemetry;
