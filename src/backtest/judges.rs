//! The judges of a replayed run: the threshold of the Canary, and the comparison.

use std::{iter, ops::Range};

use super::{
    halves::Halves,
    metric::{Limit, Policies, ReplayedMetric},
    schedule::Schedule,
};
use crate::{
    api::compare::{OnUndecided, Policy},
    comparison::{Arms, Margin, MetricTest, Readings, Rules, State, counters::Reading},
    metrics::counting::minutes::Tally,
};

/// The way in which a run is judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Judge {
    /// By the threshold of the Canary.
    Threshold,
    /// By the comparison, with the margin of the Canary or another one.
    Comparison(Option<Margin>),
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Its first minute.
    pub start: i64,
    /// Chooses the halves.
    pub seed: u64,
    /// The share of the canary's good requests that are made bad.
    pub increase: f64,
}

/// The end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is promoted.
    Promoted,
    /// It is rolled back in this step, counted from 1.
    RolledBack(usize),
    /// It has too few requests, and waits for a person.
    Waits,
}

/// The effect of a metric on a step. The greatest one of all metrics decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Pass,
    Hold,
    HoldForGood,
    Fail,
    RollBack,
}

/// Plays a run; `None` if a metric has no requests in the hour before it, or if the history ends before the run does.
pub fn play(
    metrics: &[&ReplayedMetric],
    schedule: &Schedule,
    judge: Judge,
    trial: Trial,
) -> Option<Outcome> {
    let begun: Option<Vec<_>> = { metrics.iter() }
        .map(|metric| {
            let Trial {
                start,
                seed,
                increase,
            } = trial;
            let halves = Halves::of(&metric.history, start, seed, increase)?;
            Some(Judging::begin(metric, halves, judge))
        })
        .collect();
    let mut all = begun?;
    let (mut minute, mut step, mut failed, mut waited) = (trial.start, 0, 0, 0);
    while let Some(share) = schedule.shares.get(step) {
        let minutes = minute..minute + schedule.interval;
        if !all.iter().all(|it| it.knows(minutes.end)) {
            return None;
        }
        minute = minutes.end;
        let wait = Wait {
            steps: waited,
            is_over: waited >= schedule.deadline,
        };
        let effects = { all.iter_mut() }.map(|it| it.step(minutes.clone(), *share, wait));
        match effects.max().unwrap_or(Effect::Pass) {
            Effect::Pass => (step, waited) = (step + 1, 0),
            Effect::Hold => waited += 1,
            Effect::HoldForGood => return Some(Outcome::Waits),
            Effect::Fail => failed += 1,
            Effect::RollBack => return Some(Outcome::RolledBack(step + 1)),
        }
        if failed >= schedule.threshold {
            return Some(Outcome::RolledBack(step + 1));
        }
    }
    Some(Outcome::Promoted)
}

/// The wait of a step so far.
#[derive(Clone, Copy, Debug)]
struct Wait {
    steps: i64,
    /// Whether the progress deadline is over.
    is_over: bool,
}

/// One metric in a run.
struct Judging<'a> {
    metric: &'a ReplayedMetric,
    halves: Halves<'a>,
    judge: MetricJudge,
    /// The requests of the canary at the end of each minute.
    minutes: Vec<Tally>,
}

/// The judge of one metric.
enum MetricJudge {
    /// Its limit; `None`: it is not judged.
    Threshold(Option<Limit>),
    Comparison(Comparing),
}

impl<'a> Judging<'a> {
    fn begin(metric: &'a ReplayedMetric, halves: Halves<'a>, judge: Judge) -> Self {
        let judge = match judge {
            Judge::Threshold => MetricJudge::Threshold(metric.limit),
            Judge::Comparison(margin) => {
                MetricJudge::Comparison(Comparing::begin(metric, &halves, margin))
            }
        };
        Self {
            metric,
            halves,
            judge,
            minutes: vec![Tally::default()],
        }
    }

    /// Whether the history reaches to the end of this minute.
    fn knows(&self, end: i64) -> bool {
        let ends = self.metric.history.ends();
        ends.is_some_and(|(_, last)| end <= last + 1)
    }

