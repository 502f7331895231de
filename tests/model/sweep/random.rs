//! Choices by seed: the same seed chooses the same.

/// A sequence of numbers from a seed (SplitMix64).
pub struct Random(u64);

impl Random {
    /// A sequence for this seed and purpose.
    pub fn new(seed: u64, purpose: &str) -> Self {
        Self(hash(seed, purpose.as_bytes()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of these. Panics if there are none.
    pub fn choose<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.next() % u64::try_from(from.len()).unwrap();
        &from[usize::try_from(at).unwrap()]
    }
}

/// A number for a seed and these bytes (FNV-1a).
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix)
}
