//! Delivers notifications: after the commit, in order, and without delaying a release.
//!
//! Each canary has its own queue while it has notifications. A hanging chat delays the notifications of its canaries and nothing else.

mod delivery;
mod events;

use std::{
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use futures::FutureExt;
use tokio::sync::{Notify, oneshot};
use tracing::{error, warn};

use super::{api_server::Cluster, lock::lock, outside::http::Http, telemetry::logs::canary_name};
use crate::{api::canary::Canary, notifications::Notification};
use delivery::Delivery;
pub use delivery::GlobalReceivers;

/// The maximum number of batches that wait in the queue of a canary. Later ones are dropped, so that a hanging chat does not fill the
/// memory.
const MAX_QUEUED: usize = 64;

/// Queues notifications and delivers them. Clones are the same.
#[derive(Clone)]
pub struct Notifier {
    delivery: Arc<Delivery>,
    /// The queues by the uid of their canary. A queue is removed when it is empty.
    queues: Arc<Mutex<HashMap<String, Queue>>>,
    /// Notified when there is no queue any more.
    drained: Arc<Notify>,
}

/// The notifications of one canary, oldest first.
type Queue = VecDeque<Batch>;

/// Notifications that belong together.
struct Batch {
    /// The Canary as the notifications were decided for it: it names the receivers. Batches share it while its spec does not change,
    /// because there may be many.
    canary: Arc<Canary>,
    notifications: Vec<Notification>,
    /// Notifies the question that waits for the delivery.
    delivered: Option<oneshot::Sender<()>>,
}

impl Notifier {
    /// Creates a notifier without queues. It delivers through this cluster, these HTTP clients and these receivers.
    pub fn new(cluster: Cluster, http: Http, global: GlobalReceivers) -> Self {
        Self {
            delivery: Arc::new(Delivery::new(cluster, http, global)),
            queues: Arc::default(),
            drained: Arc::default(),
        }
    }

    /// Queues notifications.
    pub fn notify(&self, canary: &Canary, notifications: Vec<Notification>) {
        if !notifications.is_empty() {
            self.enqueue(canary, notifications, None);
        }
    }

    /// Queues notifications, and waits until they and all earlier ones of this canary are delivered or given up.
    pub async fn deliver(&self, canary: &Canary, notifications: Vec<Notification>) {
        let (delivered, done) = oneshot::channel();
        self.enqueue(canary, notifications, Some(delivered));
        // This fails only if the queue was dropped; then there is nothing left to deliver.
        let _ = done.await;
    }

    /// Waits until all notifications are delivered or given up.
    pub async fn all_delivered(&self) {
        loop {
            let drained = self.drained.notified();
            if lock(&self.queues).is_empty() {
                return;
            }
            drained.await;
        }
    }

    fn enqueue(
        &self,
        canary: &Canary,
        notifications: Vec<Notification>,
        delivered: Option<oneshot::Sender<()>>,
    ) {
        let uid = canary.metadata.uid.clone().unwrap_or_default();
        let mut queues = lock(&self.queues);
        let is_new = !queues.contains_key(&uid);
        let queue = queues.entry(uid.clone()).or_default();
        // A batch whose delivery a question waits for is never dropped.
        if queue.len() >= MAX_QUEUED && delivered.is_none() {
            warn!(
                canary = canary_name(canary),
                "notifications are dropped because {MAX_QUEUED} earlier ones are not delivered yet; check the chats and event webhooks of this canary"
            );
            return;
        }
        let generation = canary.metadata.generation;
        let last = queue.back().map(|batch| &batch.canary);
        let same = last.filter(|c| generation.is_some() && c.metadata.generation == generation);
        let canary = same.map_or_else(|| Arc::new(canary.clone()), Arc::clone);
        queue.push_back(Batch {
            canary,
            notifications,
            delivered,
        });
        if is_new {
            tokio::spawn(self.clone().drain(uid));
        }
    }

    /// Delivers the batches of a queue until it is empty.
    async fn drain(self, uid: String) {
        while let Some(batch) = self.next(&uid) {
            let canary = batch.canary;
            // A panic ends this batch and not the following ones.
            let delivery = self.delivery.deliver(&canary, batch.notifications);
            if AssertUnwindSafe(delivery).catch_unwind().await.is_err() {
                error!(
                    canary = canary_name(&canary),
                    "a defect of the operator: a notification was not delivered because of a panic. Please report it"
                );
            }
            if let Some(delivered) = batch.delivered {
                // This fails if the question was cancelled meanwhile.
                let _ = delivered.send(());
            }
        }
    }

    /// Takes the next batch of a queue. Removes the queue if it is empty.
    fn next(&self, uid: &str) -> Option<Batch> {
        let mut queues = lock(&self.queues);
        let queue = queues.get_mut(uid)?;
        if let Some(batch) = queue.pop_front() {
            return Some(batch);
        }
        queues.remove(uid);
        if queues.is_empty() {
            self.drained.notify_waiters();
        }
        None
    }
}

#[cfg(test)]
mod tests;
