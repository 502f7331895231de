//! Writes that other actors undo. The operator repeats such a write with growing pauses, so that two managers of one object do not
//! overwrite each other all the time.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::snapshot::{ObjectRef, Snapshot, Write};

/// The longest pause between two equal writes, unless the interval of the canary is longer.
const LONGEST: Duration = Duration::from_secs(600);

/// The last write of each object, and how often it was repeated.
#[derive(Default)]
pub struct RepeatedWrites(BTreeMap<ObjectRef, Repeated>);

struct Repeated {
    /// The content that was written ([`Write::content`]).
    content: u64,
    /// How many writes in a row had this content.
    times: u32,
    /// When the content was written for the second time.
    undone: Option<Timestamp>,
    /// When the next write with this content may follow.
    next: Timestamp,
    /// When the object has kept its content for long enough to forget the writes.
    forgotten: Timestamp,
}

impl RepeatedWrites {
    /// Counts a write at `now`. Returns how many writes in a row gave the object this content. Any other content begins anew.
    pub fn count(&mut self, write: &Write, interval: Duration, now: Timestamp) -> u32 {
        let content = write.content();
        let known = self.0.get(&write.object);
        let known = known.filter(|known| known.content == content && now < known.forgotten);
        let times = known.map_or(1, |known| known.times.saturating_add(1));
        let undone = known.map(|known| known.undone.unwrap_or(now));
        let pause = pause(times, interval);
        let after = |pause| now.checked_add(pause).unwrap_or(now);
        let repeated = Repeated {
            content,
            times,
            undone,
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
            .filter(|known| known.content == write.content())
            .map_or(0, |known| known.times)
    }

    /// Returns the objects whose content was written again, because another actor had changed it, and the time of the first repeat.
    pub fn undone(&self) -> BTreeMap<ObjectRef, Timestamp> {
        let undone = self.0.iter();
        undone
            .filter_map(|(object, repeated)| Some((object.clone(), repeated.undone?)))
            .collect()
    }

    /// Returns the contents that are not written now, because another actor undoes them again and again.
    pub fn paused(&mut self, now: Timestamp) -> BTreeMap<ObjectRef, u64> {
        self.0.retain(|_, repeated| now < repeated.forgotten);
        let paused = self.0.iter().filter(|(_, repeated)| now < repeated.next);
        paused
            .map(|(object, repeated)| (object.clone(), repeated.content))
            .collect()
    }
}

/// Reconciliations that reached no stable state, although each plan was decided on the result of the plan before: after each write, another
/// actor changes the object, each time to another content.
#[derive(Default)]
pub struct Overruns {
    times: u32,
    /// The end of the pause, and the Canary for which it holds.
    pause: Option<(Timestamp, Demand)>,
}

/// The generation of a Canary, and whether it is deleted.
type Demand = (Option<i64>, bool);

fn demand(snapshot: &Snapshot) -> Demand {
    let metadata = &snapshot.canary.metadata;
    (metadata.generation, metadata.deletion_timestamp.is_some())
}

impl Overruns {
    /// Counts such a reconciliation. Returns for how long the canary is not reconciled: `shortest` at first, then longer each time.
    pub fn count(&mut self, snapshot: &Snapshot, shortest: Duration) -> Duration {
        self.times = self.times.saturating_add(1);
        let pause = pause(self.times, shortest).max(shortest);
        let end = snapshot.now.checked_add(pause).ok();
        self.pause = end.map(|end| (end, demand(snapshot)));
        pause
    }

    /// Returns for how long the canary is still not reconciled. A change or a deletion of the Canary ends this pause.
    pub fn rest(&self, snapshot: &Snapshot) -> Option<Duration> {
        let (end, of) = self.pause?;
        let rest = Duration::try_from(end.duration_since(snapshot.now)).ok()?;
        (of == demand(snapshot) && !rest.is_zero()).then_some(rest)
    }

