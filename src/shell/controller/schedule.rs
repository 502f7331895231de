//! When each canary is reconciled: one queue for all canaries, one task for each reconciliation, no task for an idle canary.
//!
//! kube's `Controller` would keep a copy of each object besides the cache, and does not report how late a reconciliation is.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

use futures::StreamExt;
use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::time::{DelayQueue, delay_queue};

#[cfg(test)]
mod tests;

/// The maximum number of reconciliations at the same time: each holds the objects of its canary in memory.
pub const CONCURRENT_RECONCILES: usize = 32;
/// How many of these may be for canaries that nothing has triggered since the start.
const CONCURRENT_INITIAL: usize = CONCURRENT_RECONCILES / 4;
/// The longest time that a canary waits. The queue accepts no more than some years, and a reconciliation that is too early does no harm.
const MAX_WAIT: Duration = Duration::from_secs(86_400);
/// How long reconciliations under way may take to finish at the end.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(8);
/// The interval of heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The canaries that wait and those that are being reconciled.
pub struct Schedule<K> {
    queue: DelayQueue<K>,
    waiting: HashMap<K, delay_queue::Key>,
    /// Canaries whose tick has come.
    at_tick: VecDeque<K>,
    /// Canaries that a change triggered. They take turns with those at their tick, so that a burst of one sort does not delay the other.
    triggered: VecDeque<K>,
    is_turn_of_triggered: bool,
    /// The canaries in `at_tick`, with the instant of their tick, or in `triggered`. If a canary is in both, the first entry counts.
    queued: HashMap<K, Option<Instant>>,
    /// Canaries that were not reconciled since the start and that nothing has triggered. They run one at a time, or a few at a time if
    /// nothing else waits.
    initial: VecDeque<K>,
    /// Canaries from `initial` that are being reconciled.
    initial_running: HashSet<K>,
    /// Canaries that are being reconciled, and whether something has triggered them since.
    running: HashMap<K, bool>,
    tasks: JoinSet<(K, Option<Duration>)>,
    keys: HashMap<Id, K>,
}

/// The callbacks of a schedule.
pub trait Reconciler<K>: Sync {
    /// Reconciles. Returns when to reconcile again if nothing changes before; `None` if the canary is gone.
    fn reconcile(&self, key: K) -> impl Future<Output = Option<Duration>> + Send + 'static;
    /// A reconciliation panicked. Returns when to reconcile again.
    fn panicked(&self, key: &K) -> Duration;
    /// A reconciliation begins this much later than its tick.
    fn late(&self, by: Duration);
    /// The schedule calls this at each interval of heartbeats while it works.
    fn heartbeat(&self);
}

