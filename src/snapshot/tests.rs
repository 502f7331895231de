//! Tables for the small parts of a snapshot: pods, answers of servers, Secrets, weights and Go's formats.

use serde_json::{Value, json};

use super::{
    Failure, HttpResponse, Kind, Readiness, Secret, TargetKind, Weights, go, readiness::Times,
    secret::Credentials,
};
use crate::routers::tests::{ROUTERS, Row};

#[test]
fn a_target_has_ready_pods_if_one_is_ready() {
    for (kind, status, is_ready) in [
        (TargetKind::Deployment, json!({"readyReplicas": 1}), true),
        (
            TargetKind::Deployment,
            json!({"readyReplicas": 0, "availableReplicas": 1, "numberReady": 1}),
            false,
        ),
        (TargetKind::Deployment, json!({}), false),
        (TargetKind::DaemonSet, json!({"numberReady": 1}), true),
        (
            TargetKind::DaemonSet,
            json!({"numberReady": 0, "numberAvailable": 1, "readyReplicas": 1}),
            false,
        ),
        (TargetKind::DaemonSet, json!({}), false),
        (TargetKind::Service, json!({}), true),
    ] {
        assert_eq!(
            kind.has_ready_pods(&json!({"status": status})),
            is_ready,
            "{kind:?} {status}"
        );
    }
}

#[test]
fn a_deployment_is_at_zero_if_its_spec_says_zero() {
    for (spec, is_at_zero) in [
        (json!({"replicas": 0}), true),
        (json!({"replicas": 1}), false),
        (json!({}), false),
    ] {
        assert_eq!(
            TargetKind::Deployment.is_at_zero(&json!({"spec": spec})),
            is_at_zero,
            "{spec}"
        );
    }
    assert!(!TargetKind::Service.is_at_zero(&json!({"spec": {"replicas": 0}})));
}

#[test]
fn a_service_has_no_pods_of_its_own_and_is_always_ready() {
    let has_pods = [
        TargetKind::Deployment,
        TargetKind::DaemonSet,
        TargetKind::Service,
    ]
    .map(TargetKind::has_pods);
    assert_eq!(has_pods, [true, true, false]);
    let times = Times {
        stalled: None,
        deadline: jiff::SignedDuration::ZERO,
        since: jiff::Timestamp::UNIX_EPOCH,
        now: jiff::Timestamp::MAX,
    };
    let unseen = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 1}});
    assert_eq!(
        TargetKind::Service.readiness(&unseen, 100, &times),
        Readiness::Ready
    );
    for kind in [TargetKind::Deployment, TargetKind::DaemonSet] {
        assert!(
            matches!(kind.readiness(&unseen, 100, &times), Readiness::Waiting(_)),
            "{kind:?}"
        );
    }
}

/// Only the template of a Deployment or DaemonSet makes a version.
#[test]
fn a_scaled_workload_is_the_same_version() {
    let object = |replicas: i64| json!({"spec": {"replicas": replicas, "template": {"spec": {"containers": []}}}});
    for kind in [TargetKind::Deployment, TargetKind::DaemonSet] {
        assert_eq!(
            *kind.version(&object(1)),
            json!({"spec": {"containers": []}})
        );
        assert_eq!(kind.version(&object(1)), kind.version(&object(2)));
        assert_eq!(*kind.version(&json!({})), Value::Null);
    }
}

/// The policy of `hashicorp/go-retryablehttp`.
#[test]
fn a_server_is_asked_again_if_it_is_overloaded_or_broken() {
    let is_worth_it = |status: &u16| {
        let body = String::new();
        HttpResponse {
            status: *status,
            body,
        }
        .is_worth_a_retry()
    };
    assert!([0, 429, 500, 502, 503, 504, 599].iter().all(is_worth_it));
    assert!(
        ![200, 204, 301, 400, 404, 428, 430, 499, 501]
            .iter()
            .any(is_worth_it)
    );
}

#[test]
fn a_failure_shows_its_reason() {
    let why = "cannot connect".to_owned();
    assert_eq!(Failure { why, attempts: 3 }.to_string(), "cannot connect");
}

