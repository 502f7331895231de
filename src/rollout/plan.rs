//! The values that a decision is made of: [`Decision`], [`Plan`], [`Question`], [`Requeue`].

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use crate::{
    api::canary::CanaryStatus,
    metrics::{Asks, MetricError, OfflineError, Query, TimeSeries},
    notifications::Notification,
    snapshot::{Failure, HttpRequest, HttpResponse, Kind, Snapshot, Write, excerpt},
};

/// The next action for one canary.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a reconcile holds one decision at a time"
)]
pub enum Decision {
    /// Ask these questions in the background, and send these notifications without waiting for the answers.
    Ask(Vec<Question>, Vec<Notification>),
    /// Execute this plan.
    Do(Plan),
    /// Do nothing until the requeue. Send these notifications, each once per step.
    Wait(Requeue, Vec<Notification>),
}

/// Writes in order, then the status, then the notifications. Executing a plan needs no further decision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The writes, in order. The first write that fails ends the plan.
    pub writes: Vec<Write>,
    /// The status to commit after all writes have succeeded.
    pub status: Option<CanaryStatus>,
    /// The notifications to send after the status is committed.
    pub notifications: Vec<Notification>,
}

/// When to reconcile again. Every change of the Canary or of its objects triggers a reconcile anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// At the next tick. The step of the current tick is over.
    AtTick,
    /// When pods have become ready or gateways have caught up, and at the next tick.
    Ready,
    /// At the next tick, to ask a closed gate again. The value is the number of reminders sent so far.
    Approval(u32),
    /// At this instant.
    At(Timestamp),
    /// Only when something changes.
    OnChange,
}

/// A question that only another system can answer. Two equal questions are the same question: asking one again while it runs does
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Calls a webhook.
    Call {
        /// The hook's place in the spec, which distinguishes two equal calls.
        label: String,
        /// The call.
        request: HttpRequest,
    },
    /// Queries a metric server.
    Metric {
        /// The metric's place in the spec, which distinguishes two equal queries.
        label: String,
        /// The query.
        query: Box<Query>,
    },
    /// Lists the objects of a kind that a label selects.
    List {
        /// The kind.
        kind: Kind,
        /// The namespace.
        namespace: String,
        /// The label, as `key=value`.
        selector: String,
    },
    /// Sends notifications. The answer comes when they were delivered or given up.
    Notify(Vec<Notification>),
}

/// The answer to a question, as far as a decision uses it. It does not contain the whole body of an answer, which may be long.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A webhook answered, with any status. The body is an excerpt.
    Response(HttpResponse),
    /// The value of a metric, or the reason why there is none.
    Value(Result<f64, MetricError>),
    /// The series of both versions, or the reason why there are none.
    Series(Result<Vec<TimeSeries>, MetricError>),
    /// Whether a metric server is online.
    Online(Result<(), OfflineError>),
    /// No webhook answered, or the objects could not be listed.
    Failed(Failure),
    /// The listed objects.
    Objects(Vec<Value>),
    /// The notifications were delivered or given up.
    Delivered,
}

/// The answers of the current step.
pub type Evidence = BTreeMap<Arc<Question>, Answer>;

impl Question {
    /// Reads the answer of a server to this question, or the reason why there is none.
    pub fn read(&self, answer: Result<HttpResponse, Failure>) -> Answer {
        if let Self::Metric { query, .. } = self {
            let answer = answer.as_ref();
            let answer = answer.map_err(|why| MetricError::NoAnswer(why.to_string()));
            return match query.asks {
                Asks::Value(_) => Answer::Value(answer.and_then(|it| query.server.value(it))),
                Asks::Series { .. } => {
                    Answer::Series(answer.and_then(|it| query.server.series(it)))
                }
                Asks::Online => Answer::Online(query.server.online(answer)),
            };
        }
        match answer {
            Ok(HttpResponse { status, body }) => Answer::Response(HttpResponse {
                status,
                body: excerpt(&body),
            }),
            Err(why) => Answer::Failed(why),
        }
    }
}

impl Plan {
    /// Whether the plan repeats a write that another actor undoes again and again. Such a plan is not executed now. A plan with a status is
    /// never paused, because no step and no rollback must be held up.
    pub fn is_paused(&self, snapshot: &Snapshot) -> bool {
        self.status.is_none() && self.writes.iter().any(|write| snapshot.is_paused(write))
    }
}

impl Decision {
    /// Commits a status, then sends these notifications.
    pub fn commit(status: CanaryStatus, notifications: Vec<Notification>) -> Self {
        Self::Do(Plan {
            writes: Vec::new(),
            status: Some(status),
            notifications,
        })
    }

    /// Writes objects and leaves the status as it is.
    pub fn write(writes: Vec<Write>) -> Self {
        Self::Do(Plan {
            writes,
            ..Plan::default()
        })
    }

    /// Does nothing and sends nothing until the requeue.
    pub const fn wait(requeue: Requeue) -> Self {
        Self::Wait(requeue, Vec::new())
    }

    /// The same decision with `earlier` ahead of its own notifications.
    #[must_use]
    pub fn notifying(mut self, mut earlier: Vec<Notification>) -> Self {
        let (Self::Ask(_, notifications)
        | Self::Do(Plan { notifications, .. })
        | Self::Wait(_, notifications)) = &mut self;
        earlier.append(notifications);
        *notifications = earlier;
        self
    }
}
