//! What one process remembers of a canary between two looks: nothing that a restart would miss.
//!
//! The cadence stands in the status; remembered is only which tick was used up without a trace there, which one waits for pods,
//! since when the target is as it is, and what was told.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    notifications::Notification,
    rollout::Requeue,
    snapshot::{Changed, ObjectRef, Step, Tick, last_tick},
};

/// A step that begins later than this after its tick had to wait: the time that a version is watched for is counted from then.
const PUNCTUAL: SignedDuration = SignedDuration::from_secs(2);

/// The tick of a step under way; a step outside the cadence has none.
#[derive(Clone, Copy, Debug)]
struct Open(Option<Tick>);

/// What stands in the way of a canary.
struct Standing {
    notifications: Vec<Notification>,
    /// The last tick at which it did, and at how many in a row.
    tick: Timestamp,
    ticks: u32,
}

/// The memory of one canary. (No `Debug`: it may hold a Secret.)
#[derive(Default)]
pub struct Memory {
    /// What the rest of the tick-keeping is about: forgotten when the status moves on.
    transition: Option<Timestamp>,
    /// The last tick that was used up.
    served: Option<Timestamp>,
    /// The tick from which on a step waits for pods.
    blocked: Option<Timestamp>,
    /// What was written or refused without a trace in the status, and in which tick's time.
    recently_written: (Option<Timestamp>, BTreeSet<ObjectRef>),
    /// The tick of the step whose questions are being asked: no other begins meanwhile.
    open: Option<Open>,
    /// Whether what was begun at the open tick has to be done again.
    interrupted: bool,
    /// The new version as last seen, and when there was first and last a different one.
    version: Option<(String, Changed)>,
    /// The step of which it was told why it waits, and how many reminders of it there were.
    waits: Option<(Step, u32)>,
    /// What stands in its way.
    standing: Option<Standing>,
    /// What was told in which step, so that it is told once.
    told: Option<(Step, Vec<Notification>)>,
    /// The phase of whose beginning it was told, by when it was entered, and how.
    opened: Option<(Timestamp, String)>,
    /// When the questions of the step under way were first asked.
    pub asked_at: Option<Timestamp>,
    /// Configs whose content matters now, as they were read.
    pub full_configs: BTreeMap<ObjectRef, Value>,
}

impl Memory {
    /// The tick that a look now serves.
    pub fn tick(
        &mut self,
        transition: Option<Timestamp>,
        interval: std::time::Duration,
        now: Timestamp,
    ) -> Option<Tick> {
        if self.transition != transition {
            *self = Self {
                transition,
                version: self.version.take(),
                told: self.told.take(),
                waits: self.waits.take(),
                opened: self.opened.take(),
                full_configs: std::mem::take(&mut self.full_configs),
                ..Self::default()
            };
        }
        if let Some(Open(open)) = self.open {
            // What is written late leaves a version less time than an interval, if the next step does not come as late.
            return open.map(|tick| Tick {
                late: tick.late || (self.interrupted && now.duration_since(tick.at) > PUNCTUAL),
                ..tick
            });
        }
        let at = last_tick(transition?, interval, now)?;
        if self.served.is_some_and(|served| served >= at) {
            return None;
        }
        Some(Tick {
            at,
            late: self.blocked.is_some_and(|blocked| blocked <= at)
                || now.duration_since(at) > PUNCTUAL,
        })
    }

    /// What was written or refused since the last tick.
    pub fn recently_written(
        &mut self,
        transition: Option<Timestamp>,
        interval: std::time::Duration,
        now: Timestamp,
    ) -> BTreeSet<ObjectRef> {
        let tick = transition.and_then(|transition| last_tick(transition, interval, now));
        if self.recently_written.0 != tick {
            self.recently_written = (tick, BTreeSet::new());
        }
        self.recently_written.1.clone()
    }

    /// An object was written or refused; whether that is news.
    pub fn mark_written(&mut self, object: &ObjectRef) -> bool {
        self.recently_written.1.insert(object.clone())
    }

    /// Questions are being asked in the step of this tick.
    pub fn asking(&mut self, tick: Option<Tick>, now: Timestamp) {
        self.open = Some(Open(tick));
        self.asked_at.get_or_insert(now);
    }

    /// A look came to nothing: what it was to do is done at another.
    pub fn interrupted(&mut self) {
        self.interrupted = true;
    }

    /// A look ended without a write: what that means for its tick.
    pub fn waited(&mut self, tick: Option<Tick>, requeue: Requeue) {
        self.open = None;
        self.interrupted = false;
        self.asked_at = None;
        let Some(tick) = tick else { return };
        match requeue {
            Requeue::Ready => self.blocked = self.blocked.or(Some(tick.at)),
            Requeue::AtTick | Requeue::Approval(_) => self.served = Some(tick.at),
            Requeue::At(_) | Requeue::OnChange => {}
        }
    }

    /// Nothing is under way and nothing is to be said: of thousands that rest, what was told before is not kept.
    pub fn rests(&mut self) {
        (self.told, self.waits, self.standing, self.opened) = (None, None, None, None);
    }

    /// A plan was carried out: its step is over.
    pub fn done(&mut self) {
        self.open = None;
        self.asked_at = None;
    }