impl<K: Clone + Eq + Hash + Send + 'static> Schedule<K> {
    /// Schedules the initial canaries in this order, in between those that are triggered or whose tick comes.
    pub fn new(initial: VecDeque<K>) -> Self {
        Self {
            queue: DelayQueue::new(),
            waiting: HashMap::new(),
            at_tick: VecDeque::new(),
            triggered: VecDeque::new(),
            is_turn_of_triggered: false,
            queued: HashMap::new(),
            initial,
            initial_running: HashSet::new(),
            running: HashMap::new(),
            tasks: JoinSet::new(),
            keys: HashMap::new(),
        }
    }

    /// Reconciles each canary on the channel, and again at its time, until `stop` completes. Then lets running reconciliations finish.
    pub async fn run(
        mut self,
        reconciler: &impl Reconciler<K>,
        mut triggers: mpsc::UnboundedReceiver<K>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let mut heartbeats = tokio::time::interval(HEARTBEAT);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = heartbeats.tick() => reconciler.heartbeat(),
                Some(key) = triggers.recv() => self.trigger(key),
                Some(tick) = self.queue.next() => {
                    let instant = tick.deadline();
                    let key = tick.into_inner();
                    self.waiting.remove(&key);
                    self.queued.insert(key.clone(), Some(instant));
                    self.at_tick.push_back(key);
                }
                Some(end) = self.tasks.join_next_with_id() => self.ended(reconciler, end),
            }
            while self.running.len() < CONCURRENT_RECONCILES
                && let Some(key) = self.next()
            {
                self.start(reconciler, key);
            }
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // An interrupted write does no harm, because all writes are conditional: it has failed, or the next leader observes its result.
        let _ = tokio::time::timeout(SHUTDOWN_DEADLINE, ended).await;
    }

    /// Queues a canary. If it is being reconciled, it is reconciled once more afterwards.
    fn trigger(&mut self, key: K) {
        if let Some(again) = self.running.get_mut(&key) {
            *again = true;
            return;
        }
        // The canary stays in `queue`: its tick may come before its turn does.
        if !self.queued.contains_key(&key) {
            self.queued.insert(key.clone(), None);
            self.triggered.push_back(key);
        }
    }

    /// Returns the canary to reconcile next.
    fn next(&mut self) -> Option<K> {
        let max_initial = if self.queued.is_empty() {
            CONCURRENT_INITIAL
        } else {
            1
        };
        if self.initial_running.len() < max_initial
            && let Some(key) = self.next_initial()
        {
            self.initial_running.insert(key.clone());
            return Some(key);
        }
        let mut queues = [&mut self.at_tick, &mut self.triggered];
        if self.is_turn_of_triggered {
            queues.reverse();
        }
        self.is_turn_of_triggered = !self.is_turn_of_triggered;
        let queued = &self.queued;
        queues.into_iter().find_map(|queue| {
            let is_queued = |key: &K| queued.contains_key(key);
            std::iter::from_fn(|| queue.pop_front()).find(is_queued)
        })
    }

    fn next_initial(&mut self) -> Option<K> {
        let is_scheduled = |key: &K| {
            self.waiting.contains_key(key)
                || self.running.contains_key(key)
                || self.queued.contains_key(key)
        };
        let scheduled = self.initial.iter().take_while(|key| is_scheduled(key));
        let scheduled = scheduled.count();
        self.initial.drain(..scheduled);
        if self.initial.is_empty() {
            // An empty deque would keep the memory of thousands of keys.
            self.initial = VecDeque::new();
        }
        self.initial.pop_front()
    }

    fn start(&mut self, reconciler: &impl Reconciler<K>, key: K) {
        if let Some(tick) = self.queued.remove(&key).flatten() {
            reconciler.late(Instant::now().saturating_duration_since(tick));
        }
        if let Some(waiting) = self.waiting.remove(&key) {
            self.queue.remove(&waiting);
        }
        self.running.insert(key.clone(), false);
        let reconcile = reconciler.reconcile(key.clone());
        let task = self.tasks.spawn({
            let key = key.clone();
            async move { (key, reconcile.await) }
        });
        self.keys.insert(task.id(), key);
    }

    fn ended(
        &mut self,
        reconciler: &impl Reconciler<K>,
        end: Result<(Id, (K, Option<Duration>)), JoinError>,
    ) {
        let (id, again) = match end {
            Ok((id, (_, again))) => (id, again.map(Ok)),
            Err(error) => (error.id(), Some(Err(()))),
        };
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.initial_running.remove(&key);
        let is_triggered = self.running.remove(&key) == Some(true);
        match again {
            // A panic affects only this canary. Changes that have triggered it since are handled at the retry.
            Some(Err(())) => self.wait(reconciler.panicked(&key), key),
            Some(Ok(after)) if is_triggered => {
                self.wait(after, key.clone());
                self.trigger(key);
            }
            None if is_triggered => self.trigger(key),
            Some(Ok(after)) => self.wait(after, key),
            None => {}
        }
    }

    fn wait(&mut self, after: Duration, key: K) {
        let waiting = self.queue.insert(key.clone(), after.min(MAX_WAIT));
        self.waiting.insert(key, waiting);
    }
}
