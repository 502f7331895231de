//! The comparison of the canary with the primary, in place of a threshold (not in Flagger). [`crate::comparison`] has the test.
//!
//! | state | meaning | effect with `mode: enforce` |
//! | --- | --- | --- |
//! | Worse | the canary is worse than the margin allows | the run is rolled back at once |
//! | NotWorse, Undecided | the canary is proven to be within the margin, or enough requests prove neither | the step goes on |
//! | LowTraffic | the canary had too few requests | `onLowTraffic`; a hold ends after `maxExtend` intervals with `onUndecided` |
//! | NoData | a version has no series | `onNoData`; a hold ends at the progress deadline with a rollback |
//! | ProviderError, Stale | the metric server does not answer, or has no new values | `onError`; a hold ends as with NoData |
//! | OnePod | one pod of the canary has nearly all its bad requests | hold, which ends as with NoData |
//! | NotShifted | the canary gets clearly fewer requests than its weight asks for | hold, which ends as with NoData |
//!
//! A run is compared at each tick, and in the middle of the interval. There only `Worse` has an effect, and `NotWorse` if `advance: early`.

mod keeping;
mod remaining;
mod settings;
mod wording;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{
    hooks::Stage,
    metric_query::{Check, budget, builtin_server, checks, question},
};
use crate::{
    api::{
        canary::{CanaryStatus, Strategy},
        compare::{Advance, CompareMode, OnUndecided, Policy},
        percent::Percent,
    },
    comparison::{Counts, Finding, Measure, MetricTest, Rules, State, share},
    metrics::{Asks, MetricError, Query, Server, TimeSeries, counting},
    providers,
    rollout::{
        plan::{Answer, Decision, Evidence, Plan, Question},
        status::{compared, transitions::is_under_analysis},
    },
    snapshot::{Snapshot, redacted},
};
use keeping::Span;
pub use keeping::{are_kept, is_to_measure, middle};
pub use remaining::{Remaining, remaining};
pub use settings::{Comparable, comparable, problem};
use settings::{Setting, rules, setting};
use wording::{Word, not_shifted, sentence};

/// Series whose last point is older than this count as stale.
const STALE: SignedDuration = SignedDuration::from_mins(3);

/// The comparison of one metric.
pub struct Comparing<'a> {
    check: &'a Check<'a>,
    setting: Setting,
    rules: Rules,
}

/// The result of a comparison at a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The metric.
    pub metric: String,
    /// The state, in one word.
    pub state: Word,
    /// The result: a main clause without a full stop.
    pub detail: String,
    /// The effect if the comparison decides.
    pub effect: Effect,
    /// The finding; `None` if there were no series.
    pub finding: Option<Finding>,
    /// Whether the comparison decides, in place of the threshold.
    pub decides: bool,
    /// Whether the step may end early.
    pub may_end_early: bool,
    /// The server that was asked; `None` if its address is invalid.
    pub server: Option<Server>,
    /// The counters of both versions.
    pub counters: String,
    /// The test without the requests of this step; `None` if it has not begun.
    before: Option<MetricTest>,
    /// The test with the requests of this step; `None` if nothing was counted.
    after: Option<MetricTest>,
}

impl Compared {
    /// The canary's success rate since the last step, in percent, if the comparison of errors decides.
    pub fn success_rate(&self) -> Option<f64> {
        let finding = self.finding.as_ref().filter(|it| it.bound.is_none())?;
        let canary = finding.last.canary;
        let is_known = self.decides && canary.all() > 0.0;
        is_known.then(|| (1.0 - canary.rate()) * 100.0)
    }
}

/// The effect of a comparison on the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The step goes on.
    Pass,
    /// The version is rolled back.
    RollBack,
    /// The check fails.
    Fail,
    /// The step waits.
    Hold(Until),
}

/// The event that ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The progress deadline, at which the version is rolled back.
    Deadline,
    /// The canary has enough requests.
    Requests,
    /// A person decides.
    Person,
}

impl Until {
    /// The beginning of the sentence in the condition `Verdict` during such a wait.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Deadline => "Waits, because the versions cannot be compared",
            Self::Requests => "Waits for more requests",
            Self::Person => {
                "Waits for a person, who may skip the step, promote or abort the version"
            }
        }
    }
}

