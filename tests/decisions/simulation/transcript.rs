//! The transcript of a simulation, line by line, and its outcome. A line with `repeat` is an event that each step may send again: the
//! operator limits the number of such events. It does not limit other events.

use std::fmt::Write as _;

use flagger_rs::{
    api::{canary::CanaryStatus, percent::Percent},
    rollout,
};
use serde_json::Value;

use super::Simulation;

/// A weight, rounded up to a whole percentage.
pub(super) fn whole(weight: Percent) -> u8 {
    u8::try_from(weight.rounded_up()).unwrap()
}

impl Simulation {
    pub(super) fn line(&mut self, text: String) {
        let seconds = self.snapshot.now.as_second();
        self.lines.push(format!("{seconds:>4} s  {text}"));
    }

    pub fn transcript(&self) -> String {
        self.lines.iter().fold(String::new(), |mut all, line| {
            let _ = writeln!(all, "{line}");
            all
        })
    }

    /// How often this text occurs in the transcript.
    pub fn count(&self, text: &str) -> usize {
        self.transcript().matches(text).count()
    }

    /// How many of the sent events and alerts contain this text.
    pub fn count_notified(&self, text: &str) -> usize {
        let has = |line: &&String| line.contains(text);
        self.notified.iter().filter(has).count()
    }

    /// The second of the last line in the transcript that ends with this text.
    pub fn seconds(&self, text: &str) -> i64 {
        let line = self.lines.iter().rfind(|line| line.ends_with(text));
        let time = line.and_then(|line| line.split_whitespace().next());
        time.and_then(|time| time.parse().ok()).expect(text)
    }

    /// The share of the traffic that is routed to the canary, rounded up to a whole percentage.
    pub fn canary_weight(&self) -> u8 {
        whole(rollout::weights(&self.snapshot).unwrap().canary)
    }

    /// The result of a release that users see: phase, versions, pods, weights.
    pub fn outcome(&self) -> String {
        let status = self.snapshot.canary.status.clone().unwrap_or_default();
        let image = |object: Option<&Value>| {
            object
                .and_then(|o| o.pointer("/spec/template/spec/containers/0/image"))
                .cloned()
        };
        let target = self.snapshot.target();
        format!(
            "{} {:?} {:?} primary {:?} replicas {:?} weights {:?}",
            status.phase,
            status.last_applied_spec,
            status.last_promoted_spec,
            image(self.snapshot.primary()),
            target.map(|target| target["spec"]["replicas"].clone()),
            rollout::weights(&self.snapshot),
        )
    }
}

/// A status as a transcript shows it.
pub(super) fn status_line(status: &CanaryStatus) -> String {
    let cookies = [
        ("cookie", &status.session_affinity_cookie),
        ("previous", &status.previous_session_affinity_cookie),
    ];
    let cookies = cookies
        .iter()
        .filter_map(|(name, cookie)| Some(format!(" {name} {}", cookie.as_ref()?)));
    let conditions = status.conditions.iter().flatten().skip(1);
    let conditions = conditions.map(|c| {
        let message = c.message.clone().unwrap_or_default();
        format!(" [{} {} {message}]", c.type_, c.reason)
    });
    format!(
        "status {} weight {} iterations {} failed {}{}{}",
        status.phase,
        status.canary_weight,
        status.iterations,
        status.failed_checks,
        cookies.collect::<String>(),
        conditions.collect::<String>()
    )
}
