//! Makes a view from the objects that were read.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::{
    Action, Check, Condition, Event, Failed, Hook, Image, Pod, Revision, State, Target, Version,
    View, Weight, pods,
    state::{self, Reasoned},
    steps,
    text::{clean, instant},
};
use crate::{
    api::{
        action::{EARLIER, recorded},
        canary::{Canary, CanaryCondition, CanaryStatus},
        status::ConditionType,
    },
    snapshot::{TargetKind, redacted, revision::revision},
};

/// The objects of a canary that were read. A part that cannot be read is `None`.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The Canary.
    pub canary: Value,
    /// The target.
    pub target: Option<Value>,
    /// The primary.
    pub primary: Option<Value>,
    /// The pods of the target and of the primary.
    pub pods: Option<Vec<(Version, Value)>>,
    /// The events of the Canary.
    pub events: Option<Vec<Value>>,
    /// Whether a workload could not be read for a reason other than missing rights.
    pub unanswered: bool,
}

impl View {
    /// The view of a canary at this time.
    pub fn of(seen: &Seen, now: Timestamp) -> Self {
        let text = |pointer: &str| {
            let text = seen.canary.pointer(pointer).and_then(Value::as_str);
            clean(text.unwrap_or_default())
        };
        let (canary, reasoned) = read(&seen.canary);
        let status = canary.status.clone().unwrap_or_default();
        let is_refused = status.has_condition(ConditionType::WriteRefused);
        let steps = steps::steps(&canary, &status);
        let events = seen.events.as_deref().map(all_events);
        let is_progressing = reasoned.state == State::Progressing;
        let expected =
            steps::expected(&canary, &status, events.as_deref()).filter(|_| is_progressing);
        let next = steps::next_step(&canary, &status, &steps, now)
            .filter(|_| is_progressing && !is_refused);
        let analysis = canary.spec.analysis.clone().unwrap_or_default();
        let mut view = Self {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            created: instant(seen.canary.pointer("/metadata/creationTimestamp")),
            needs_attention: reasoned.state.needs_attention() || is_refused,
            state: reasoned.state,
            code: reasoned.code,
            sentence: reasoned.sentence,
            phase: text("/status/phase"),
            since: time(status.last_transition_time.as_ref()),
            target: Target {
                kind: text("/spec/targetRef/kind"),
                name: text("/spec/targetRef/name"),
            },
            strategy: canary.strategy().as_str().to_owned(),
            images: images(seen),
            revision: revisions(&canary, &status, seen.target.as_ref()),
            weight: Weight {
                intended: state::weight(&canary, &status),
                max: canary.max_weight(),
            },
            steps,
            next_step: next.map(|(next, _)| next),
            ends: next.map(|(_, ends)| ends),
            silent_since: None,
            failed_checks: Failed {
                now: status.failed_checks,
                threshold: canary.threshold(),
            },
            checks: analysis.metrics.iter().map(check).collect(),
            hooks: analysis.webhooks.iter().map(hook).collect(),
            pods: seen.pods.as_deref().map(all_pods),
            action: action(&status),
            conditions: status.conditions.iter().flatten().map(condition).collect(),
            events,
            unanswered: seen.unanswered,
            expected,
        };
        view.fall_silent(now);
        view
    }
}

/// The Canary, and its state. A Canary that cannot be read is blocked.
fn read(object: &Value) -> (Canary, Reasoned) {
    match serde_json::from_value::<Canary>(object.clone()) {
        Ok(canary) => {
            let status = canary.status.clone().unwrap_or_default();
            let reasoned = state::state(&canary, &status);
            (canary, reasoned)
        }
        Err(error) => {
            let reasoned = Reasoned {
                state: State::Blocked,
                code: String::new(),
                sentence: format!("The Canary cannot be read: {}.", clean(&error.to_string())),
            };
            (Canary::default(), reasoned)
        }
    }
}

