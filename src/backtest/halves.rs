//! A run in which nothing is wrong, made of the past: half of the primary's pods stand for the canary, the others for the primary.

use std::collections::BTreeMap;

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rand_distr::{Binomial, Distribution};

use super::history::{History, counts};
use crate::{
    comparison::{Counts, counters::Reading},
    metrics::counting::minutes::Tally,
};

/// The minutes before a run from which the primary's usual requests are known.
pub const BEFORE: i64 = 60;

/// The requests of each pod.
type Pods = BTreeMap<usize, Tally>;

/// Both halves of a run. Runs of one seed have the same halves, whoever judges them.
pub struct Halves<'a> {
    history: &'a History,
    /// Draws requests.
    requests: SmallRng,
    /// Draws pods.
    pods: SmallRng,
    /// The half of each pod, by its place in the history; `None` if there is one pod only, so that each request is drawn.
    of_pods: Option<BTreeMap<usize, Half>>,
    /// The canary's share of the requests of the hour before.
    share: f64,
    /// The share of the canary's good requests that are made bad.
    increase: f64,
    /// The requests of the canary since the start, and those of the primary since an hour before it.
    totals: [Pods; 2],
    /// The primary's requests in each minute of the hour before the run.
    hour: Vec<Tally>,
}

/// A half, as a place in pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Canary = 0,
    Primary = 1,
}

impl<'a> Halves<'a> {
    /// The halves of a run from this minute on; `None` if one half had no requests in the hour before.
    pub fn of(history: &'a History, start: i64, seed: u64, increase: f64) -> Option<Self> {
        let hour = start - BEFORE..start;
        let has_pods = history.most_pods(hour.clone()) > 1;
        let mut halves = Self {
            history,
            requests: SmallRng::seed_from_u64(seed),
            pods: SmallRng::seed_from_u64(seed),
            of_pods: has_pods.then(BTreeMap::new),
            share: 0.5,
            increase,
            totals: [Pods::new(), Pods::new()],
            hour: Vec::new(),
        };
        let mut canary = 0.0;
        for minute in hour {
            let [of_canary, of_primary] = halves.split(minute);
            canary += total(&of_canary).all;
            halves.hour.push(total(&of_primary));
            add(&mut halves.totals[1], of_primary);
        }
        let primary = total(&halves.totals[1]).all;
        halves.share = canary / (canary + primary);
        (canary > 0.0 && primary > 0.0).then_some(halves)
    }

    /// The primary's requests in each minute of the hour before the run, by one criterion.
    pub fn hour(&self, criterion: usize) -> Vec<Counts> {
        let minutes = self.hour.iter();
        minutes.map(|minute| counts(minute, criterion)).collect()
    }

    /// Lets a minute pass in which the canary gets this share of the requests. As many requests of one half are left out as that needs.
    pub fn pass(&mut self, minute: i64, share: f64) {
        let (wanted, real) = (share / (1.0 - share), self.share / (1.0 - self.share));
        let [mut canary, mut primary] = self.split(minute);
        for tally in canary.values_mut() {
            *tally = drawn(&mut self.requests, tally, wanted / real);
            *tally = spoilt(&mut self.requests, tally, self.increase);
        }
        for tally in primary.values_mut() {
            *tally = drawn(&mut self.requests, tally, real / wanted);
        }
        let [canaries, primaries] = &mut self.totals;
        add(canaries, canary);
        add(primaries, primary);
    }

    /// The counters of the canary, and of the primary, by one criterion.
    pub fn readings(&self, criterion: usize) -> [Reading; 2] {
        self.totals.each_ref().map(|pods| {
            let of = |(pod, tally): (&usize, &Tally)| {
                let name = self.history.pod(*pod).to_owned();
                (name, counts(tally, criterion))
            };
            pods.iter().map(of).collect()
        })
    }

    /// The requests of the canary since the start of the run, by each criterion.
    pub fn canary(&self) -> Tally {
        total(&self.totals[0])
    }

    /// The requests of both halves in a minute.
    fn split(&mut self, minute: i64) -> [Pods; 2] {
        self.place(minute);
        let mut halves = [Pods::new(), Pods::new()];
        for (pod, tally) in self.history.minute(minute) {
            if let Some(of_pods) = &self.of_pods {
                let half = of_pods.get(pod).copied().unwrap_or(Half::Primary);
                halves[half as usize].insert(*pod, tally.clone());
            } else {
                let canary = drawn(&mut self.requests, tally, 0.5);
                halves[1].insert(*pod, less(tally, &canary));
                halves[0].insert(*pod, canary);
            }
        }
        halves
    }

