//! A client that sends requests at a constant rate and records the outcome of each.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::Error;

/// The response header with the application's version. A response without it comes from a proxy, not from the application.
pub const VERSION: &str = "x-version";
/// A request that takes longer counts as lost. It is long enough for a request on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request.
#[derive(Clone, Debug)]
struct Sample {
    sent: Instant,
    /// How long it took, and its outcome. `None` while it is in flight.
    end: Option<(Duration, Outcome)>,
}

#[derive(Clone, Debug)]
enum Outcome {
    /// The application answered.
    Served { version: String, failed: bool },
    /// The application did not answer: the error or status that arrived instead.
    Lost(String),
}

/// The outcomes of the requests in some period.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// The number of requests that were answered or lost.
    pub calls: usize,
    /// The number of requests that each version answered.
    pub served: BTreeMap<String, usize>,
    /// The number of answers with a status of 500 or more, by version.
    pub failed: BTreeMap<String, usize>,
    /// The number of lost requests, by the error or status that arrived instead.
    pub lost: BTreeMap<String, usize>,
    /// The 99th percentile of the time to the answer.
    pub p99: Duration,
}

impl Tally {
    /// The number of lost requests.
    pub fn lost(&self) -> usize {
        self.lost.values().sum()
    }

    /// The percentage of answered requests that this version answered.
    pub fn share(&self, version: &str) -> f64 {
        let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
        let all = self.served.values().sum();
        100.0 * count(self.served.get(version).copied().unwrap_or(0)) / count(all).max(1.0)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} calls, {} lost", self.calls, self.lost())?;
        for (why, count) in &self.lost {
            write!(f, " ({count} × {why})")?;
        }
        for (version, count) in &self.served {
            write!(f, ", {version}: {count} ({:.1}%)", self.share(version))?;
            if let Some(failed) = self.failed.get(version) {
                write!(f, " of which {failed} failed")?;
            }
        }
        write!(f, ", p99 {} ms", self.p99.as_millis())
    }
}

/// Sends requests one after the other. Returns the number of answers by version. A request that the application does not answer is an error.
pub async fn answers(url: &str, count: usize) -> Result<BTreeMap<String, usize>, Error> {
    let failed = |error: &dyn std::error::Error| Error::Failed(deepest(error));
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .map_err(|e| failed(&e))?;
    let mut answers = BTreeMap::new();
    for _ in 0..count {
        let answer = client.get(url).send().await.map_err(|e| failed(&e))?;
        let version = answer.headers().get(VERSION);
        let version = version.and_then(|version| version.to_str().ok());
        let version = version.ok_or_else(|| Error::Failed(answer.status().to_string()))?;
        *answers.entry(version.to_owned()).or_default() += 1;
    }
    Ok(answers)
}

/// A running client. Dropping it stops it.
pub struct Client {
    /// All requests, in the order in which they were sent.
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Sends `per_second` requests a second for `http://HOST/` to this address. It does not wait for answers before the next request.
    pub fn start(at: SocketAddr, host: &str, per_second: u32) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .map_err(|e| Error::Failed(e.to_string()))?;
        let request = client.get(format!("http://{at}/")).header("host", host);
        let samples = Arc::new(Mutex::new(Vec::new()));
        let kept = samples.clone();
        let task = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) / per_second);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                ticks.tick().await;
                if let Some(request) = request.try_clone() {
                    let number = begin(&kept);
                    tokio::spawn(call(request, kept.clone(), number));
                }
            }
        });
        Ok(Self { samples, task })
    }

    /// The outcomes of all requests from `start` until now. Waits for those in flight.
    pub async fn since(&self, start: Instant) -> Tally {
        let end = Instant::now();
        // Every request ends, at the latest after `PATIENCE`.
        while self.in_flight(start, end) > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        self.between(start, end)
    }

    /// The outcomes of the requests that were sent in this period and have ended by now.
    pub fn between(&self, start: Instant, end: Instant) -> Tally {
        let samples = lock(&self.samples);
        let mut tally = Tally::default();
        let mut times = Vec::new();
        for (took, outcome) in sent(&samples, start, end).filter_map(|call| call.end.as_ref()) {
            tally.calls += 1;
            times.push(*took);
            match outcome {
                Outcome::Served { version, failed } => {
                    *tally.served.entry(version.clone()).or_default() += 1;
                    if *failed {
                        *tally.failed.entry(version.clone()).or_default() += 1;
                    }
                }
                Outcome::Lost(why) => *tally.lost.entry(why.clone()).or_default() += 1,
            }
        }
        drop(samples);
        times.sort_unstable();
        tally.p99 = times
            .get(times.len() * 99 / 100)
            .copied()
            .unwrap_or_default();
        tally
    }

    fn in_flight(&self, start: Instant, end: Instant) -> usize {
        let samples = lock(&self.samples);
        sent(&samples, start, end)
            .filter(|call| call.end.is_none())
            .count()
    }
}

fn sent(samples: &[Sample], start: Instant, end: Instant) -> impl Iterator<Item = &Sample> {
    let first = samples.partition_point(|call| call.sent < start);
    let from = samples.iter().skip(first);
    from.take_while(move |call| call.sent < end)
}

/// Records that a request is sent. Returns its number.
fn begin(samples: &Mutex<Vec<Sample>>) -> usize {
    let mut samples = lock(samples);
    samples.push(Sample {
        sent: Instant::now(),
        end: None,
    });
    samples.len() - 1
}

async fn call(request: reqwest::RequestBuilder, samples: Arc<Mutex<Vec<Sample>>>, number: usize) {
    let sent = Instant::now();
    let outcome = match request.send().await {
        Ok(answer) => {
            let status = answer.status();
            let version = answer
                .headers()
                .get(VERSION)
                .and_then(|version| version.to_str().ok());
            let version = version.map(str::to_owned);
            match (answer.bytes().await, version) {
                (Err(error), _) => Outcome::Lost(deepest(&error)),
                (Ok(_), Some(version)) => Outcome::Served {
                    version,
                    failed: status.is_server_error(),
                },
                (Ok(_), None) => Outcome::Lost(status.to_string()),
            }
        }
        Err(error) => Outcome::Lost(deepest(&error)),
    };
    let took = sent.elapsed();
    if let Some(sample) = lock(&samples).get_mut(number) {
        sample.end = Some((took, outcome));
    }
}

/// The innermost cause. The outer errors have only the text that a request failed.
fn deepest(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
