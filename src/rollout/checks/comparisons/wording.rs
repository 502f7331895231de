//! The state of a comparison as one word, and its finding as a sentence.

use crate::{
    api::status::VerdictCode,
    comparison::{Finding, State},
    providers,
    snapshot::{Snapshot, go},
};

/// The state of a comparison, as records show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The canary is worse than the margin allows.
    Worse,
    /// The canary is proven to be within the margin.
    NotWorse,
    /// Neither `Worse` nor `NotWorse` is proven.
    Undecided,
    /// Neither is proven, and some pods were left out because their counters decreased or were missing.
    Partial,
    /// The canary had too few requests.
    LowTraffic,
    /// A version has no series.
    NoData,
    /// The metric server did not answer.
    ProviderError,
    /// The metric server has no new values.
    Stale,
    /// One pod has nearly all bad requests.
    OnePod,
    /// The canary does not get its share of the requests.
    NotShifted,
}

impl Word {
    /// The word, as it is written into records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worse => "worse",
            Self::NotWorse => "notWorse",
            Self::Undecided => "undecided",
            Self::Partial => "partial",
            Self::LowTraffic => "lowTraffic",
            Self::NoData => "noData",
            Self::ProviderError => "providerError",
            Self::Stale => "stale",
            Self::OnePod => "onePod",
            Self::NotShifted => "notShifted",
        }
    }

    /// The code of a verdict with this state.
    pub const fn code(self) -> VerdictCode {
        match self {
            Self::Worse | Self::NotWorse | Self::Undecided | Self::Partial => {
                VerdictCode::Regression
            }
            Self::LowTraffic => VerdictCode::LowTraffic,
            Self::NoData => VerdictCode::NoData,
            Self::ProviderError => VerdictCode::ProviderError,
            Self::Stale => VerdictCode::Stale,
            Self::OnePod => VerdictCode::OnePod,
            Self::NotShifted => VerdictCode::TrafficNotShifted,
        }
    }
}

/// The finding as a sentence with its numbers.
pub fn sentence(snapshot: &Snapshot, finding: &Finding) -> String {
    let (canary, primary) = (finding.seen.canary, finding.seen.primary);
    let requests = match finding.bound {
        None => format!(
            "{} of {} failed requests hit the canary, which served {} of the requests",
            whole(canary.bad()),
            whole(canary.bad() + primary.bad()),
            percent(canary.all() / canary.and(primary).all())
        ),
        Some(bound) => format!(
            "{} of the canary's {} requests took longer than {} ms, {} of the primary's {}",
            percent(canary.rate()),
            whole(canary.all()),
            go::float((bound * providers::observer(snapshot).unit_millis()).round()),
            percent(primary.rate()),
            whole(primary.all())
        ),
    };
    match &finding.state {
        State::Worse => {
            let runs = finding.worse.exp().min(1e9).floor();
            format!(
                "{requests}; chance alone would do that in at most 1 of {} runs",
                whole(runs)
            )
        }
        State::OnePod(pod) => format!("{requests}, and nearly all of these the pod {pod}"),
        State::NoData => "one of the versions has no series".to_owned(),
        State::LowTraffic(_) if finding.last.canary.all() <= 0.0 => {
            "the canary had no request since the last step".to_owned()
        }
        State::LowTraffic(needed) if needed.is_finite() => format!(
            "the canary had {} of the {} requests that are needed",
            whole(canary.all()),
            whole(needed.ceil())
        ),
        State::LowTraffic(_) => "the primary had too few requests to compare with".to_owned(),
        State::NotWorse => format!("{requests}; the canary is proven to be within the margin"),
        State::Undecided => requests,
    }
}

/// The requests of a window in which the canary did not get this share.
pub fn not_shifted(finding: &Finding, share: f64) -> String {
    let (canary, primary) = (finding.last.canary, finding.last.primary);
    let all = canary.and(primary).all();
    format!(
        "the canary served {} of {} requests since the last step, and a weight of {} was set before",
        whole(canary.all()),
        whole(all),
        percent(share)
    )
}

/// A share as a percentage.
fn percent(share: f64) -> String {
    if share.is_finite() {
        format!("{} %", go::float((share * 1e4).round() / 100.0))
    } else {
        "0 %".to_owned()
    }
}

/// A number of requests or runs.
fn whole(count: f64) -> String {
    format!("{count:.0}")
}
