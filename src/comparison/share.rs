//! Checks that the canary gets the share of the requests that its weight asks for.

use super::Window;

/// If a window without a request of the canary has a greater probability than this, it counts as chance.
const CHANCE: f64 = 0.01;
/// The width of the band around the expected count, in standard deviations.
const DEVIATIONS: f64 = 3.3;
/// The share of all requests by which a split may be imprecise. A smaller share may be half of what it ought to be.
const IMPRECISION: f64 = 0.01;

/// Whether the canary had clearly fewer requests than this share of all. `false` if there were too few requests to decide. More requests
/// than expected are no reason to wait: other clients, such as a load test, may call the canary directly.
pub fn is_missed(window: Window, share: f64, dispersion: f64) -> bool {
    let (canary, all) = (window.canary.all(), window.canary.and(window.primary).all());
    if share <= 0.0 || share >= 1.0 || all < CHANCE.ln() / (-share).ln_1p() {
        return false;
    }
    let deviation = (dispersion.max(1.0) * all * share * (1.0 - share)).sqrt();
    let imprecision = if share < IMPRECISION {
        share / 2.0
    } else {
        IMPRECISION
    };
    canary < all.mul_add(share, -DEVIATIONS * deviation) - imprecision * all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::Counts;

    #[test]
    fn only_a_share_that_is_clearly_too_small_is_missed() {
        let window = |canary: f64, primary: f64| Window {
            canary: Counts::new(canary, 0.0).unwrap(),
            primary: Counts::new(primary, 0.0).unwrap(),
        };
        for (canary, primary, share, missed) in [
            (0.0, 1_000.0, 0.1, true),
            (0.0, 43.0, 0.1, false),
            (0.0, 45.0, 0.1, false),
            (40.0, 960.0, 0.1, true),
            (75.0, 925.0, 0.1, false),
            (900.0, 100.0, 0.1, false),
            (0.0, 0.0, 0.5, false),
            (0.0, 1_000.0, 0.0, false),
            (990.0, 10.0, 1.0, false),
            (0.0, 100_000.0, 0.01, false),
            (0.0, 60_000.0, 0.001, true),
            (0.0, 4_000.0, 0.001, false),
            (30.0, 60_000.0, 0.001, false),
        ] {
            let is = is_missed(window(canary, primary), share, 1.0);
            assert_eq!(is, missed, "{canary} {primary} {share}");
        }
        assert!(!is_missed(window(40.0, 960.0), 0.1, 30.0), "bursts");
    }
}