fn check(metric: &crate::api::canary::CanaryMetric) -> Check {
    let (min, max) = match &metric.threshold_range {
        Some(range) => (range.min, range.max),
        None if metric.compare.is_some() && metric.threshold.is_none() => (None, None),
        // The older field `threshold` is the minimum of Flagger's success rate, and the maximum of each other metric.
        None => {
            let threshold = Some(metric.threshold.unwrap_or(0.0));
            if metric.name == "request-success-rate" {
                (threshold, None)
            } else {
                (None, threshold)
            }
        }
    };
    Check {
        name: clean(&metric.name),
        min,
        max,
        interval: clean(metric.interval.as_deref().unwrap_or("1m")),
    }
}

fn hook(hook: &crate::api::canary::CanaryWebhook) -> Hook {
    Hook {
        name: clean(&hook.name),
        type_: hook.type_.as_str().to_owned(),
    }
}

fn revisions(canary: &Canary, status: &CanaryStatus, target: Option<&Value>) -> Revision {
    let kind = TargetKind::of(canary);
    Revision {
        applied: status.last_applied_spec.as_deref().map(clean),
        promoted: status.last_promoted_spec.as_deref().map(clean),
        target: kind
            .zip(target)
            .map(|(kind, target)| revision(&kind.version(target))),
    }
}

/// The images of all containers; `None` if neither workload could be read.
fn images(seen: &Seen) -> Option<Vec<Image>> {
    let (canary, primary) = (seen.target.as_ref(), seen.primary.as_ref());
    canary.or(primary)?;
    let names: BTreeSet<&str> = [canary, primary]
        .into_iter()
        .flatten()
        .flat_map(containers)
        .map(|(name, _)| name)
        .collect();
    let image = |workload: Option<&Value>, name: &str| {
        let found = containers(workload?).find(|(container, _)| *container == name);
        Some(clean(found?.1))
    };
    let of_name = |name: &str| Image {
        container: clean(name),
        primary: image(primary, name),
        canary: image(canary, name),
    };
    Some(names.into_iter().map(of_name).collect())
}

/// The containers of a workload, with their images.
fn containers(workload: &Value) -> impl Iterator<Item = (&str, &str)> {
    ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| {
            // A Revision of Knative has no template.
            let in_template = workload.pointer(&format!("/spec/template/spec/{list}"));
            in_template
                .or_else(|| workload.get("spec")?.get(list))?
                .as_array()
        })
        .flatten()
        .filter_map(|container| Some((container["name"].as_str()?, container["image"].as_str()?)))
}

/// The pods, those of the canary first.
fn all_pods(objects: &[(Version, Value)]) -> Vec<Pod> {
    let mut all: Vec<_> = objects
        .iter()
        .map(|(of, object)| pods::pod(object, *of))
        .collect();
    all.sort_by(|a, b| (a.of, &a.name).cmp(&(b.of, &b.name)));
    all
}

/// The action that the condition records.
fn action(status: &CanaryStatus) -> Option<Action> {
    let condition = status.condition(ConditionType::Action);
    let condition = condition.filter(|condition| condition.reason != EARLIER)?;
    let message = condition.message.as_deref()?;
    let (ids, text) = recorded(message);
    Some(Action {
        id: clean(ids[0]),
        accepted: condition.reason == "Accepted",
        text: clean(text),
    })
}

fn condition(condition: &CanaryCondition) -> Condition {
    Condition {
        type_: clean(&condition.type_),
        status: clean(&condition.status),
        reason: clean(&condition.reason),
        message: clean(condition.message.as_deref().unwrap_or_default()),
        updated: time(condition.last_update_time.as_ref()),
    }
}

/// The events, newest last.
fn all_events(objects: &[Value]) -> Vec<Event> {
    let mut all: Vec<_> = objects.iter().map(event).collect();
    all.sort_by_key(|event| event.at);
    all
}

fn event(object: &Value) -> Event {
    let text = |pointer: &str| {
        clean(
            object
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default(),
        )
    };
    let at = [
        "/lastTimestamp",
        "/eventTime",
        "/metadata/creationTimestamp",
    ];
    Event {
        at: at
            .into_iter()
            .find_map(|pointer| instant(object.pointer(pointer))),
        type_: text("/type"),
        // An event may quote the answer of a webhook or of a metric server.
        message: redacted(&text("/message")),
        count: object["count"].as_i64().unwrap_or(1).max(1),
    }
}

fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
}
