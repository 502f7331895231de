//! Numbers of pods that are written as a number or as a percentage, as Kubernetes reads them.

use serde_json::Value;

/// The direction in which Kubernetes rounds a percentage of pods.
#[derive(Clone, Copy)]
pub enum Rounding {
    /// To the next smaller number.
    Down,
    /// To the next greater number.
    Up,
}

/// The number that a value means for this many pods: itself, or its percentage of them. A text that is no percentage means 0.
pub fn share_of(value: &Value, pods: i64, rounding: Rounding) -> i64 {
    let percent = || value.as_str()?.strip_suffix('%')?.parse::<i64>().ok();
    let of_percent = |percent: i64| {
        let product = percent.saturating_mul(pods);
        match rounding {
            Rounding::Down => product / 100,
            Rounding::Up => product.saturating_add(99) / 100,
        }
    };
    let number = value.as_i64().or_else(|| percent().map(of_percent));
    number.unwrap_or(0)
}
