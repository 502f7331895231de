//! Counts of requests, and the margins within which two versions count as equal.

use serde::{Deserialize, Serialize};

/// Requests, and how many of them were bad: failed, or slower than a bound. Expected counts may be fractions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    all: f64,
    bad: f64,
}

impl Counts {
    /// No request.
    pub const NONE: Self = Self { all: 0.0, bad: 0.0 };

    /// Counts from outside. `None` if they are not counts: not finite, negative, or more bad requests than requests.
    pub fn new(all: f64, bad: f64) -> Option<Self> {
        let is_count = all.is_finite() && bad >= 0.0 && bad <= all;
        is_count.then_some(Self { all, bad })
    }

    /// The number of requests.
    pub const fn all(self) -> f64 {
        self.all
    }

    /// The number of bad requests.
    pub const fn bad(self) -> f64 {
        self.bad
    }

    /// The number of good requests.
    pub fn good(self) -> f64 {
        self.all - self.bad
    }

    /// The share of bad requests; 0 without a request.
    pub fn rate(self) -> f64 {
        if self.all > 0.0 {
            self.bad / self.all
        } else {
            0.0
        }
    }

    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            bad: self.bad + other.bad,
        }
    }
}

/// The requests of both versions in the same period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// The requests of the canary.
    pub canary: Counts,
    /// The requests of the primary.
    pub primary: Counts,
}

impl Window {
    /// The sum of both windows.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            canary: self.canary.and(other.canary),
            primary: self.primary.and(other.primary),
        }
    }
}

/// How much worse the canary may be: its rate of bad requests is accepted up to `absolute + factor · (rate of the primary)`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Margin {
    absolute: f64,
    factor: f64,
}

impl Margin {
    /// No margin: any rate above the primary's is refused.
    pub const NONE: Self = Self {
        absolute: 0.0,
        factor: 1.0,
    };

    /// A margin. `None` unless `absolute` is a share below 1 and `factor` at least 1.
    pub fn new(absolute: f64, factor: f64) -> Option<Self> {
        let is_margin = (0.0..1.0).contains(&absolute) && factor >= 1.0 && factor.is_finite();
        is_margin.then_some(Self { absolute, factor })
    }

    /// The highest rate of the canary that is accepted at this rate of the primary.
    pub fn limit(self, primary: f64) -> f64 {
        self.factor.mul_add(primary, self.absolute)
    }

    /// The growth of the limit for each unit of the primary's rate.
    pub const fn factor(self) -> f64 {
        self.factor
    }

    /// The rate of the primary at which the limit is 1; at most 1.
    pub fn saturation(self) -> f64 {
        (1.0 - self.absolute) / self.factor
    }
}
