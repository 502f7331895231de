//! The runs of a backtest, and their scores.

use jiff::Timestamp;

use super::{
    Backtest, Found, Judged, Metric, OtherMargin, ReplayedMetric, Schedule, Scores,
    halves::BEFORE,
    judges::{Judge, Outcome, Trial, play},
};
use crate::comparison::{Counts, Margin, dispersion};

/// The most runs.
const RUNS: usize = 300;
/// The shares of the canary's good requests that are made bad.
const INCREASES: [f64; 2] = [0.01, 0.05];
/// The values of `maxIncrease` that are tried, in percentage points.
const MARGINS: [f64; 6] = [0.0, 0.1, 0.25, 0.5, 1.0, 2.0];
/// The runs without which no margin is suggested.
pub const ENOUGH: usize = 100;
/// The share of false alarms that a suggested margin may have.
pub const ACCEPTED: f64 = 0.01;
/// The share of waiting runs that a suggested margin may have.
const MAY_WAIT: f64 = 0.1;

/// Plays all runs. `progress` gets the share of the work that is done.
pub fn replay(
    metrics: &[ReplayedMetric],
    schedule: &Schedule,
    progress: &mut dyn FnMut(f64),
) -> Backtest {
    let ends: Vec<_> = metrics.iter().filter_map(|it| it.history.ends()).collect();
    let first = ends.iter().map(|(first, _)| *first).min();
    let last = ends.iter().map(|(_, last)| *last).max();
    let starts = match (first, last) {
        (Some(first), Some(last)) => starts((first, last), schedule),
        _ => Vec::new(),
    };
    let all: Vec<_> = metrics.iter().collect();
    let together = (all.len() > 1).then_some(all.as_slice());
    let judged = all.chunks(1).chain(together).map(judgements);
    let total = judged.sum::<usize>() + all.len() * 2 * MARGINS.len();
    let mut playing = Playing {
        schedule,
        starts: &starts,
        done: 0,
        total,
        progress,
    };
    let metrics = all.iter().map(|metric| playing.metric(metric)).collect();
    let release = together.map(|all| playing.judged(all));
    let time = |minute: i64| Timestamp::from_second(minute * 60).ok();
    let time = |minute: Option<i64>| minute.and_then(time).map(|at| at.to_string());
    Backtest {
        from: time(first),
        to: time(last),
        step_minutes: schedule.interval,
        weights: { schedule.shares.iter() }
            .map(|share| share * 100.0)
            .collect(),
        threshold: schedule.threshold,
        metrics,
        release,
        ..Backtest::default()
    }
}

/// How often all runs are played to judge these metrics.
fn judgements(metrics: &[&ReplayedMetric]) -> usize {
    let judges = 1 + usize::from(has_limit(metrics));
    judges * (1 + INCREASES.len())
}

/// Whether a threshold judges these metrics.
fn has_limit(metrics: &[&ReplayedMetric]) -> bool {
    metrics.iter().any(|it| it.limit.is_some())
}

/// The first minutes of the runs: one begins with each hour, or with fewer hours that are spread over the whole time.
fn starts((first, last): (i64, i64), schedule: &Schedule) -> Vec<i64> {
    let begin = (first + BEFORE - 1).div_euclid(60) + 1;
    let end = (last + 1 - schedule.length()).div_euclid(60);
    let hours: Vec<_> = (begin..=end).map(|hour| hour * 60).collect();
    let count = hours.len().min(RUNS);
    let nth = |nth: usize| hours[nth * hours.len() / count];
    (0..count).map(nth).collect()
}

/// The runs that are played.
struct Playing<'a> {
    schedule: &'a Schedule,
    starts: &'a [i64],
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(f64),
}

impl Playing<'_> {
    fn metric(&mut self, metric: &ReplayedMetric) -> Metric {
        let blocks = metric.history.blocks(metric.shown());
        let sum = blocks
            .iter()
            .fold(Counts::NONE, |sum, block| sum.and(*block));
        let judged = self.judged(&[metric]);
        let margins = MARGINS.map(|increase| {
            let margin = Margin::new(increase / 100.0, metric.rules.margin.factor());
            OtherMargin {
                max_increase: increase,
                scores: self.scores(&[metric], Judge::Comparison(margin), &INCREASES[..1]),
            }
        });
        let is_good = |it: &&OtherMargin| {
            let scores = &it.scores;
            let is_right = scores.false_alarms <= ACCEPTED && scores.waits <= MAY_WAIT;
            scores.runs >= ENOUGH && is_right
        };
        let suggested = margins.iter().find(is_good);
        Metric {
            metric: metric.name.clone(),
            per_pod: metric.history.knows_pods(),
            pods: metric.history.most_pods(i64::MIN..i64::MAX),
            requests: sum.all(),
            bad_share: sum.rate(),
            dispersion: dispersion::of_bursts(&blocks),
            judged,
            suggested_max_increase: suggested.map(|it| it.max_increase),
            margins: margins.into(),
        }
    }

    /// The scores of both judges. A release without any threshold has no judgement by it.
    fn judged(&mut self, metrics: &[&ReplayedMetric]) -> Judged {
        let mut by_threshold = || self.scores(metrics, Judge::Threshold, &INCREASES);
        Judged {
            threshold: has_limit(metrics).then(&mut by_threshold),
            comparison: self.scores(metrics, Judge::Comparison(None), &INCREASES),
        }
    }

    fn scores(&mut self, metrics: &[&ReplayedMetric], judge: Judge, increases: &[f64]) -> Scores {
        let alike = self.outcomes(metrics, judge, 0.0);
        let found = increases.iter().map(|increase| {
            let outcomes = self.outcomes(metrics, judge, *increase);
            let mut steps: Vec<_> = outcomes.iter().filter_map(rolled_back).collect();
            steps.sort_unstable();
            Found {
                increase: increase * 100.0,
                share: share(steps.len(), outcomes.len()),
                median_step: steps.get(steps.len().saturating_sub(1) / 2).copied(),
            }
        });
        let found = found.collect();
        let alarms = alike.iter().filter_map(rolled_back).count();
        let waits = { alike.iter() }.filter(|it| **it == Outcome::Waits).count();
        Scores {
            runs: alike.len(),
            false_alarms: share(alarms, alike.len()),
            waits: share(waits, alike.len()),
            found,
        }
    }

    fn outcomes(
        &mut self,
        metrics: &[&ReplayedMetric],
        judge: Judge,
        increase: f64,
    ) -> Vec<Outcome> {
        let outcomes = (0_u64..).zip(self.starts).filter_map(|(seed, start)| {
            let trial = Trial {
                start: *start,
                seed,
                increase,
            };
            play(metrics, self.schedule, judge, trial)
        });
        let outcomes = outcomes.collect();
        self.done += 1;
        (self.progress)(share(self.done, self.total));
        outcomes
    }
}

const fn rolled_back(outcome: &Outcome) -> Option<usize> {
    match outcome {
        Outcome::RolledBack(step) => Some(*step),
        Outcome::Promoted | Outcome::Waits => None,
    }
}

/// A share; 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "a number of runs")]
fn share(part: usize, all: usize) -> f64 {
    if all == 0 {
        0.0
    } else {
        part as f64 / all as f64
    }
}