/// The comparisons of a canary: those of metrics with the field `compare`, and of all built-in metrics if the Canary has the annotation.
pub fn comparisons<'a>(snapshot: &Snapshot, checks: &'a [Check<'a>]) -> Vec<Comparing<'a>> {
    let asked = checks
        .iter()
        .filter_map(|check| Some((check, setting(snapshot, check)?)));
    let asked: Vec<_> = asked.collect();
    // All tests of a run share its probability of a false alarm.
    let tests = asked.len();
    let of = |(check, setting): (&'a Check<'a>, Setting)| {
        let rules = rules(&setting, tests)?;
        Some(Comparing {
            check,
            setting,
            rules,
        })
    };
    asked.into_iter().filter_map(of).collect()
}

impl Comparing<'_> {
    /// Whether the comparison decides, in place of the threshold.
    pub fn decides(&self) -> bool {
        self.setting.mode == CompareMode::Enforce
    }

    /// Compares, or returns the questions to ask first.
    pub fn compare(&self, snapshot: &Snapshot, evidence: &Evidence) -> Stage<Compared> {
        let known = compared::kept(snapshot.status()).remove(&self.check.metric.name);
        let span = Span::of(snapshot, known.as_ref());
        let test = known.map(|known| Ok(known.test));
        let Some(test) = test.or_else(|| self.begun(snapshot, evidence, span.history())) else {
            return self.asks("history", &self.history(), span.history(), snapshot);
        };
        let test = match test {
            Ok(test) => test,
            Err(error) => return Stage::Done(self.unanswered(snapshot, &error)),
        };
        if test.is_empty() && self.setting.measure == Measure::Latency {
            return Stage::Done(self.judge(snapshot, test, &[], span));
        }
        let query = self.counts(&test, span.window());
        match self.answer(snapshot, evidence, "compare", (&query, span.to)) {
            None => self.asks("compare", &query, span.to, snapshot),
            Some(Err(error)) => Stage::Done(Compared {
                before: Some(test),
                ..self.unanswered(snapshot, &error)
            }),
            Some(Ok(series)) => Stage::Done(self.judge(snapshot, test, series, span)),
        }
    }

    /// The query for the counters of both versions at both ends of the window.
    fn counts(&self, test: &MetricTest, window: counting::Window) -> String {
        match self.setting.measure {
            Measure::Errors => self.setting.counted.errors(window),
            Measure::Latency => self.setting.counted.durations(test.bounds(), window),
        }
    }

    fn history(&self) -> String {
        self.setting.counted.history(self.setting.measure)
    }

    /// The test at the start of a run, from the primary's requests of the hour before; `None` if they are not known yet.
    fn begun(
        &self,
        snapshot: &Snapshot,
        evidence: &Evidence,
        at: Timestamp,
    ) -> Option<Result<MetricTest, MetricError>> {
        let answer = self.answer(snapshot, evidence, "history", (&self.history(), at))?;
        Some(answer.map(|series| match self.setting.measure {
            Measure::Errors => {
                let blocks = self.setting.counted.read_error_history(series);
                MetricTest::of_errors(&self.rules, &blocks)
            }
            Measure::Latency => {
                let bounds = counting::duration_blocks(series);
                MetricTest::of_durations(&self.rules, &bounds, self.own_bound(snapshot, &bounds))
            }
        }))
    }

    /// The bound that equals the maximum of the metric. A user gives the maximum in milliseconds.
    fn own_bound(&self, snapshot: &Snapshot, bounds: &[(f64, Vec<Counts>)]) -> Option<f64> {
        let (_, max) = self.check.bounds();
        let unit_millis = providers::observer(snapshot).unit_millis();
        let is_own = |bound: &f64| counting::is_bound(*bound, unit_millis, max);
        bounds.iter().map(|(bound, _)| *bound).find(is_own)
    }

    fn asks(&self, what: &str, query: &str, at: Timestamp, snapshot: &Snapshot) -> Stage<Compared> {
        match self.question(what, query, at, snapshot) {
            Ok(question) => Stage::Ask(vec![question]),
            Err(error) => Stage::Done(self.unanswered(snapshot, &error)),
        }
    }

    fn question(
        &self,
        what: &str,
        query: &str,
        at: Timestamp,
        snapshot: &Snapshot,
    ) -> Result<Question, MetricError> {
        let label = format!("{what} {}", self.check.place);
        series_question(snapshot, label, query, at)
    }

    fn answer<'e>(
        &self,
        snapshot: &Snapshot,
        evidence: &'e Evidence,
        what: &str,
        (query, at): (&str, Timestamp),
    ) -> Option<Result<&'e [TimeSeries], MetricError>> {
        let question = self.question(what, query, at, snapshot).ok()?;
        match evidence.get(&question)? {
            Answer::Series(Ok(series)) => Some(Ok(series)),
            Answer::Series(Err(error)) => Some(Err(error.clone())),
            _ => None,
        }
    }

    /// Adds the requests of the window and judges.
    fn judge(
        &self,
        snapshot: &Snapshot,
        before: MetricTest,
        series: &[TimeSeries],
        span: Span,
    ) -> Compared {
        let newest = counting::newest(series);
        if newest.is_some_and(|newest| span.to.duration_since(newest) > STALE) {
            let detail = "the metric server has no new values of a version for 3 minutes";
            let effect = policy(self.check.metric.on_error);
            return Compared {
                before: Some(before),
                ..self.compared(snapshot, (Word::Stale, effect), detail, None)
            };
        }
        let arms = |bound: Option<f64>| match bound {
            None => self.setting.counted.read_errors(series),
            Some(bound) => self.setting.counted.slower(series, bound),
        };
        let mut test = before.clone();
        let finding = test.advance(&self.rules, arms);
        let missed = missed_share(snapshot, &finding, span.weight);
        let (effect, detail) = match missed {
            // Counters do not show the first requests yet.
            _ if span.is_empty() => (
                (Word::LowTraffic, Effect::Hold(Until::Requests)),
                sentence(snapshot, &finding),
            ),
            Some(share) if !matches!(finding.state, State::Worse | State::NoData) => (
                (Word::NotShifted, Effect::Hold(Until::Deadline)),
                not_shifted(&finding, share),
            ),
            _ => (
                self.effect(snapshot, &finding),
                sentence(snapshot, &finding),
            ),
        };
        Compared {
            before: Some(before),
            after: Some(test),
            ..self.compared(snapshot, effect, &detail, Some(finding))
        }
    }

    /// The effect of a finding.
    fn effect(&self, snapshot: &Snapshot, finding: &Finding) -> (Word, Effect) {
        let metric = self.check.metric;
        match finding.state {
            State::Worse => (Word::Worse, Effect::RollBack),
            State::NotWorse => (Word::NotWorse, Effect::Pass),
            State::Undecided if !finding.restarted.is_empty() => (Word::Partial, Effect::Pass),
            State::Undecided => (Word::Undecided, Effect::Pass),
            State::OnePod(_) => (Word::OnePod, Effect::Hold(Until::Deadline)),
            State::NoData => (Word::NoData, policy(metric.on_no_data)),
            State::LowTraffic(_) => {
                let effect = match metric.on_low_traffic.unwrap_or_default() {
                    Policy::Hold => self.waits_for_requests(snapshot),
                    Policy::Fail => Effect::Fail,
                    Policy::Ignore => Effect::Pass,
                };
                (Word::LowTraffic, effect)
            }
        }
    }

    fn waits_for_requests(&self, snapshot: &Snapshot) -> Effect {
        let compare = &self.setting.compare;
        let longest = snapshot.canary.interval().mul_f64(compare.max_extend());
        let since = snapshot.status().last_transition_time.as_ref();
        let waited = since.map(|since| snapshot.now.duration_since(since.0).unsigned_abs());
        let is_over = waited.is_some_and(|waited| waited > longest);
        match compare.on_undecided.unwrap_or_default() {
            _ if !is_over => Effect::Hold(Until::Requests),
            OnUndecided::Promote => Effect::Pass,
            OnUndecided::Fail => Effect::Fail,
            OnUndecided::Pause => Effect::Hold(Until::Person),
        }
    }

    fn unanswered(&self, snapshot: &Snapshot, error: &MetricError) -> Compared {
        let metric = self.check.metric;
        let (state, on, why) = if error.is_none() {
            let target = snapshot.full_target();
            let why =
                format!("the query returned no number, so probably {target} receives no traffic");
            (Word::NoData, metric.on_no_data, why)
        } else {
            let why = redacted(&error.to_string());
            let why = format!("the metric server gave no answer: {why}");
            (Word::ProviderError, metric.on_error, why)
        };
        self.compared(snapshot, (state, policy(on)), &why, None)
    }

    fn compared(
        &self,
        snapshot: &Snapshot,
        (state, effect): (Word, Effect),
        detail: &str,
        finding: Option<Finding>,
    ) -> Compared {
        let metric = self.check.metric.name.clone();
        Compared {
            detail: format!("{metric}: {detail}"),
            metric,
            state,
            effect,
            finding,
            decides: self.decides(),
            may_end_early: self.setting.compare.advance == Some(Advance::Early)
                && state == Word::NotWorse,
            server: builtin_server(snapshot).ok(),
            counters: self.setting.counted.counters().join(" against "),
            before: None,
            after: None,
        }
    }
}

