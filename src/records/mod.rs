//! Records: the history of a run, in an object of the kind [`Release`](crate::api::release::Release). Pure.
//!
//! A record is made from the values of a decision, after the decision was carried out. No decision depends on a record: if one cannot be
//! written, the release goes on without it.
//!
//! - [`Record`] grows with each change of the status.
//! - [`explain`] prints a record for people.
//! - [`of_run`] finds the record of a run that an earlier process began.
//! - [`outdated`] chooses the records to delete.

mod committed;
mod evidence;
mod explain;
mod history;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{
    api::{
        action::{DONE, EARLIER, UNNAMED, recorded},
        canary::{Canary, CanaryPhase, CanaryStatus, Strategy},
        percent::Percent,
        release::{
            CANARY_UID, Cause, Change, Measurement, Moment, RESULT, Release, ReleaseResult,
            ReleaseSpec, RunEvidence, Steered,
        },
        status::{ConditionType, VerdictCode},
    },
    rollout::{Measurements, is_in_run, of_end},
    snapshot::{Kind, Snapshot, revision::digest, whole_second_after},
};
pub use committed::Committed;
use committed::changes;
pub use evidence::{pack, unpack};
pub use explain::{GAPS, explain};
pub use history::{OfRun, newest_first_key, of_run, outdated};

/// The most actions in a record; older ones are left out.
const ACTIONS: usize = 50;
/// The record is written after this many measurements, even if no check failed and no phase changed.
const MEASUREMENTS: usize = 10;

/// The record of a run in progress, or of one that has just ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The name of the object.
    pub name: String,
    /// The fields, without the evidence.
    pub spec: ReleaseSpec,
    /// The evidence.
    pub evidence: RunEvidence,
    /// The beginning of the step of the last change of the status.
    step: Option<Time>,
    /// The tick of the last measurement. During a pause and at a closed gate, each tick measures without a change of the status.
    measured: Option<Time>,
}

impl Record {
    /// The record of a run that starts with this change of the status.
    pub fn begin(committed: Committed<'_>) -> Self {
        let Committed {
            snapshot, status, ..
        } = committed;
        let canary = &snapshot.canary;
        let revision = committed.revision().unwrap_or_default();
        let started_at = whole_second_after(snapshot.now);
        let uid = canary.metadata.uid.as_deref().unwrap_or_default();
        let hash = digest(&format!("{uid} {revision} {started_at}"), 5);
        let mut record = Self {
            name: format!("{}-{hash}", cut(snapshot.name(), 240)),
            spec: ReleaseSpec {
                canary: snapshot.name().to_owned(),
                revision,
                from: status.last_promoted_spec.clone(),
                started_at: Some(Time(started_at)),
                ..ReleaseSpec::default()
            },
            evidence: RunEvidence::default(),
            step: None,
            measured: None,
        };
        record.describe(committed);
        record.note(committed);
        record
    }

    /// Records the version and the strategy of its run. They may change while the version waits for its run.
    fn describe(&mut self, committed: Committed<'_>) {
        let snapshot = committed.snapshot;
        let strategy = snapshot.canary.strategy().as_str();
        strategy.clone_into(&mut self.spec.strategy);
        self.spec.images = images(snapshot);
        self.spec.configs = committed.configs();
        self.spec.steps = steps(&snapshot.canary);
    }

    /// Whether the run releases changed configs only. The target does not tell who changed them.
    pub fn changes_configs_only(&self) -> bool {
        self.spec.from.as_ref() == Some(&self.spec.revision)
    }

    /// The record of a run that an earlier process began.
    pub fn resume(release: &Release) -> Self {
        let mut spec = release.spec.clone();
        let packed = spec.evidence.take();
        spec.gaps = spec.gaps.saturating_add(1);
        Self {
            name: release.metadata.name.clone().unwrap_or_default(),
            evidence: packed.as_deref().and_then(unpack).unwrap_or_default(),
            spec,
            step: None,
            measured: None,
        }
    }

