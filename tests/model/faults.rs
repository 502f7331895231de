//! What goes wrong on purpose: which requests meet with what, and what becomes of the news of a kind.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{call::Call, refusal::Refusal};

/// What a request meets with instead of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; the answer has this status.
    Status(u16),
    /// All is done; the answer says otherwise.
    DoneBut(u16),
    /// The connection breaks before anything is done.
    ResetBefore,
    /// The connection breaks after all is done.
    ResetAfter,
    /// Nothing is done, and no answer comes, until the client gives up as `main.rs` has it.
    Hang,
    /// No answer comes; all is done when nobody waits for it any more.
    Late,
    /// All is done; half of the answer comes.
    Truncated,
    /// The client dies before anything is done.
    DieBefore,
    /// The client dies after all is done.
    DieAfter,
}

impl Fault {
    /// Whether the request is carried out.
    pub const fn is_done(self) -> bool {
        match self {
            Self::DoneBut(_) | Self::ResetAfter | Self::Truncated | Self::DieAfter => true,
            Self::Status(_) | Self::ResetBefore | Self::Hang | Self::Late | Self::DieBefore => {
                false
            }
        }
    }

    /// The answer that says so, if it is one.
    pub fn refusal(self) -> Option<Refusal> {
        let code = match self {
            Self::Status(code) | Self::DoneBut(code) => code,
            Self::ResetBefore
            | Self::ResetAfter
            | Self::Hang
            | Self::Late
            | Self::Truncated
            | Self::DieBefore
            | Self::DieAfter => return None,
        };
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            other => panic!("no API server answers {other}"),
        };
        Some(Refusal::plain(code, reason, "a fault, on purpose"))
    }
}

/// Which requests a fault is about: the `nth`, from 1, of those that are like this.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The client's name.
    pub by: &'static str,
    pub which: Which,
    pub nth: usize,
    pub fault: Fault,
}

/// Requests that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All that change something.
    Writes,
    /// All that change nothing.
    Reads,
}

impl Which {
    fn holds(self, call: &Call) -> bool {
        match self {
            Self::Writes => call.verb.writes(),
            Self::Reads => !call.verb.writes(),
        }
    }
}

/// How the API server takes it to be asked for a list as a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// As it does from 1.34 on.
    #[default]
    Sent,
    /// It is told not to.
    Refused,
    /// It comes to no end.
    Endless,
}

/// All that goes wrong in one run.
#[derive(Debug, Default)]
pub struct Plan {
    rules: Vec<(Rule, usize)>,
    /// How much later than it happened a change of a kind is told to who watches.
    pub late: BTreeMap<&'static str, Duration>,
    /// How long an answer about a kind takes.
    pub slow: BTreeMap<&'static str, Duration>,
    /// The changes of a kind, counted from 1, that nobody who watches is told of.
    pub dropped: BTreeMap<&'static str, BTreeSet<usize>>,
    /// The kinds of which each change is told twice.
    pub twice: BTreeSet<&'static str>,
    /// What becomes of lists as streams.
    pub streams: Streams,
    /// How often the connections of all watches broke.
    pub breaks: usize,
    /// The clients that are dead: nothing they ask is done, nor answered.
    dead: BTreeSet<String>,
}

impl Plan {
    pub fn add(&mut self, rule: Rule) {
        self.rules.push((rule, 0));
    }

    /// What a request meets with, if anything; counts it.
    pub fn meet(&mut self, by: &str, call: &Call) -> Option<Fault> {
        if self.dead.contains(by) {
            return Some(Fault::Hang);
        }
        let mut met = None;
        for (rule, seen) in &mut self.rules {
            if by == rule.by && rule.which.holds(call) {
                *seen += 1;
                met = met.or((*seen == rule.nth).then_some(rule.fault));
            }
        }
        met
    }

    pub fn kill(&mut self, by: &str) {
        self.dead.insert(by.to_owned());
    }

    pub fn is_dead(&self, by: &str) -> bool {
        self.dead.contains(by)
    }
}
