//! The shares of requests of the primary and the canary.

/// The percentage of requests of each side, and whether requests are mirrored to the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weights {
    /// Percent of the requests to the primary.
    pub primary: u8,
    /// Percent of the requests to the canary.
    pub canary: u8,
    /// Whether the canary also gets copies of the requests.
    pub mirrored: bool,
}

impl Weights {
    /// All requests go to the primary. Every release starts here, and every failed one returns here.
    pub const PRIMARY: Self = Self {
        primary: 100,
        canary: 0,
        mirrored: false,
    };
    /// All requests go to the canary (blue/green and A/B testing).
    pub const CANARY: Self = Self {
        primary: 0,
        canary: 100,
        mirrored: false,
    };

    /// `percent` of the requests to the canary and the rest to the primary. A value above 100 counts as 100.
    pub fn canary(percent: u8) -> Self {
        let canary = percent.min(100);
        Self {
            primary: 100 - canary,
            canary,
            mirrored: false,
        }
    }
}
