//! The view of a release that was recorded.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;

use super::text::clean;
use crate::api::release::{Change, Release};

/// A release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseView {
    /// The name of the record.
    pub name: String,
    /// The version.
    pub revision: String,
    /// What changed: images and configs.
    pub changes: Vec<Changed>,
    /// Running, or how it ended.
    pub result: String,
    /// The cause in one word; empty if there is none.
    pub code: String,
    /// The cause in a sentence.
    pub sentence: String,
    /// When the run started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// The client that changed the target.
    pub trigger: String,
    /// The greatest weight of the canary, in percent.
    pub weight: i64,
    /// The steps that were taken, and those of a run that passes.
    pub steps: (i64, i64),
    /// What people asked for: the verb, the author and the reason.
    pub actions: Vec<String>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The container or config.
    pub name: String,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
}

impl ReleaseView {
    /// The view of a record.
    pub fn of(release: &Release) -> Self {
        let spec = &release.spec;
        let cause = spec.cause.clone().unwrap_or_default();
        let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
        let changed = |change: &Change| Changed {
            name: clean(&change.name),
            from: clean(&change.from),
            to: clean(&change.to),
        };
        Self {
            name: clean(release.metadata.name.as_deref().unwrap_or_default()),
            revision: clean(&spec.revision),
            changes: spec.images.iter().chain(&spec.configs).map(changed).collect(),
            result: spec.result.as_str().to_owned(),
            code: clean(&cause.code),
            sentence: clean(&cause.sentence),
            started: time(&spec.started_at),
            ended: time(&spec.ended_at),
            trigger: clean(spec.trigger.as_deref().unwrap_or_default()),
            weight: spec.weight,
            steps: (spec.reached, spec.steps),
            actions: spec.actions.iter().map(|it| clean(&it.action)).collect(),
        }
    }
}
