//! The test of one metric during a run: from the counters of pods at two instants to a finding.

use serde::{Deserialize, Serialize};

use super::{
    Comparison, Counts, Margin, Measure, Window,
    counters::{Counters, Increments, Reading},
    dispersion, is_proven, latency,
    pods::one_pod,
    power::{self, requests_to_detect},
    sequential::mean_of_powers,
};

/// The most bounds of durations that are compared. The test keeps its state in the Canary's status.
const BOUNDS: usize = 4;

/// The rules of a comparison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// The kind of requests that are bad.
    pub measure: Measure,
    /// How much worse the canary may be.
    pub margin: Margin,
    /// The probability of a false alarm in a run.
    pub false_alarms: f64,
    /// The increase of the rate that the test must be able to find, as a share.
    pub detect: f64,
    /// The requests of the canary that are needed; `None`: as many as `detect` demands.
    pub least: Option<f64>,
    /// Whether the counters are those of the workload's pods, and not of a gateway's.
    pub counts_pods: bool,
}

/// The counters of one version at two instants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// At the end of the last window.
    pub before: Reading,
    /// Now.
    pub now: Reading,
}

impl Readings {
    /// The requests in between.
    fn increments(&self) -> Increments {
        Counters::starting_at(self.before.clone()).advance(self.now.clone())
    }
}

/// The counters of both versions at two instants, of the requests that are bad by one criterion.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arms {
    /// Those of the canary.
    pub canary: Readings,
    /// Those of the primary.
    pub primary: Readings,
}

/// The tests of one metric during a run: one for errors, or one for each bound of durations. Their mean is an e-value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricTest(Vec<OneTest>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OneTest {
    /// The bound of durations; `None` for errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound: Option<f64>,
    /// The dispersion of the primary's requests in the hour before the run.
    bursts: f64,
    test: Comparison,
}

/// The state of a comparison after a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum State {
    /// The canary is worse than the margin allows.
    Worse,
    /// The canary is within the margin.
    NotWorse,
    /// Neither is proven.
    Undecided,
    /// The canary had fewer requests than are needed: this many.
    LowTraffic(f64),
    /// A version has no counters.
    #[default]
    NoData,
    /// This pod of the canary has nearly all its bad requests.
    OnePod(String),
}

/// A finding with its numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// The state.
    pub state: State,
    /// The bound of durations that shows the greatest difference; `None` for errors.
    pub bound: Option<f64>,
    /// The requests of the run so far.
    pub seen: Window,
    /// The requests of the last window.
    pub last: Window,
    /// The natural logarithm of the e-value against "not worse".
    pub worse: f64,
    /// The dispersion.
    pub dispersion: f64,
    /// The pods whose requests of the last window are not counted, because their counters went back.
    pub restarted: Vec<String>,
}

impl MetricTest {
    /// The test of errors at the start of a run. `blocks` are the primary's requests in each minute of the hour before.
    pub fn of_errors(rules: &Rules, blocks: &[Counts]) -> Self {
        Self(vec![one(rules, None, blocks)])
    }

    /// The tests of durations at the start of a run, at some of these bounds, which stay the same for the run: those that between 0.5 % and 30 % of
    /// the primary's requests exceed, and the user's `own` one.
    pub fn of_durations(rules: &Rules, bounds: &[(f64, Vec<Counts>)], own: Option<f64>) -> Self {
        let is_compared = |(bound, blocks): &&(f64, Vec<Counts>)| {
            latency::is_compared(total(blocks)) || own == Some(*bound)
        };
        let all: Vec<_> = bounds.iter().filter(is_compared).collect();
        // Bounds close to each other show the same.
        let chosen = (0..BOUNDS.min(all.len()))
            .map(|place| place * (all.len() - 1) / (BOUNDS - 1).max(1))
            .map(|place| all[place]);
        let chosen = if all.len() > BOUNDS {
            chosen.collect()
        } else {
            all.clone()
        };
        let tests = chosen.into_iter();
        Self(
            tests
                .map(|(bound, blocks)| one(rules, Some(*bound), blocks))
                .collect(),
        )
    }

    /// The bounds of durations that are compared.
    pub fn bounds(&self) -> impl Iterator<Item = f64> {
        self.0.iter().filter_map(|one| one.bound)
    }

    /// Adds the requests since the last window, which are those of a bound.
    pub fn add(&mut self, window: impl Fn(Option<f64>) -> Option<Window>) {
        for one in &mut self.0 {
            if let Some(window) = window(one.bound) {
                one.test.add(window);
            }
        }
    }

    /// The evidence that the canary is worse than the margin allows: the natural logarithm of an e-value. `pods` is the dispersion of unequal
    /// pods.
    pub fn worse(&self, pods: f64) -> f64 {
        let powers: Vec<_> = self.0.iter().map(|one| one.worse(pods)).collect();
        if powers.is_empty() {
            return 0.0;
        }
        // The mean of e-values is an e-value, so no bound has to prove more than one alone would.
        mean_of_powers(&powers)
    }

    /// The evidence that the canary is within the margin at all bounds: the natural logarithm of an e-value. One bound that is not proven
    /// leaves the whole unproven.
    pub fn not_worse(&self, pods: f64) -> f64 {
        let each = self
            .0
            .iter()
            .map(|one| one.test.not_worse(one.bursts.max(pods)));
        each.reduce(f64::min).unwrap_or(0.0)
    }

