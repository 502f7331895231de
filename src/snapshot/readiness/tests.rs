use serde_json::json;

use super::*;

/// The times of a rollout that began at `since`, seen at two minutes after midnight.
fn times(since: &str) -> Times {
    Times {
        deadline: SignedDuration::from_secs(60),
        since: since.parse().unwrap(),
        stalled: None,
        now: "2026-01-01T00:02:00Z".parse().unwrap(),
    }
}

fn judge(status: Value) -> Readiness {
    let object = json!({"metadata": {"name": "podinfo", "generation": 2}, "spec": {"replicas": 3}, "status": status});
    deployment(&object, 100, &times("2026-01-01T00:00:00Z"))
}

#[test]
fn readiness_has_flaggers_texts() {
    let wait = |why: &str| Readiness::Waiting(format!("waiting for rollout to finish: {why}"));
    assert_eq!(
        judge(json!({"observedGeneration": 1})),
        wait("observed deployment generation less than desired generation")
    );
    assert_eq!(
        judge(json!({"observedGeneration": 2, "updatedReplicas": 1})),
        wait("1 out of 3 new replicas have been updated")
    );
    assert_eq!(
        judge(json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 5})),
        wait("2 old replicas are pending termination")
    );
    assert_eq!(
        judge(
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2})
        ),
        wait("2 of 3 (readyThreshold 100%) updated replicas are available")
    );
    assert_eq!(
        judge(
            json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3})
        ),
        Readiness::Ready
    );
}

#[test]
fn a_deployment_that_stays_unavailable_past_the_canarys_deadline_has_failed() {
    let status = |since: &str| {
        json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "conditions": [
            {"type": "Progressing", "status": "True"},
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "lastUpdateTime": since}]})
    };
    assert!(matches!(
        judge(status("2026-01-01T00:01:30Z")),
        Readiness::Waiting(_)
    ));
    assert!(matches!(
        judge(status("2026-01-01T00:00:30Z")),
        Readiness::Failed(_)
    ));
}

#[test]
fn kubernetes_own_deadline_counts_too() {
    let status = json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]});
    assert_eq!(
        judge(status),
        Readiness::Failed("deployment \"podinfo\" exceeded its progress deadline".to_owned())
    );
}

#[test]
fn a_daemon_set_has_failed_when_its_deadline_has_passed() {
    let object = |updated: i64, available: i64| {
        json!({"metadata": {"generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 4,
            "updatedNumberScheduled": updated, "numberAvailable": available}})
    };
    let soon = times("2026-01-01T00:01:30Z");
    let wait = |why: &str| Readiness::Waiting(format!("waiting for rollout to finish: {why}"));
    assert_eq!(
        daemon_set(&object(1, 4), 100, &soon),
        wait("1 out of 4 new pods have been updated")
    );
    assert_eq!(
        daemon_set(&object(4, 1), 50, &soon),
        wait("1 of 2 (readyThreshold 50%) updated pods are available")
    );
    assert_eq!(daemon_set(&object(4, 2), 50, &soon), Readiness::Ready);
    assert_eq!(
        daemon_set(&object(4, 1), 50, &times("2026-01-01T00:00:30Z")),
        Readiness::Failed("exceeded its progressDeadlineSeconds: 60".to_owned())
    );
}

/// The conditions of a Deployment stay when its template changes.
#[test]
fn a_fix_is_not_judged_by_the_outcome_of_the_version_before() {
    let status = |condition: Value| json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "conditions": [{"type": "Progressing"}, condition]});
    let object = |condition| json!({"metadata": {"name": "podinfo", "generation": 2}, "spec": {"replicas": 3}, "status": status(condition)});
    let lacking = object(
        json!({"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable",
        "lastUpdateTime": "2025-12-31T00:00:00Z"}),
    );
    let mut stuck = object(Value::Null);
    stuck["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded", "lastUpdateTime": "2025-12-31T00:00:00Z"}]);
    for object in [lacking, stuck] {
        let since = |since| deployment(&object, 100, &times(since));
        assert!(matches!(
            since("2026-01-01T00:01:30Z"),
            Readiness::Waiting(_)
        ));
        assert!(matches!(
            since("2025-12-30T00:00:00Z"),
            Readiness::Failed(_)
        ));
    }
}

#[test]
fn a_ready_threshold_counts_in_whole_pods() {
    let object = json!({"metadata": {"generation": 1}, "spec": {"replicas": 3},
        "status": {"observedGeneration": 1, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 1}});
    assert_eq!(
        deployment(&object, 50, &times("2026-01-01T00:00:00Z")),
        Readiness::Ready
    );
}

