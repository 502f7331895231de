//! Writes that other actors undo. The operator repeats such a write with growing pauses, so that two managers of one object do not fight
//! without end.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use crate::snapshot::{Action, ObjectRef, Write};

/// The longest pause between two equal writes, unless the interval of the canary is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// The fields of an object that the API server changes with each write.
const VERSIONS: [&str; 2] = ["resourceVersion", "generation"];

/// The last write of each object, and how often it was repeated.
#[derive(Default)]
pub struct RepeatedWrites(BTreeMap<ObjectRef, Repeated>);

struct Repeated {
    /// A checksum of the content that was written.
    content: u64,
    /// How many writes in a row had this content.
    times: u32,
    /// When the next write with this content may follow.
    next: Timestamp,
    /// When the object has kept its content for long enough to forget the writes.
    forgotten: Timestamp,
}

impl RepeatedWrites {
    /// Counts a write at `now`. Returns how many writes in a row gave the object this content. Any other content begins anew.
    pub fn count(&mut self, write: &Write, interval: Duration, now: Timestamp) -> u32 {
        let content = content(&write.action);
        let known = self.0.get(&write.object);
        let times = known
            .filter(|known| known.content == content && now < known.forgotten)
            .map_or(1, |known| known.times.saturating_add(1));
        let pause = pause(times, interval);
        let after = |pause| now.checked_add(pause).unwrap_or(now);
        let repeated = Repeated {
            content,
            times,
            next: after(pause),
            forgotten: after(pause.max(interval).saturating_mul(2)),
        };
        self.0.insert(write.object.clone(), repeated);
        times
    }

    /// Returns how many writes in a row gave the object the content of this one.
    pub fn times(&self, write: &Write) -> u32 {
        let known = self.0.get(&write.object);
        known
            .filter(|known| known.content == content(&write.action))
            .map_or(0, |known| known.times)
    }

    /// Returns the objects whose writes are undone again and again, and that are left alone now.
    pub fn paused(&mut self, now: Timestamp) -> impl Iterator<Item = &ObjectRef> {
        self.0.retain(|_, repeated| now < repeated.forgotten);
        let paused = move |(_, repeated): &(&ObjectRef, &Repeated)| now < repeated.next;
        self.0.iter().filter(paused).map(|(object, _)| object)
    }

    /// Returns when this write may follow; `None` if it may follow now.
    pub fn pause_of(&self, write: &Write, now: Timestamp) -> Option<Timestamp> {
        let repeated = self.0.get(&write.object)?;
        (now < repeated.next && repeated.content == content(&write.action)).then_some(repeated.next)
    }
}

/// Reconciliations that reached no stable state, although each plan was decided on the result of the one before: another actor changes
/// what is written each time, to something else each time.
#[derive(Default)]
pub struct Overruns {
    times: u32,
    end: Option<Timestamp>,
}

impl Overruns {
    /// Counts such a reconciliation. Returns how long the canary is left alone now, whatever changes: longer each time.
    pub fn count(&mut self, shortest: Duration, now: Timestamp) -> Duration {
        self.times = self.times.saturating_add(1);
        let pause = pause(self.times, shortest).max(shortest);
        self.end = now.checked_add(pause).ok();
        pause
    }

    /// Returns for how long the canary is still left alone.
    pub fn rest(&self, now: Timestamp) -> Option<Duration> {
        let rest = self.end?.duration_since(now);
        Duration::try_from(rest).ok().filter(|rest| !rest.is_zero())
    }

