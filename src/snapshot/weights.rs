//! The share of requests that each side gets.

/// Percent of the requests to the primary and to the canary, and whether the canary also gets copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weights {
    /// Percent to the primary.
    pub primary: u8,
    /// Percent to the canary.
    pub canary: u8,
    /// Whether requests are copied (mirrored) to the canary.
    pub mirrored: bool,
}

impl Weights {
    /// Everything to the primary: where every release starts, and where every failure returns to.
    pub const PRIMARY: Self = Self {
        primary: 100,
        canary: 0,
        mirrored: false,
    };
    /// Everything to the canary: blue/green and A/B testing.
    pub const CANARY: Self = Self {
        primary: 0,
        canary: 100,
        mirrored: false,
    };

    /// `percent` to the canary and the rest to the primary; more than 100 counts as 100.
    pub fn canary(percent: u8) -> Self {
        let canary = percent.min(100);
        Self {
            primary: 100 - canary,
            canary,
            mirrored: false,
        }
    }
}
