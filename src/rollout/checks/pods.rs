//! The reason why pods are not ready, from the states of their containers. Flagger's messages only count pods.

use serde_json::Value;

use crate::{
    rollout::{
        plan::{Answer, Evidence, Question},
        release::Release,
    },
    snapshot::{Kind, excerpt, pods::Labels},
    workload::label_selector::shown,
};

/// The reason why pods are not ready, or the question that finds it.
pub enum Pods {
    /// Ask this question first.
    Ask(Question),
    /// The reason in the status of a pod; `None` if the pods could not be listed, or show no reason.
    Known(Option<String>),
}

/// The reason why pods with these labels are not ready.
pub fn reason(release: &Release<'_>, labels: &Labels, evidence: &Evidence) -> Pods {
    let question = Question::List {
        kind: Kind::Pod,
        namespace: release.snapshot.namespace().to_owned(),
        selector: shown(labels),
    };
    match evidence.get(&question) {
        None => Pods::Ask(question),
        Some(Answer::Objects(pods)) => Pods::Known(worst(pods)),
        Some(_) => Pods::Known(None),
    }
}

/// The reason of the pod that restarted most often, among those that are not ready.
fn worst(pods: &[Value]) -> Option<String> {
    let reasons = pods.iter().filter_map(of_pod);
    let (_, reason) = reasons.max_by_key(|(restarts, _)| *restarts)?;
    Some(excerpt(&reason))
}

/// The number of restarts of a pod, and the reason why it is not ready.
fn of_pod(pod: &Value) -> Option<(i64, String)> {
    let status = &pod["status"];
    let lists = ["initContainerStatuses", "containerStatuses"].into_iter();
    let containers = lists.filter_map(|list| status[list].as_array()).flatten();
    let of_containers = containers.filter_map(of_container);
    let worst = of_containers.max_by_key(|(restarts, _)| *restarts);
    worst.or_else(|| Some((-1, unscheduled(status)?)))
}

fn of_container(container: &Value) -> Option<(i64, String)> {
    let text = |pointer| container.pointer(pointer).and_then(Value::as_str);
    if container["ready"] == true {
        return None;
    }
    let restarts = container["restartCount"].as_i64().unwrap_or(0);
    let waits = text("/state/waiting/reason");
    let mut ended = ["/lastState/terminated", "/state/terminated"].into_iter();
    let ended = ended.find_map(|pointer| container.pointer(pointer));
    let exit = ended.and_then(|ended| {
        let code = ended["exitCode"].as_i64()?;
        let why = ended["reason"].as_str().filter(|why| *why != "Error");
        Some(match why {
            Some(why) => format!("exit code {code} ({why})"),
            None => format!("exit code {code}"),
        })
    });
    // A pod that starts normally has these states, too, so they are no reason.
    let waits = waits.filter(|waits| !matches!(*waits, "ContainerCreating" | "PodInitializing"));
    let restarted = match restarts {
        0 => None,
        1 => Some("1 restart".to_owned()),
        n => Some(format!("{n} restarts")),
    };
    let facts: Vec<_> = [waits.map(str::to_owned), exit, restarted]
        .into_iter()
        .flatten()
        .collect();
    if facts.is_empty() {
        return None;
    }
    let name = text("/name").unwrap_or_default();
    Some((restarts, format!("container {name}: {}", facts.join(", "))))
}

/// The reason why the pod has no node yet.
fn unscheduled(status: &Value) -> Option<String> {
    let mut conditions = status["conditions"].as_array()?.iter();
    let scheduled =
        conditions.find(|it| it["type"] == "PodScheduled" && it["status"] == "False")?;
    let why = scheduled["message"].as_str().unwrap_or_default();
    Some(format!("not scheduled: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_tells_why_it_is_not_ready() {
        let crashes = json!({"status": {"containerStatuses": [
            {"name": "proxy", "ready": true, "restartCount": 9},
            {"name": "app", "ready": false, "restartCount": 6, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}});
        let exits = json!({"status": {"containerStatuses": [{"name": "app", "ready": false, "restartCount": 1,
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}});
        let image = json!({"status": {"containerStatuses": [
            {"name": "app", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}});
        let starts = json!({"status": {"containerStatuses": [
            {"name": "app", "ready": false, "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}}],
            "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False", "message": "containers with unready status"}]}});
        let pending = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}});
        for (pods, reason) in [
            (
                vec![exits.clone(), crashes.clone()],
                Some("container app: CrashLoopBackOff, exit code 137 (OOMKilled), 6 restarts"),
            ),
            (
                vec![exits, image.clone()],
                Some("container app: exit code 1, 1 restart"),
            ),
            (
                vec![pending.clone(), image],
                Some("container app: ImagePullBackOff"),
            ),
            (
                vec![pending, starts.clone()],
                Some("not scheduled: 0/3 nodes are available"),
            ),
            (vec![starts, json!({}), json!([])], None),
        ] {
            assert_eq!(worst(&pods).as_deref(), reason);
            let init: Vec<_> = pods.into_iter().map(in_init_containers).collect();
            assert_eq!(worst(&init).as_deref(), reason, "init containers");
        }
    }

    /// Moves the containers of a pod to its init containers, and adds a container that waits for them.
    fn in_init_containers(mut pod: Value) -> Value {
        let Some(status) = pod.get_mut("status").and_then(Value::as_object_mut) else {
            return pod;
        };
        if let Some(containers) = status.remove("containerStatuses") {
            status.insert("initContainerStatuses".to_owned(), containers);
            let waits = json!({"waiting": {"reason": "PodInitializing"}});
            let app = json!({"name": "main", "ready": false, "restartCount": 0, "state": waits});
            status.insert("containerStatuses".to_owned(), json!([app]));
        }
        pod
    }
}
