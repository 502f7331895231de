//! Requests, and the counters of them that a Prometheus server has.

use flagger_rs::{metrics::counting, snapshot::Weights};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The bounds of durations, and the share of good requests that are not slower.
const BUCKETS: [(&str, f64); 4] = [("100", 0.4), ("250.0", 0.95), ("500", 0.999), ("+Inf", 1.0)];
const CANARY_PODS: [&str; 2] = ["podinfo-1", "podinfo-2"];
const PRIMARY_PODS: [&str; 3] = [
    "podinfo-primary-1",
    "podinfo-primary-2",
    "podinfo-primary-3",
];

const WAYPOINT_PODS: [&str; 2] = ["waypoint-1", "waypoint-2"];

/// The requests of all clients.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// The requests of each second.
    pub per_second: f64,
    /// The share of the primary's requests that fail.
    pub primary_fails: f64,
    /// The share of the canary's requests that fail.
    pub canary_fails: f64,
    /// Only the first pod of the canary fails.
    pub one_pod_fails: bool,
    /// The share of the canary's requests that take longer than 250 ms, beyond those of the primary.
    pub canary_is_slower: f64,
    /// The metric server gives no answer.
    pub is_down: bool,
    /// The metric server has no series of the canary.
    pub lacks_canary: bool,
    /// The metric server has got nothing new for this many seconds.
    pub lags: i64,
    /// All requests of both versions are faster than each bound.
    pub are_all_fast: bool,
    /// Proxies follow the weight of the canary after this many seconds.
    pub moves_late: usize,
    /// The weights that they have not followed yet.
    pub coming: Vec<f64>,
    /// Proxies do not follow the weight of the canary.
    pub ignores_weights: bool,
    /// The reporter of the requests. A waypoint or a gateway has the labels of its own two pods, and each gets the same share of a version's requests.
    pub reporter: &'static str,
    /// The requests of both versions until each second.
    pub counted: Vec<(i64, f64, f64)>,
}

impl Traffic {
    /// Requests of which one in a thousand fails, with both versions.
    pub const fn of(per_second: f64) -> Self {
        Self {
            per_second,
            primary_fails: 0.001,
            canary_fails: 0.001,
            one_pod_fails: false,
            canary_is_slower: 0.0,
            is_down: false,
            lacks_canary: false,
            lags: 0,
            are_all_fast: false,
            moves_late: 0,
            coming: Vec::new(),
            ignores_weights: false,
            reporter: "destination",
            counted: Vec::new(),
        }
    }

    /// A second passes.
    pub fn flow(&mut self, now: Timestamp, weights: Option<Weights>) {
        let weights = weights.filter(|_| !self.ignores_weights);
        let share = weights.map_or(0.0, |weights| weights.canary.share());
        self.coming.push(share);
        let known = self.coming.len().checked_sub(self.moves_late + 1);
        let share = known.map_or(0.0, |known| self.coming[known]);
        let (_, canary, primary) = self.counted.last().copied().unwrap_or_default();
        let (more, rest) = (self.per_second * share, self.per_second * (1.0 - share));
        self.counted
            .push((now.as_second(), canary + more, primary + rest));
    }

    /// The requests of both versions until a second.
    fn until(&self, second: i64) -> (f64, f64) {
        let before = self.counted.iter().rev().find(|(at, ..)| *at <= second);
        before.map_or((0.0, 0.0), |(_, canary, primary)| (*canary, *primary))
    }

    /// The answer to a query of [`counting`]. `None` if it is another query.
    pub fn answer(&self, query: &str, time: i64) -> Option<Value> {
        if query.contains("[1h:1m]") {
            return Some(self.history(query, time));
        }
        let parts = query.split("label_replace(").skip(1);
        let series = parts
            .flat_map(|part| self.part(part, time))
            .collect::<Vec<_>>();
        query
            .contains("label_replace(")
            .then(|| json!({"data": {"result": series}}))
    }

