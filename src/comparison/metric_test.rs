//! The test of one metric during a run: from the counters of pods at three instants to a finding.

use serde::{Deserialize, Serialize};

use super::{
    Comparison, Counts, Margin, Measure, Window,
    counters::{Increments, Reading},
    dispersion,
    history::since_change,
    is_proven, latency,
    pods::one_pod,
    power::{self, requests_to_detect},
    sequential::mean_of_powers,
};

/// The least number of requests of the primary from which its rate is known.
const LEARNED: f64 = 100.0;
/// The most bounds of durations that are compared, because the state of the tests is kept in the Canary's status.
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
    /// The least number of the canary's requests; `None` if it follows from `detect`.
    pub least: Option<f64>,
}

/// The counters of one version at three instants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings {
    /// The counters at the start of the run; for the primary, an hour before the start.
    pub start: Reading,
    /// The counters at the end of the last window.
    pub before: Reading,
    /// The counters now.
    pub now: Reading,
}

impl Readings {
    /// The requests of the window. The counters of a new pod began at 0. But if no pod has counters at the beginning of the window although
    /// there were requests before, these counters are lost, and nothing is counted.
    fn increments(&self, had_requests: bool) -> Increments {
        if self.before.is_empty() && had_requests {
            let restarted = self.now.keys().cloned().collect();
            return Increments {
                restarted,
                ..Increments::default()
            };
        }
        // A pod that had counters at the start of the run, but not at the beginning of the window, is not new: its counters did not begin
        // at 0.
        let is_back = |pod: &String| !self.before.contains_key(pod) && self.start.contains_key(pod);
        let mut increments = Increments::between(&self.before, &self.now);
        let back: Vec<_> = self
            .now
            .keys()
            .filter(|pod| is_back(pod))
            .cloned()
            .collect();
        increments.pods.retain(|pod, _| !is_back(pod));
        increments.restarted.extend(back);
        increments
    }

    /// The requests of each pod since the start.
    fn since_start(&self) -> Increments {
        Increments::between(&self.start, &self.now)
    }
}

/// The counters of both versions at three instants. A criterion decides which requests are bad.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arms {
    /// The counters of the canary.
    pub canary: Readings,
    /// The counters of the primary.
    pub primary: Readings,
    /// Whether the counters are those of the workload's pods, and not of a gateway's or a waypoint's.
    pub counts_pods: bool,
}

impl Arms {
    /// The requests of the window.
    pub fn window(&self) -> Window {
        let of = |readings: &Readings| readings.increments(true).total();
        Window {
            canary: of(&self.canary),
            primary: of(&self.primary),
        }
    }
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
    /// Neither `Worse` nor `NotWorse` is proven.
    Undecided,
    /// The canary had too few requests. The value is the number that is needed.
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
    /// The pods whose requests of the last window are not counted, because their counters decreased or were missing.
    pub restarted: Vec<String>,
}

impl MetricTest {
    /// The test of errors at the start of a run. `blocks` are the primary's requests in each minute of the hour before.
    pub fn of_errors(rules: &Rules, blocks: &[Counts]) -> Self {
        Self(vec![one(rules, None, blocks)])
    }