/// The rules of Flagger, in the order in which they count (`pkg/canary/deployment_ready.go`). Each row changes a Deployment that is ready:
/// three replicas, all updated and available.
#[test]
fn the_first_rule_that_a_deployment_breaks_is_its_reason() {
    let rollout = "waiting for rollout to finish: ";
    for (change, threshold, reason) in [
        (json!({}), 100, ""),
        (
            json!({"observedGeneration": 1, "updatedReplicas": 0}),
            100,
            "observed deployment generation less than desired generation",
        ),
        (
            json!({"observedGeneration": null}),
            100,
            "observed deployment generation less than desired generation",
        ),
        (json!({"observedGeneration": 3}), 100, ""),
        (
            json!({"updatedReplicas": 2, "replicas": 5, "availableReplicas": 0}),
            100,
            "2 out of 3 new replicas have been updated",
        ),
        (
            json!({"updatedReplicas": 4, "replicas": 4, "availableReplicas": 4}),
            100,
            "",
        ),
        (
            json!({"replicas": 4, "availableReplicas": 0}),
            100,
            "1 old replicas are pending termination",
        ),
        (
            json!({"availableReplicas": 2}),
            100,
            "2 of 3 (readyThreshold 100%) updated replicas are available",
        ),
        (json!({"availableReplicas": 2}), 99, ""),
        (
            json!({"availableReplicas": 1}),
            67,
            "1 of 2 (readyThreshold 67%) updated replicas are available",
        ),
        (json!({"availableReplicas": 1}), 66, ""),
        (json!({"availableReplicas": 0}), 33, ""),
        (
            json!({"availableReplicas": null}),
            34,
            "0 of 1 (readyThreshold 34%) updated replicas are available",
        ),
    ] {
        let mut object = json!({"metadata": {"name": "podinfo", "generation": 2}, "spec": {"replicas": 3},
            "status": {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}});
        for (key, value) in change.as_object().unwrap() {
            object["status"][key] = value.clone();
        }
        let expected = match reason {
            "" => Readiness::Ready,
            reason => Readiness::Waiting(format!("{rollout}{reason}")),
        };
        let seen = deployment(&object, threshold, &times("2026-01-01T00:00:00Z"));
        assert_eq!(seen, expected, "{change} {threshold}");
    }
    let unset = json!({"status": {"updatedReplicas": 0, "replicas": 0}});
    assert_eq!(
        deployment(&unset, 100, &times("2026-01-01T00:00:00Z")),
        Readiness::Ready,
        "Flagger skips the rule about updates"
    );
}

/// The deadline is one minute, and now is two minutes after midnight. A Deployment has failed only if all of these hold.
#[test]
fn a_deployment_has_failed_if_it_lacks_pods_for_longer_than_the_deadline() {
    let progressing = json!({"type": "Progressing", "status": "True"});
    let lacking = |status: &str, reason: &str, at: &str| json!({"type": "Available", "status": status, "reason": reason, "lastUpdateTime": at});
    let long_ago = "2026-01-01T00:00:59Z";
    let why = "MinimumReplicasUnavailable";
    for (conditions, since, has_failed) in [
        (
            json!([progressing, lacking("False", why, long_ago)]),
            "2026-01-01T00:00:00Z",
            true,
        ),
        (
            json!([lacking("False", why, long_ago), progressing]),
            "2026-01-01T00:00:00Z",
            true,
        ),
        (
            json!([progressing, lacking("False", why, "2026-01-01T00:01:00Z")]),
            "2026-01-01T00:00:00Z",
            false,
        ),
        (
            json!([progressing, lacking("False", why, long_ago)]),
            "2026-01-01T00:01:00Z",
            false,
        ),
        (
            json!([progressing, lacking("False", why, long_ago)]),
            "2026-01-01T00:00:59Z",
            true,
        ),
        (
            json!([progressing, lacking("True", why, long_ago)]),
            "2026-01-01T00:00:00Z",
            false,
        ),
        (
            json!([progressing, lacking("False", "Other", long_ago)]),
            "2026-01-01T00:00:00Z",
            false,
        ),
        (
            json!([progressing, lacking("False", why, "soon")]),
            "2026-01-01T00:00:00Z",
            false,
        ),
        (
            json!([lacking("False", why, long_ago)]),
            "2026-01-01T00:00:00Z",
            false,
        ),
        (json!([progressing]), "2026-01-01T00:00:00Z", false),
        (Value::Null, "2026-01-01T00:00:00Z", false),
    ] {
        let status =
            json!({"observedGeneration": 2, "updatedReplicas": 1, "conditions": conditions});
        let object =
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": status});
        let why =
            "waiting for rollout to finish: 1 out of 3 new replicas have been updated".to_owned();
        let expected = if has_failed {
            Readiness::Failed(why)
        } else {
            Readiness::Waiting(why)
        };
        assert_eq!(
            deployment(&object, 100, &times(since)),
            expected,
            "{conditions} {since}"
        );
    }
}

