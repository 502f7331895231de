//! Detects a second operator. Only the operator writes the status of a Canary, and each write with a new phase or step has a later time.

use jiff::{SignedDuration, Timestamp};

/// After this many transitions of unknown origin, another process writes the status. A single one may be this process's own: if a proxy
/// repeats a request, the second request gets a conflict although the first one succeeded.
const CERTAIN: u32 = 3;

/// Transitions that are further apart are counted separately, because few intervals are as long.
const TOGETHER: SignedDuration = SignedDuration::from_hours(6);

/// The times of transition in the status of a canary, as this process has seen and written them.
#[derive(Default)]
pub struct StatusWriters {
    seen: Option<Timestamp>,
    /// The last transition that this process wrote, or may have written.
    own: Option<Timestamp>,
    /// The number of successive transitions by other processes with short pauses between them, and the time of the last one.
    others: (u32, Option<Timestamp>),
}

impl StatusWriters {
    /// This process wrote a status with this transition, or does not know whether it did.
    pub fn wrote(&mut self, transition: Option<Timestamp>) {
        self.own = self.own.max(transition);
    }

    /// Whether the transition in the status now shows that another process writes the status. This is true once, and not again while that
    /// process goes on. The first transition that this process sees does not count, nor does an earlier one from a stale cache.
    pub fn shows_another(&mut self, transition: Option<Timestamp>) -> bool {
        let is_of_another = self.seen.is_some() && transition > self.seen.max(self.own);
        self.seen = self.seen.max(transition);
        let (Some(at), true) = (transition, is_of_another) else {
            return false;
        };
        let (count, last) = self.others;
        let goes_on = last.is_some_and(|last| at.duration_since(last) < TOGETHER);
        let count = if goes_on { count.saturating_add(1) } else { 1 };
        self.others = (count, Some(at));
        count == CERTAIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_third_transition_that_this_process_did_not_write_shows_another_operator() {
        let mut writers = StatusWriters::default();
        assert!(!writers.shows_another(Some(at(5))), "before a restart");
        writers.wrote(Some(at(10)));
        let seen = [10, 5, 10, 20, 10, 30, 40, 50];
        let shown = seen.map(|second| writers.shows_another(Some(at(second))));
        let expected = seen.map(|second| second == 40);
        assert_eq!(shown, expected, "{seen:?}");
    }

    /// A proxy repeats a request now and then. Later a second operator writes, and writes again after a day.
    #[test]
    fn writes_of_others_long_ago_do_not_count() {
        let mut writers = StatusWriters::default();
        assert!(!writers.shows_another(Some(at(5))));
        let hour = 7 * 3600;
        let rare = (1..9).map(|n| n * hour + 5);
        let back = [20 * hour, 20 * hour + 10, 20 * hour + 20, 20 * hour + 30];
        let day = back.map(|second| second + 24 * hour);
        let seen: Vec<_> = rare.chain(back).chain(day).collect();
        let shown = seen
            .iter()
            .filter(|second| writers.shows_another(Some(at(**second))));
        assert_eq!(
            shown.copied().collect::<Vec<_>>(),
            [20 * hour + 20, 44 * hour + 20]
        );
    }

    #[test]
    fn own_transitions_show_no_other_operator() {
        let mut writers = StatusWriters::default();
        assert!(!writers.shows_another(None), "a new Canary");
        for second in 1..9 {
            writers.wrote(Some(at(second)));
            // This process may see its own write late, if the answer to the write was lost.
            writers.wrote(Some(at(second + 1)));
            assert!(!writers.shows_another(Some(at(second))));
        }
    }
}
