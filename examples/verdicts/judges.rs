//! The judges that are compared: the sequential test, Flagger's threshold, Mann-Whitney as PipeCD runs it, and an oracle. The oracle knows
//! the true rate of failures, which no real judge knows.

use std::collections::BTreeMap;

use flagger_rs::comparison::{
    Arms, Comparison, Counts, Margin, Measure, MetricTest, Readings, Rules, State, Window,
    counters::Reading, dispersion, is_proven,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::traffic::{HISTORY, Law, PODS, Service, WEIGHTS, durations};

/// The greatest probability of a false alarm that a run of the sequential test may have.
pub const FALSE_ALARMS: f64 = 0.05;

/// The settings of the sequential test.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// How much worse the canary may be.
    pub margin: Margin,
    /// Whether to correct for bursts and for unequal pods.
    pub is_corrected: bool,
}

/// The step, from 1, in which the test proves in a run of this law that the canary is worse; `None` if no step does.
pub fn sequential(law: Law, test: Test, seed: u64) -> Option<usize> {
    let mut service = Service::new(law, seed);
    let (minutes, pods) = service.history();
    let history = minutes
        .iter()
        .fold(Counts::NONE, |sum, minute| sum.and(*minute));
    let bursts = dispersion::of_bursts(&minutes);
    let mut comparison = Comparison::new(Measure::Errors, test.margin, history);
    WEIGHTS
        .iter()
        .position(|weight| {
            comparison.add(service.window(*weight));
            let canary = comparison.seen().canary.all();
            let dispersion = if test.is_corrected {
                let unequal = dispersion::of_pods(&pods, PODS.0, canary);
                bursts.max(unequal)
            } else {
                1.0
            };
            is_proven(comparison.worse(dispersion), FALSE_ALARMS)
        })
        .map(|step| step + 1)
}

/// The step in which the operator rolls a run of this law back. As in a release, it counts the requests of each pod, in the middle and at the end
/// of each step.
pub fn operator(law: Law, pods: (usize, usize), seed: u64) -> Option<usize> {
    let mut service = Service::with_pods(law, pods, seed);
    let rules = Rules {
        measure: Measure::Errors,
        margin: Margin::new(0.0025, 1.25)?,
        false_alarms: FALSE_ALARMS,
        detect: 0.01,
        least: None,
    };
    let (minutes, of_pods) = service.history();
    let mut test = MetricTest::of_errors(&rules, &minutes);
    let mut arms = Arms {
        counts_pods: true,
        ..Arms::default()
    };
    arms.primary.start = reading(vec![Counts::NONE; pods.1]);
    arms.primary.now = reading(of_pods);
    for (step, weight) in WEIGHTS.iter().enumerate() {
        let share = weight / 100.0;
        for _ in 0..2 {
            let canary = service.pods(0.5, share, true);
            let primary = service.pods(0.5, 1.0 - share, false);
            pass(&mut arms.canary, canary);
            pass(&mut arms.primary, primary);
            if test.advance(&rules, |_| arms.clone()).state == State::Worse {
                return Some(step + 1);
            }
        }
    }
    None
}

/// The counters of pods with these requests.
fn reading(pods: Vec<Counts>) -> Reading {
    let named = pods.into_iter().enumerate();
    named
        .map(|(place, counts)| (place.to_string(), counts))
        .collect()
}

/// The pods count these requests more.
fn pass(readings: &mut Readings, more: Vec<Counts>) {
    readings.before = readings.now.clone();
    for (pod, counts) in reading(more) {
        let sum = readings.now.entry(pod).or_insert(Counts::NONE);
        *sum = sum.and(counts);
    }
}

/// The same for a canary whose durations are longer by this factor. Until half an hour before the run, the primary's durations differed by
/// the factor `before`.
pub fn sequential_latency(
    per_second: f64,
    (before, factor): (f64, f64),
    sigma: f64,
    seed: u64,
) -> Option<usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let minute = per_second * 60.0;
    let mut history: BTreeMap<u64, (f64, Vec<Counts>)> = BTreeMap::new();
    for of_minute in 0..HISTORY {
        let former = if of_minute < HISTORY / 2 { before } else { 1.0 };
        // A tenth of a minute's requests estimates the shares above the bounds well enough.
        for (bound, slower) in durations(&mut random, minute / 10.0, former, sigma)? {
            let of_bound = history.entry(bound.to_bits());
            of_bound.or_insert((bound, Vec::new())).1.push(slower);
        }
    }
    let rules = Rules {
        measure: Measure::Latency,
        margin: Margin::NONE,
        false_alarms: FALSE_ALARMS,
        detect: 0.01,
        least: None,
    };
    let bounds: Vec<_> = history.into_values().collect();
    let mut test = MetricTest::of_durations(&rules, &bounds, None);
    let at = |all: &[(f64, Counts)], bound: f64| {
        let found = all.iter().find(|(of, _)| of.total_cmp(&bound).is_eq());
        found.map(|(_, slower)| *slower)
    };
    for (step, weight) in WEIGHTS.iter().enumerate() {
        let share = weight / 100.0;
        let canary = durations(&mut random, minute * share, factor, sigma)?;
        let primary = durations(&mut random, minute * (1.0 - share), 1.0, sigma)?;
        test.add(|bound| {
            Some(Window {
                canary: at(&canary, bound?)?,
                primary: at(&primary, bound?)?,
            })
        });
        if is_proven(test.worse(1.0), FALSE_ALARMS) {
            return Some(step + 1);
        }
    }
    None
}