    /// Adds the events of a change of the status. Returns whether the record must be written now.
    pub fn note(&mut self, committed: Committed<'_>) -> bool {
        let Committed {
            snapshot,
            status,
            measurements,
        } = committed;
        let now = Time(whole_second_after(snapshot.now));
        let before = snapshot.status();
        let is_tenth = self.measure(&now, snapshot, measurements);
        let mut is_worth_it = is_tenth && status.phase == CanaryPhase::Progressing;
        if committed.ends_wait() {
            self.describe(committed);
            is_worth_it = true;
        }
        let moment = Moment {
            at: Some(now.clone()),
            phase: status.phase.as_str().to_owned(),
            weight: status.weight(),
            iterations: status.iterations,
        };
        let last = self.evidence.timeline.last();
        let place = |it: &Moment| (it.phase.clone(), it.weight, it.iterations);
        if last.map(place) != Some(place(&moment)) {
            self.evidence.timeline.push(moment);
        }
        // If an earlier process has not recorded its last steps, the status before this change has them.
        for status in [before, status] {
            self.spec.weight = self.spec.weight.max(status.canary_weight);
            self.spec.reached = self.spec.reached.max(reached(&snapshot.canary, status));
        }
        is_worth_it |= self.act(before, status);
        is_worth_it |= self.judge(before, status);
        evidence::thin(&mut self.evidence);
        if committed.ends() {
            let (result, cause) = of_end(snapshot, status);
            self.end(now.0, result, cause);
            return true;
        }
        is_worth_it
    }

    /// Adds the measurements of a step. Returns whether it is the tenth one since the record was last written for this reason.
    fn measure(&mut self, now: &Time, snapshot: &Snapshot, measurements: &Measurements) -> bool {
        let before = snapshot.status();
        let is_same_step = self.step.is_some() && self.step == before.last_transition_time;
        self.step.clone_from(&before.last_transition_time);
        for call in &measurements.hooks {
            let mut call = call.clone();
            call.at = Some(now.clone());
            let last = self.evidence.hooks.iter_mut().rev();
            let known = last.take(measurements.hooks.len()).find(|known| {
                is_same_step && (&known.name, &known.kind) == (&call.name, &call.kind)
            });
            match known {
                Some(known) => *known = call,
                None => self.evidence.hooks.push(call),
            }
        }
        if measurements.values.is_empty() {
            return false;
        }
        let tick = snapshot.tick.map(|tick| Time(tick.at));
        let tick = tick.or_else(|| before.last_transition_time.clone());
        let is_repeated = self.measured.is_some() && self.measured == tick;
        self.measured = tick;
        let mut values = Vec::new();
        for (metric, measured) in &measurements.values {
            let known = self.evidence.metrics.iter().position(|it| it == metric);
            let place = known.unwrap_or_else(|| {
                self.evidence.metrics.push(metric.clone());
                self.evidence.metrics.len() - 1
            });
            let mut measured = measured.clone();
            measured.metric = place;
            values.push(measured);
        }
        let measurement = Measurement {
            at: Some(now.clone()),
            weight: before.weight(),
            values,
        };
        let known = &mut self.evidence.measurements;
        match known.last_mut().filter(|_| is_repeated) {
            Some(last) => {
                *last = measurement;
                false
            }
            None => {
                known.push(measurement);
                known.len().is_multiple_of(MEASUREMENTS)
            }
        }
    }

