//! The Canary's phases and weights over time, and the client's requests in each of them.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use flagger_rs::api::canary::Canary;
use futures::TryStreamExt;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use testbed::client::{Client, Tally};

use crate::report::Check;

/// The most percentage points between the measured share and the intended one.
const TOLERANCE: f64 = 4.0;
/// Shorter periods have too few requests to measure a share.
const ENOUGH: Duration = Duration::from_secs(5);

/// A time in which the Canary's phase and weight did not change.
struct Period {
    from: Instant,
    phase: String,
    weight: i32,
}

/// All periods so far.
#[derive(Default)]
pub struct Periods {
    all: Mutex<Vec<Period>>,
    /// The parts of the walkthrough, each with the number of the period in which it began.
    parts: Mutex<Vec<(usize, String)>>,
}

impl Periods {
    /// Begins a part of the walkthrough. Returns the number of periods before it.
    pub fn begin(&self, part: &str) -> usize {
        let earlier = self.all.lock().unwrap().len();
        self.parts.lock().unwrap().push((earlier, part.to_owned()));
        earlier
    }

    /// Phases and weights of the periods after the first `earlier` ones.
    pub fn table(&self, earlier: usize) -> Vec<String> {
        let all = self.all.lock().unwrap();
        all.iter()
            .skip(earlier)
            .map(|period| format!("{} {}", period.phase, period.weight))
            .collect()
    }

    /// Records and prints the Canary's current phase and weight. Returns false if they have not changed.
    fn record(&self, client: &Client, start: Instant, now: Period) -> bool {
        let mut all = self.all.lock().unwrap();
        if let Some(last) = all.last() {
            if last.phase == now.phase && last.weight == now.weight {
                return false;
            }
            println!(
                "           intended {}%, measured: {}",
                last.weight,
                client.between(last.from, now.from)
            );
        }
        println!(
            "{:>5.0} s  podinfo  {:<18}{:>4}",
            (now.from - start).as_secs_f64(),
            now.phase,
            now.weight
        );
        all.push(now);
        true
    }

    /// Checks the measured share of the new version at each weight.
    pub fn shares(&self, client: &Client, tag: &str, earlier: usize) -> Vec<Check> {
        let all = self.all.lock().unwrap();
        let steps = all.iter().skip(earlier).zip(all.iter().skip(earlier + 1));
        let long = steps
            .filter(|(step, next)| step.phase == "Progressing" && next.from - step.from > ENOUGH);
        long.map(|(step, next)| {
            let share = client.between(step.from, next.from).share(tag);
            let intended = f64::from(step.weight);
            let observed = if (share - intended).abs() <= TOLERANCE {
                intended
            } else {
                share
            };
            Check::new(
                &format!(
                    "{tag}: share at weight {}: measured {share:.1}%",
                    step.weight
                ),
                &format!("{intended}%"),
                &format!("{observed}%"),
            )
        })
        .collect()
    }

    /// Prints the requests in each period: how many were sent and lost, and which versions served them.
    pub fn print(&self, client: &Client) {
        let (all, parts) = (self.all.lock().unwrap(), self.parts.lock().unwrap());
        println!("             phase         weight    sent  lost  served by");
        let ends = all.iter().skip(1).map(|next| next.from);
        let ends = ends.chain([Instant::now()]);
        for (number, (period, end)) in all.iter().zip(ends).enumerate() {
            let part = parts.iter().find(|(first, _)| *first == number);
            let tally = client.between(period.from, end);
            println!(
                "  {:<10} {:<14}{:>5}% {:>7} {:>5}  {}",
                part.map_or("", |(_, part)| part),
                period.phase,
                period.weight,
                tally.calls,
                tally.lost(),
                served(&tally)
            );
        }
    }
}

fn served(tally: &Tally) -> String {
    let versions = tally.served.iter().map(|(version, count)| {
        let failed = tally.failed.get(version);
        let failed = failed.map_or_else(String::new, |failed| format!(", {failed} failed"));
        format!("{version}: {count} ({:.1}%{failed})", tally.share(version))
    });
    versions.collect::<Vec<_>>().join("  ")
}

/// Prints the Canary's status whenever it changes, like `kubectl get canary -w`. Before each line it prints the client's requests since
/// the last one, and after it the operator's latest measurements.
pub async fn show(
    canaries: Api<Canary>,
    periods: Arc<Periods>,
    client: Arc<Client>,
    api: kube::Client,
) {
    let start = Instant::now();
    let changes = watcher(canaries, watcher::Config::default())
        .default_backoff()
        .applied_objects();
    let mut changes = Box::pin(changes);
    while let Ok(Some(canary)) = changes.try_next().await {
        let status = canary.status.unwrap_or_default();
        let now = Period {
            from: Instant::now(),
            phase: status.phase.as_str().to_owned(),
            weight: i32::try_from(status.canary_weight).unwrap_or(0),
        };
        if now.phase.is_empty() || !periods.record(&client, start, now) {
            continue;
        }
        if let Some(measured) = operator_measured(&api).await {
            println!("           the operator measured {measured}");
        }
    }
}

/// The latest results of the metric checks, from the operator's own metrics. `None` if it has none yet.
async fn operator_measured(client: &kube::Client) -> Option<String> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(client.clone(), "istio-system");
    let pods = pods
        .list(&kube::api::ListParams::default().labels("app=flagger"))
        .await
        .ok()?;
    let name = pods.items.first()?.metadata.name.clone()?;
    let path = format!("/api/v1/namespaces/istio-system/pods/{name}:8080/proxy/metrics");
    let text = client
        .request_text(http::Request::get(path).body(Vec::new()).ok()?)
        .await
        .ok()?;
    let value = |metric: &str| {
        let label = format!("metric=\"{metric}\"");
        let line = text.lines().find(|line| {
            line.starts_with("flagger_canary_metric_analysis{") && line.contains(&label)
        })?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    let (rate, duration) = (value("request-success-rate")?, value("request-duration")?);
    // The metric is in seconds, like Flagger's.
    let millis = 1000.0 * duration;
    Some(format!("success rate {rate:.2}%, p99 {millis:.0} ms"))
}
