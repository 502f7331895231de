//! The sequential test of two rates.

use serde::{Deserialize, Serialize};

use super::{Counts, Margin, Window};

/// The number of alternatives. With 4 or 16 the power is the same within 2 percentage points.
const ALTERNATIVES: usize = 8;
/// The number of spaces between the alternatives.
const SPACES: f64 = 7.0;
/// The highest rate of an alternative.
const HIGHEST: f64 = 0.9;
/// The least distance of an alternative from the limit, for each unit of its factor. At a limit of almost 0, a multiple of the limit is no
/// detectable rate.
const LEAST: f64 = 0.001;
/// The number of times that the interval of the projection is halved. Then it is smaller than the precision of a floating-point number.
const HALVINGS: u32 = 60;

/// The bad requests that are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// Failed requests: a regression may multiply them by hundreds.
    Errors,
    /// Requests slower than a bound: a regression multiplies them by up to 30.
    Latency,
}

impl Measure {
    /// The least and the greatest factor of an alternative. A rate that is much closer to the limit is not found, however many requests
    /// there are.
    pub const fn range(self) -> (f64, f64) {
        match self {
            Self::Errors => (2.0, 300.0),
            Self::Latency => (1.3, 30.0),
        }
    }

    /// The factors of the alternatives, evenly spaced on a logarithmic scale.
    fn factors(self) -> [f64; ALTERNATIVES] {
        let (least, most) = self.range();
        let ratio = (most / least).powf(1.0 / SPACES);
        let mut factor = least / ratio;
        [0; ALTERNATIVES].map(|_| {
            factor *= ratio;
            factor
        })
    }

    /// The rates of a canary that are the alternatives of the test, if this rate is the limit.
    fn alternatives(self, limit: f64) -> [f64; ALTERNATIVES] {
        self.factors().map(|factor| {
            let rate = match self {
                Self::Errors => (factor * limit).max(LEAST.mul_add(factor, limit)),
                Self::Latency => factor * limit,
            };
            rate.min(HIGHEST)
        })
    }
}

/// A sequential test of a canary against its primary. The canary and the primary have the rates θ_c and θ_p of bad requests; the margin
/// accepts θ_c ≤ a + b·θ_p. There are two null hypotheses, each with an e-value: "not worse" (θ_c is within the margin) and "worse" (θ_c is
/// at the limit or above).
///
/// # Formula
/// In each window, with n requests and x bad ones of each version:
///
/// 1. θ_p is estimated as (X + ½)/(N + 1) from the primary's requests *before* the window. The alternatives are K = 8 rates θ_c above the
///    limit, and for the other hypothesis θ_c = θ_p.
/// 2. Each alternative (θ_p, θ_c) is projected onto the null hypothesis: the point (t, u) with u = a + b·t at which
///    n_p·KL(θ_p‖t) + n_c·KL(θ_c‖u) is least. Its derivative decreases in t, and halving an interval finds its zero.
/// 3. ℓ grows by x_c·ln(θ_c/u) + (n_c − x_c)·ln((1 − θ_c)/(1 − u)) + x_p·ln(θ_p/t) + (n_p − x_p)·ln((1 − θ_p)/(1 − t)).
/// 4. The e-value is the mean of exp(ℓ/φ) over the alternatives, where φ ≥ 1 is the [dispersion](super::dispersion).
///
/// # Why it holds
/// Let φ be 1, and let (θ'_p, θ'_c) be true rates within the null hypothesis. One window's factor has the mean Π [1 + (θ' − t)(θ − t)/(t(1
/// − t))]^n over both versions. By the inequality of means it is at most the power Σn of 1 + Σ (n/Σn)·(θ' − t)(θ − t)/(t(1 − t)), and that
/// sum is not positive, because (t, u) is the nearest point of a convex set. The alternatives depend on the past only, so exp(ℓ) is a
/// supermartingale, whatever the true rates are and however they change: a dependency that fails for both versions alike raises no alarm.
/// By Ville's inequality the e-value ever reaches 1/α with a probability of α at most.
///
/// # Assumptions
/// Requests of a window fail independently of each other; φ corrects for bursts and for pods that differ. Both versions serve requests of
/// the same kind: a load test that calls the canary alone must not be counted.
///
/// Source: Turner, Ly and Grünwald, *Generic E-variables for exact sequential k-sample tests that allow for optional stopping* (Journal of
/// Statistical Planning and Inference 230, 2024); for linear hypotheses Turner and Grünwald, *Exact anytime-valid confidence intervals for
/// contingency tables and beyond* (2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    measure: Measure,
    margin: Margin,
    /// The primary's requests before the run.
    history: Counts,
    /// The requests of the run.
    seen: Window,
    /// The logarithms ℓ of the alternatives that are worse.
    worse: [f64; ALTERNATIVES],
    /// The logarithm ℓ of the alternative that is equal.
    not_worse: f64,
}