    /// A reconciliation has reached a stable state.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The pause after this many equal writes. The first repeat may follow at once, because the other actor may not undo it again.
fn pause(times: u32, interval: Duration) -> Duration {
    let doublings = times.saturating_sub(1);
    if doublings == 0 {
        return Duration::ZERO;
    }
    interval
        .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
        .min(LONGEST.max(interval))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;
    use crate::{
        api::canary::Canary,
        cli,
        shell::controller::observe::empty_snapshot,
        snapshot::{Action, Kind},
    };

    const INTERVAL: Duration = Duration::from_secs(10);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn replace(version: u32, app: &str) -> Write {
        let metadata =
            json!({"name": "web", "resourceVersion": version.to_string(), "generation": version});
        let spec = json!({"selector": {"app": app}});
        let object = json!({"metadata": metadata, "spec": spec, "status": {"seen": version}});
        Write {
            object: ObjectRef {
                kind: Kind::Service,
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
            },
            action: Action::Replace(object),
            failure: String::new(),
        }
    }

    #[test]
    fn a_write_that_is_undone_again_and_again_gets_growing_pauses_up_to_a_bound() {
        let mut writes = RepeatedWrites::default();
        let (mut now, mut pauses) = (at(0), vec![]);
        for version in 1..=9 {
            let write = replace(version, "web-primary");
            assert_eq!(writes.count(&write, INTERVAL, now), version);
            let written = now;
            while writes.paused(now).get(&write.object) == Some(&write.content()) {
                now += SignedDuration::from_secs(1);
            }
            pauses.push(now.duration_since(written).as_secs());
        }
        assert_eq!(pauses, [0, 20, 40, 80, 160, 320, 600, 600, 600]);
    }

    #[test]
    fn another_content_begins_anew() {
        let mut writes = RepeatedWrites::default();
        for version in 1..=3 {
            writes.count(&replace(version, "web-primary"), INTERVAL, at(0));
        }
        assert_eq!(writes.times(&replace(4, "web-primary")), 3);
        assert_eq!(writes.times(&replace(4, "web")), 0);
        assert_eq!(writes.count(&replace(4, "web"), INTERVAL, at(1)), 1);
        assert!(writes.paused(at(1)).is_empty());
    }

    #[test]
    fn a_write_that_held_for_two_pauses_is_forgotten() {
        let mut writes = RepeatedWrites::default();
        let write = replace(1, "web");
        writes.count(&write, INTERVAL, at(0));
        assert_eq!(writes.count(&write, INTERVAL, at(20)), 1);
        assert_eq!(writes.count(&write, INTERVAL, at(39)), 2);
        assert_eq!(writes.count(&write, INTERVAL, at(39 + 40)), 1);
        assert!(writes.paused(at(1000)).is_empty());
        assert!(writes.0.is_empty());
    }

    /// A snapshot of this second, of a Canary with this generation.
    fn snapshot(second: i64, generation: i64) -> Snapshot {
        let reference = ObjectRef {
            kind: Kind::Canary,
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        };
        let Ok(cli::Command::Run(config)) = cli::parse([], |_| None) else {
            panic!("the operator runs without arguments")
        };
        let mut canary = Canary::default();
        canary.metadata.generation = Some(generation);
        let mut snapshot = empty_snapshot(canary, &reference, &Arc::new(config.settings));
        snapshot.now = at(second);
        snapshot
    }

    #[test]
    fn a_canary_that_reaches_no_stable_state_is_left_alone_for_longer_each_time() {
        const SHORTEST: Duration = Duration::from_secs(15);
        let mut overruns = Overruns::default();
        assert_eq!(overruns.rest(&snapshot(0, 1)), None);
        let pauses = [1, 2, 3].map(|_| overruns.count(&snapshot(0, 1), SHORTEST).as_secs());
        assert_eq!(pauses, [15, 30, 60]);
        let rest = overruns.rest(&snapshot(59, 1));
        assert_eq!(rest, Some(Duration::from_secs(1)));
        assert_eq!(overruns.rest(&snapshot(60, 1)), None);
        overruns.reset();
        assert_eq!(overruns.count(&snapshot(100, 1), SHORTEST).as_secs(), 15);
    }

    #[test]
    fn a_change_or_a_deletion_of_the_canary_ends_its_pause() {
        let mut overruns = Overruns::default();
        overruns.count(&snapshot(0, 1), Duration::from_secs(15));
        assert!(overruns.rest(&snapshot(1, 1)).is_some());
        assert_eq!(overruns.rest(&snapshot(1, 2)), None);
        let mut deleted = snapshot(1, 1);
        deleted.canary.metadata.deletion_timestamp = Some(Time(at(1)));
        assert_eq!(overruns.rest(&deleted), None);
    }
}
