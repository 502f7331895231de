//! The proxies of Istio that report requests: the sidecar of a pod (`reporter="destination"`), or in the ambient mode the waypoint of a
//! Service (`reporter="waypoint"`). While a service moves from sidecars to the ambient mode, it has both, and both report a request that
//! passes both: <https://istio.io/latest/docs/ambient/migrate/enable-ambient-mode/>. So an answer is read by one reporter only.

use crate::metrics::TimeSeries;

/// The label that distinguishes the parts of an answer.
pub const PART: &str = "flagger";
/// The label with the reporter.
pub const REPORTER: &str = "reporter";
const SIDECAR: &str = "destination";
const WAYPOINT: &str = "waypoint";
/// A gateway, or the sidecar of a caller. No query asks for it and for others.
const SENDER: &str = "source";

/// The samples of an answer by one reporter, and those without a reporter.
pub struct Reported<'a> {
    /// The samples.
    pub samples: Vec<&'a TimeSeries>,
    /// Whether waypoints or gateways have reported them. Their labels have the pod of the reporter, and not the pod that answered.
    pub by_others: bool,
}

impl<'a> Reported<'a> {
    /// The samples of the reporter that has more of these parts. If both have as many, sidecars are read: they also see the requests that pass
    /// no waypoint, and they know the pods. Parts are counted because only one version may have sidecars: in the release that removes them.
    pub fn of(samples: &'a [TimeSeries], parts: &[&str]) -> Self {
        let is_by = |sample: &TimeSeries, reporter: &str| {
            sample.labels.get(REPORTER).is_some_and(|it| it == reporter)
        };
        let count = |reporter: &str| {
            let has = |part: &&&str| {
                let is_it =
                    |it: &TimeSeries| it.labels.get(PART).map_or("", String::as_str) == **part;
                samples.iter().any(|it| is_by(it, reporter) && is_it(it))
            };
            parts.iter().filter(has).count()
        };
        let by_waypoint = count(WAYPOINT) > count(SIDECAR);
        let other = if by_waypoint { SIDECAR } else { WAYPOINT };
        let samples = samples.iter().filter(|sample| !is_by(sample, other));
        Self {
            samples: samples.collect(),
            by_others: by_waypoint || count(SENDER) > 0,
        }
    }
}
