//! The requests of the primary's pods in each minute of the past.

use std::{collections::BTreeMap, ops::Range};

use crate::{
    comparison::Counts,
    metrics::counting::minutes::{Minutes, Tally},
};

/// The seconds of a minute.
const MINUTE: i64 = 60;
/// The minutes within which Prometheus has scraped all pods for the first time.
const SETTLING: i64 = 5;

/// The requests of each pod, minute by minute.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The minutes without a gap until now: the first one, and the last one.
    seen: Option<(i64, i64)>,
    pods: Vec<String>,
    places: BTreeMap<String, usize>,
    /// The last counters of each pod, and their minute.
    last: Vec<(i64, Tally)>,
    minutes: BTreeMap<i64, Vec<(usize, Tally)>>,
}

impl History {
    /// Adds counters, which must be newer than all before. A pod that is new began with 0, unless it may have been there before Prometheus saw it: in
    /// the first minutes of all, and in those after a gap. A counter that went back tells no number of requests.
    pub fn add(&mut self, counters: Minutes) {
        for (seconds, pods) in counters {
            let minute = seconds.div_euclid(MINUTE);
            let since = match self.seen {
                Some((since, last)) if minute <= last + 1 => since,
                Some(_) | None => minute,
            };
            self.seen = Some((since, minute));
            for (pod, now) in pods {
                let Some(pod) = self.places.get(&pod).copied() else {
                    let place = self.pods.len();
                    self.places.insert(pod.clone(), place);
                    self.pods.push(pod);
                    if minute > since + SETTLING {
                        self.minutes
                            .entry(minute)
                            .or_default()
                            .push((place, now.clone()));
                    }
                    self.last.push((minute, now));
                    continue;
                };
                let (before, last) = &self.last[pod];
                if minute <= *before {
                    continue;
                }
                let is_next = minute == before + 1;
                if let Some(grown) = growth(last, &now).filter(|_| is_next) {
                    self.minutes.entry(minute).or_default().push((pod, grown));
                }
                self.last[pod] = (minute, now);
            }
        }
    }

    /// The greatest number of pods in a minute of these.
    pub fn most_pods(&self, minutes: Range<i64>) -> usize {
        let minutes = self.minutes.range(minutes);
        minutes.map(|(_, pods)| pods.len()).max().unwrap_or(0)
    }

    /// Whether all counters are those of the workload's pods. Those of a gateway or a waypoint have no name.
    pub fn knows_pods(&self) -> bool {
        self.pods.iter().all(|pod| !pod.is_empty())
    }

    /// The name of a pod.
    pub fn pod(&self, pod: usize) -> &str {
        &self.pods[pod]
    }

    /// The requests of each pod in a minute since 1970.
    pub fn minute(&self, minute: i64) -> &[(usize, Tally)] {
        self.minutes.get(&minute).map_or(&[], Vec::as_slice)
    }

    /// The first minute with counters of a pod, and the last one.
    pub fn ends(&self) -> Option<(i64, i64)> {
        let first = self.minutes.first_key_value()?;
        let last = self.minutes.last_key_value()?;
        Some((*first.0, *last.0))
    }

    /// The requests of all minutes by one criterion, minute by minute.
    pub fn blocks(&self, criterion: usize) -> Vec<Counts> {
        let of_minute = |pods: &Vec<(usize, Tally)>| {
            let pods = pods.iter().map(|(_, tally)| counts(tally, criterion));
            pods.fold(Counts::NONE, Counts::and)
        };
        self.minutes.values().map(of_minute).collect()
    }
}

/// The counts by one criterion.
pub fn counts(tally: &Tally, criterion: usize) -> Counts {
    let bad = tally.bad.get(criterion).copied().unwrap_or(0.0);
    Counts::new(tally.all, bad.min(tally.all)).unwrap_or_default()
}

/// The requests between two values of counters; `None` if one went back.
fn growth(before: &Tally, now: &Tally) -> Option<Tally> {
    let all = now.all - before.all;
    let bad = before.bad.iter().zip(&now.bad);
    let bad: Vec<_> = bad.map(|(before, now)| now - before).collect();
    let is_growth = all >= 0.0 && bad.iter().all(|bad| (0.0..=all).contains(bad));
    is_growth.then_some(Tally { all, bad })
}