    /// Adds the actions that the operator has handled since the run began, and the action that began it. Returns whether an action was
    /// added. The action before this change may still be missing, if the operator ended before it wrote the record.
    fn act(&mut self, before: &CanaryStatus, after: &CanaryStatus) -> bool {
        let asked = [
            ConditionType::RetryRequested,
            ConditionType::SkipRequested,
            ConditionType::PromoteRequested,
        ];
        let is_asked = asked.into_iter().any(|type_| before.has_condition(type_));
        let [earlier, now] = [before, after].map(|status| {
            let action = status.condition(ConditionType::Action);
            action.filter(|action| action.reason != EARLIER)
        });
        // An action at the gate before the run belongs to the run.
        let is_of_wait = |at: &Option<Time>| {
            before.phase == CanaryPhase::Waiting && *at >= before.last_transition_time
        };
        let earlier = earlier.filter(|it| {
            let at = &it.last_update_time;
            is_asked || *at >= self.spec.started_at || is_of_wait(at)
        });
        let now = now.filter(|it| before.condition(ConditionType::Action) != Some(it));
        let known = self.spec.actions.len();
        for action in earlier.into_iter().chain(now) {
            let message = action.message.as_deref().unwrap_or_default();
            let (ids, words) = recorded(message);
            let id = ids[0];
            let steered = Steered {
                at: action.last_update_time.clone(),
                outcome: action.reason.clone(),
                action: format!("{id} {words}"),
            };
            if !self.spec.actions.iter().any(|it| is_same(it, &steered)) {
                self.spec.actions.push(steered);
            }
        }
        let is_new = self.spec.actions.len() > known;
        let excess = self.spec.actions.len().saturating_sub(ACTIONS);
        self.spec.actions.drain(..excess);
        is_new
    }

    /// Adds the reason of the last failed check, or of a wait. Returns whether the reason has changed.
    fn judge(&mut self, before: &CanaryStatus, after: &CanaryStatus) -> bool {
        let verdict = after.condition(ConditionType::Verdict);
        let has_changed = before.condition(ConditionType::Verdict) != verdict;
        self.spec.cause = verdict.map(|verdict| Cause {
            code: verdict.reason.clone(),
            sentence: verdict.message.clone().unwrap_or_default(),
        });
        // During a rollback the record is not written now: the end of the run follows and writes it.
        has_changed && verdict.is_some() && !after.has_condition(ConditionType::RollingBack)
    }

    /// Ends the record of a run that a newer version replaces.
    pub fn supersede(&mut self, now: Timestamp) {
        let sentence = "A newer version took the place of this one.".to_owned();
        let code = VerdictCode::Superseded.as_str().to_owned();
        let cause = Cause { code, sentence };
        self.end(whole_second_after(now), ReleaseResult::Superseded, cause);
    }

    /// Ends the record of a run whose end no process has recorded. `promoted` is the revision that the primary has.
    pub fn lose(&mut self, now: Timestamp, promoted: Option<&str>) {
        let was_promoted = promoted == Some(self.spec.revision.as_str());
        let (result, code, sentence) = if was_promoted {
            let sentence = "The version was promoted. How the run ended was not recorded.";
            (ReleaseResult::Promoted, VerdictCode::Promoted, sentence)
        } else {
            let sentence = "How this run ended was not recorded. A later run took its place.";
            (ReleaseResult::Superseded, VerdictCode::Superseded, sentence)
        };
        let (code, sentence) = (code.as_str().to_owned(), sentence.to_owned());
        let cause = Cause { code, sentence };
        self.end(whole_second_after(now), result, cause);
    }

    fn end(&mut self, now: Timestamp, result: ReleaseResult, cause: Cause) {
        self.spec.ended_at = Some(Time(now));
        self.spec.result = result;
        self.spec.cause = Some(cause);
    }

    /// The whole object.
    pub fn object(&self, canary: &Canary) -> Value {
        let uid = canary.metadata.uid.clone().unwrap_or_default();
        json!({
            "apiVersion": Kind::Release.api_version(),
            "kind": Kind::Release.name(),
            "metadata": {
                "name": self.name,
                "namespace": canary.metadata.namespace,
                "labels": {CANARY_UID: uid, RESULT: self.spec.result.as_str()},
                "ownerReferences": [{
                    "apiVersion": Kind::Canary.api_version(),
                    "kind": Kind::Canary.name(),
                    "name": canary.metadata.name,
                    "uid": uid,
                }],
            },
            "spec": self.packed(),
        })
    }