    /// Since when the target is the new version that it is now, if it is one; two edits within a burst count from the first.
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

    /// Of these notices of a wait, those to tell: the first of each step, so that a roll-out's progress is not told pod by pod; at a
    /// closed gate the first, and those of each reminder.
    pub fn untold_wait(
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
        let (opening, mut notifications): (Vec<_>, Vec<_>) = notifications
            .into_iter()
            .partition(|notification| notification.opening().is_some());
        if self.waits.as_ref() == Some(&wait) {
            notifications.clear();
        } else if !notifications.is_empty() {
            self.waits = Some(wait);
        }
        notifications.splice(..0, opening);
        self.untold(step, notifications)
    }

    /// Whether the same stands in the way for so many ticks in a row that it is time to look whether it does: two, four, eight …
    pub fn stands_still(
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
        match &mut self.standing {
            Some(standing) if standing.notifications == notifications => {
                let is_next = std::mem::replace(&mut standing.tick, tick) != tick;
                standing.ticks += u32::from(is_next);
                is_next && standing.ticks.is_power_of_two()
            }
            other => {
                let notifications = notifications.to_vec();
                let ticks = 1;
                *other = Some(Standing {
                    notifications,
                    tick,
                    ticks,
                });
                false
            }
        }
    }

    /// Of these notices, those that were not told in this step yet.
    pub fn untold(&mut self, step: &Step, notifications: Vec<Notification>) -> Vec<Notification> {
        if notifications.is_empty() {
            return notifications;
        }
        if self.told.as_ref().is_none_or(|(of, _)| of != step) {
            self.told = Some((step.clone(), Vec::new()));
        }
        let Some((_, told)) = &mut self.told else {
            return notifications;
        };
        let mut is_told = |notification: &Notification| {
            let phase = notification
                .opening()
                .map(|(at, text)| (at, text.to_owned()));
            let is_opened =
                phase.is_some() && std::mem::replace(&mut self.opened, phase.clone()) == phase;
            is_opened || told.contains(notification)
        };
        let mut new = notifications;
        new.retain(|notification| !is_told(notification));
        told.extend(new.iter().cloned());
        new
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_due_is_served_once_and_the_next_comes_an_interval_later() {
        let mut memory = Memory::default();
        let mut tick = |now| {
            memory
                .tick(Some(at(0)), INTERVAL, at(now))
                .map(|tick| tick.at)
        };
        assert_eq!(tick(9), None);
        assert_eq!(tick(10), Some(at(10)));
        memory.waited(
            Some(Tick {
                at: at(10),
                late: false,
            }),
            Requeue::AtTick,
        );
        assert_eq!(memory.tick(Some(at(0)), INTERVAL, at(19)), None);
        assert_eq!(
            memory
                .tick(Some(at(0)), INTERVAL, at(20))
                .map(|tick| tick.at),
            Some(at(20))
        );
    }

    #[test]
    fn a_step_whose_answers_are_slow_does_not_begin_a_second_time() {
        let mut memory = Memory::default();
        let tick = memory.tick(Some(at(0)), INTERVAL, at(10));
        memory.asking(tick, at(10));
        assert_eq!(memory.tick(Some(at(0)), INTERVAL, at(45)), tick);
        assert_eq!(
            memory.tick(Some(at(45)), INTERVAL, at(46)),
            None,
            "a write ends it"
        );
    }

    #[test]
    fn a_step_whose_write_has_to_be_repeated_is_late() {
        let mut memory = Memory::default();
        let tick = memory.tick(Some(at(0)), INTERVAL, at(10));
        memory.asking(tick, at(10));
        memory.interrupted();
        let late = |tick: Option<Tick>| tick.map(|tick| tick.late);
        assert_eq!(
            late(memory.tick(Some(at(0)), INTERVAL, at(11))),
            Some(false)
        );
        assert_eq!(late(memory.tick(Some(at(0)), INTERVAL, at(14))), Some(true));
    }

    #[test]
    fn a_step_that_waited_for_pods_is_late() {
        let mut memory = Memory::default();
        let tick = memory.tick(Some(at(0)), INTERVAL, at(10));
        memory.waited(tick, Requeue::Ready);
        assert_eq!(
            memory.tick(Some(at(0)), INTERVAL, at(13)),
            Some(Tick {
                at: at(10),
                late: true
            })
        );
    }

    #[test]
    fn a_burst_of_edits_counts_from_its_first() {
        let mut memory = Memory::default();
        let mut seen = |version: &str, second| memory.changed(Some(version.to_owned()), at(second));
        assert_eq!(
            seen("b", 1),
            Some(Changed {
                first: at(1),
                last: at(1)
            })
        );
        assert_eq!(
            seen("c", 2),
            Some(Changed {
                first: at(1),
                last: at(2)
            })
        );
        assert_eq!(
            seen("c", 3),
            Some(Changed {
                first: at(1),
                last: at(2)
            })
        );
        assert_eq!(memory.changed(None, at(4)), None);
        let again = memory.changed(Some("c".to_owned()), at(5));
        assert_eq!(
            again.map(|changed| changed.first),
            Some(at(5)),
            "a burst of its own"
        );
    }
}
