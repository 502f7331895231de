//! When each canary is looked at: one queue for all, one task for each look, none at rest.
//!
//! kube's `Controller` would do the same with a copy of each object beside the caches, and would not say how late it is.

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

/// As many looks are under way at once: each holds its canary's objects in memory.
pub const CONCURRENT_RECONCILES: usize = 32;
/// As many of them are at canaries that nothing calls for.
const UNHURRIED: usize = CONCURRENT_RECONCILES / 4;
/// The longest that anybody waits: the queue takes no more than some years, and a look too early does no harm.
const LONGEST: Duration = Duration::from_secs(86_400);
/// The longest that looks under way are waited for at the end.
const END: Duration = Duration::from_secs(8);
/// How often a schedule without anything to do says that it lives.
const BEAT: Duration = Duration::from_secs(5);

/// Who is looked at when.
pub struct Schedule<K> {
    queue: DelayQueue<K>,
    waiting: HashMap<K, delay_queue::Key>,
    /// Those whose instant has come.
    tick: VecDeque<K>,
    /// Those that something changed for. They and those that are tick take turns: neither waits for a crowd of the others.
    ready: VecDeque<K>,
    /// Whose turn it is.
    is_turn_of_ready: bool,
    /// Those that are in `tick`, with their instant, or in `ready`. (Who is in both was called first.)
    called: HashMap<K, Option<Instant>>,
    /// Those that were not looked at yet, and that nothing calls for: one at a time, and more when nobody else comes.
    unseen: VecDeque<K>,
    /// Those of them that are being looked at.
    unhurried: HashSet<K>,
    /// Those that are being looked at, and whether something changed since.
    looking: HashMap<K, bool>,
    looks: JoinSet<(K, Option<Duration>)>,
    tasks: HashMap<Id, K>,
}

/// What a schedule does with the world.
pub trait Reconciler<K>: Sync {
    /// Looks; when to look again, if nothing changes before.
    fn reconcile(&self, key: K) -> impl Future<Output = Option<Duration>> + Send + 'static;
    /// A look panicked; when to look again.
    fn panicked(&self, key: &K) -> Duration;
    /// A look begins so long after it was to.
    fn late(&self, by: Duration);
    /// The schedule lives.
    fn beat(&self);
}

