//! The shares of requests of the primary and the canary.

use crate::api::percent::Percent;

/// The sum of both weights in a route, while one of them is no whole percentage.
const THOUSAND: u64 = 1000;

/// The percentage of requests of each side, and whether requests are mirrored to the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weights {
    /// Percent of the requests to the primary.
    pub primary: Percent,
    /// Percent of the requests to the canary.
    pub canary: Percent,
    /// Whether the canary also gets copies of the requests.
    pub mirrored: bool,
}

impl Weights {
    /// All requests go to the primary. Every release starts here, and every failed one returns here.
    pub const PRIMARY: Self = Self {
        primary: Percent::ALL,
        canary: Percent::ZERO,
        mirrored: false,
    };
    /// All requests go to the canary (blue/green and A/B testing).
    pub const CANARY: Self = Self {
        primary: Percent::ZERO,
        canary: Percent::ALL,
        mirrored: false,
    };

    /// This percentage of the requests to the canary and the rest to the primary. A value above 100 counts as 100.
    pub fn canary(percent: impl Into<Percent>) -> Self {
        let canary = percent.into();
        Self {
            primary: Percent::ALL.without(canary),
            canary,
            mirrored: false,
        }
    }

    /// The weights in a route of a router that knows whole percentages only; `None` if they lead no request anywhere.
    pub fn of_percents(primary: u8, canary: u8) -> Option<Self> {
        (primary > 0 || canary > 0).then(|| Self {
            primary: primary.into(),
            canary: canary.into(),
            mirrored: false,
        })
    }

    /// The weights in a route of a router whose weights are relative: tenths of a percent if their sum is 1000, otherwise percentages.
    /// `None` if they lead no request anywhere.
    pub fn of_parts([primary, canary]: [u64; 2]) -> Option<Self> {
        let is_thousand = primary.checked_add(canary) == Some(THOUSAND);
        let of = |weight: u64| {
            let tenths = if is_thousand { 1 } else { 10 };
            Percent::of_tenths(weight.saturating_mul(tenths))
        };
        (primary > 0 || canary > 0).then(|| Self {
            primary: of(primary),
            canary: of(canary),
            mirrored: false,
        })
    }

    /// The weights of the primary and the canary in a route whose weights are relative: percentages, or tenths with the sum 1000 if one of
    /// them is no whole percentage.
    pub fn parts(&self) -> [u16; 2] {
        let both = [self.primary, self.canary];
        let tenths = if both.iter().all(|it| it.is_whole()) {
            10
        } else {
            1
        };
        both.map(|it| it.tenths() / tenths)
    }
}
