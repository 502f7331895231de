//! The limits of all large answers together: how many are read at the same time, how long each may take, and how many arrive in a second.
//! So large answers take a bounded part of the memory and of the computing time.

use std::{panic::resume_unwind, sync::Arc, time::Duration};

use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::spawn_blocking,
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

/// The maximum number of large answers that are read at the same time, in total and of one namespace.
const LIMITS: Limits = Limits {
    total: 8,
    namespace: 2,
    host: 8,
};
/// The shortest time for which a large answer keeps its place: no more than 16 large answers arrive in a second.
const SHORTEST: Duration = Duration::from_millis(500);

/// The places for large answers. Clones share them.
#[derive(Clone)]
pub struct LargeAnswers {
    places: Places,
    /// Large answers are parsed one at a time, because a parser may take twenty times the memory of the text.
    reading: Arc<Semaphore>,
}

impl Default for LargeAnswers {
    fn default() -> Self {
        Self {
            places: Places::new(LIMITS),
            reading: Arc::new(Semaphore::new(1)),
        }
    }
}

impl LargeAnswers {
    /// Waits until a large answer of a namespace may be read.
    pub async fn place(&self, namespace: &str) -> LargePlace {
        let place = self.places.take(Claim {
            namespace: namespace.to_owned(),
            host: String::new(),
        });
        LargePlace {
            place: Some(place.await),
            since: Instant::now(),
        }
    }

    /// Reads a large answer on another thread, so that this one can reconcile other canaries meanwhile.
    pub async fn read<T: Send + 'static>(
        &self,
        place: LargePlace,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        // This fails only for a closed semaphore, and nothing closes it.
        let reading = self.reading.clone().acquire_owned().await;
        let task = spawn_blocking(move || {
            let result = read();
            drop((reading, place));
            result
        });
        task.await
            .unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
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
        assert_eq!(begun.elapsed().as_secs(), 2, "two in half a second");
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