impl Comparison {
    /// A test at the start of a run. `history` has the primary's requests of the hour before.
    pub const fn new(measure: Measure, margin: Margin, history: Counts) -> Self {
        Self {
            measure,
            margin,
            history,
            seen: Window {
                canary: Counts::NONE,
                primary: Counts::NONE,
            },
            worse: [0.0; ALTERNATIVES],
            not_worse: 0.0,
        }
    }

    /// Adds the requests since the last window. The requests of each window are counted once.
    pub fn add(&mut self, window: Window) {
        let primary = self.primary_rate();
        let alternatives = self.measure.alternatives(self.margin.limit(primary));
        for (evidence, canary) in self.worse.iter_mut().zip(alternatives) {
            if canary > self.margin.limit(primary) {
                *evidence += gain(self.margin, (primary, canary), window);
            }
        }
        if primary < self.margin.limit(primary) {
            self.not_worse += gain(self.margin, (primary, primary), window);
        }
        self.seen = self.seen.and(window);
    }

    /// The evidence that the canary is worse than the margin allows: the natural logarithm of an e-value. `dispersion` is at least 1.
    pub fn worse(&self, dispersion: f64) -> f64 {
        let tempered = self.worse.map(|evidence| evidence / dispersion.max(1.0));
        mean_of_powers(&tempered)
    }

    /// The evidence that the canary is within the margin: the natural logarithm of an e-value. It stays 0 without a margin, because nothing
    /// proves that two rates are equal.
    pub fn not_worse(&self, dispersion: f64) -> f64 {
        self.not_worse / dispersion.max(1.0)
    }

    /// The requests of the run.
    pub const fn seen(&self) -> Window {
        self.seen
    }

    /// Uses requests of the primary only to estimate its rate.
    pub fn learn(&mut self, primary: Counts) {
        self.history = self.history.and(primary);
    }

    /// The primary's requests from which its rate is estimated.
    pub fn known(&self) -> Counts {
        self.history.and(self.seen.primary)
    }

    /// The estimate of the primary's rate from the requests so far.
    pub fn primary_rate(&self) -> f64 {
        let known = self.known();
        (known.bad() + 0.5) / (known.all() + 1.0)
    }
}

/// The growth of ℓ for the alternative `(primary, canary)`, which is outside of the null hypothesis that the margin bounds.
fn gain(margin: Margin, (primary, canary): (f64, f64), window: Window) -> f64 {
    let nearest = projection(margin, (primary, canary), window);
    likelihood(window.canary, canary, margin.limit(nearest))
        + likelihood(window.primary, primary, nearest)
}

/// The logarithm of the ratio of the likelihoods of two rates.
fn likelihood(counts: Counts, alternative: f64, null: f64) -> f64 {
    // A count of 0 contributes 0. If a rate is 0 or 1, its logarithm is infinite, and the product would not be a number.
    let of = |count: f64, logarithm: f64| if count > 0.0 { count * logarithm } else { 0.0 };
    of(counts.bad(), (alternative / null).ln())
        + of(counts.good(), (-alternative).ln_1p() - (-null).ln_1p())
}

/// The primary's rate at the point of the boundary that is nearest to an alternative.
fn projection(margin: Margin, (primary, canary): (f64, f64), window: Window) -> f64 {
    let slope = |rate: f64| {
        let limit = margin.limit(rate);
        window.primary.all() * (primary - rate) / (rate * (1.0 - rate))
            + window.canary.all() * margin.factor() * (canary - limit) / (limit * (1.0 - limit))
    };
    let (mut low, mut high) = (0.0, margin.saturation());
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if slope(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

/// The logarithm of the mean of `exp(power)`.
pub(super) fn mean_of_powers(powers: &[f64]) -> f64 {
    let greatest = powers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if !greatest.is_finite() {
        return greatest;
    }
    let sum: f64 = powers.iter().map(|power| (power - greatest).exp()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a handful of powers")]
    let count = powers.len() as f64;
    greatest + (sum / count).ln()
}
