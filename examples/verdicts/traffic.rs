//! Simulated requests of both versions.

use flagger_rs::comparison::{Counts, Window};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rand_distr::{Binomial, Distribution, Geometric, LogNormal, Poisson};

/// The weights of the steps of a run, in percent. Each step takes a minute.
pub const WEIGHTS: [f64; 5] = [10.0, 20.0, 30.0, 40.0, 50.0];
/// The minutes before a run from which the base rate and the dispersion are estimated.
pub const HISTORY: usize = 60;
/// The pods of the canary and of the primary.
pub const PODS: (usize, usize) = (2, 8);
/// The bounds of Istio's histogram of durations, in milliseconds.
const BOUNDS: [f64; 12] = [
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    f64::INFINITY,
];
/// The median of the durations, in milliseconds.
const MEDIAN: f64 = 180.0;

/// The probability laws of a service's requests.
#[derive(Clone, Copy, Debug)]
pub struct Law {
    /// Requests in a second.
    pub per_second: f64,
    /// The share of failed requests of the primary.
    pub base: f64,
    /// How much higher the canary's share is.
    pub increase: f64,
    /// The mean length of a burst of failures; 1 for independent ones.
    pub burst: f64,
    /// The standard deviation of the logarithm of a pod's rate; 0 for equal pods.
    pub pods: f64,
}

impl Law {
    /// Independent failures, equal pods, and 0.1 % failed requests of both versions.
    pub const fn plain(per_second: f64) -> Self {
        Self {
            per_second,
            base: 0.001,
            increase: 0.0,
            burst: 1.0,
            pods: 0.0,
        }
    }

    /// The same law with a canary that fails more often.
    pub const fn worse(self, increase: f64) -> Self {
        Self { increase, ..self }
    }
}

/// A service with pods of its own.
pub struct Service {
    law: Law,
    random: StdRng,
    /// The factors of the rates of the pods.
    canary: Vec<f64>,
    primary: Vec<f64>,
}

impl Service {
    /// A service whose requests this seed decides.
    pub fn new(law: Law, seed: u64) -> Self {
        Self::with_pods(law, PODS, seed)
    }

    /// A service with these numbers of pods, of the canary and of the primary.
    pub fn with_pods(law: Law, pods: (usize, usize), seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut factors = |count: usize| -> Vec<f64> {
            let factor = LogNormal::new(0.0, law.pods);
            let mut draw = || {
                factor
                    .as_ref()
                    .map_or(1.0, |factor| factor.sample(&mut random))
            };
            (0..count).map(|_| draw()).collect()
        };
        let (canary, primary) = (factors(pods.0), factors(pods.1));
        Self {
            law,
            random,
            canary,
            primary,
        }
    }

    /// The minutes before the run, and the requests of each pod in them.
    pub fn history(&mut self) -> (Vec<Counts>, Vec<Counts>) {
        let mut minutes = Vec::new();
        let mut pods = vec![Counts::NONE; self.primary.len()];
        for _ in 0..HISTORY {
            let of_pods = self.pods(1.0, 1.0, false);
            minutes.push(of_pods.iter().fold(Counts::NONE, |sum, pod| sum.and(*pod)));
            for (sum, pod) in pods.iter_mut().zip(of_pods) {
                *sum = sum.and(pod);
            }
        }
        (minutes, pods)
    }

    /// The requests of a minute at this weight of the canary, in percent.
    pub fn window(&mut self, weight: f64) -> Window {
        let sum = |pods: Vec<Counts>| pods.into_iter().fold(Counts::NONE, Counts::and);
        Window {
            canary: sum(self.pods(1.0, weight / 100.0, true)),
            primary: sum(self.pods(1.0, 1.0 - weight / 100.0, false)),
        }
    }

    /// The requests of each pod in so many minutes in which the version gets this share.
    pub fn pods(&mut self, minutes: f64, share: f64, is_canary: bool) -> Vec<Counts> {
        let law = self.law;
        let (factors, increase) = if is_canary {
            (self.canary.clone(), law.increase)
        } else {
            (self.primary.clone(), 0.0)
        };
        let requests = law.per_second * 60.0 * minutes * share / number(&factors);
        let of_pod = |factor: &f64| {
            let rate = law.base.mul_add(*factor, increase).min(1.0);
            let all = self.poisson(requests);
            let bad = self.failures(all, rate);
            Counts::new(all, bad).unwrap_or_default()
        };
        factors.iter().map(of_pod).collect()
    }

    fn poisson(&mut self, mean: f64) -> f64 {
        Poisson::new(mean).map_or(0.0, |law| law.sample(&mut self.random))
    }

    fn failures(&mut self, all: f64, rate: f64) -> f64 {
        if self.law.burst <= 1.0 {
            return binomial(&mut self.random, all, rate);
        }
        let bursts = self.poisson(all * rate / self.law.burst);
        let Ok(length) = Geometric::new(1.0 / self.law.burst) else {
            return 0.0;
        };
        let mut failed = 0.0;
        let mut burst = 0.0;
        while burst < bursts {
            let more = u32::try_from(length.sample(&mut self.random)).unwrap_or(u32::MAX);
            failed += f64::from(more) + 1.0;
            burst += 1.0;
        }
        f64::min(failed, all)
    }
}

/// The number of failures among independent requests.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a number of requests is whole, positive and not that large"
)]
fn binomial(random: &mut impl Rng, all: f64, rate: f64) -> f64 {
    let law = Binomial::new(all as u64, rate);
    law.map_or(0.0, |law| law.sample(random) as f64)
}

/// For each finite bound, the number of requests and of those that are slower than the bound.
pub fn durations(
    random: &mut impl Rng,
    requests: f64,
    factor: f64,
    sigma: f64,
) -> Option<Vec<(f64, Counts)>> {
    let law = LogNormal::new((MEDIAN * factor).ln(), sigma).ok()?;
    let mut counts = [0.0; BOUNDS.len()];
    let mut drawn = 0.0;
    while drawn < requests {
        let duration = law.sample(random);
        let place = BOUNDS.iter().position(|bound| duration <= *bound)?;
        counts[place] += 1.0;
        drawn += 1.0;
    }
    let mut sum = 0.0;
    let slower = BOUNDS.iter().zip(counts).map(|(bound, count)| {
        sum += count;
        Some((*bound, Counts::new(drawn, drawn - sum)?))
    });
    let all: Option<Vec<_>> = slower.collect();
    all.map(|mut all| {
        all.retain(|(bound, _)| bound.is_finite());
        all
    })
}

fn number(factors: &[f64]) -> f64 {
    factors.iter().map(|_| 1.0).sum()
}
