//! The window of a step, and the tests that the status keeps until the next one.

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::{canary::CanaryStatus, compare::COMPARED_TWICE, percent::Percent},
    comparison::MetricTest,
    metrics::counting,
    rollout::status::compared::{self, Kept},
    snapshot::{Snapshot, last_tick, whole_second_after},
};

/// The test of a metric in a step: its name, and the test without the requests of the step and with them.
pub type Measured<'a> = (&'a str, Option<&'a MetricTest>, Option<&'a MetricTest>);

/// The instants of a window, in whole seconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The start of the run's first step with traffic.
    pub begun: Timestamp,
    /// The beginning of the window.
    pub from: Timestamp,
    /// The end of the window.
    pub to: Timestamp,
    /// The canary's weight in the previous step; 0 if there was none.
    pub weight: Percent,
    interval: SignedDuration,
}

impl Span {
    /// The window since the last measurement. The first window begins some seconds after the canary got traffic, because counters show
    /// requests late.
    pub fn of(snapshot: &Snapshot, known: Option<&Kept>) -> Self {
        let now = || middle(snapshot).filter(|middle| is_to_end_at(snapshot, *middle, known));
        let to = match snapshot.tick {
            Some(tick) => counting::instant(tick.at),
            None => now().unwrap_or(counting::instant(snapshot.now)),
        };
        let interval = snapshot.canary.interval();
        let interval = SignedDuration::try_from(interval).unwrap_or(SignedDuration::MAX);
        if let Some(known) = known {
            let (begun, weight) = (known.begun, known.weight);
            // The clock of the process that wrote the status may have been ahead.
            let latest = to.saturating_add(counting::LAG).unwrap_or(to);
            let from = if known.at > latest {
                to.checked_sub(interval).unwrap_or(to)
            } else {
                known.at
            };
            let begun = begun.min(from);
            return Self {
                begun,
                from,
                to,
                weight,
                interval,
            };
        }
        let begun = snapshot.status().last_transition_time.as_ref();
        let begun = begun.map_or(to, |at| counting::instant(at.0).min(to));
        Self {
            begun,
            from: begun.saturating_add(counting::LAG).unwrap_or(begun),
            to,
            weight: Percent::ZERO,
            interval,
        }
    }

    /// The window in the form that the queries need.
    pub fn window(self) -> counting::Window {
        counting::Window {
            before: self.to.duration_since(self.from),
            start: self.to.duration_since(self.begun),
        }
    }

    /// The end of the hour in which the primary's usual requests are counted: the start of the run; or now, if the test did not begin
    /// within the first interval of the run.
    pub fn history(self) -> Timestamp {
        let is_first = self.to.duration_since(self.begun) <= self.interval;
        if is_first { self.begun } else { self.to }
    }

    /// Whether the window has no time in it, because counters do not show the canary's first requests yet.
    pub fn is_empty(self) -> bool {
        self.weight == Percent::ZERO && self.is_over()
    }

    /// Whether the window was measured already, in this tick.
    fn is_over(self) -> bool {
        self.from >= self.to
    }
}

/// The middle of the current interval. A run is compared there, too, so that a version that is worse is not served until the next tick.
/// `None` if the interval is so short that the delay of the counters matters.
pub fn middle(snapshot: &Snapshot) -> Option<Timestamp> {
    let interval = snapshot.canary.interval();
    if interval < COMPARED_TWICE {
        return None;
    }
    let transition = snapshot.status().last_transition_time.as_ref()?.0;
    let last = last_tick(transition, interval, snapshot.now).unwrap_or(transition);
    last.checked_add(interval / 2).ok().map(counting::instant)
}

/// Whether the window ends at this middle: it has come, and was not measured yet.
fn is_to_end_at(snapshot: &Snapshot, middle: Timestamp, known: Option<&Kept>) -> bool {
    middle <= snapshot.now && known.is_none_or(|known| known.at < middle)
}

/// Whether a comparison is to be made at this middle of an interval.
pub fn is_to_measure(snapshot: &Snapshot, middle: Timestamp) -> bool {
    let tests = compared::kept(snapshot.status());
    tests.is_empty() || tests.values().any(|known| known.at < middle)
}

/// Whether the comparisons of this tick are in the status already, because the step waits.
pub fn are_kept(snapshot: &Snapshot) -> bool {
    let tests = compared::kept(snapshot.status());
    let mut tests = tests.values();
    snapshot.tick.is_some() && tests.any(|known| Span::of(snapshot, Some(known)).is_over())
}

/// Puts the tests into a status, with the requests that were compared in this step. If traffic moves although nothing was compared, the
/// requests of this step are left out.
pub fn keep(snapshot: &Snapshot, all: &[Measured<'_>], status: &mut CanaryStatus) {
    let before = snapshot.status();
    let moves = status.weight() != before.weight();
    let mut tests = compared::kept(before);
    let now_kept = |known: Option<&Kept>, after: Option<&MetricTest>, test: &MetricTest| {
        let span = Span::of(snapshot, known);
        let is_measured = after.is_some() || moves;
        let at = if is_measured {
            span.to.max(span.from)
        } else {
            span.from
        };
        // After the middle of an interval, the second half of the step follows.
        let is_step = snapshot.tick.is_some() || moves;
        let weight = if is_measured && is_step {
            before.weight()
        } else {
            span.weight
        };
        Kept {
            begun: span.begun,
            at,
            weight,
            test: after.unwrap_or(test).clone(),
        }
    };
    for (metric, before, after) in all {
        let Some(test) = before.filter(|test| !test.is_empty()) else {
            continue;
        };
        let kept = now_kept(tests.get(*metric), *after, test);
        tests.insert((*metric).to_owned(), kept);
    }
    for (metric, known) in &mut tests {
        let is_known = |(of, before, _): &Measured<'_>| *of == *metric && before.is_some();
        if moves && !all.iter().any(is_known) {
            let test = known.test.clone();
            *known = now_kept(Some(known), None, &test);
        }
    }
    compared::put(status, &tests, whole_second_after(snapshot.now));
}
