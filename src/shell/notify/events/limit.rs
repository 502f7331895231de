//! The limit of Event objects for each canary: 25 at once, then one each five minutes, as in client-go (`EventSourceObjectSpamFilter`,
//! which Flagger uses for all its events). Here only events that each step may repeat are limited, so that the start and the outcome of a
//! run are always written.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::time::Instant;

use crate::shell::lock::lock;

/// How many Events may be written for a canary at once.
const BURST: u32 = 25;
/// The time after which one more Event may be written for a canary.
const REFILL: Duration = Duration::from_secs(300);
/// The maximum number of canaries whose limits are kept.
const MAX_CANARIES: usize = 16_384;

/// The limits of all canaries that have used a part of their limit.
#[derive(Default)]
pub struct Limits(Mutex<HashMap<String, Bucket>>);

struct Bucket {
    /// The instant from which `BURST` Events may be written for the canary at once again.
    full_at: Instant,
    /// Whether an Event was refused since the last one that was admitted.
    is_exhausted: bool,
}

/// Whether an Event may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// The first refusal since an Event was admitted.
    Exhausted,
    Refused,
}

impl Limits {
    /// Takes one Event from the limit of the canary with this uid.
    pub fn admit(&self, uid: &str, now: Instant) -> Admission {
        let mut buckets = lock(&self.0);
        if buckets.len() >= MAX_CANARIES && !buckets.contains_key(uid) {
            buckets.retain(|_, bucket| bucket.full_at > now);
            // All these canaries have used a part of their limits. Reset all limits: some more Events do less harm than memory that grows
            // without end.
            if buckets.len() >= MAX_CANARIES {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(uid.to_owned()).or_insert(Bucket {
            full_at: now,
            is_exhausted: false,
        });
        let full_at = bucket.full_at.max(now) + REFILL;
        if full_at <= now + REFILL * BURST {
            bucket.full_at = full_at;
            bucket.is_exhausted = false;
            return Admission::Admitted;
        }
        if std::mem::replace(&mut bucket.is_exhausted, true) {
            Admission::Refused
        } else {
            Admission::Exhausted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(limits: &Limits, uid: &str, now: Instant) -> usize {
        let admissions = std::iter::repeat_with(|| limits.admit(uid, now)).take(100);
        admissions
            .filter(|admission| *admission == Admission::Admitted)
            .count()
    }

    #[test]
    fn a_canary_has_25_events_at_once_then_one_each_five_minutes() {
        let (limits, start) = (Limits::default(), Instant::now());
        assert_eq!(admitted(&limits, "a", start), 25);
        assert_eq!(admitted(&limits, "b", start), 25, "another canary");
        for (seconds, expected) in [(299, 0), (300, 1), (301, 0), (900, 2), (900 + 25 * 300, 25)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(admitted(&limits, "a", now), expected, "{seconds}");
        }
    }

    #[test]
    fn only_the_first_refusal_since_an_admission_is_marked() {
        let (limits, start) = (Limits::default(), Instant::now());
        let at = |seconds| limits.admit("a", start + Duration::from_secs(seconds));
        for _ in 0..BURST {
            assert_eq!(at(0), Admission::Admitted);
        }
        assert_eq!([at(0), at(1)], [Admission::Exhausted, Admission::Refused]);
        assert_eq!(
            [at(300), at(300), at(301)],
            [
                Admission::Admitted,
                Admission::Exhausted,
                Admission::Refused
            ]
        );
    }

    #[test]
    fn limits_that_are_full_again_take_no_memory() {
        let (limits, start) = (Limits::default(), Instant::now());
        for n in 0..MAX_CANARIES {
            limits.admit(&n.to_string(), start);
        }
        admitted(&limits, "busy", start + REFILL);
        assert_eq!(lock(&limits.0).len(), 1);
    }
}
