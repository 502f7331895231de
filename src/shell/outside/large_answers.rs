//! The limits of all large answers together. A few are read at the same time, each within a time, and so many in a second: neither their
//! bytes nor the time to read them adds up.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    time::{Instant, sleep_until},
};

use super::{
    fair_queue::{Claim, Limits},
    places::{Place, Places},
};

/// An answer with more bytes is large. Metric servers answer with less than one KiB, hooks with a few words.
pub const LARGE: usize = 16 << 10;
/// The longest time in which the rest of a large answer must arrive.
pub const TIME: Duration = Duration::from_secs(10);

/// The most large answers that are read at the same time, in total and of one namespace.
const LIMITS: Limits = Limits {
    total: 16,
    namespace: 2,
    host: 16,
};
/// The shortest time for which a large answer keeps its place: 64 large answers in a second.
const SHORTEST: Duration = Duration::from_millis(250);

/// The places for large answers. Clones share them.
#[derive(Clone)]
pub struct LargeAnswers(Places);

impl Default for LargeAnswers {
    fn default() -> Self {
        Self(Places::new(LIMITS))
    }
}

impl LargeAnswers {
    /// Waits until a large answer of a namespace may be read.
    pub async fn place(&self, namespace: &str) -> LargePlace {
        let place = self.0.take(Claim {
            namespace: namespace.to_owned(),
            host: String::new(),
        });
        LargePlace {
            place: Some(place.await),
            since: Instant::now(),
        }
    }
}

/// The place of a large answer. It is kept until the answer has been read.
pub struct LargePlace {
    place: Option<Place>,
    since: Instant,
}

impl Drop for LargePlace {
    fn drop(&mut self) {
        let (place, end) = (self.place.take(), self.since + SHORTEST);
        if end <= Instant::now() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                sleep_until(end).await;
                drop(place);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_kept_for_a_while_so_that_large_answers_are_few_in_a_second() {
        let answers = LargeAnswers::default();
        let begun = Instant::now();
        for _ in 0..9 {
            drop(answers.place("a").await);
        }
        assert_eq!(
            begun.elapsed().as_millis(),
            1000,
            "two in a quarter of a second"
        );
    }

    #[tokio::test]
    async fn a_namespace_has_two_places_and_others_get_theirs() {
        let answers = LargeAnswers::default();
        let of_a = [answers.place("a").await, answers.place("a").await];
        assert!(answers.place("a").now_or_never().is_none());
        assert!(answers.place("b").now_or_never().is_some());
        drop(of_a);
    }
}