    /// The JSON merge patch that updates the object.
    pub fn patch(&self) -> Value {
        json!({
            "metadata": {"labels": {RESULT: self.spec.result.as_str()}},
            "spec": self.packed(),
        })
    }

    fn packed(&self) -> Value {
        let mut spec = self.spec.clone();
        spec.evidence = pack(&self.evidence);
        let mut spec = serde_json::to_value(spec).unwrap_or_default();
        // A field without a value is removed from the object.
        for field in ["cause", "endedAt", "evidence"] {
            if spec.get(field).is_none() {
                spec[field] = Value::Null;
            }
        }
        spec
    }
}

/// Whether two entries are about one action. The ID of an action by hand changes once its annotation is removed.
fn is_same(one: &Steered, other: &Steered) -> bool {
    fn parts(action: &Steered) -> (&str, &str) {
        action.action.split_once(' ').unwrap_or_default()
    }
    let ((id, words), (other_id, other_words)) = (parts(one), parts(other));
    let is_by_hand = [id, other_id].iter().any(|id| [UNNAMED, DONE].contains(id));
    (&one.at, &one.outcome, words) == (&other.at, &other.outcome, other_words)
        && (id == other_id || is_by_hand)
}

/// The record in an object that was read; `None` if the object has another form.
pub fn read(object: &Value) -> Option<Release> {
    serde_json::from_value(object.clone()).ok()
}

/// A record with its evidence as JSON; null if it has none, or none that can be read.
pub fn decoded(release: &Release) -> Value {
    let spec = &release.spec;
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    value["evidence"] = json!(spec.evidence.as_deref().and_then(unpack));
    value
}

/// The number of steps of a run that passes all its checks.
fn steps(canary: &Canary) -> i64 {
    match canary.strategy() {
        Strategy::Canary => reached_weight(canary, canary.max_weight()),
        Strategy::BlueGreen | Strategy::AbTesting => iterations(canary),
    }
}

/// The number of steps that were taken at this status.
fn reached(canary: &Canary, status: &CanaryStatus) -> i64 {
    // A promotion may route all traffic to the canary, which is no step.
    let is_step = is_in_run(status.phase) && status.weight() <= canary.max_weight();
    if !is_step {
        return 0;
    }
    match canary.strategy() {
        Strategy::Canary => reached_weight(canary, status.weight()),
        Strategy::BlueGreen | Strategy::AbTesting => status.iterations.min(iterations(canary)),
    }
}

fn iterations(canary: &Canary) -> i64 {
    let analysis = canary.spec.analysis.as_ref();
    analysis.and_then(|it| it.iterations).unwrap_or(0)
}

/// The number of steps to a weight.
fn reached_weight(canary: &Canary, weight: Percent) -> i64 {
    let (mut at, mut steps) = (Percent::ZERO, 0);
    while at < weight && steps < 100 {
        let next = canary.next_weight(at);
        if next <= at {
            break;
        }
        (at, steps) = (next, steps + 1);
    }
    steps
}

/// The images of the containers that differ between the primary and the target.
fn images(snapshot: &Snapshot) -> Vec<Change> {
    let containers = |workload: Option<&Value>| -> Vec<(String, String)> {
        // A Revision of Knative has no template.
        let template = workload.and_then(|it| it.pointer("/spec/template/spec").or(it.get("spec")));
        let lists = ["initContainers", "containers"].into_iter();
        lists
            .filter_map(|list| template?.get(list)?.as_array())
            .flatten()
            .map(|it| {
                let text = |key| it[key].as_str().unwrap_or_default().to_owned();
                (text("name"), text("image"))
            })
            .collect()
    };
    let (from, to) = (
        containers(snapshot.primary()),
        containers(snapshot.target()),
    );
    changes(&from, &to)
}

/// The beginning of a name, as long as this.
fn cut(name: &str, length: usize) -> &str {
    name.get(..length).unwrap_or(name)
}
