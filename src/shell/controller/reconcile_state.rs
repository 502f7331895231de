//! The memory of this process about a canary between two reconciliations. A restart loses nothing that matters.
//!
//! The cadence is in the status. This process remembers only facts that the status does not record: ticks that were used up or that wait
//! for pods, the open step with its questions, the last change of the target, recent writes, obstacles, and the notifications that were
//! sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{
    repeated_writes::{Overruns, RepeatedWrites},
    status_writers::StatusWriters,
};
use crate::{
    notifications::Notification,
    rollout::Requeue,
    snapshot::{Changed, FutureTimes, ObjectRef, Progress, RefusedWrite, Step, Tick, last_tick},
};

/// A step that begins later than this after its tick is late. The time for which a version is observed then counts from its real start.
const PUNCTUAL: SignedDuration = SignedDuration::from_secs(2);
/// A step that is repeated later than this after its tick is late. Otherwise the next step, which is rarely repeated, would follow after
/// less than an interval.
const REPEATED: SignedDuration = SignedDuration::from_secs(1);

/// A step whose questions are being asked. A step outside the cadence has no tick.
#[derive(Clone, Copy, Debug)]
struct OpenStep(Option<Tick>);

/// The reason why a canary waits.
struct Obstacle {
    notifications: Vec<Notification>,
    /// The last tick with this obstacle.
    tick: Timestamp,
    /// The number of ticks in a row with this obstacle.
    ticks: u32,
}

/// The memory about one canary. It implements no `Debug`, because it may hold a Secret.
#[derive(Default)]
pub struct ReconcileState {
    /// The transition in the status that the ticks below count from. A new transition drops these ticks.
    transition: Option<Timestamp>,
    /// The times of the status that are in the future of this process's clock.
    pub future_times: FutureTimes,
    /// The last tick that was used up.
    done_tick: Option<Timestamp>,
    /// The first tick of the step that waits for pods.
    blocked_since: Option<Timestamp>,
    /// The objects that were written or refused without a trace in the status since this tick.
    recently_written: (Option<Timestamp>, BTreeSet<ObjectRef>),
    /// The write that the API server refused last, unless one of the same object has succeeded since.
    pub refused: Option<RefusedWrite>,
    /// The writes that other actors may have undone.
    pub repeated_writes: RepeatedWrites,
    /// The reconciliations in a row that reached no stable state.
    pub overruns: Overruns,
    /// Whether another operator writes the status, too.
    pub status_writers: StatusWriters,
    /// The step whose questions are being asked; no other step begins meanwhile.
    open_step: Option<OpenStep>,
    /// Whether the open step failed and has to be repeated.
    has_failed: bool,
    /// The new version as last seen, and the first and the last time it changed.
    version: Option<(String, Changed)>,
    /// The workloads that lack pods: the best progress of each in this rollout, and the time at which it was reached.
    lacking: BTreeMap<ObjectRef, (Progress, Timestamp)>,
    /// The step for which a notification had the reason of the wait, and the number of reminders so far.
    announced_wait: Option<(Step, u32)>,
    obstacle: Option<Obstacle>,
    /// The notifications that were sent in this step, so that none is sent twice.
    sent: Option<(Step, Vec<Notification>)>,
    /// The phase whose beginning was announced: when it was entered, and the text.
    announced_phase: Option<(Timestamp, String)>,
    /// When the questions of the open step were first asked.
    pub asked_at: Option<Timestamp>,
    /// The configs whose contents are needed now, as they were read.
    pub full_configs: BTreeMap<ObjectRef, Value>,
}

impl ReconcileState {
    /// Returns the tick of a reconciliation at `now`, or `None` if none has come.
    pub fn tick(
        &mut self,
        transition: Option<Timestamp>,
        interval: Duration,
        now: Timestamp,
    ) -> Option<Tick> {
        if self.transition != transition {
            *self = Self {
                transition,
                future_times: std::mem::take(&mut self.future_times),
                version: self.version.take(),
                lacking: std::mem::take(&mut self.lacking),
                sent: self.sent.take(),
                announced_wait: self.announced_wait.take(),
                announced_phase: self.announced_phase.take(),
                full_configs: std::mem::take(&mut self.full_configs),
                repeated_writes: std::mem::take(&mut self.repeated_writes),
                overruns: std::mem::take(&mut self.overruns),
                status_writers: std::mem::take(&mut self.status_writers),
                ..Self::default()
            };
        }
        if let Some(OpenStep(tick)) = self.open_step {
            // If a repeated step writes late and the next step does not, the version is observed for less than an interval in between.
            return tick.map(|tick| Tick {
                late: tick.late || (self.has_failed && now.duration_since(tick.at) > REPEATED),
                ..tick
            });
        }
        let at = last_tick(transition?, interval, now)?;
        if self.done_tick.is_some_and(|done| done >= at) {
            return None;
        }
        Some(Tick {
            at,
            late: self.blocked_since.is_some_and(|blocked| blocked <= at)
                || now.duration_since(at) > PUNCTUAL,
        })
    }

    /// Returns the objects that were written or refused since the last tick.
    pub fn recently_written(
        &mut self,
        transition: Option<Timestamp>,
        interval: Duration,
        now: Timestamp,
    ) -> BTreeSet<ObjectRef> {
        let tick = transition.and_then(|transition| last_tick(transition, interval, now));
        if self.recently_written.0 != tick {
            self.recently_written = (tick, BTreeSet::new());
        }
        self.recently_written.1.clone()
    }

    /// Records that an object was written, or that its write was refused. Returns whether this is the first time since the last tick.
    pub fn mark_written(&mut self, object: &ObjectRef) -> bool {
        self.recently_written.1.insert(object.clone())
    }

