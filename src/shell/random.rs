//! Random numbers. The standard library seeds its hash maps with numbers that nobody can guess; these are the same numbers.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Returns a number that nobody can guess.
pub fn nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns a random number from 0 to 1, to spread retries over time.
pub fn fraction() -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "53 bits are as many as a float holds"
    )]
    let fraction = (nonce() >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}