    fn history(&self, query: &str, time: i64) -> Value {
        let points = |share: f64| -> Vec<Value> {
            let at = |minute: i64| {
                let requests = self.per_second * 60.0 * f64::from(i32::try_from(minute).unwrap());
                json!([time - 3600 + minute * 60, (requests * share).to_string()])
            };
            (0..=60).map(at).collect()
        };
        let series: Vec<_> = if query.contains("_bucket") {
            let bucket = |(le, share)| {
                let share = if self.are_all_fast { 1.0 } else { share };
                json!({"metric": {"le": le}, "values": points(share)})
            };
            BUCKETS.map(bucket).to_vec()
        } else {
            let part =
                |(name, share)| json!({"metric": {"flagger": name}, "values": points(share)});
            let (all, good, bad) = (1.0, 1.0 - self.primary_fails, self.primary_fails);
            [("all", all), ("good", good), ("bad", bad)]
                .map(part)
                .to_vec()
        };
        json!({"data": {"result": series}})
    }

    /// The series of one part of a query.
    fn part(&self, part: &str, time: i64) -> Vec<Value> {
        let name = part.split("\"flagger\", \"").nth(1).unwrap();
        let name = name.split('"').next().unwrap();
        let is_canary = name.starts_with("canary");
        if is_canary && self.lacks_canary {
            return Vec::new();
        }
        if name.ends_with("newest") {
            let at = time - self.lags - counting::LAG.as_secs();
            return vec![json!({"metric": {"flagger": name}, "value": [time, at.to_string()]})];
        }
        let offset = part
            .split("offset ")
            .nth(1)
            .unwrap()
            .split('s')
            .next()
            .unwrap();
        let (canary, primary) = self.until(time - offset.parse::<i64>().unwrap());
        let all = if is_canary { canary } else { primary };
        let pods: &[&str] = match (self.reporter, is_canary) {
            ("waypoint" | "source", _) => &WAYPOINT_PODS,
            (_, true) => &CANARY_PODS,
            (_, false) => &PRIMARY_PODS,
        };
        let all = all / f64::from(u32::try_from(pods.len()).unwrap());
        let pods = pods.iter().enumerate();
        pods.flat_map(|(place, pod)| self.of_pod((name, pod), (is_canary, place), all, part))
            .collect()
    }

    fn of_pod(
        &self,
        (name, pod): (&str, &str),
        (is_canary, place): (bool, usize),
        all: f64,
        part: &str,
    ) -> Vec<Value> {
        let reporter = self.reporter;
        if part.contains("reporter=") && !part.contains(reporter) {
            return Vec::new();
        }
        let series = |le: Option<&str>, value: f64| json!({"metric": {"flagger": name, "pod": pod, "reporter": reporter, "le": le.unwrap_or_default()}, "value": [0, value.to_string()]});
        if part.contains("_bucket") {
            let slower = if is_canary {
                self.canary_is_slower
            } else {
                0.0
            };
            let bucket = |(le, share): (&str, f64)| {
                let share = if self.are_all_fast { 1.0 } else { share };
                let is_lowest = self.are_all_fast && le == "100";
                let less = if le == "250.0" || is_lowest {
                    slower
                } else {
                    0.0
                };
                series(Some(le), all * (share - less))
            };
            let asked = bounds(part);
            let is_asked = |(le, _): &(&str, f64)| asked.contains(&le.parse().unwrap());
            return BUCKETS.into_iter().filter(is_asked).map(bucket).collect();
        }
        let fails = match (is_canary, self.one_pod_fails, place) {
            (false, ..) => self.primary_fails,
            (true, true, 0) => 2.0 * self.canary_fails,
            (true, true, _) => 0.0,
            (true, false, _) => self.canary_fails,
        };
        let share = match () {
            () if name.contains("good") => 1.0 - fails,
            () if name.contains("bad") => fails,
            () => 1.0,
        };
        vec![series(None, all * share)]
    }
}

/// The bounds that a query asks for.
fn bounds(part: &str) -> Vec<f64> {
    let pattern = part
        .split("le=~\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let plain = |text: &str| {
        text.replace("([.]0)?", "")
            .replace("[.]", ".")
            .replace("[+]", "+")
    };
    pattern
        .split('|')
        .map(|text| plain(text).parse().unwrap())
        .collect()
}
