//! A Knative Service as the target (Flagger: `pkg/canary/knative_controller.go`). Knative makes a Revision of each version and scales it:
//! the canary is the latest Revision, and the primary is the one that an annotation of the Service names.

use serde_json::Value;

use super::{
    Readiness,
    readiness::{Times, condition, number, text},
};

/// The annotation that names the Revision which was promoted.
pub const PRIMARY: &str = "flagger.app/primary-revision";

/// The latest Revision of a Service; `None` if Knative has not made one yet.
pub fn latest(service: &Value) -> Option<&str> {
    name(service.pointer("/status/latestCreatedRevisionName"))
}

/// The Revision that was promoted; `None` if none was.
pub fn primary(service: &Value) -> Option<&str> {
    name(service.pointer("/metadata/annotations")?.get(PRIMARY))
}

fn name(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|name| !name.is_empty())
}

/// Whether a Revision can answer requests. One without requests has no pods and is ready: Knative starts a pod for the first request.
pub fn is_ready(revision: &Value) -> bool {
    let is_observed =
        number(revision, "/status/observedGeneration") == number(revision, "/metadata/generation");
    is_observed
        && condition(revision, "Ready").is_some_and(|ready| text(ready, "/status") == "True")
}

/// The readiness of a Revision. It has failed when it has not become ready for `deadline`. (Flagger waits for ever.)
pub fn readiness(revision: &Value, times: &Times) -> Readiness {
    if is_ready(revision) {
        return Readiness::Ready;
    }
    let [name, namespace] =
        ["name", "namespace"].map(|field| text(revision, &format!("/metadata/{field}")));
    let why = format!("Knative Revision {name}.{namespace} is not ready");
    let start = times.stalled.unwrap_or(times.since);
    let end = start.checked_add(times.deadline);
    if end.is_ok_and(|end| end < times.now) {
        return Readiness::Failed(why);
    }
    Readiness::Waiting(why)
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use serde_json::json;

    use super::*;

    fn revision(status: &str) -> Value {
        json!({"metadata": {"name": "podinfo-00002", "namespace": "test"}, "status": {"conditions": [{"type": "Ready", "status": status}]}})
    }

    #[test]
    fn a_revision_is_ready_if_its_condition_says_so_and_fails_at_the_deadline() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let times = |now| Times {
            deadline: SignedDuration::from_secs(60),
            since: at(0),
            stalled: Some(at(100)),
            now: at(now),
        };
        let why = || "Knative Revision podinfo-00002.test is not ready".to_owned();
        assert_eq!(readiness(&revision("True"), &times(500)), Readiness::Ready);
        for status in ["False", "Unknown"] {
            let revision = revision(status);
            assert_eq!(readiness(&revision, &times(160)), Readiness::Waiting(why()));
            assert_eq!(readiness(&revision, &times(161)), Readiness::Failed(why()));
        }
        let mut unobserved = revision("True");
        unobserved["metadata"]["generation"] = json!(1);
        assert_eq!(
            readiness(&unobserved, &times(160)),
            Readiness::Waiting(why())
        );
        let without = Times {
            stalled: None,
            ..times(61)
        };
        assert_eq!(
            readiness(&revision("False"), &without),
            Readiness::Failed(why())
        );
    }

    #[test]
    fn a_service_names_its_revisions() {
        let service = json!({"metadata": {"annotations": {PRIMARY: "podinfo-00001"}}, "status": {"latestCreatedRevisionName": "podinfo-00002"}});
        assert_eq!(primary(&service), Some("podinfo-00001"));
        assert_eq!(latest(&service), Some("podinfo-00002"));
        let new = json!({"metadata": {"annotations": {PRIMARY: ""}}, "status": {}});
        assert_eq!((primary(&new), latest(&new)), (None, None));
    }
}
