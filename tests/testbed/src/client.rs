//! A client that calls steadily, whatever happens, and remembers how each call went.

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

/// The header in which an application says which version of it answers. An answer without it is a proxy's own.
pub const VERSION: &str = "x-version";
/// A call that takes longer is lost. It is longer than a busy machine may hold a call up.
const PATIENCE: Duration = Duration::from_secs(60);

/// One call.
#[derive(Clone, Debug)]
struct Sample {
    sent: Instant,
    /// After how long it ended, and how; none while it is on its way.
    end: Option<(Duration, Outcome)>,
}

#[derive(Clone, Debug)]
enum Outcome {
    /// The application answered.
    Served { version: String, failed: bool },
    /// No application answered: what was seen instead.
    Lost(String),
}

/// What became of the calls of some time.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All that were answered or lost.
    pub calls: usize,
    /// Answered by the application, by version.
    pub served: BTreeMap<String, usize>,
    /// Of these, with a status of 500 or more, by version.
    pub failed: BTreeMap<String, usize>,
    /// Answered by no application, by what was seen instead.
    pub lost: BTreeMap<String, usize>,
    /// The 99th percentile of the time to the answer.
    pub p99: Duration,
}

impl Tally {
    /// How many calls no application answered.
    pub fn lost(&self) -> usize {
        self.lost.values().sum()
    }

    /// The percentage of calls that a version answered.
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

/// A client that goes on calling. Dropping it ends it.
pub struct Client {
    /// In the order in which they were sent.
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Calls `http://HOST/` at an address, so many times a second: a slow answer does not slow the next call.
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

    /// What became of all calls that were sent from then until now. Waits for those that are on their way.
    pub async fn since(&self, start: Instant) -> Tally {
        let end = Instant::now();
        // Every call ends, if only by our patience.
        while self.on_their_way(start, end) > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        self.between(start, end)
    }

    /// What became of the calls that were sent in that time, and have ended by now.
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

    fn on_their_way(&self, start: Instant, end: Instant) -> usize {
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

/// Remembers that a call is sent; its number.
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

/// The cause under all causes: the others only say that a call failed.
fn deepest(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), deepest)
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