/// The question to the server of the built-in metrics about the series of a query at an instant. The label distinguishes two equal queries.
pub fn series_question(
    snapshot: &Snapshot,
    label: String,
    text: &str,
    at: Timestamp,
) -> Result<Question, MetricError> {
    let server = builtin_server(snapshot);
    let server = server.map_err(|error| MetricError::NoAnswer(error.to_string()))?;
    let query = text.to_owned();
    let query = Query {
        server,
        asks: Asks::Series { query, at },
        budget: budget(snapshot),
    };
    Ok(question(label, query))
}

/// Returns the share of the requests that the canary's weight asks for, if the canary got clearly fewer in the window. The smaller of this
/// weight and the one before counts: in the first window of a weight, proxies may still apply the weight before.
fn missed_share(snapshot: &Snapshot, finding: &Finding, before: Percent) -> Option<f64> {
    let canary = &snapshot.canary;
    let analysis = canary.spec.analysis.as_ref()?;
    // If the interval is shorter than twice the delay of the counters, a window contains requests of several weights.
    let is_short = canary.interval() < 2 * counting::LAG.unsigned_abs();
    if canary.strategy() != Strategy::Canary || analysis.session_affinity.is_some() || is_short {
        return None;
    }
    let share = snapshot.status().weight().min(before).share();
    share::is_missed(finding.last, share, finding.dispersion).then_some(share)
}

