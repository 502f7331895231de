//! The primary's requests before a run, in blocks in the order of time, such as the minutes of an hour. Its rate may have changed within the
//! hour, for example because a release before has replaced a version.

use super::Counts;

/// The number of blocks before and after a difference that show whether it lasts.
const LASTING: usize = 5;
/// The square of a clear difference, by that of independent requests: three standard deviations.
const CLEAR: f64 = 9.0;

/// Two blocks that follow each other.
pub struct Neighbours {
    /// The square of the difference of their rates, by the sum of the inverse numbers of requests.
    pub square: f64,
    /// The mean of the square for independent requests.
    pub variance: f64,
    /// Whether they differ clearly, and the difference lasts.
    pub is_change: bool,
}

/// The neighbours among the blocks with requests, in the same order.
pub fn neighbours(blocks: &[Counts]) -> Vec<Neighbours> {
    let blocks = used(blocks);
    let pair = |at: usize| {
        let (one, other) = (blocks[at - 1], blocks[at]);
        let rate = one.and(other).rate();
        let variance = rate * (1.0 - rate);
        let difference = other.rate() - one.rate();
        let square = difference * difference / (1.0 / one.all() + 1.0 / other.all());
        Neighbours {
            square,
            variance,
            is_change: square >= CLEAR * variance && lasts(&blocks, at, difference),
        }
    };
    (1..blocks.len()).map(pair).collect()
}

/// The requests since the rate has changed for the last time; all requests if it has not. It is known from five blocks at least.
pub fn since_change(blocks: &[Counts]) -> Counts {
    let (used, pairs) = (used(blocks), neighbours(blocks));
    let known = pairs.len().min(used.len().saturating_sub(LASTING));
    let last = pairs[..known].iter().rposition(|pair| pair.is_change);
    total(&used[last.map_or(0, |before| before + 1)..])
}

fn used(blocks: &[Counts]) -> Vec<Counts> {
    let blocks = blocks.iter().copied();
    blocks.filter(|block| block.all() > 0.0).collect()
}

fn total(blocks: &[Counts]) -> Counts {
    blocks
        .iter()
        .fold(Counts::NONE, |sum, block| sum.and(*block))
}

/// Whether a difference at this block lasts: the blocks after it differ from those before by more than half as much. A burst in one block, or
/// across the end of a block, moves the sums of five blocks less. Near an end of the hour, on one side there are fewer than five blocks, so
/// that a burst in the first or the last block is taken for a change; it is one of many, if requests come in bursts.
fn lasts(blocks: &[Counts], at: usize, difference: f64) -> bool {
    let before = &blocks[at.saturating_sub(LASTING)..at];
    let after = &blocks[at..blocks.len().min(at + LASTING)];
    if before.len().max(after.len()) < LASTING {
        return false;
    }
    let lasting = total(after).rate() - total(before).rate();
    lasting.abs() > difference.abs() / 2.0 && lasting * difference > 0.0
}
