//! A Knative Service as the target (Flagger: `pkg/canary/knative_controller.go`). Knative makes a Revision of each version and scales it.
//! The canary is the latest Revision. The primary is the Revision that an annotation of the Service names.

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

/// The name of the primary, if another actor has removed the annotation; `None` if the name is not known, or if the annotation exists. The
/// routes that the operator wrote contain the name. If another actor has replaced them, too, `is_primary` is asked for each name that
/// Knative may have generated. A name that a user chose may still be in the routes of Knative's gateway.
pub fn unmarked_primary(service: &Value, is_primary: impl Fn(&str) -> bool) -> Option<String> {
    if primary(service).is_some() {
        return None;
    }
    let routed = |list| Some(named(service, list).next()?.0.to_owned());
    let given = || {
        let service_name = text(service, "/metadata/name");
        let numbers = (1..=number(service, "/metadata/generation")).rev();
        let mut names = numbers.map(|number| format!("{service_name}-{number:05}"));
        names.find(|name| is_primary(name))
    };
    routed("/spec/traffic")
        .or_else(given)
        .or_else(|| routed("/status/traffic"))
}

/// The Revision that has a share of the requests although it is neither the latest one nor the primary; `None` if there is none.
pub fn older(service: &Value) -> Option<&str> {
    let known = [latest(service), primary(service)];
    let mut all = named(service, "/spec/traffic");
    let (revision, _) =
        all.find(|(revision, share)| *share > 0 && !known.contains(&Some(revision)))?;
    Some(revision)
}

/// The Revisions to which routes lead by their names, with their shares.
fn named<'a>(service: &'a Value, list: &str) -> impl Iterator<Item = (&'a str, i64)> {
    let routes =
        routes(service, list).filter(|route| !is_tag(route) && route["latestRevision"] != true);
    routes.filter_map(|route| Some((name(route.get("revisionName"))?, number(route, "/percent"))))
}

/// Routes these shares of the requests to the latest Revision and to the primary.
pub fn lead(service: &mut Value, primary: &str, weights: &Weights) {
    let latest = json!({"latestRevision": true, "percent": weights.canary});
    let primary = json!({"revisionName": primary, "percent": weights.primary});
    put(service, vec![latest, primary]);
}

/// Replaces the routes by these, which have shares. Routes with a tag follow them and get no share.
pub fn put(service: &mut Value, mut shares: Vec<Value>) {
    let tags = routes(service, "/spec/traffic").filter(|route| route["tag"].is_string());
    let without_share = |tag: &Value| {
        let mut tag = tag.clone();
        tag.as_object_mut().map(|tag| tag.remove("percent"));
        tag
    };
    shares.extend(tags.map(without_share));
    service["spec"]["traffic"] = Value::Array(shares);
}

fn routes<'a>(service: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    let routes = service.pointer(list).and_then(Value::as_array);
    routes.into_iter().flatten()
}

/// Whether a route gives a Revision an address of its own, and no share of the requests.
pub fn is_tag(route: &Value) -> bool {
    route["tag"].is_string() && number(route, "/percent") == 0
}

fn name(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|name| !name.is_empty())
}

/// Whether a Revision can answer requests. A Revision without requests has no pods but is ready, because Knative starts a pod for the first
/// request.
pub fn is_ready(revision: &Value) -> bool {
    let is_observed =
        number(revision, "/status/observedGeneration") == number(revision, "/metadata/generation");
    is_observed
        && condition(revision, "Ready").is_some_and(|ready| text(ready, "/status") == "True")
}

/// The readiness of a Revision. The Revision has failed when it has not become ready within `deadline`. (Flagger waits for ever.)
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

    #[test]
    fn a_primary_without_its_annotation_is_known_by_the_status_or_by_the_routes() {
        let shares = json!([{"revisionName": "x-old", "tag": "old"}, {"latestRevision": true, "percent": 20, "revisionName": "x-new"},
            {"revisionName": "x-stable", "percent": 80}]);
        let service = |written: Value, routed: &Value| json!({"metadata": {"name": "podinfo", "generation": 12}, "spec": {"traffic": written}, "status": {"traffic": routed}});
        let whole = json!([{"latestRevision": true, "percent": 100}]);
        let is_eleventh = |name: &str| name == "podinfo-00011";
        let mut live = service(whole.clone(), &whole);
        let found = |service: &Value, name: &str| unmarked_primary(service, |it| it == name);
        assert_eq!(
            unmarked_primary(&live, is_eleventh).as_deref(),
            Some("podinfo-00011")
        );
        assert_eq!(found(&live, "podinfo-00013"), None);
        for live in [
            service(shares.clone(), &whole),
            service(whole.clone(), &shares),
        ] {
            assert_eq!(found(&live, "other").as_deref(), Some("x-stable"));
        }
        live["metadata"]["annotations"] = json!({PRIMARY: "podinfo-00001"});
        assert_eq!(unmarked_primary(&live, is_eleventh), None);
    }

    #[test]
    fn a_route_of_a_user_to_an_older_revision_is_found() {
        let service = |traffic: Value| json!({"metadata": {}, "spec": {"traffic": traffic}, "status": {"latestCreatedRevisionName": "podinfo-00002"}});
        let to = |name: &str, percent: u8| json!({"revisionName": name, "percent": percent});
        let old = "podinfo-00001";
        assert_eq!(
            older(&service(json!([to("podinfo-00002", 60), to(old, 40)]))),
            Some(old)
        );
        let tag = json!({"revisionName": old, "tag": "old"});
        let whole = json!({"latestRevision": true, "percent": 100});
        assert_eq!(
            older(&service(json!([to("podinfo-00002", 100), tag]))),
            None
        );
        assert_eq!(older(&service(json!([whole, to(old, 0)]))), None);
        let mut ours = service(json!([to(old, 100)]));
        ours["metadata"]["annotations"] = json!({PRIMARY: old});
        assert_eq!(older(&ours), None);
    }
}
