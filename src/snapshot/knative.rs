//! A Knative Service as the target (Flagger: `pkg/canary/knative_controller.go`). Knative makes a Revision of each version and scales it:
//! the canary is the latest Revision, and the primary is the one that an annotation of the Service names.

use serde_json::{Value, json};

use super::{
    Readiness, Weights,
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

/// Routes these shares of the requests to the latest Revision and to the primary.
pub fn lead(service: &mut Value, primary: &str, weights: &Weights) {
    let latest = json!({"latestRevision": true, "percent": weights.canary});
    let primary = json!({"revisionName": primary, "percent": weights.primary});
    put(service, vec![latest, primary]);
}

/// Replaces the routes with shares. Those with nothing but a tag stay behind them.
pub fn put(service: &mut Value, mut shares: Vec<Value>) {
    let routes = service.pointer("/spec/traffic").and_then(Value::as_array);
    let tags = routes.into_iter().flatten().filter(|route| is_tag(route));
    shares.extend(tags.cloned());
    service["spec"]["traffic"] = Value::Array(shares);
}

/// Whether a route gives a Revision an address of its own, and no share of the requests.
pub fn is_tag(route: &Value) -> bool {
    route["tag"].is_string() && number(route, "/percent") == 0
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
    use super::*;
    use jiff::{SignedDuration, Timestamp};

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
