use std::sync::{Arc, Mutex};

use super::*;
use crate::shell::lock::lock;

/// Reconciles canaries by number: 1 takes a minute, 2 panics, 3 is deleted, 4 waits for centuries, those from 10,000 on ask to be
/// reconciled again at once, those from 20,000 on take a second, all others ask to be reconciled again after ten seconds. Records each
/// start, and the greatest lateness.
#[derive(Clone)]
struct Log {
    start: Instant,
    starts: Arc<Mutex<Vec<(u64, u32)>>>,
    max_lateness: Arc<Mutex<Duration>>,
}

impl Reconciler<u32> for Log {
    fn reconcile(&self, key: u32) -> impl Future<Output = Option<Duration>> + Send + 'static {
        let (starts, start) = (self.starts.clone(), self.start);
        async move {
            lock(&starts).push((start.elapsed().as_secs(), key));
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
        let mut most = lock(&self.max_lateness);
        *most = by.max(*most);
    }

    fn heartbeat(&self) {}
}

/// Triggers canaries at these seconds. Returns the seconds at which each was reconciled.
async fn reconciled(triggers: &[(u64, u32)], seconds: u64) -> HashMap<u32, Vec<u64>> {
    let mut starts: HashMap<u32, Vec<u64>> = HashMap::new();
    let (order, late) = in_order(VecDeque::new(), triggers, seconds).await;
    for (at, key) in order {
        starts.entry(key).or_default().push(at);
    }
    assert!(late <= Duration::from_millis(1), "{late:?} late");
    starts
}

/// The same in order of the starts, with some canaries at the beginning that nothing triggered; and the greatest lateness.
async fn in_order(
    initial: VecDeque<u32>,
    triggers: &[(u64, u32)],
    seconds: u64,
) -> (Vec<(u64, u32)>, Duration) {
    let log = Log {
        start: Instant::now(),
        starts: Arc::default(),
        max_lateness: Arc::default(),
    };
    let (trigger, triggered) = mpsc::unbounded_channel();
    let running = {
        let log = log.clone();
        tokio::spawn(async move {
            let stop = tokio::time::sleep(Duration::from_secs(seconds));
            Schedule::new(initial).run(&log, triggered, stop).await;
        })
    };
    for (at, key) in triggers {
        tokio::time::sleep_until(log.start + Duration::from_secs(*at)).await;
        trigger.send(*key).unwrap();
    }
    running.await.unwrap();
    let late = *lock(&log.max_lateness);
    (lock(&log.starts).clone(), late)
}

#[tokio::test(start_paused = true)]
async fn each_canary_is_reconciled_at_its_time_and_on_changes() {
    let starts = reconciled(&[(0, 7), (0, 3), (15, 7)], 40).await;
    assert_eq!(starts[&7], [0, 10, 15, 25, 35]);
    assert_eq!(starts[&3], [0], "a deleted canary is not reconciled again");
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_reconciliation_cause_one_more_after_it() {
    let starts = reconciled(&[(0, 1), (20, 1), (30, 1), (31, 9)], 125).await;
    assert_eq!(starts[&1], [0, 60], "then it waits again");
    assert_eq!(starts[&9][0], 31, "a slow canary delays no other");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_retried_and_affects_no_other_canary() {
    let starts = reconciled(&[(0, 2), (0, 9)], 31).await;
    assert_eq!(starts[&2], [0, 15, 30]);
    assert_eq!(starts[&9], [0, 10, 20, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_waits_for_centuries_does_no_harm() {
    let starts = reconciled(&[(0, 4), (0, 9)], 15).await;
    assert_eq!((&starts[&4][..], &starts[&9][..]), (&[0][..], &[0, 10][..]));
}

#[tokio::test(start_paused = true)]
async fn initial_canaries_get_their_turn_even_under_load() {
    let triggers: Vec<_> = (10_000..10_100).map(|key| (0, key)).collect();
    let (starts, _) = in_order((1000..1100).collect(), &triggers, 1).await;
    let initial: HashSet<_> = starts.iter().filter(|(_, key)| *key < 10_000).collect();
    assert_eq!(initial.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_initial_canaries_do_not_delay_a_triggered_one() {
    let (starts, _) = in_order((100..5100).collect(), &[(0, 7), (0, 4999)], 5).await;
    let order: Vec<_> = starts.into_iter().map(|(_, key)| key).collect();
    assert!(order[..12].contains(&7), "{:?}", &order[..12]);
    assert_eq!(order.iter().filter(|key| **key == 4999).count(), 1);
    assert_eq!(order.len(), 5001);
}

#[tokio::test(start_paused = true)]
async fn a_tick_does_not_wait_for_a_burst_of_triggers_and_its_lateness_is_reported() {
    let mut triggers = vec![(0, 7)];
    triggers.extend((20_000..22_000).map(|key| (9, key)));
    // The canary itself is in the burst too.
    triggers.push((9, 7));
    let (starts, late) = in_order(VecDeque::new(), &triggers, 30).await;
    let steps: Vec<_> = starts.iter().filter(|(_, key)| *key == 7).collect();
    assert!(steps[1].0 <= 11, "{steps:?}");
    // Canaries of the burst whose next tick comes wait too.
    assert!(late >= Duration::from_millis(900), "{late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_triggers_at_once_are_all_served() {
    let triggers: Vec<_> = (100..1100).map(|key| (0, key)).collect();
    let starts = reconciled(&triggers, 5).await;
    assert_eq!(starts.len(), 1000);
    assert!(starts.values().all(|at| at == &[0]));
}
