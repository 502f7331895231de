//! The readiness of a workload's pods, with Flagger's rules and texts (`pkg/canary/*_ready.go`).

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// The state of a workload's rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Enough pods of the current template are available.
    Ready,
    /// Not enough pods are available yet, for this reason.
    Waiting(String),
    /// The deadline has passed, for this reason.
    Failed(String),
}

impl Readiness {
    /// The same state with a prefix before its reason.
    #[must_use]
    pub fn prefixed(self, prefix: &str) -> Self {
        match self {
            Self::Ready => Self::Ready,
            Self::Waiting(why) => Self::Waiting(prefix.to_owned() + &why),
            Self::Failed(why) => Self::Failed(prefix.to_owned() + &why),
        }
    }
}

/// How far the rollout of a workload has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The number of the rollout. Each new rollout has another number.
    pub rollout: i64,
    /// A number that grows with each pod that is updated or available, and with each old one that is gone.
    pub pods: i64,
}

/// The times that the readiness depends on.
pub struct Times {
    /// The longest time for which pods may be unavailable.
    pub deadline: SignedDuration,
    /// When the rollout began. Conditions that are older belong to an earlier rollout.
    pub since: Timestamp,
    /// Since when pods are missing and none has been added, as far as this process has seen it.
    pub stalled: Option<Timestamp>,
    /// Now.
    pub now: Timestamp,
}

impl Times {
    /// The state of a wait with this reason: failed if the deadline has passed since `start`, otherwise waiting.
    fn waits_since(&self, start: Option<Timestamp>, why: String) -> Readiness {
        let end = start.and_then(|start| start.checked_add(self.deadline).ok());
        if end.is_some_and(|end| end < self.now) {
            Readiness::Failed(why)
        } else {
            Readiness::Waiting(why)
        }
    }
}

/// The readiness of a Deployment: at least `threshold` percent of its pods must be updated and available. It has failed when its own
/// progress deadline is exceeded, or when for `deadline` it has been unavailable, or has lacked pods and got no further pod. (Flagger has
/// the first two rules. A Deployment is available if its strategy allows the missing pods, and its own deadline does not count after it was
/// scaled.)
pub fn deployment(object: &Value, threshold: i64, times: &Times) -> Readiness {
    let name = text(object, "/metadata/name");
    if let Some(unseen) = unseen(object, "deployment", times) {
        return unseen;
    }
    if condition(object, "Progressing").is_some_and(|c| {
        text(c, "/reason") == "ProgressDeadlineExceeded"
            && updated(c).is_none_or(|at| at >= times.since)
    }) {
        return Readiness::Failed(format!(
            "deployment {name:?} exceeded its progress deadline"
        ));
    }
    let Some(why) = unfinished(object, threshold) else {
        return Readiness::Ready;
    };
    let why = format!("waiting for rollout to finish: {why}");
    let unavailable = unavailable_since(object).map(|since| since.max(times.since));
    times.waits_since(unavailable.into_iter().chain(times.stalled).min(), why)
}

/// The readiness of a workload whose controller has not seen its last change; `None` if it has. (In Flagger, this wait has no end.)
fn unseen(object: &Value, kind: &str, times: &Times) -> Option<Readiness> {
    let [wanted, seen] = ["/metadata/generation", "/status/observedGeneration"]
        .map(|pointer| number(object, pointer));
    let why = || {
        format!(
            "waiting for rollout to finish: observed {kind} generation less than desired generation"
        )
    };
    (wanted > seen).then(|| times.waits_since(times.stalled, why()))
}

fn unfinished(object: &Value, threshold: i64) -> Option<String> {
    let updated = number(object, "/status/updatedReplicas");
    if let Some(wanted) = object.pointer("/spec/replicas").and_then(Value::as_i64)
        && updated < wanted
    {
        return Some(format!(
            "{updated} out of {wanted} new replicas have been updated"
        ));
    }
    let all = number(object, "/status/replicas");
    if all > updated {
        return Some(format!(
            "{} old replicas are pending termination",
            all - updated
        ));
    }
    let available = number(object, "/status/availableReplicas");
    let needed = updated.saturating_mul(threshold) / 100;
    (available < needed).then(|| {
        format!(
            "{available} of {needed} (readyThreshold {threshold}%) updated replicas are available"
        )
    })
}

/// When the Deployment began to have fewer pods than its strategy allows; `None` if it has enough.
fn unavailable_since(object: &Value) -> Option<Timestamp> {
    condition(object, "Progressing")?;
    let available = condition(object, "Available")?;
    let lacking = text(available, "/status") == "False"
        && text(available, "/reason") == "MinimumReplicasUnavailable";
    lacking.then(|| updated(available)).flatten()
}

fn updated(condition: &Value) -> Option<Timestamp> {
    text(condition, "/lastUpdateTime").parse().ok()
}

/// The readiness of a DaemonSet: all pods must be updated and at least `threshold` percent available. It has failed when for `deadline` it
/// has lacked pods and got no further pod. (Flagger counts from the last step, even if that was long before the first pod was lost.)
pub fn daemon_set(object: &Value, threshold: i64, times: &Times) -> Readiness {
    if let Some(unseen) = unseen(object, "daemonset", times) {
        return unseen;
    }
    let wanted = number(object, "/status/desiredNumberScheduled");
    let updated = number(object, "/status/updatedNumberScheduled");
    let available = number(object, "/status/numberAvailable");
    let needed = wanted.saturating_mul(threshold) / 100;
    if updated >= wanted && available >= needed {
        return Readiness::Ready;
    }
    let end = times
        .stalled
        .unwrap_or(times.since)
        .checked_add(times.deadline);
    if end.is_ok_and(|end| end < times.now) {
        return Readiness::Failed(format!(
            "exceeded its progressDeadlineSeconds: {}",
            times.deadline.as_secs()
        ));
    }
    Readiness::Waiting(if updated < wanted {
        format!(
            "waiting for rollout to finish: {updated} out of {wanted} new pods have been updated"
        )
    } else {
        format!(
            "waiting for rollout to finish: {available} of {needed} (readyThreshold {threshold}%) updated pods are available"
        )
    })
}

/// The replicas in a workload's spec; 1 if the field is missing, as the API server does.
pub fn replicas(object: &Value) -> i64 {
    object
        .pointer("/spec/replicas")
        .and_then(Value::as_i64)
        .unwrap_or(1)
}

/// The condition of this type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object
        .pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|c| text(c, "/type") == kind)
}

/// The number at a JSON pointer; 0 if there is none.
pub fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The text at a JSON pointer; empty if there is none.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

#[cfg(test)]
mod tests;
