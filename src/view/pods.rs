//! The pods of a view.

use serde_json::Value;

use super::{
    Pod, Version,
    text::{clean, instant},
};

/// The view's entry for a pod.
pub fn pod(object: &Value, of: Version) -> Pod {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let conditions = object.pointer("/status/conditions");
    let ready = conditions
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|it| it["type"] == "Ready" && it["status"] == "True");
    let restarts = containers(object).filter_map(|it| it["restartCount"].as_i64());
    Pod {
        name: clean(text("/metadata/name").unwrap_or_default()),
        of,
        ready,
        status: clean(&status(object)),
        restarts: restarts.sum(),
        created: instant(object.pointer("/metadata/creationTimestamp")),
    }
}

/// The states of all containers.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    ["/status/initContainerStatuses", "/status/containerStatuses"]
        .into_iter()
        .filter_map(|pointer| pod.pointer(pointer)?.as_array())
        .flatten()
}

/// The reason why a container does not run, with the exit code of its last end; else the phase of the pod.
fn status(pod: &Value) -> String {
    if pod.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating".to_owned();
    }
    let stopped = containers(pod).find_map(|container| {
        let state = &container["state"];
        let reason = state["waiting"]["reason"].as_str();
        let reason = reason.filter(|reason| *reason != "PodInitializing");
        let ended = || {
            let ended = &state["terminated"];
            (ended["exitCode"].as_i64()? != 0).then(|| ended["reason"].as_str())?
        };
        let reason = reason.or_else(ended)?;
        let last = [&state["terminated"], &container["lastState"]["terminated"]];
        let last = last.into_iter().find(|last| last.is_object());
        Some(match last {
            Some(last) => format!("{reason}, last {}", end(last)),
            None => reason.to_owned(),
        })
    });
    let phase = pod.pointer("/status/reason").and_then(Value::as_str);
    let phase = phase.or_else(|| pod.pointer("/status/phase")?.as_str());
    stopped.unwrap_or_else(|| phase.unwrap_or("Unknown").to_owned())
}

/// How a container ended.
fn end(terminated: &Value) -> String {
    let code = terminated["exitCode"].as_i64().unwrap_or_default();
    match terminated["reason"].as_str() {
        Some(reason) if reason != "Error" => format!("exit {code} ({reason})"),
        _ => format!("exit {code}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_shows_the_state_of_the_container_that_does_not_run_init_containers_included() {
        let waits = |reason| json!({"waiting": {"reason": reason}});
        let ended = |code, reason| json!({"terminated": {"exitCode": code, "reason": reason}});
        let none = json!({});
        for (state, last, expected) in [
            (
                waits("CrashLoopBackOff"),
                ended(137, "OOMKilled"),
                "CrashLoopBackOff, last exit 137 (OOMKilled)",
            ),
            (
                waits("CrashLoopBackOff"),
                ended(1, "Error"),
                "CrashLoopBackOff, last exit 1",
            ),
            (waits("ImagePullBackOff"), none.clone(), "ImagePullBackOff"),
            (ended(2, "Error"), none.clone(), "Error, last exit 2"),
            (ended(0, "Completed"), none.clone(), "Pending"),
            (waits("PodInitializing"), none.clone(), "Pending"),
        ] {
            for list in ["initContainerStatuses", "containerStatuses"] {
                let container = json!({"restartCount": 3, "state": state, "lastState": last});
                let object = json!({"metadata": {"name": "a"}, "status": {"phase": "Pending", list: [container]}});
                let pod = pod(&object, Version::Canary);
                assert_eq!((pod.status.as_str(), pod.restarts), (expected, 3), "{list}");
            }
        }
    }
}