    /// The step of this tick asks questions.
    pub fn asks(&mut self, tick: Option<Tick>, now: Timestamp) {
        self.open_step = Some(OpenStep(tick));
        self.asked_at.get_or_insert(now);
    }

    /// A reconciliation failed and will be repeated.
    pub fn failed(&mut self) {
        self.has_failed = true;
    }

    /// A reconciliation ended without a write: the step waits, or its tick is used up.
    pub fn waited(&mut self, tick: Option<Tick>, requeue: Requeue) {
        self.open_step = None;
        self.has_failed = false;
        self.asked_at = None;
        let Some(tick) = tick else { return };
        match requeue {
            Requeue::Ready => self.blocked_since = self.blocked_since.or(Some(tick.at)),
            Requeue::AtTick | Requeue::Approval(_) => self.done_tick = Some(tick.at),
            Requeue::At(_) | Requeue::OnChange => {}
        }
    }

    /// The canary is idle: forgets the notifications that were sent, because thousands of idle canaries would keep them in memory.
    pub fn idle(&mut self) {
        self.sent = None;
        self.announced_wait = None;
        self.obstacle = None;
        self.announced_phase = None;
    }

    /// A plan was carried out: its step is over.
    pub fn step_ended(&mut self) {
        self.open_step = None;
        self.asked_at = None;
    }

    /// Returns when the new version of the target first and last changed; `None` if there is no new version. Several edits in a burst count
    /// from the first one.
    pub fn changed(&mut self, version: Option<String>, now: Timestamp) -> Option<Changed> {
        let before = self.version.take();
        let version = version?;
        let changed = match before {
            Some((same, changed)) if same == version => changed,
            Some((_, changed)) => Changed {
                first: changed.first,
                last: now,
            },
            None => Changed {
                first: now,
                last: now,
            },
        };
        self.version = Some((version, changed));
        Some(changed)
    }

    /// Returns, for each workload that lacks pods, the time since which it has got no further pod. `progress` has the current progress of
    /// these workloads.
    pub fn stalled(
        &mut self,
        progress: BTreeMap<ObjectRef, Progress>,
        now: Timestamp,
    ) -> BTreeMap<ObjectRef, Timestamp> {
        let mut before = std::mem::take(&mut self.lacking);
        for (workload, progress) in progress {
            let known = before
                .remove(&workload)
                .filter(|(most, _)| most.rollout == progress.rollout && most.pods >= progress.pods);
            self.lacking
                .insert(workload, known.unwrap_or((progress, now)));
        }
        let since = self.lacking.iter();
        since
            .map(|(workload, (_, since))| (workload.clone(), *since))
            .collect()
    }

    /// Returns the notifications of a wait that must be sent: only the first ones of each step, so that the progress of a rollout is not
    /// reported pod by pod. At a closed gate, the first ones and those of each reminder.
    pub fn unsent_of_wait(
        &mut self,
        step: &Step,
        requeue: Requeue,
        notifications: Vec<Notification>,
    ) -> Vec<Notification> {
        let wait = match requeue {
            Requeue::Approval(reminders) => (step.clone().at_any_tick(), reminders),
            Requeue::AtTick | Requeue::Ready | Requeue::At(_) | Requeue::OnChange => {
                (step.clone(), 0)
            }
        };
        let (announcements, mut notifications): (Vec<_>, Vec<_>) = notifications
            .into_iter()
            .partition(|notification| notification.announcement().is_some());
        if self.announced_wait.as_ref() == Some(&wait) {
            notifications.clear();
        } else if !notifications.is_empty() {
            self.announced_wait = Some(wait);
        }
        notifications.splice(..0, announcements);
        self.unsent(step, notifications)
    }

    /// Whether the same obstacle has lasted for 2, 4, 8 … ticks in a row. Then the objects are read again, to find out whether the obstacle
    /// still exists.
    pub fn obstacle_persists(
        &mut self,
        tick: Option<Tick>,
        requeue: Requeue,
        notifications: &[Notification],
    ) -> bool {
        let waits =
            matches!(requeue, Requeue::AtTick | Requeue::Ready) && !notifications.is_empty();
        let Some(Tick { at: tick, .. }) = tick.filter(|_| waits) else {
            return false;
        };
        match &mut self.obstacle {
            Some(obstacle) if obstacle.notifications == notifications => {
                let is_next = std::mem::replace(&mut obstacle.tick, tick) != tick;
                obstacle.ticks += u32::from(is_next);
                is_next && obstacle.ticks.is_power_of_two()
            }
            other => {
                *other = Some(Obstacle {
                    notifications: notifications.to_vec(),
                    tick,
                    ticks: 1,
                });
                false
            }
        }
    }

    /// Returns the notifications that were not sent in this step yet, and remembers them as sent.
    pub fn unsent(&mut self, step: &Step, notifications: Vec<Notification>) -> Vec<Notification> {
        if notifications.is_empty() {
            return notifications;
        }
        if self.sent.as_ref().is_none_or(|(of, _)| of != step) {
            self.sent = Some((step.clone(), Vec::new()));
        }
        let Some((_, sent)) = &mut self.sent else {
            return notifications;
        };
        let mut is_sent = |notification: &Notification| {
            let phase = notification
                .announcement()
                .map(|(at, text)| (at, text.to_owned()));
            let is_announced = phase.is_some()
                && std::mem::replace(&mut self.announced_phase, phase.clone()) == phase;
            is_announced || sent.contains(notification)
        };
        let mut unsent = notifications;
        unsent.retain(|notification| !is_sent(notification));
        sent.extend(unsent.iter().cloned());
        unsent
    }
}

#[cfg(test)]
mod tests;