    /// Draws the half of each pod that is new in a minute. The half with fewer pods gets it: a pod that is replaced must not leave one half
    /// without requests.
    fn place(&mut self, minute: i64) {
        let Some(of_pods) = &mut self.of_pods else {
            return;
        };
        let pods = self.history.minute(minute).iter().map(|(pod, _)| *pod);
        let (known, mut new): (Vec<_>, Vec<_>) = pods.partition(|pod| of_pods.contains_key(pod));
        // Each metric may know the pods in another order, and must have the same halves.
        new.sort_by_key(|pod| self.history.pod(*pod));
        new.shuffle(&mut self.pods);
        let of_canary = known
            .iter()
            .filter(|pod| of_pods[pod] == Half::Canary)
            .count();
        let (mut canary, mut primary) = (of_canary, known.len() - of_canary);
        for pod in new {
            let half = if canary < primary {
                Half::Canary
            } else {
                Half::Primary
            };
            match half {
                Half::Canary => canary += 1,
                Half::Primary => primary += 1,
            }
            of_pods.insert(pod, half);
        }
    }
}

fn total(pods: &Pods) -> Tally {
    pods.values().fold(Tally::default(), |mut sum, tally| {
        plus(&mut sum, tally);
        sum
    })
}

fn add(totals: &mut Pods, pods: Pods) {
    for (pod, tally) in pods {
        plus(totals.entry(pod).or_default(), &tally);
    }
}

fn plus(sum: &mut Tally, tally: &Tally) {
    sum.all += tally.all;
    sum.bad.resize(tally.bad.len().max(sum.bad.len()), 0.0);
    for (sum, bad) in sum.bad.iter_mut().zip(&tally.bad) {
        *sum += bad;
    }
}

fn less(tally: &Tally, other: &Tally) -> Tally {
    let bad = tally.bad.iter().zip(&other.bad);
    Tally {
        all: tally.all - other.all,
        bad: bad.map(|(one, other)| one - other).collect(),
    }
}

/// The requests that are bad by no criterion, by the first one only, by the first two, and so on. Criteria are nested: a request that is slower
/// than a bound is slower than each lower one.
fn parts(tally: &Tally) -> Vec<f64> {
    let above = std::iter::once(tally.all).chain(tally.bad.iter().copied());
    let below = tally.bad.iter().copied().chain([0.0]);
    let parts = above.zip(below);
    parts
        .map(|(above, below)| (above - below).max(0.0))
        .collect()
}

/// The opposite of [`parts`].
fn whole(parts: &[f64]) -> Tally {
    let mut sums: Vec<_> = parts
        .iter()
        .rev()
        .scan(0.0, |sum, part| {
            *sum += part;
            Some(*sum)
        })
        .collect();
    let all = sums.pop().unwrap_or(0.0);
    sums.reverse();
    Tally { all, bad: sums }
}

/// The requests of which each is kept with this probability.
fn drawn(random: &mut impl Rng, tally: &Tally, probability: f64) -> Tally {
    if probability >= 1.0 {
        return tally.clone();
    }
    let parts = parts(tally).into_iter();
    let parts: Vec<_> = parts
        .map(|part| binomial(random, part, probability))
        .collect();
    whole(&parts)
}

/// The requests, of which each good one becomes bad by all criteria with this probability.
fn spoilt(random: &mut impl Rng, tally: &Tally, probability: f64) -> Tally {
    let mut parts = parts(tally);
    let Some((last, others)) = parts.split_last_mut().filter(|_| probability > 0.0) else {
        return tally.clone();
    };
    for part in others {
        let spoilt = binomial(random, *part, probability);
        *part -= spoilt;
        *last += spoilt;
    }
    whole(&parts)
}

/// How many of these requests are drawn.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a number of requests is whole, positive and below 2^53"
)]
fn binomial(random: &mut impl Rng, requests: f64, probability: f64) -> f64 {
    let law = Binomial::new(requests.round() as u64, probability.clamp(0.0, 1.0));
    law.map_or(0.0, |law| law.sample(random) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_kept_and_spoilt_in_nested_criteria() {
        let mut random = SmallRng::seed_from_u64(1);
        let tally = Tally {
            all: 100_000.0,
            bad: vec![20_000.0, 1_000.0, 0.0],
        };
        assert_eq!(whole(&parts(&tally)), tally);
        let tenth = drawn(&mut random, &tally, 0.1);
        let near = |value: f64, wanted: f64| (value - wanted).abs() < 5.0 * wanted.sqrt();
        assert!(
            near(tenth.all, 10_000.0) && near(tenth.bad[0], 2_000.0),
            "{tenth:?}"
        );
        assert!(near(tenth.bad[1], 100.0), "{tenth:?}");
        let spoilt = spoilt(&mut random, &tally, 0.05);
        assert!((spoilt.all - tally.all).abs() < 0.5, "{spoilt:?}");
        assert!(near(spoilt.bad[2], 5_000.0), "{spoilt:?}");
        assert!(near(spoilt.bad[0], 24_000.0), "{spoilt:?}");
        let rest = less(&tally, &tenth);
        assert!((rest.all + tenth.all - tally.all).abs() < 0.5, "{rest:?}");
    }
}
