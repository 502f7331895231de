//! Injected faults: of requests, of watch events and of lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{refusal::Refusal, request::ApiRequest};

/// A fault of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is not executed; the answer has this status.
    Status(u16),
    /// The request is executed; the answer has this error status.
    DoneBut(u16),
    /// The connection breaks before the request is executed.
    ResetBefore,
    /// The connection breaks after the request is executed.
    ResetAfter,
    /// The request is not executed and not answered; the client gives up after the timeout of `main.rs`.
    Hang,
    /// The request is not answered, and executed after the client has given up.
    Late,
    /// The request is executed; only half of the answer arrives.
    Truncated,
    /// The client is killed before the request is executed.
    DieBefore,
    /// The client is killed after the request is executed.
    DieAfter,
}

impl Fault {
    /// Whether the request is executed.
    pub const fn is_done(self) -> bool {
        match self {
            Self::DoneBut(_) | Self::ResetAfter | Self::Truncated | Self::DieAfter => true,
            Self::Status(_) | Self::ResetBefore | Self::Hang | Self::Late | Self::DieBefore => {
                false
            }
        }
    }

    /// The error answer; `None` for faults without one.
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
            other => panic!("the model does not know the status {other}"),
        };
        Some(Refusal::plain(code, reason, "an injected fault"))
    }
}

/// The names of the operators: a killed one is followed by the next.
pub const OPERATORS: [&str; 4] = [
    "operator",
    "the second operator",
    "the third operator",
    "the fourth operator",
];

/// Whether a client with this name is an operator.
pub fn is_operator(name: &str) -> bool {
    OPERATORS.contains(&name)
}

/// A fault of the `nth` matching request of the operators, counted from 1.
#[derive(Clone, Debug)]
pub struct Rule {
    pub which: Which,
    pub nth: usize,
    pub fault: Fault,
}

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All writes.
    Writes,
    /// All reads.
    Reads,
}

impl Which {
    fn matches(self, call: &ApiRequest) -> bool {
        match self {
            Self::Writes => call.verb.writes(),
            Self::Reads => !call.verb.writes(),
        }
    }
}

/// How the API server answers requests for streamed lists (`sendInitialEvents`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Streams {
    /// It streams them, as it does since 1.34.
    #[default]
    Sent,
    /// It refuses them, because the feature is disabled.
    Refused,
    /// It never sends the bookmark that ends the list.
    Endless,
}

/// All faults of one run.
#[derive(Debug, Default)]
pub struct Plan {
    rules: Vec<(Rule, usize)>,
    /// The delay of watch events, by kind.
    pub late: BTreeMap<&'static str, Duration>,
    /// The delay of answers, by kind.
    pub slow: BTreeMap<&'static str, Duration>,
    /// The watch events that are still to be lost, by kind, counted from 1 in each watch. The first watch that reaches the number loses its event.
    pub dropped: BTreeMap<&'static str, BTreeSet<usize>>,
    /// The kinds whose watch events are sent twice.
    pub twice: BTreeSet<&'static str>,
    /// The answers to streamed lists.
    pub streams: Streams,
    /// How often the connections of all watches have been broken.
    pub breaks: usize,
    /// The killed clients: their requests are neither executed nor answered.
    dead: BTreeSet<String>,
}

impl Plan {
    pub fn add(&mut self, rule: Rule) {
        self.rules.push((rule, 0));
    }

    /// Counts a request, and returns its fault.
    pub fn fault_of(&mut self, by: &str, call: &ApiRequest) -> Option<Fault> {
        if self.dead.contains(by) {
            return Some(Fault::Hang);
        }
        let mut fault = None;
        for (rule, seen) in &mut self.rules {
            if is_operator(by) && rule.which.matches(call) {
                *seen += 1;
                fault = fault.or((*seen == rule.nth).then_some(rule.fault));
            }
        }
        fault
    }

    pub fn kill(&mut self, by: &str) {
        self.dead.insert(by.to_owned());
    }

    pub fn is_dead(&self, by: &str) -> bool {
        self.dead.contains(by)
    }
}