    /// Adds the requests since the last window, and judges. `arms` has the counters for a bound, or for errors.
    pub fn advance(&mut self, rules: &Rules, arms: impl Fn(Option<f64>) -> Arms) -> Finding {
        let gains: Vec<_> = self
            .0
            .iter()
            .map(|one| (one.bound, Gain::of(&arms(one.bound))))
            .collect();
        let of = |bound: Option<f64>| {
            gains
                .iter()
                .find(|(of, _)| *of == bound)
                .map(|(_, gain)| gain)
        };
        self.add(|bound| of(bound).map(|gain| gain.window));
        let pods = gains
            .iter()
            .map(|(_, gain)| gain.of_pods(rules))
            .fold(1.0, f64::max);
        let strongest = self
            .0
            .iter()
            .max_by(|one, other| one.worse(pods).total_cmp(&other.worse(pods)));
        let gain = strongest.and_then(|one| of(one.bound));
        match (strongest, gain) {
            (Some(one), Some(gain)) => self.finding(rules, one, gain, pods),
            _ => Finding::default(),
        }
    }

    fn finding(&self, rules: &Rules, strongest: &OneTest, gain: &Gain, pods: f64) -> Finding {
        let worse = self.worse(pods);
        let seen = strongest.test.seen();
        let is_within = is_proven(self.not_worse(pods), rules.false_alarms);
        let needed = || {
            rules
                .least
                .unwrap_or_else(|| needed(rules, strongest, pods))
        };
        let state = match (is_proven(worse, rules.false_alarms), gain.bad_pod(rules)) {
            _ if !gain.has_data => State::NoData,
            (true, Some(pod)) => State::OnePod(pod.to_owned()),
            (true, None) => State::Worse,
            (false, _) if is_within => State::NotWorse,
            (false, _) => match needed() {
                needed if seen.canary.all() < needed => State::LowTraffic(needed),
                _ => State::Undecided,
            },
        };
        let restarted = gain.canary.restarted.iter().chain(&gain.primary.restarted);
        Finding {
            state,
            bound: strongest.bound,
            seen,
            last: gain.window,
            worse,
            dispersion: strongest.bursts.max(pods),
            restarted: restarted.cloned().collect(),
        }
    }
}

impl OneTest {
    fn worse(&self, pods: f64) -> f64 {
        self.test.worse(self.bursts.max(pods))
    }
}

/// The requests of one window.
struct Gain {
    canary: Increments,
    primary: Increments,
    window: Window,
    has_data: bool,
}

impl Gain {
    fn of(arms: &Arms) -> Self {
        let (canary, primary) = (arms.canary.increments(), arms.primary.increments());
        let window = Window {
            canary: canary.total(),
            primary: primary.total(),
        };
        Self {
            has_data: !(arms.canary.now.is_empty() || arms.primary.now.is_empty()),
            canary,
            primary,
            window,
        }
    }

    /// The dispersion of unequal pods.
    fn of_pods(&self, rules: &Rules) -> f64 {
        if !rules.counts_pods {
            return 1.0;
        }
        let primary: Vec<_> = self.primary.pods.values().copied().collect();
        let pods = self.canary.pods.len();
        dispersion::of_pods(&primary, pods, self.window.canary.all()).unwrap_or(1.0)
    }

    /// The pod of the canary that has nearly all its bad requests.
    fn bad_pod(&self, rules: &Rules) -> Option<&str> {
        let pods = self.canary.pods.iter();
        let pods = pods.map(|(name, counts)| (name.as_str(), *counts));
        rules.counts_pods.then(|| one_pod(pods)).flatten()
    }
}

/// The number of the canary's requests at which the increase to detect would be found, or, if that is too close to the margin, the least
/// increase that can be found. Infinite while the primary has no requests.
fn needed(rules: &Rules, of: &OneTest, pods: f64) -> f64 {
    let (seen, rate) = (of.test.seen(), of.test.primary_rate());
    if seen.primary.all() <= 0.0 {
        return f64::INFINITY;
    }
    let share = seen.canary.all() / seen.canary.and(seen.primary).all();
    let (least, _) = rules.measure.range();
    let increases = [rules.detect, least * rules.margin.limit(rate) - rate];
    let requests = increases.map(|increase| {
        requests_to_detect(&power::Plan {
            measure: rules.measure,
            margin: rules.margin,
            history: Counts::new(1e6, 1e6 * rate).unwrap_or_default(),
            share: share.clamp(0.001, 0.999),
            increase,
            false_alarms: rules.false_alarms,
            dispersion: of.bursts.max(pods),
        })
    });
    requests
        .into_iter()
        .flatten()
        .next()
        .unwrap_or(f64::INFINITY)
}

fn one(rules: &Rules, bound: Option<f64>, blocks: &[Counts]) -> OneTest {
    OneTest {
        bound,
        bursts: dispersion::of_bursts(blocks),
        test: Comparison::new(rules.measure, rules.margin, total(blocks)),
    }
}

fn total(blocks: &[Counts]) -> Counts {
    blocks
        .iter()
        .fold(Counts::NONE, |sum, block| sum.and(*block))
}