fn credentials(object: &Value) -> Credentials {
    Credentials::of(object).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_token_of_a_service_account_is_refused() {
    for (type_, is_refused) in [
        (json!("kubernetes.io/service-account-token"), true),
        (json!("Opaque"), false),
        (json!("kubernetes.io/basic-auth"), false),
        (Value::Null, false),
    ] {
        let object =
            json!({"metadata": {"name": "account"}, "type": type_, "data": {"token": "dA=="}});
        let error = Credentials::of(&object).err();
        assert_eq!(error.is_some(), is_refused, "{type_}");
        assert!(error.is_none_or(|error| error.to_string().contains("the Secret account has")));
    }
}

#[test]
fn a_secret_with_an_annotation_is_sent_to_the_hosts_that_it_names_and_any_other_to_all() {
    let annotated = |hosts: &str| {
        let annotations = json!({"flagger-rs.github.io/allowed-hosts": hosts});
        credentials(&json!({"metadata": {"name": "s", "annotations": annotations}}))
    };
    let bound = annotated("a.example,b.example");
    assert_eq!(bound.check_host("b.example"), Ok(()));
    assert_eq!(
        bound.check_host("c.example").unwrap_err().to_string(),
        "the Secret s is not sent to c.example: its annotation flagger-rs.github.io/allowed-hosts allows only \"a.example, b.example\""
    );
    assert!(annotated("").check_host("a.example").is_err());
    assert_eq!(credentials(&json!({})).check_host("a.example"), Ok(()));
}

#[test]
fn a_value_of_a_secret_is_text_or_missing() {
    // `echo TOKEN | base64` encodes a line end, which no header may contain.
    let object = json!({"data": {"a": "dGV4dA==", "line": "dG9rZW4K", "lines": "dG9rZW4NCg==", "blanks": "IHRva2VuIA==",
        "empty": "", "binary": "/w==", "broken": "?"}});
    for (key, value) in [
        ("a", Some("text")),
        ("line", Some("token")),
        ("lines", Some("token")),
        ("blanks", Some(" token ")),
        ("empty", Some("")),
        ("binary", None),
        ("broken", None),
        ("none", None),
    ] {
        assert_eq!(credentials(&object).value(key), value, "{key}");
    }
    let read = credentials(&object);
    let values = read.values();
    let keys: Vec<_> = values.keys().map(String::as_str).collect();
    assert_eq!(keys, ["a", "blanks", "empty", "line", "lines"]);
    assert_eq!(
        (values["a"].as_str(), values["line"].as_str()),
        ("text", "token")
    );
    assert!(credentials(&json!({})).values().is_empty());
    assert_eq!(format!("{:?}", Secret("hush".to_owned())), "[redacted]");
}

#[test]
fn the_primary_gets_the_rest_of_the_traffic() {
    for (percent, primary, canary) in [
        (0_u8, 100_u8, 0_u8),
        (1, 99, 1),
        (100, 0, 100),
        (101, 0, 100),
        (255, 0, 100),
    ] {
        let weights = Weights {
            primary: primary.into(),
            canary: canary.into(),
            mirrored: false,
        };
        assert_eq!(Weights::canary(percent), weights);
    }
    assert_eq!(
        [Weights::canary(0), Weights::canary(100)],
        [Weights::PRIMARY, Weights::CANARY]
    );
}

#[test]
fn json_is_escaped_as_in_go() {
    assert_eq!(
        go::escaped("\"<a>&\u{2028}\u{2029}é"),
        r#""\u003ca\u003e\u0026\u2028\u2029é"#
    );
}

#[test]
fn numbers_have_gos_shortest_form() {
    for (value, text) in [
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (999_999.0, "999999"),
        (-1e6, "-1e+06"),
        (0.000_099, "9.9e-05"),
        (1e100, "1e+100"),
    ] {
        assert_eq!(go::float(value), text);
    }
}

#[test]
fn a_status_has_its_name() {
    assert_eq!(
        [go::status(200), go::status(404)],
        ["200 OK", "404 Not Found"]
    );
}

/// The operator asks for these kinds; another version or plural is another resource (Flagger: `artifacts/flagger/account.yaml`). Those of
/// routers are in the manifests, and in the files of `tests/objects`.
#[test]
fn each_kind_has_its_resource() {
    let of_routers: Vec<_> = ROUTERS.iter().flat_map(Row::written).collect();
    let is_of_router = |kind: Kind| of_routers.iter().any(|(written, _)| *written == kind);
    let resources = Kind::ALL
        .iter()
        .filter(|kind| !is_of_router(**kind) || **kind == Kind::KnativeService)
        .map(|kind| format!("{} {}.{}", kind.name(), kind.plural(), kind.api_version()));
    let expected = [
        "Deployment deployments.apps/v1",
        "DaemonSet daemonsets.apps/v1",
        "ReplicaSet replicasets.apps/v1",
        "ControllerRevision controllerrevisions.apps/v1",
        "Pod pods.v1",
        "Service services.v1",
        "ConfigMap configmaps.v1",
        "Secret secrets.v1",
        "HorizontalPodAutoscaler horizontalpodautoscalers.autoscaling/v2",
        "ScaledObject scaledobjects.keda.sh/v1alpha1",
        "GRPCRoute grpcroutes.gateway.networking.k8s.io/v1",
        "TLSRoute tlsroutes.gateway.networking.k8s.io/v1",
        "TCPRoute tcproutes.gateway.networking.k8s.io/v1",
        "Service services.serving.knative.dev/v1",
        "Revision revisions.serving.knative.dev/v1",
        "Canary canaries.flagger.app/v1beta1",
        "MetricTemplate metrictemplates.flagger.app/v1beta1",
        "AlertProvider alertproviders.flagger.app/v1beta1",
        "Release releases.flagger-rs.github.io/v1alpha1",
    ];
    assert_eq!(resources.collect::<Vec<_>>(), expected);
}

/// The texts of Go's `encoding/json` about an answer that is no JSON.
#[test]
fn a_body_that_is_no_json_has_gos_error() {
    for (body, text) in [
        ("", "unexpected end of JSON input"),
        (
            " \t\r\n<",
            "invalid character '<' looking for beginning of value",
        ),
        ("#", "invalid character '#' looking for beginning of value"),
    ] {
        let error = serde_json::from_str::<Value>(body).unwrap_err();
        assert_eq!(go::json_error(&error, body), text, "{body}");
    }
    for body in ["{x", "[x", "-x", "\"\n\"", "'"] {
        let error = serde_json::from_str::<Value>(body).unwrap_err();
        let text = go::json_error(&error, body);
        assert!(
            !text.contains("looking for beginning of value"),
            "{body}: {text}"
        );
    }
}

#[test]
fn without_an_interval_there_is_no_tick() {
    let start = jiff::Timestamp::UNIX_EPOCH;
    let later = jiff::Timestamp::from_second(10).unwrap();
    assert_eq!(
        super::last_tick(start, std::time::Duration::ZERO, later),
        None
    );
    assert_eq!(
        super::last_tick(start, std::time::Duration::from_nanos(1), later),
        Some(later)
    );
}

#[test]
fn another_node_selector_does_not_scale_to_zero() {
    let object = json!({"spec": {"template": {"spec": {"nodeSelector": {"disk": "ssd"}}}}});
    assert!(!TargetKind::DaemonSet.is_at_zero(&object));
}

/// The pods of the last version drain independently of the steps, so the end of the draining begins no other step.
#[test]
fn a_step_is_the_same_while_the_canary_drains_and_another_when_a_rollback_begins() {
    let step = |conditions: &[&str], tick: i64| {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|type_| json!({"type": type_, "status": "True", "reason": "r"}))
            .collect();
        let status =
            serde_json::from_value(json!({"phase": "Progressing", "conditions": conditions}))
                .unwrap();
        let at = jiff::Timestamp::from_second(tick).unwrap();
        super::Step::of(
            &crate::api::canary::Canary::default(),
            &status,
            Some(super::Tick { at, late: false }),
        )
    };
    assert_eq!(step(&["Promoted", "Draining"], 1), step(&["Promoted"], 1));
    assert_ne!(
        step(&["Promoted", "RollingBack"], 1),
        step(&["Promoted"], 1)
    );
    assert_ne!(step(&["Promoted"], 1), step(&["Promoted"], 2));
    assert_eq!(
        step(&["Promoted"], 1).at_any_tick(),
        step(&["Promoted"], 2).at_any_tick()
    );
    assert_eq!(step(&["NoticePending"], 1), step(&["NoticePending"], 2));
}
