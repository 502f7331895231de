//! What a decision can be, as values.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    api::canary::CanaryStatus,
    metrics::Query,
    notifications::Notification,
    snapshot::{Failure, HttpRequest, HttpResponse, Write},
};

/// What to do about a canary now.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Decision {
    /// Get these answers, in the background; tell these notices meanwhile.
    Ask(Vec<Question>, Vec<Notification>),
    /// Carry this out.
    Do(Plan),
    /// Nothing to do until then; tell these notices (each once per step).
    Wait(Requeue, Vec<Notification>),
}

/// Writes in order, then the status, then what people are told: with nothing left to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes, in order; the first that fails ends the plan.
    pub writes: Vec<Write>,
    /// The status to commit once all effects are done.
    pub status: Option<CanaryStatus>,
    /// What people are told once the status is committed.
    pub notifications: Vec<Notification>,
}

/// When to look again; every change of the Canary or its objects is looked at anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// At the next tick: this one is used up.
    AtTick,
    /// When pods have become ready, or gateways have caught up, and at the next tick.
    Ready,
    /// At the next tick, when a closed gate is asked again. It is told once, and again with each reminder: so many there were by now.
    Approval(u32),
    /// At this instant.
    At(Timestamp),
    /// When something changes.
    Change,
}

/// Something that only the outside can answer. It is its own identity: asked again while it runs, nothing happens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// What a server answers to this call; the label tells two equal calls apart.
    Call {
        /// Which hook, by its place in the spec.
        label: String,
        /// The call.
        request: HttpRequest,
    },
    /// What a server of metrics says; the label tells two equal queries apart.
    Metric {
        /// Which metric, by its place in the spec.
        label: String,
        /// The query.
        query: Box<Query>,
    },
    /// That people were told this: answered once it was delivered, or given up.
    Notify(Vec<Notification>),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A server answered, well or not.
    Response(HttpResponse),
    /// No answer could be had.
    Failed(Failure),
    /// The notices are out.
    Delivered,
}

/// The answers of the step under way.
pub type Evidence = BTreeMap<Question, Answer>;

impl Decision {
    /// Commit a status and say so.
    pub fn commit(status: CanaryStatus, notifications: Vec<Notification>) -> Self {
        Self::Do(Plan {
            writes: Vec::new(),
            status: Some(status),
            notifications,
        })
    }

    /// The same, saying this first.
    #[must_use]
    pub fn notifying(mut self, mut said: Vec<Notification>) -> Self {
        let (Self::Ask(_, notifications)
        | Self::Do(Plan { notifications, .. })
        | Self::Wait(_, notifications)) = &mut self;
        said.append(notifications);
        *notifications = said;
        self
    }
}
