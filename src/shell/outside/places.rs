//! Places for calls: a call waits for one, and gives it back when it ends or is cancelled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::oneshot;

use super::fair_queue::{Claim, FairQueue, Limits, Ticket};
use crate::shell::lock::lock;

/// A number of places. Clones share them.
#[derive(Clone)]
pub struct Places(Arc<Mutex<State>>);

struct State {
    queue: FairQueue,
    /// Notifies each call that waits.
    waiting: HashMap<Ticket, oneshot::Sender<()>>,
}

impl State {
    fn admit(&mut self) {
        while let Some(ticket) = self.queue.admit() {
            if let Some(admitted) = self.waiting.remove(&ticket) {
                // This fails if the call was cancelled just now. Then the call gives the place back itself.
                let _ = admitted.send(());
            }
        }
    }
}

impl Places {
    /// Places within these limits.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Mutex::new(State {
            queue: FairQueue::new(limits),
            waiting: HashMap::new(),
        })))
    }

    /// Waits for a place.
    pub async fn take(&self, claim: Claim) -> Place {
        let (sender, admitted) = oneshot::channel();
        let place = {
            let mut state = lock(&self.0);
            let ticket = state.queue.join(&claim);
            state.waiting.insert(ticket, sender);
            state.admit();
            Place {
                places: self.clone(),
                claim,
                ticket,
            }
        };
        // The sender is dropped only together with this place.
        let _ = admitted.await;
        place
    }
}

/// A place, or a wait for a place. If this value is dropped, the next call gets the place.
pub struct Place {
    places: Places,
    claim: Claim,
    ticket: Ticket,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.places.0);
        state.waiting.remove(&self.ticket);
        state.queue.leave(&self.claim, self.ticket);
        state.admit();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_place_goes_to_the_next_call_when_its_call_ends_or_is_cancelled() {
        let places = Places::new(Limits {
            total: 4,
            namespace: 1,
            host: 4,
        });
        let take = || Box::pin(places.take(Claim::default()));
        let first = take().now_or_never().unwrap();
        let (mut cancelled, mut second) = (take(), take());
        assert!((&mut cancelled).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(cancelled);
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().unwrap();
        // A call that got its place, and is dropped before it was polled again, must give the place back.
        let mut unaware = take();
        assert!((&mut unaware).now_or_never().is_none());
        drop(second);
        drop(unaware);
        assert!(take().now_or_never().is_some());
    }
}