    /// The tests of durations at the start of a run, at no more than four of these bounds, which stay the same during the run: the bound
    /// `own` that the user set, and some of the bounds that between 0.5 % and 30 % of the primary's requests exceed. If no bound is in this
    /// range, the test uses the lowest bound that fewer than 0.5 % exceed; if there is none, the highest bound. `bounds` are in ascending
    /// order.
    pub fn of_durations(rules: &Rules, bounds: &[(f64, Vec<Counts>)], own: Option<f64>) -> Self {
        let is_own = |bound: &f64| own == Some(*bound);
        let is_compared = |(bound, blocks): &&(f64, Vec<Counts>)| {
            latency::is_compared(since_change(blocks)) && !is_own(bound)
        };
        let mut others: Vec<_> = bounds.iter().filter(is_compared).collect();
        let own: Vec<_> = bounds.iter().filter(|(bound, _)| is_own(bound)).collect();
        if others.is_empty() {
            let is_rare =
                |(_, blocks): &&(f64, Vec<Counts>)| latency::is_rare(since_change(blocks));
            let other = bounds.iter().find(is_rare).or(bounds.last());
            others.extend(other.filter(|(bound, _)| !is_own(bound)));
        }
        // Bounds close to each other show the same, so the chosen ones are spread over all.
        let most = (BOUNDS - own.len()).min(others.len());
        let place = |place: usize| place * (others.len() - 1) / (most - 1).max(1);
        let chosen = (0..most).map(|it| others[place(it)]);
        let tests = chosen
            .chain(own)
            .map(|(bound, blocks)| one(rules, Some(*bound), blocks));
        Self(tests.collect())
    }

    /// The bounds of durations that are compared.
    pub fn bounds(&self) -> impl Iterator<Item = f64> {
        self.0.iter().filter_map(|one| one.bound)
    }

    /// Adds the requests since the last window. `window` returns the requests for a bound, or for errors.
    pub fn add(&mut self, window: impl Fn(Option<f64>) -> Option<Window>) {
        for one in &mut self.0 {
            if let Some(window) = window(one.bound) {
                one.add(window);
            }
        }
    }

    /// Whether no bound of durations can be compared.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The evidence that the canary is worse than the margin allows: the natural logarithm of an e-value. `pods` is the dispersion of
    /// unequal pods.
    pub fn worse(&self, pods: f64) -> f64 {
        let powers: Vec<_> = self.0.iter().map(|one| one.worse(pods)).collect();
        if powers.is_empty() {
            return 0.0;
        }
        // The mean of e-values is an e-value, so several bounds need no further correction.
        mean_of_powers(&powers)
    }

    /// The evidence that the canary is within the margin at all bounds: the natural logarithm of an e-value. The least evidence of all
    /// bounds counts.
    pub fn not_worse(&self, pods: f64) -> f64 {
        let each = self
            .0
            .iter()
            .map(|one| one.test.not_worse(one.bursts.max(pods)));
        each.reduce(f64::min).unwrap_or(0.0)
    }

    /// Adds the requests since the last window, and judges. `arms` has the counters for a bound, or for errors.
    pub fn advance(&mut self, rules: &Rules, arms: impl Fn(Option<f64>) -> Arms) -> Finding {
        let mut gains = Vec::new();
        for one in &mut self.0 {
            let gain = Gain::of(&arms(one.bound), one.test.seen().canary.all() > 0.0);
            one.add(gain.window);
            gains.push(gain);
        }
        let pods = gains.iter().map(Gain::of_pods);
        let pods = pods.fold(1.0, f64::max);
        let tests = self.0.iter().zip(&gains);
        let strongest =
            tests.max_by(|(one, _), (other, _)| one.worse(pods).total_cmp(&other.worse(pods)));
        match strongest {
            Some((one, gain)) => self.finding(rules, one, gain, pods),
            None => Finding::default(),
        }
    }