/// The minute in which a run with Flagger's threshold of 99 % fails; `None` if the version is promoted. After a failed check, the weight
/// does not change.
pub fn threshold(law: Law, threshold: u32, seed: u64) -> Option<usize> {
    const LONGEST: usize = 240;
    let mut service = Service::new(law, seed);
    let (mut failed, mut step) = (0, 0);
    for minute in 1..=LONGEST {
        let weight = WEIGHTS.get(step)?;
        // Without a request there is no success rate, and Flagger counts a failed check.
        let canary = service.window(*weight).canary;
        if canary.all() > 0.0 && canary.rate() <= 0.01 {
            step += 1;
            continue;
        }
        failed += 1;
        if failed >= threshold {
            return Some(minute);
        }
    }
    None
}

/// Whether one of three checks finds a difference: Mann-Whitney over ten points of a minute each, at a significance of 5 %, two-sided, as
/// PipeCD does without settings of a user (normal approximation with the correction for ties).
pub fn mann_whitney(law: Law, seed: u64) -> bool {
    let mut service = Service::new(law, seed);
    (0..3).any(|_| {
        let windows: Vec<_> = (0..10).map(|_| service.window(WEIGHTS[0])).collect();
        let rates = |of: fn(&flagger_rs::comparison::Window) -> Counts| -> Vec<f64> {
            let counts = windows.iter().map(of).filter(|counts| counts.all() > 0.0);
            counts.map(Counts::rate).collect()
        };
        let (canary, primary) = (rates(|it| it.canary), rates(|it| it.primary));
        score(&canary, &primary).is_some_and(|score| score.abs() > 1.96)
    })
}

/// The standardised sum of ranks; `None` if all values are equal.
fn score(one: &[f64], other: &[f64]) -> Option<f64> {
    let (n, m) = (count(one.len()), count(other.len()));
    let all: Vec<_> = one.iter().chain(other).copied().collect();
    let mut sum = 0.0;
    for value in one {
        let below = all.iter().filter(|it| **it < *value).count();
        let equal = all.iter().filter(|it| it.total_cmp(value).is_eq()).count();
        sum += count(below) + f64::midpoint(count(equal), 1.0);
    }
    let total = n + m;
    let ties: f64 = all
        .iter()
        .map(|value| {
            let equal = count(all.iter().filter(|it| it.total_cmp(value).is_eq()).count());
            // Each of the equal values adds its part of t³ − t.
            equal * equal - 1.0
        })
        .sum();
    let variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
    (variance > 0.0).then(|| (sum - n * (total + 1.0) / 2.0) / variance.sqrt())
}

/// The probability with which a judge that knows the base rate finds the increase, if it judges once, after this step, with false alarms of
/// at most 1 %. No method can be better.
pub fn oracle(law: Law, step: usize) -> f64 {
    let share: f64 = WEIGHTS[..step].iter().sum::<f64>() / 100.0;
    let requests = (law.per_second * 60.0 * share).round();
    let mut least = 0.0;
    while tail(requests, law.base, least) > 0.01 {
        least += 1.0;
    }
    tail(requests, law.base + law.increase, least)
}

/// The probability of at least this many failures.
fn tail(requests: f64, rate: f64, least: f64) -> f64 {
    let (mut failures, mut logarithm) = (0.0, requests * (-rate).ln_1p());
    let mut below = 0.0;
    while failures < least {
        below += f64::exp(logarithm);
        logarithm += ((requests - failures) / (failures + 1.0) * rate / (1.0 - rate)).ln();
        failures += 1.0;
    }
    1.0 - below
}

fn count(values: usize) -> f64 {
    u32::try_from(values).map_or(f64::INFINITY, f64::from)
}

/// A seed for the runs of a table.
pub fn seeds(table: u64, runs: u32) -> impl Iterator<Item = u64> {
    let mut random = StdRng::seed_from_u64(table);
    (0..runs).map(move |_| random.next_u64())
}
