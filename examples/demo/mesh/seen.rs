//! What the Canary went through, and what its users saw meanwhile.

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

use crate::{Row, row};

/// By so many percentage points a measured share may differ from the intended one.
const TOLERANCE: f64 = 4.0;
/// Shorter times say too little of a share.
const ENOUGH: Duration = Duration::from_secs(5);

/// One status of the Canary, from when on.
struct Period {
    from: Instant,
    phase: String,
    weight: i32,
}

/// All that it went through, and at which of them each part of the walkthrough began.
#[derive(Default)]
pub struct Periods {
    all: Mutex<Vec<Period>>,
    parts: Mutex<Vec<(usize, String)>>,
}

impl Periods {
    /// A part of the walkthrough begins; how many periods there were before it.
    pub fn begin(&self, part: &str) -> usize {
        let seen = self.all.lock().unwrap().len();
        self.parts.lock().unwrap().push((seen, part.to_owned()));
        seen
    }

    /// Phases and weights after the first so many.
    pub fn table(&self, seen: usize) -> Vec<String> {
        let all = self.all.lock().unwrap();
        all.iter()
            .skip(seen)
            .map(|period| format!("{} {}", period.phase, period.weight))
            .collect()
    }

    /// Takes down what the Canary says now, and shows it; false if it is nothing new.
    fn see(&self, client: &Client, start: Instant, now: Period) -> bool {
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

    /// The measured share of the new version at each weight.
    pub fn shares(&self, client: &Client, tag: &str, seen: usize) -> Vec<Row> {
        let all = self.all.lock().unwrap();
        let steps = all.iter().skip(seen).zip(all.iter().skip(seen + 1));
        let long = steps
            .filter(|(step, next)| step.phase == "Progressing" && next.from - step.from > ENOUGH);
        long.map(|(step, next)| {
            let share = client.between(step.from, next.from).share(tag);
            let intended = f64::from(step.weight);
            let seen = if (share - intended).abs() <= TOLERANCE {
                intended
            } else {
                share
            };
            row(
                &format!(
                    "{tag}: share at weight {}: measured {share:.1}%",
                    step.weight
                ),
                &format!("{intended}%"),
                &format!("{seen}%"),
            )
        })
        .collect()
    }

    /// Requests in each phase: sent, lost, and served by which version.
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

/// `kubectl get canary -w`, and what the time before each line was like for the client and for the operator.
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
        if now.phase.is_empty() || !periods.see(&client, start, now) {
            continue;
        }
        if let Some(seen) = operator_saw(&api).await {
            println!("           the operator saw {seen}");
        }
    }
}

/// The latest results of the checks, from the operator's own metrics.
async fn operator_saw(client: &kube::Client) -> Option<String> {
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
    // It tells durations in seconds, as Flagger does.
    let millis = 1000.0 * duration;
    Some(format!("success rate {rate:.2}%, p99 {millis:.0} ms"))
}