    /// A reconciliation has reached a stable state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The pause after this many equal writes. The first one may be repeated at once: whoever made it necessary may not do so again.
fn pause(times: u32, interval: Duration) -> Duration {
    let doublings = times.saturating_sub(1);
    if doublings == 0 {
        return Duration::ZERO;
    }
    interval
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(LONGEST.max(interval))
}

/// A checksum of what a write changes, whichever version of the object it is conditional on.
fn content(action: &Action) -> u64 {
    let mut hasher = DefaultHasher::new();
    match action {
        Action::Create(object) | Action::Replace(object) => {
            for (field, value) in object.as_object().into_iter().flatten() {
                match (field.as_str(), value) {
                    ("status", _) => {}
                    ("metadata", Value::Object(metadata)) => metadata
                        .iter()
                        .filter(|(key, _)| !VERSIONS.contains(&key.as_str()))
                        .for_each(|(key, value)| (key, value.to_string()).hash(&mut hasher)),
                    (field, value) => (field, value.to_string()).hash(&mut hasher),
                }
            }
        }
        Action::Patch(patch) => patch
            .as_array()
            .into_iter()
            .flatten()
            .filter(|operation| operation["op"] != "test")
            .for_each(|operation| operation.to_string().hash(&mut hasher)),
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::Kind;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn write(name: &str, action: Action) -> Write {
        let object = ObjectRef {
            kind: Kind::Service,
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        Write {
            object,
            action,
            failure: String::new(),
        }
    }

    fn replace(version: u32, app: &str) -> Write {
        let metadata =
            json!({"name": "web", "resourceVersion": version.to_string(), "generation": version});
        let spec = json!({"selector": {"app": app}});
        let object = json!({"metadata": metadata, "spec": spec, "status": {"seen": version}});
        write("web", Action::Replace(object))
    }

    #[test]
    fn a_write_that_is_undone_again_and_again_gets_growing_pauses_up_to_a_bound() {
        let mut writes = RepeatedWrites::default();
        let (mut now, mut pauses) = (at(0), vec![]);
        for version in 1..=9 {
            let write = replace(version, "web-primary");
            assert_eq!(writes.pause_of(&write, now), None);
            assert_eq!(writes.count(&write, INTERVAL, now), version);
            let next = writes.pause_of(&write, now).unwrap_or(now);
            pauses.push(next.duration_since(now).as_secs());
            if next > now {
                assert_eq!(writes.paused(now).count(), 1);
                now = next;
            }
            assert_eq!(writes.paused(now).count(), 0);
        }
        assert_eq!(pauses, [0, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    #[test]
    fn another_content_or_another_object_is_not_held_up() {
        let mut writes = RepeatedWrites::default();
        for version in 1..=3 {
            writes.count(&replace(version, "web-primary"), INTERVAL, at(0));
        }
        assert!(writes.pause_of(&replace(4, "web-primary"), at(1)).is_some());
        assert_eq!(writes.pause_of(&replace(4, "web"), at(1)), None);
        let other = write("other", replace(4, "web-primary").action);
        assert_eq!(writes.pause_of(&other, at(1)), None);
        assert_eq!(writes.count(&replace(4, "web"), INTERVAL, at(1)), 1);
    }

    #[test]
    fn a_write_that_held_for_two_pauses_is_forgotten() {
        let mut writes = RepeatedWrites::default();
        let write = replace(1, "web");
        writes.count(&write, INTERVAL, at(0));
        assert_eq!(writes.count(&write, INTERVAL, at(20)), 1);
        assert_eq!(writes.count(&write, INTERVAL, at(39)), 2);
        assert_eq!(writes.count(&write, INTERVAL, at(39 + 40)), 1);
        assert_eq!(writes.paused(at(1000)).count(), 0);
        assert!(writes.0.is_empty());
    }

    #[test]
    fn a_canary_that_reaches_no_stable_state_is_left_alone_for_longer_each_time() {
        let mut overruns = Overruns::default();
        assert_eq!(overruns.rest(at(0)), None);
        let pauses = [1, 2, 3].map(|_| overruns.count(Duration::from_secs(15), at(0)).as_secs());
        assert_eq!(pauses, [15, 30, 60]);
        assert_eq!(overruns.rest(at(59)), Some(Duration::from_secs(1)));
        assert_eq!(overruns.rest(at(60)), None);
        overruns.reset();
        assert_eq!(
            overruns.count(Duration::from_secs(15), at(100)).as_secs(),
            15
        );
    }

    #[test]
    fn patches_are_equal_if_they_change_the_same_whatever_they_test() {
        let patch = |generation: u32, replicas: u32| {
            let test = json!({"op": "test", "path": "/metadata/generation", "value": generation});
            let add = json!({"op": "add", "path": "/spec/replicas", "value": replicas});
            content(&Action::Patch(json!([test, add])))
        };
        assert_eq!(patch(1, 2), patch(7, 2));
        assert_ne!(patch(1, 2), patch(1, 3));
    }
}
