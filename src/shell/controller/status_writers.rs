//! Notices a second operator: only the operator writes the status of a Canary, and each write with a new phase or step has a later time.

use jiff::Timestamp;

/// A transition of another process may be this process's own, if a proxy repeats a request and its second answer is a conflict. More are not.
const CERTAIN: u32 = 3;

/// The times of transition in the status of a canary, as this process has seen and written them.
#[derive(Default)]
pub struct StatusWriters {
    seen: Option<Timestamp>,
    /// The last one that this process wrote, or may have written.
    own: Option<Timestamp>,
    /// How many were written by others.
    others: u32,
}

impl StatusWriters {
    /// This process wrote a status with this transition, or does not know whether it did.
    pub fn wrote(&mut self, transition: Option<Timestamp>) {
        self.own = self.own.max(transition);
    }

    /// Whether the transition that is in the status now shows that another process writes it. True once. The first transition that this
    /// process sees tells nothing, nor does an earlier one from a stale cache.
    pub fn shows_another(&mut self, transition: Option<Timestamp>) -> bool {
        let is_of_another = self.seen.is_some() && transition > self.seen.max(self.own);
        self.seen = self.seen.max(transition);
        self.others += u32::from(is_of_another);
        is_of_another && self.others == CERTAIN
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

    #[test]
    fn own_transitions_show_no_other_operator() {
        let mut writers = StatusWriters::default();
        assert!(!writers.shows_another(None), "a new Canary");
        for second in 1..9 {
            writers.wrote(Some(at(second)));
            // A write whose answer was lost is seen late.
            writers.wrote(Some(at(second + 1)));
            assert!(!writers.shows_another(Some(at(second))));
        }
    }
}
