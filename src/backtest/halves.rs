//! A run in which nothing is wrong, made of the past: half of the primary's pods stand for the canary, the others for the primary.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
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
    random: StdRng,
    /// The pods of the canary; `None` if there are not two pods, so that each request is drawn.
    canary_pods: Option<BTreeSet<usize>>,
    /// The canary's share of the requests of the hour before.
    half: f64,
    /// The share of the canary's good requests that are made bad.
    increase: f64,
    /// The requests of the canary since the start, and those of the primary since an hour before it.
    totals: [Pods; 2],
    /// The primary's requests in each minute of the hour before the run.
    hour: Vec<Tally>,
}

impl<'a> Halves<'a> {
    /// The halves of a run from `start` on, which lasts `longest` minutes at most; `None` if one half had no requests in the hour before.
    pub fn of(
        history: &'a History,
        (start, longest): (i64, i64),
        seed: u64,
        increase: f64,
    ) -> Option<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let pods = history.pods_in(start - BEFORE..start + longest);
        let mut halves = Self {
            history,
            canary_pods: half_of(history, pods, &mut random),
            random,
            half: 0.5,
            increase,
            totals: [Pods::new(), Pods::new()],
            hour: Vec::new(),
        };
        let mut canary = 0.0;
        for minute in start - BEFORE..start {
            let [of_canary, of_primary] = halves.split(minute);
            canary += total(&of_canary).all;
            halves.hour.push(total(&of_primary));
            add(&mut halves.totals[1], of_primary);
        }
        let primary = total(&halves.totals[1]).all;
        halves.half = canary / (canary + primary);
        (canary > 0.0 && primary > 0.0).then_some(halves)
    }

    /// The primary's requests in each minute of the hour before the run, by one criterion.
    pub fn hour(&self, criterion: usize) -> Vec<Counts> {
        let minutes = self.hour.iter();
        minutes.map(|minute| counts(minute, criterion)).collect()
    }

    /// Lets a minute pass in which the canary gets this share of the requests. As many requests of one half are left out as that needs.
    pub fn pass(&mut self, minute: i64, share: f64) {
        let (wanted, real) = (share / (1.0 - share), self.half / (1.0 - self.half));
        let [mut canary, mut primary] = self.split(minute);
        for tally in canary.values_mut() {
            *tally = drawn(&mut self.random, tally, wanted / real);
            *tally = spoilt(&mut self.random, tally, self.increase);
        }
        for tally in primary.values_mut() {
            *tally = drawn(&mut self.random, tally, real / wanted);
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
        let mut halves = [Pods::new(), Pods::new()];
        for (pod, tally) in self.history.minute(minute) {
            match &self.canary_pods {
                Some(pods) => {
                    let half = usize::from(!pods.contains(pod));
                    halves[half].insert(*pod, tally.clone());
                }
                None => {
                    let canary = drawn(&mut self.random, tally, 0.5);
                    halves[1].insert(*pod, less(tally, &canary));
                    halves[0].insert(*pod, canary);
                }
            }
        }
        halves
    }
}

/// Half of the pods, at random; `None` if there are not two.
fn half_of(
    history: &History,
    pods: BTreeSet<usize>,
    random: &mut impl Rng,
) -> Option<BTreeSet<usize>> {
    let mut pods: Vec<_> = pods.into_iter().collect();
    // Each metric may know the pods in another order, and must have the same halves.
    pods.sort_by_key(|pod| history.pod(*pod));
    pods.shuffle(random);
    pods.truncate(pods.len() / 2);
    Some(pods.into_iter().collect()).filter(|pods: &BTreeSet<_>| !pods.is_empty())
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
        let mut random = StdRng::seed_from_u64(1);
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
