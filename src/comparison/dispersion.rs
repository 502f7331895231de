//! Corrections for requests that are not independent of each other. Without them, bursts of errors and unequal pods raise false alarms in
//! 12 to 39 % of the runs in which nothing is wrong; with them in less than 1 %.

use super::Counts;

/// Blocks of which the variance is only estimated, so the estimate is raised.
const RAISE: f64 = 1.5;
/// The variance between fewer pods cannot be estimated.
const LEAST_PODS: usize = 3;

/// The dispersion of bursts, from blocks of the primary's requests, such as the minutes of the hour before a run: 1.5 times Pearson's χ² by
/// its degrees of freedom. 1 if requests are independent.
pub fn of_bursts(blocks: &[Counts]) -> f64 {
    let blocks: Vec<_> = blocks.iter().filter(|block| block.all() > 0.0).collect();
    let total = blocks
        .iter()
        .fold(Counts::NONE, |sum, block| sum.and(**block));
    let variance = total.rate() * (1.0 - total.rate());
    if blocks.len() < 2 || variance <= 0.0 {
        return 1.0;
    }
    let deviations = blocks.iter().map(|block| {
        let deviation = total.rate().mul_add(-block.all(), block.bad());
        deviation * deviation / block.all()
    });
    (RAISE * deviations.sum::<f64>() / variance / freedom(blocks.len())).max(1.0)
}

/// The dispersion of unequal pods: `1 + v·(1/k_c + 1/k_p)·N_c/(p(1 − p))`, where v is the variance of the rates of the primary's pods beyond
/// that of independent requests, k the pods of each version, N_c the canary's requests, and p the primary's rate. `None` with fewer than three pods of the
/// primary: use a greater margin then.
pub fn of_pods(primary: &[Counts], canary_pods: usize, canary_requests: f64) -> Option<f64> {
    let pods: Vec<_> = primary.iter().filter(|pod| pod.all() > 0.0).collect();
    if pods.len() < LEAST_PODS || canary_pods == 0 {
        return None;
    }
    let total = pods.iter().fold(Counts::NONE, |sum, pod| sum.and(**pod));
    let variance = total.rate() * (1.0 - total.rate());
    if variance <= 0.0 {
        return Some(1.0);
    }
    let deviations = pods.iter().map(|pod| {
        let deviation = pod.rate() - total.rate();
        pod.all() * deviation * deviation
    });
    let squares: f64 = pods.iter().map(|pod| pod.all() * pod.all()).sum();
    let size = (total.all() - squares / total.all()) / freedom(pods.len());
    let between = (deviations.sum::<f64>() / freedom(pods.len()) - variance) / size;
    let shares = 1.0 / count(canary_pods) + 1.0 / count(pods.len());
    Some(
        between
            .max(0.0)
            .mul_add(shares * canary_requests / variance, 1.0),
    )
}

fn freedom(values: usize) -> f64 {
    count(values) - 1.0
}

#[expect(clippy::cast_precision_loss, reason = "a number of pods or blocks")]
fn count(values: usize) -> f64 {
    values as f64
}