#[test]
fn the_deadline_of_kubernetes_counts_if_it_passed_in_this_rollout() {
    let exceeded = |reason: &str, at: &str| json!([{"type": "Progressing", "reason": reason, "lastUpdateTime": at}]);
    for (conditions, has_failed) in [
        (
            exceeded("ProgressDeadlineExceeded", "2026-01-01T00:01:00Z"),
            true,
        ),
        (
            exceeded("ProgressDeadlineExceeded", "2026-01-01T00:00:59Z"),
            false,
        ),
        (exceeded("ReplicaSetUpdated", "2026-01-01T00:01:00Z"), false),
        (
            json!([{"type": "Other", "reason": "ProgressDeadlineExceeded"}]),
            false,
        ),
    ] {
        let object = json!({"metadata": {"name": "podinfo"}, "status": {"conditions": conditions, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}});
        let seen = deployment(&object, 100, &times("2026-01-01T00:01:00Z"));
        let why = "deployment \"podinfo\" exceeded its progress deadline";
        let expected = if has_failed {
            Readiness::Failed(why.to_owned())
        } else {
            Readiness::Ready
        };
        assert_eq!(seen, expected, "{conditions}");
    }
}

/// Each row changes a DaemonSet that is ready on four nodes (`pkg/canary/daemonset_ready.go`).
#[test]
fn a_daemon_set_is_ready_if_all_pods_are_updated_and_enough_available() {
    let wait = "waiting for rollout to finish: ";
    for (change, threshold, reason) in [
        (json!({}), 100, ""),
        (
            json!({"observedGeneration": 1}),
            100,
            "observed daemonset generation less than desired generation",
        ),
        (json!({"observedGeneration": 3}), 100, ""),
        (
            json!({"updatedNumberScheduled": 3, "numberAvailable": 0}),
            100,
            "3 out of 4 new pods have been updated",
        ),
        (json!({"updatedNumberScheduled": 5}), 100, ""),
        (
            json!({"numberAvailable": 3}),
            100,
            "3 of 4 (readyThreshold 100%) updated pods are available",
        ),
        (json!({"numberAvailable": 3}), 99, ""),
        (
            json!({"numberAvailable": null}),
            50,
            "0 of 2 (readyThreshold 50%) updated pods are available",
        ),
    ] {
        let mut object = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2, "desiredNumberScheduled": 4,
            "updatedNumberScheduled": 4, "numberAvailable": 4}});
        for (key, value) in change.as_object().unwrap() {
            object["status"][key] = value.clone();
        }
        let expected = match reason {
            "" => Readiness::Ready,
            reason => Readiness::Waiting(format!("{wait}{reason}")),
        };
        // The deadline ends now.
        let seen = daemon_set(&object, threshold, &times("2026-01-01T00:01:00Z"));
        assert_eq!(seen, expected, "{change} {threshold}");
    }
}

#[test]
fn a_prefix_stands_before_the_reason() {
    let why = || "b".to_owned();
    assert_eq!(
        Readiness::Waiting(why()).prefixed("a "),
        Readiness::Waiting("a b".to_owned())
    );
    assert_eq!(
        Readiness::Failed(why()).prefixed("a "),
        Readiness::Failed("a b".to_owned())
    );
    assert_eq!(Readiness::Ready.prefixed("a "), Readiness::Ready);
}

#[test]
fn a_workload_without_replicas_in_its_spec_has_one() {
    assert_eq!(replicas(&json!({"spec": {}})), 1);
    assert_eq!(replicas(&json!({"spec": {"replicas": 0}})), 0);
    assert_eq!(replicas(&json!({"spec": {"replicas": 3}})), 3);
}

/// Flagger waits without end, for example while the controllers of a cluster are down.
#[test]
fn a_workload_whose_last_change_nobody_takes_up_has_failed_after_the_deadline() {
    let object = json!({"metadata": {"name": "podinfo", "generation": 2}, "status": {"observedGeneration": 1}});
    for judge in [deployment, daemon_set] {
        let stalled = |since: Option<&str>| {
            let stalled = since.map(|since| since.parse().unwrap());
            judge(
                &object,
                100,
                &Times {
                    stalled,
                    ..times("2026-01-01T00:00:00Z")
                },
            )
        };
        assert!(matches!(stalled(None), Readiness::Waiting(_)));
        assert!(matches!(
            stalled(Some("2026-01-01T00:01:30Z")),
            Readiness::Waiting(_)
        ));
        assert!(matches!(
            stalled(Some("2026-01-01T00:00:30Z")),
            Readiness::Failed(_)
        ));
    }
}