    fn step(&mut self, minutes: Range<i64>, share: f64, wait: Wait) -> Effect {
        for minute in minutes {
            self.halves.pass(minute, share);
            self.minutes.push(self.halves.canary());
        }
        match &mut self.judge {
            MetricJudge::Threshold(None) => Effect::Pass,
            MetricJudge::Threshold(Some(limit)) => {
                let end = self.minutes.len() - 1;
                let begin = end.saturating_sub(self.metric.window);
                let window = since(&self.minutes[begin], &self.minutes[end]);
                if limit.passes(&window) {
                    Effect::Pass
                } else {
                    Effect::Fail
                }
            }
            MetricJudge::Comparison(it) => it.step(self.metric, &self.halves, wait),
        }
    }
}

/// The requests since an earlier instant.
fn since(before: &Tally, now: &Tally) -> Tally {
    let before_bad = before.bad.iter().copied().chain(iter::repeat(0.0));
    let bad = now.bad.iter().zip(before_bad);
    Tally {
        all: now.all - before.all,
        bad: bad.map(|(now, before)| now - before).collect(),
    }
}

/// The test of a metric, and the counters at the end of its last window: by the criterion, of both halves.
struct Comparing {
    test: MetricTest,
    rules: Rules,
    before: Vec<[Reading; 2]>,
}

impl Comparing {
    fn begin(metric: &ReplayedMetric, halves: &Halves<'_>, margin: Option<Margin>) -> Self {
        let mut rules = metric.rules;
        rules.margin = margin.unwrap_or(rules.margin);
        let test = if metric.bounds.is_empty() {
            MetricTest::of_errors(&rules, &halves.hour(0))
        } else {
            let hours = metric.compared();
            let hours: Vec<_> = hours
                .map(|(place, bound)| (bound, halves.hour(place)))
                .collect();
            MetricTest::of_durations(&rules, &hours, metric.own)
        };
        Self {
            test,
            rules,
            before: readings(metric, halves),
        }
    }

    fn step(&mut self, metric: &ReplayedMetric, halves: &Halves<'_>, wait: Wait) -> Effect {
        let until_deadline = if wait.is_over {
            Effect::RollBack
        } else {
            Effect::Hold
        };
        let now = readings(metric, halves);
        let before = &self.before;
        let finding = self.test.advance(&self.rules, |bound| {
            let place = bound.and_then(|bound| metric.place(bound)).unwrap_or(0);
            let [canary, primary] = [0, 1].map(|half: usize| Readings {
                start: Reading::new(),
                before: before[place][half].clone(),
                now: now[place][half].clone(),
            });
            Arms {
                canary,
                primary,
                counts_pods: metric.history.knows_pods(),
            }
        });
        self.before = now;
        // The effects are those of `rollout/checks/comparisons.rs`.
        match finding.state {
            State::Worse => Effect::RollBack,
            State::NotWorse | State::Undecided => Effect::Pass,
            State::OnePod(_) => until_deadline,
            State::NoData => policy(metric.policies.no_data, until_deadline),
            State::LowTraffic(_) => {
                policy(metric.policies.low_traffic, hold(&metric.policies, wait))
            }
        }
    }
}

fn readings(metric: &ReplayedMetric, halves: &Halves<'_>) -> Vec<[Reading; 2]> {
    let criteria = 0..metric.bounds.len().max(1);
    criteria.map(|place| halves.readings(place)).collect()
}

/// The wait for requests, which ends after `maxExtend` steps.
fn hold(policies: &Policies, wait: Wait) -> Effect {
    let waited = f64::from(u32::try_from(wait.steps).unwrap_or(u32::MAX));
    match policies.on_undecided {
        _ if waited < policies.max_extend => Effect::Hold,
        OnUndecided::Promote => Effect::Pass,
        OnUndecided::Fail => Effect::Fail,
        OnUndecided::Pause => Effect::HoldForGood,
    }
}

const fn policy(policy: Policy, hold: Effect) -> Effect {
    match policy {
        Policy::Hold => hold,
        Policy::Fail => Effect::Fail,
        Policy::Ignore => Effect::Pass,
    }
}