impl<K: Clone + Eq + Hash + Send + 'static> Schedule<K> {
    /// Nobody is looked at yet: these are in this order, between those that are called or tick.
    pub fn new(unseen: VecDeque<K>) -> Self {
        Self {
            queue: DelayQueue::new(),
            waiting: HashMap::new(),
            tick: VecDeque::new(),
            ready: VecDeque::new(),
            is_turn_of_ready: false,
            called: HashMap::new(),
            unseen,
            unhurried: HashSet::new(),
            looking: HashMap::new(),
            looks: JoinSet::new(),
            tasks: HashMap::new(),
        }
    }

    /// Looks at whoever is named on the channel, and again when it is time, until `stop`; looks under way are waited for a while then.
    pub async fn run(
        mut self,
        looks: &impl Reconciler<K>,
        mut touched: mpsc::UnboundedReceiver<K>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let mut beats = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                () = &mut stop => break,
                _ = beats.tick() => looks.beat(),
                Some(key) = touched.recv() => self.call(key),
                Some(tick) = self.queue.next() => {
                    let instant = tick.deadline();
                    let key = tick.into_inner();
                    self.waiting.remove(&key);
                    self.called.insert(key.clone(), Some(instant));
                    self.tick.push_back(key);
                }
                Some(end) = self.looks.join_next_with_id() => self.ended(looks, end),
            }
            while self.looking.len() < CONCURRENT_RECONCILES
                && let Some(key) = self.next()
            {
                self.begin(looks, key);
            }
        }
        let ended = async { while self.looks.join_next().await.is_some() {} };
        // A write that is cut off was bound to what it saw, as all are: whoever leads next sees that it was done, or it comes to nothing.
        let _ = tokio::time::timeout(END, ended).await;
    }

    /// Somebody is to be looked at now; if that is being done, once more after it.
    fn call(&mut self, key: K) {
        if let Some(again) = self.looking.get_mut(&key) {
            *again = true;
            return;
        }
        // Its instant may come before its turn does.
        if !self.called.contains_key(&key) {
            self.called.insert(key.clone(), None);
            self.ready.push_back(key);
        }
    }

    /// Who is looked at next.
    fn next(&mut self) -> Option<K> {
        let most = if self.called.is_empty() { UNHURRIED } else { 1 };
        if self.unhurried.len() < most
            && let Some(key) = self.next_unseen()
        {
            self.unhurried.insert(key.clone());
            return Some(key);
        }
        let mut queues = [&mut self.tick, &mut self.ready];
        if self.is_turn_of_ready {
            queues.reverse();
        }
        self.is_turn_of_ready = !self.is_turn_of_ready;
        let called = &self.called;
        queues.into_iter().find_map(|queue| {
            let is_called = |key: &K| called.contains_key(key);
            std::iter::from_fn(|| queue.pop_front()).find(is_called)
        })
    }

    fn next_unseen(&mut self) -> Option<K> {
        let is_seen = |key: &K| {
            self.waiting.contains_key(key)
                || self.looking.contains_key(key)
                || self.called.contains_key(key)
        };
        let seen = self.unseen.iter().take_while(|key| is_seen(key)).count();
        self.unseen.drain(..seen);
        if self.unseen.is_empty() {
            self.unseen = VecDeque::new();
        }
        self.unseen.pop_front()
    }

    fn begin(&mut self, looks: &impl Reconciler<K>, key: K) {
        if let Some(tick) = self.called.remove(&key).flatten() {
            looks.late(Instant::now().saturating_duration_since(tick));
        }
        if let Some(waiting) = self.waiting.remove(&key) {
            self.queue.remove(&waiting);
        }
        self.looking.insert(key.clone(), false);
        let reconcile = looks.reconcile(key.clone());
        let task = self.looks.spawn({
            let key = key.clone();
            async move { (key, reconcile.await) }
        });
        self.tasks.insert(task.id(), key);
    }

    fn ended(
        &mut self,
        looks: &impl Reconciler<K>,
        end: Result<(Id, (K, Option<Duration>)), JoinError>,
    ) {
        let (id, again) = match end {
            Ok((id, (_, again))) => (id, again.map(Ok)),
            Err(error) => (error.id(), Some(Err(()))),
        };
        let Some(key) = self.tasks.remove(&id) else {
            return;
        };
        self.unhurried.remove(&key);
        // A panic is this canary's error, and nobody else's; what changed meanwhile waits as long as it does.
        let changed = self.looking.remove(&key) == Some(true);
        match again {
            Some(Err(())) => self.wait(looks.panicked(&key), key),
            Some(Ok(after)) if changed => {
                self.wait(after, key.clone());
                self.call(key);
            }
            None if changed => self.call(key),
            Some(Ok(after)) => self.wait(after, key),
            None => {}
        }
    }

    fn wait(&mut self, after: Duration, key: K) {
        let waiting = self.queue.insert(key.clone(), after.min(LONGEST));
        self.waiting.insert(key, waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Canaries by number: 1 takes a minute, 2 panics, 3 is gone, 4 waits for centuries, those from 10,000 on want to be looked at again
    /// at once, those from 20,000 on take a second, all others every ten seconds. With how late who was tick was at most.
    #[derive(Clone, Default)]
    struct Log(
        Arc<Mutex<Vec<(u64, u32)>>>,
        Option<Instant>,
        Arc<Mutex<Duration>>,
    );

    impl Reconciler<u32> for Log {
        fn reconcile(&self, key: u32) -> impl Future<Output = Option<Duration>> + Send + 'static {
            let (log, start) = (self.0.clone(), self.1.unwrap());
            async move {
                log.lock().unwrap().push((start.elapsed().as_secs(), key));
                match key {
                    1 => tokio::time::sleep(Duration::from_secs(60)).await,
                    2 => panic!("a defect"),
                    3 => return None,
                    4 => return Some(Duration::MAX),
                    20_000.. => tokio::time::sleep(Duration::from_secs(1)).await,
                    10_000.. => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        return Some(Duration::ZERO);
                    }
                    _ => {}
                }
                Some(Duration::from_secs(10))
            }
        }

        fn panicked(&self, _: &u32) -> Duration {
            Duration::from_secs(15)
        }

        fn late(&self, by: Duration) {
            let mut most = self.2.lock().unwrap();
            *most = by.max(*most);
        }

        fn beat(&self) {}
    }

    /// Calls these at these seconds, for so many seconds: the seconds at which each was looked at.
    async fn played(calls: &[(u64, u32)], seconds: u64) -> HashMap<u32, Vec<u64>> {
        let mut looks: HashMap<u32, Vec<u64>> = HashMap::new();
        let (order, late) = in_order(VecDeque::new(), calls, seconds).await;
        for (at, key) in order {
            looks.entry(key).or_default().push(at);
        }
        assert!(late <= Duration::from_millis(1), "{late:?} late");
        looks
    }

    /// The same in the order of looks, with some that are unseen at the beginning; and how late who was tick was at most.
    async fn in_order(
        unseen: VecDeque<u32>,
        calls: &[(u64, u32)],
        seconds: u64,
    ) -> (Vec<(u64, u32)>, Duration) {
        let log = Log(Arc::default(), Some(Instant::now()), Arc::default());
        let (touch, touched) = mpsc::unbounded_channel();
        let looking = {
            let log = log.clone();
            tokio::spawn(async move {
                let stop = tokio::time::sleep(Duration::from_secs(seconds));
                Schedule::new(unseen).run(&log, touched, stop).await;
            })
        };
        for (at, key) in calls {
            tokio::time::sleep_until(log.1.unwrap() + Duration::from_secs(*at)).await;
            touch.send(*key).unwrap();
        }
        looking.await.unwrap();
        let late = *log.2.lock().unwrap();
        (log.0.lock().unwrap().clone(), late)
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_looked_at_when_it_is_time_and_when_something_changes() {
        let looks = played(&[(0, 7), (0, 3), (15, 7)], 40).await;
        assert_eq!(looks[&7], [0, 10, 15, 25, 35]);
        assert_eq!(looks[&3], [0], "who is gone is not looked at again");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_during_a_look_are_one_look_after_it() {
        let looks = played(&[(0, 1), (20, 1), (30, 1), (31, 9)], 125).await;
        assert_eq!(looks[&1], [0, 60], "then it waits");
        assert_eq!(looks[&9][0], 31, "nobody waits for a slow one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_tried_again_and_is_nobody_elses() {
        let looks = played(&[(0, 2), (0, 9)], 31).await;
        assert_eq!(looks[&2], [0, 15, 30]);
        assert_eq!(looks[&9], [0, 10, 20, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_centuries_harms_nobody() {
        let looks = played(&[(0, 4), (0, 9)], 15).await;
        assert_eq!((&looks[&4][..], &looks[&9][..]), (&[0][..], &[0, 10][..]));
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_were_not_looked_at_yet_are_not_held_up_for_ever_either() {
        let calls: Vec<_> = (10_000..10_100).map(|key| (0, key)).collect();
        let (looks, _) = in_order((1000..1100).collect(), &calls, 1).await;
        let unseen: HashSet<_> = looks.iter().filter(|(_, key)| *key < 10_000).collect();
        assert_eq!(unseen.len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn thousands_that_were_not_looked_at_yet_hold_up_nobody_who_is_called() {
        let (looks, _) = in_order((100..5100).collect(), &[(0, 7), (0, 4999)], 5).await;
        let order: Vec<_> = looks.into_iter().map(|(_, key)| key).collect();
        assert!(order[..12].contains(&7), "{:?}", &order[..12]);
        assert_eq!(order.iter().filter(|key| **key == 4999).count(), 1);
        assert_eq!(order.len(), 5001);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_does_not_wait_for_a_crowd_that_was_called_and_its_lateness_is_told() {
        let mut calls = vec![(0, 7)];
        calls.extend((20_000..22_000).map(|key| (9, key)));
        // It is one of them.
        calls.push((9, 7));
        let (looks, late) = in_order(VecDeque::new(), &calls, 30).await;
        let steps: Vec<_> = looks.iter().filter(|(_, key)| *key == 7).collect();
        assert!(steps[1].0 <= 11, "{steps:?}");
        // Those of the crowd that come again wait as well.
        assert!(late >= Duration::from_millis(900), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_at_once_are_all_looked_at() {
        let calls: Vec<_> = (100..1100).map(|key| (0, key)).collect();
        let looks = played(&calls, 5).await;
        assert_eq!(looks.len(), 1000);
        assert!(looks.values().all(|at| at == &[0]));
    }
}
