//! The state that all requests share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{assets, content::Contents, gate::Gate, policy::Policy};
use crate::dashboard::Assets;

/// The maximum number of open pages that are followed.
pub const STREAMS: usize = 512;

/// The dashboard.
pub struct Dashboard {
    /// The login.
    pub gate: Gate,
    /// The content of pages.
    pub contents: Contents,
    /// The checks of each request, and the headers of each answer.
    pub policy: Policy,
    /// The addresses of the files that pages load.
    pub assets: Assets,
    /// The places for open pages that are followed.
    pub streams: Arc<Semaphore>,
}

impl Dashboard {
    /// A dashboard with this login and this content.
    pub fn new(gate: Gate, contents: Contents, policy: Policy) -> Self {
        Self {
            gate,
            contents,
            policy,
            assets: assets::addresses(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    /// The number of open pages that can still be followed; for tests.
    #[cfg(test)]
    pub fn free_streams(&self) -> usize {
        self.streams.available_permits()
    }
}