/// The effect of a policy of a user.
const fn policy(policy: Option<Policy>) -> Effect {
    match policy {
        Some(Policy::Hold) | None => Effect::Hold(Until::Deadline),
        Some(Policy::Fail) => Effect::Fail,
        Some(Policy::Ignore) => Effect::Pass,
    }
}

/// All comparisons of a step, or the questions to ask first.
pub fn results(snapshot: &Snapshot, evidence: &Evidence) -> Stage<Vec<Compared>> {
    let checks = checks(&snapshot.canary);
    let (mut questions, mut all) = (Vec::new(), Vec::new());
    for comparing in comparisons(snapshot, &checks) {
        match comparing.compare(snapshot, evidence) {
            Stage::Ask(more) => questions.extend(more),
            Stage::Done(compared) => all.push(compared),
        }
    }
    if questions.is_empty() {
        Stage::Done(all)
    } else {
        Stage::Ask(questions)
    }
}

/// The metrics whose comparison decides, in place of the threshold, by their place in the list.
pub fn deciding(snapshot: &Snapshot, checks: &[Check<'_>]) -> BTreeSet<usize> {
    let all = comparisons(snapshot, checks).into_iter();
    let deciding = all.filter(Comparing::decides);
    deciding.map(|comparing| comparing.check.place).collect()
}

/// The decision of a step. If its status ends the step or moves traffic, it keeps the tests.
pub fn kept(snapshot: &Snapshot, evidence: &Evidence, mut decision: Decision) -> Decision {
    let before = snapshot.status();
    let Decision::Do(Plan {
        status: Some(status),
        ..
    }) = &mut decision
    else {
        return decision;
    };
    let ends_step = status.last_transition_time != before.last_transition_time;
    let moves = status.weight() != before.weight();
    if is_under_analysis(status.phase) && (ends_step || moves) {
        let all = match results(snapshot, evidence) {
            Stage::Done(all) => all,
            Stage::Ask(_) => Vec::new(),
        };
        keep(snapshot, &all, status);
    }
    decision
}

/// Puts the tests into a status.
pub fn keep(snapshot: &Snapshot, all: &[Compared], status: &mut CanaryStatus) {
    let all = all.iter();
    let all: Vec<_> = all
        .map(|it| (it.metric.as_str(), it.before.as_ref(), it.after.as_ref()))
        .collect();
    keeping::keep(snapshot, &all, status);
}