    fn finding(&self, rules: &Rules, strongest: &OneTest, gain: &Gain, pods: f64) -> Finding {
        let worse = self.worse(pods);
        let seen = strongest.test.seen();
        let is_within = is_proven(self.not_worse(pods), rules.false_alarms);
        let is_enough = gain.window.canary.all() > 0.0 && is_enough(rules, strongest);
        let state = match (is_proven(worse, rules.false_alarms), gain.bad_pod()) {
            _ if !gain.has_data => State::NoData,
            (true, Some(pod)) => State::OnePod(pod),
            (true, None) => State::Worse,
            (false, _) if is_enough && is_within => State::NotWorse,
            (false, _) if is_enough => State::Undecided,
            (false, _) => State::LowTraffic(needed(rules, strongest)),
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
    /// Adds the requests of a window. While the primary's rate is not known, they are only used to estimate it.
    fn add(&mut self, window: Window) {
        if self.test.known().all() < LEARNED {
            self.test.learn(window.primary);
        } else {
            self.test.add(window);
        }
    }

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
    /// The requests of each pod since the start of the run; for the primary, since an hour before the start.
    pods: [Increments; 2],
    /// Whether these are the workload's pods.
    counts_pods: bool,
}

impl Gain {
    fn of(arms: &Arms, had_requests: bool) -> Self {
        let canary = arms.canary.increments(had_requests);
        let primary = arms.primary.increments(true);
        let window = Window {
            canary: canary.total(),
            primary: primary.total(),
        };
        Self {
            has_data: !(arms.canary.now.is_empty() || arms.primary.now.is_empty()),
            canary,
            primary,
            window,
            pods: [&arms.canary, &arms.primary].map(Readings::since_start),
            counts_pods: arms.counts_pods,
        }
    }

    /// The dispersion of unequal pods.
    fn of_pods(&self) -> f64 {
        if !self.counts_pods {
            return 1.0;
        }
        let [canary, primary] = &self.pods;
        let of_primary: Vec<_> = primary.pods.values().copied().collect();
        dispersion::of_pods(&of_primary, canary.pods.len(), canary.total().all())
    }

    /// The pod of the canary that has nearly all its bad requests.
    fn bad_pod(&self) -> Option<String> {
        let [canary, _] = &self.pods;
        let pods = canary.pods.iter();
        let pods = pods.map(|(name, counts)| (name.as_str(), *counts));
        let bad = self.counts_pods.then(|| one_pod(pods)).flatten();
        bad.map(str::to_owned)
    }
}

/// Whether the canary had the number of requests that is needed.
fn is_enough(rules: &Rules, of: &OneTest) -> bool {
    let seen = of.test.seen();
    match rules.least {
        Some(least) => seen.canary.all() >= least && seen.primary.all() > 0.0,
        None => {
            let mut plans = plans(rules, of);
            plans.any(|plan| power::is_enough(&plan, seen.canary.all()))
        }
    }
}

/// The number of the canary's requests that are needed; infinite while the primary has none.
fn needed(rules: &Rules, of: &OneTest) -> f64 {
    let of_plan = |plan| requests_to_detect(&plan);
    let needed = || plans(rules, of).find_map(of_plan);
    rules.least.or_else(needed).unwrap_or(f64::INFINITY)
}

/// The plans to find an increase: first the increase `detect`, then the least increase that the test can find, because `detect` may be too
/// close to the margin. None while the primary has no requests.
fn plans(rules: &Rules, of: &OneTest) -> impl Iterator<Item = power::Plan> {
    let (seen, rate) = (of.test.seen(), of.test.primary_rate());
    let share = seen.canary.all() / seen.canary.and(seen.primary).all();
    let (least, _) = rules.measure.range();
    let increases = [rules.detect, least * rules.margin.limit(rate) - rate];
    // The dispersion of unequal pods is left out, because more requests do not reduce the differences between pods.
    let (rules, dispersion) = (*rules, of.bursts);
    let plan = move |increase| power::Plan {
        measure: rules.measure,
        margin: rules.margin,
        history: Counts::new(1e6, 1e6 * rate).unwrap_or_default(),
        share: share.clamp(0.001, 0.999),
        increase,
        false_alarms: rules.false_alarms,
        dispersion,
    };
    let has_primary = seen.primary.all() > 0.0;
    increases.into_iter().filter(move |_| has_primary).map(plan)
}

fn one(rules: &Rules, bound: Option<f64>, blocks: &[Counts]) -> OneTest {
    OneTest {
        bound,
        bursts: dispersion::of_bursts(blocks),
        test: Comparison::new(rules.measure, rules.margin, since_change(blocks)),
    }
}
