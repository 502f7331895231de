//! The record of a release as the list of canaries shows it: its versions, and the traffic that was measured last.

use jiff::Timestamp;

use super::{
    series::{Series, evidence},
    text::{NAME, cut},
};
use crate::{
    api::{
        percent::Percent,
        release::{Release, ReleaseResult},
    },
    view::{View, text::versions},
};

/// A recorded release in the list, small enough to keep thousands of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The name of the record.
    pub name: String,
    /// When the run started.
    pub started: Option<Timestamp>,
    /// The version before, and the released one.
    pub versions: (String, String),
    /// The number of changed images that are not in `versions`.
    pub more: usize,
    revision: String,
    result: ReleaseResult,
    measured: Option<Share>,
}

/// A measured share of the traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    /// The intended share, in percent.
    intended: Percent,
    /// The measured share, in percent.
    measured: f64,
}

impl Recorded {
    /// The part of a record that the list shows.
    pub fn of(release: &Release) -> Self {
        let spec = &release.spec;
        let (from, to) = versions(spec);
        Self {
            name: release.metadata.name.clone().unwrap_or_default(),
            started: spec.started_at.as_ref().map(|at| at.0),
            versions: (cut(from, NAME), cut(to, NAME)),
            more: spec.images.len().saturating_sub(1),
            revision: spec.revision.clone(),
            result: spec.result,
            measured: measured(release),
        }
    }

    /// Whether this is the record of the current run of a canary, or of its last one.
    pub fn is_of(&self, view: &View) -> bool {
        view.is_recorded_by(&self.revision, self.result)
    }

    /// The measured share of the traffic in percent, if it was measured at the weight that the canary has now.
    pub fn measured_at(&self, intended: Percent) -> Option<f64> {
        let share = self.measured.filter(|share| share.intended == intended)?;
        Some(share.measured)
    }
}

/// The share that the last comparison of any metric measured.
fn measured(release: &Release) -> Option<Share> {
    let evidence = evidence(&release.spec)?;
    let last = |place| {
        let series = Series::of(&evidence, place);
        let point = series.points.last()?;
        Some(Share {
            intended: point.weight,
            measured: point.share?,
        })
    };
    (0..evidence.metrics.len()).find_map(last)
}
