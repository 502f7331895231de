//! The defaults of a Canary's fields, and the values that the CRDs accept and Flagger's types do not.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::{
    canary::{Canary, Strategy, WebhookType},
    percent::Percent,
    status::{CanaryPhase, CanaryStatus, ConditionType},
};

/// A Canary with these fields in its spec, besides the required ones.
fn canary(more: &Value) -> Canary {
    let mut spec = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 80}});
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    serde_json::from_value(
        json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "c", "namespace": "test"}, "spec": spec}),
    )
    .unwrap()
}

fn analysed(analysis: Value) -> Canary {
    canary(&json!({"analysis": analysis}))
}

#[test]
fn the_services_are_named_after_the_service_or_else_after_the_target() {
    for (service, apex) in [
        (json!({"port": 80}), "podinfo"),
        (json!({"port": 80, "name": ""}), "podinfo"),
        (json!({"port": 80, "name": "web"}), "web"),
    ] {
        let canary = canary(&json!({"service": service}));
        assert_eq!(canary.apex_name(), apex);
        assert_eq!(canary.primary_name(), format!("{apex}-primary"));
        assert_eq!(canary.canary_name(), format!("{apex}-canary"));
        assert_eq!(canary.primary_workload_name(), "podinfo-primary");
    }
}

#[test]
fn a_port_has_flaggers_defaults() {
    let number = IntOrString::Int;
    let named = |name: &str| IntOrString::String(name.to_owned());
    for (service, name, target) in [
        (json!({"port": 80}), "http", number(80)),
        (json!({"port": 80, "portName": ""}), "http", number(80)),
        (json!({"port": 80, "portName": "grpc"}), "grpc", number(80)),
        (json!({"port": 80, "targetPort": 0}), "http", number(80)),
        (json!({"port": 80, "targetPort": "0"}), "http", number(80)),
        (json!({"port": 80, "targetPort": ""}), "http", number(80)),
        (
            json!({"port": 80, "targetPort": 9898}),
            "http",
            number(9898),
        ),
        (
            json!({"port": 80, "targetPort": "web"}),
            "http",
            named("web"),
        ),
    ] {
        let canary = canary(&json!({"service": service}));
        assert_eq!(canary.port_name(), name, "{service}");
        assert_eq!(canary.target_port(), target, "{service}");
    }
}

#[test]
fn an_interval_is_one_minute_by_default_and_at_least_ten_seconds() {
    for (interval, seconds) in [
        ("30s", 30),
        ("2m", 120),
        ("10s", 10),
        ("9s", 10),
        ("0s", 10),
        ("", 60),
        ("soon", 60),
    ] {
        let canary = analysed(json!({"interval": interval, "threshold": 1}));
        assert_eq!(canary.interval().as_secs(), seconds, "{interval}");
    }
    assert_eq!(canary(&json!({})).interval().as_secs(), 60);
}

#[test]
fn one_failed_check_is_the_lowest_threshold() {
    for (threshold, effective) in [
        (json!(-1), 1),
        (json!(0), 1),
        (json!(1), 1),
        (json!(7), 7),
        (json!(2.9), 2),
        (json!("x"), 1),
    ] {
        assert_eq!(
            analysed(json!({"threshold": threshold})).threshold(),
            effective,
            "{threshold}"
        );
    }
    assert_eq!(canary(&json!({})).threshold(), 1);
}

#[test]
fn pods_have_ten_minutes_to_become_ready_by_default() {
    for (more, seconds) in [
        (json!({}), 600),
        (json!({"progressDeadlineSeconds": null}), 600),
        (json!({"progressDeadlineSeconds": 0}), 0),
        (json!({"progressDeadlineSeconds": 60}), 60),
        (json!({"progressDeadlineSeconds": 60.9}), 60),
    ] {
        assert_eq!(canary(&more).progress_deadline_seconds(), seconds, "{more}");
    }
}

/// Each row has the weights of the steps, from a weight of 0 to the maximum.
#[test]
fn each_step_adds_its_weight_up_to_the_maximum() {
    let whole = [
        (json!({"stepWeight": 40}), vec![40, 80, 100]),
        (json!({"stepWeight": 40, "maxWeight": 0}), vec![40, 80, 100]),
        (
            json!({"stepWeight": 40, "maxWeight": -1}),
            vec![40, 80, 100],
        ),
        (json!({"stepWeight": 60, "maxWeight": 200}), vec![60, 100]),
        (json!({"stepWeight": 20, "maxWeight": 50}), vec![20, 40, 50]),
        (json!({"stepWeights": [1, 10, 80]}), vec![1, 10, 80]),
        (json!({"stepWeights": [50, 101]}), vec![50, 100]),
        (json!({"stepWeights": [50, "x", 60]}), vec![50, 60]),
        (
            json!({"stepWeights": [50, 60], "maxWeight": 55}),
            vec![50, 60],
        ),
        (
            json!({"stepWeight": 30, "stepWeights": [50, 60]}),
            vec![30, 60],
        ),
        (json!({"stepWeight": 100}), vec![100]),
        // An empty list is none.
        (
            json!({"stepWeight": 60, "decimalStepWeights": []}),
            vec![60, 100],
        ),
    ];
    let of_tenths = |tenths: &[u64]| tenths.iter().copied().map(Percent::of_tenths).collect();
    let whole = whole.map(|(analysis, steps): (Value, Vec<u8>)| {
        let steps: Vec<_> = steps.into_iter().map(Percent::from).collect();
        (analysis, steps)
    });
    let flaggers = json!({"stepWeight": 30, "maxWeight": 60, "stepWeights": [5]});
    let mut both = flaggers.clone();
    both["decimalStepWeights"] = json!([0.1, 0.5, 1, 50.0]);
    let decimal = [
        (
            json!({"decimalStepWeights": [0.1, 1, 50]}),
            of_tenths(&[1, 10, 500]),
        ),
        (both, of_tenths(&[1, 5, 10, 500])),
    ];
    for (analysis, steps) in whole.into_iter().chain(decimal) {
        let canary = analysed(analysis.clone());
        let mut seen: Vec<Percent> = vec![];
        while seen.last() != Some(&canary.max_weight()) && seen.len() < 9 {
            seen.push(canary.next_weight(seen.last().copied().unwrap_or(Percent::ZERO)));
        }
        assert_eq!(seen, steps, "{analysis}");
    }
    let none = canary(&json!({}));
    let all = Percent::ALL;
    assert_eq!(
        (none.next_weight(Percent::ZERO), none.max_weight()),
        (all, all)
    );
    let past = analysed(json!({"stepWeights": [10, 20]}));
    assert_eq!(
        past.next_weight(50.into()),
        20.into(),
        "the weights were lowered during the run"
    );
}

#[test]
fn iterations_and_conditions_decide_the_strategy() {
    let test = json!([{"headers": {"x": {"exact": "1"}}}]);
    for (analysis, strategy, name) in [
        (json!({}), Strategy::Canary, "canary"),
        (
            json!({"iterations": 0, "match": test}),
            Strategy::Canary,
            "canary",
        ),
        (json!({"match": test}), Strategy::Canary, "canary"),
        (json!({"iterations": 1}), Strategy::BlueGreen, "blue-green"),
        (
            json!({"iterations": 1, "match": []}),
            Strategy::BlueGreen,
            "blue-green",
        ),
        (
            json!({"iterations": 1, "match": test}),
            Strategy::AbTesting,
            "ab-testing",
        ),
    ] {
        let canary = analysed(analysis.clone());
        assert_eq!(canary.strategy(), strategy, "{analysis}");
        assert_eq!(canary.strategy().as_str(), name);
        assert!(!canary.skip_analysis());
    }
    assert_eq!(canary(&json!({})).strategy(), Strategy::Canary);
}

#[test]
fn a_canary_without_an_analysis_skips_it() {
    assert!(canary(&json!({})).skip_analysis());
    let analysis = json!({"stepWeight": 10});
    assert!(canary(&json!({"analysis": analysis, "skipAnalysis": true})).skip_analysis());
    assert!(!canary(&json!({"analysis": analysis, "skipAnalysis": null})).skip_analysis());
}

/// Dashboards and scripts of users compare these names.
#[test]
fn each_phase_has_one_name_in_the_status_and_in_messages() {
    let names = [
        "",
        "Initializing",
        "Initialized",
        "Waiting",
        "Progressing",
        "WaitingPromotion",
        "Promoting",
        "Finalising",
        "Succeeded",
        "Failed",
        "Terminating",
        "Terminated",
    ];
    for name in names {
        let phase: CanaryPhase = serde_json::from_value(json!(name)).unwrap();
        assert_eq!(phase.as_str(), name);
        assert_eq!(phase.to_string(), name);
        assert_eq!(serde_json::to_value(phase).unwrap(), json!(name));
    }
}

/// Flagger can take such a canary over from this operator, and this operator can take one over from Flagger.
#[test]
fn a_status_has_flaggers_fields() {
    let full = json!({"phase": "Progressing", "failedChecks": 1, "canaryWeight": 20, "iterations": 3,
        "sessionAffinityCookie": "a=1", "primarySessionAffinityCookie": "b=2", "previousSessionAffinityCookie": "c=3",
        "trackedConfigs": {"configmap/a": "x"}, "lastAppliedSpec": "v", "lastPromotedSpec": "w",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "conditions": [{"type": "Promoted", "status": "Unknown", "reason": "Progressing", "message": "m",
            "lastUpdateTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let read: CanaryStatus = serde_json::from_value(full.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), full);
    let empty: CanaryStatus =
        serde_json::from_value(json!({"phase": null, "failedChecks": null, "iterations": 1.5}))
            .unwrap();
    assert_eq!(
        serde_json::to_value(&empty).unwrap(),
        json!({"phase": "", "failedChecks": 0, "canaryWeight": 0, "iterations": 1})
    );
}

#[test]
fn each_type_of_webhook_has_one_name() {
    let names = [
        "rollout",
        "confirm-rollout",
        "pre-rollout",
        "confirm-traffic-increase",
        "confirm-promotion",
        "post-rollout",
        "rollback",
        "event",
    ];
    for name in names {
        let type_: WebhookType = serde_json::from_value(json!(name)).unwrap();
        assert_eq!(type_.as_str(), name);
        assert_eq!(serde_json::to_value(type_).unwrap(), json!(name));
    }
    assert_eq!(
        serde_json::from_value::<WebhookType>(json!("")).unwrap(),
        WebhookType::Rollout
    );
}

/// A later version of the operator reads these names.
#[test]
fn each_condition_has_its_name() {
    for (type_, name) in [
        (ConditionType::Promoted, "Promoted"),
        (ConditionType::RollingBack, "RollingBack"),
        (ConditionType::Reverting, "Reverting"),
        (ConditionType::Draining, "Draining"),
        (ConditionType::PromotionFailed, "PromotionFailed"),
        (ConditionType::PodsLost, "PodsLost"),
        (ConditionType::NotificationPending, "NoticePending"),
        (ConditionType::Invalid, "Invalid"),
        (ConditionType::TargetConflict, "TargetConflict"),
        (ConditionType::ForeignObject, "ForeignObject"),
        (ConditionType::WriteRefused, "WriteRefused"),
        (ConditionType::Comparison, "Comparison"),
        (ConditionType::RouteRefs, "RouteRefs"),
        (ConditionType::GrpcRoute, "GrpcRoute"),
    ] {
        let status: CanaryStatus = serde_json::from_value(json!({"conditions": [
            {"type": "Other", "status": "True", "reason": "a"}, {"type": name, "status": "True", "reason": "b"}]})).unwrap();
        assert_eq!(
            status
                .condition(type_)
                .map(|condition| condition.reason.as_str()),
            Some("b"),
            "{name}"
        );
        assert!(status.has_condition(type_) && !CanaryStatus::default().has_condition(type_));
    }
}

/// Fields of a Canary keep their names and values when the operator reads and writes it.
#[test]
fn a_canary_has_flaggers_fields() {
    let spec = json!({
        "provider": "istio", "metricsServer": "http://p", "progressDeadlineSeconds": 60,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
        "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "h",
            "primaryScalerQueries": {"a": "b"}, "primaryScalerReplicas": {"minReplicas": 1, "maxReplicas": 2}},
        "ingressRef": {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "i"},
        "routeRef": {"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "r"},
        "upstreamRef": {"apiVersion": "gloo.solo.io/v1", "kind": "Upstream", "name": "u", "namespace": "n"},
        "service": {"name": "web", "port": 80, "portName": "http", "targetPort": "web", "appProtocol": "http", "trafficDistribution": "PreferClose",
            "portDiscovery": true, "headless": true, "timeout": "1s", "backendTimeout": "2s", "meshName": "m", "backends": ["b"], "hosts": ["h"],
            "gateways": ["g"], "gatewayRefs": [{"name": "g"}], "delegation": true, "match": [{"uri": {"prefix": "/"}}], "rewrite": {"uri": "/"},
            "retries": {"attempts": 1}, "headers": {"request": {}}, "mirror": [{"backendRef": {"name": "s"}}], "corsPolicy": {"maxAge": "1s"},
            "trafficPolicy": {"tls": {"mode": "DISABLE"}}, "apex": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "primary": {"labels": {"a": "b"}}, "canary": {"annotations": {"c": "d"}},
            "unmanagedMetadata": {"labels": ["l"], "annotations": ["a"]}},
        "analysis": {"interval": "1m", "threshold": 5, "iterations": 1, "maxWeight": 50, "stepWeight": 10, "stepWeights": [1, 2],
            "stepWeightPromotion": 20, "mirror": true, "mirrorWeight": 30, "primaryReadyThreshold": 90, "canaryReadyThreshold": 80,
            "match": [{"headers": {"x": {"exact": "1"}}}],
            "sessionAffinity": {"cookieName": "c", "primaryCookieName": "p", "domain": "d", "httpOnly": true, "maxAge": 1, "partitioned": true,
                "path": "/", "sameSite": "Lax", "secure": true},
            "alerts": [{"name": "a", "severity": "warn", "providerRef": {"name": "p", "namespace": "n"}}],
            "metrics": [{"name": "m", "interval": "1m", "threshold": 1.5, "thresholdRange": {"min": 1.0, "max": 2.0}, "query": "q",
                "templateRef": {"name": "t", "namespace": "n"}, "templateVariables": {"k": "v"}}],
            "webhooks": [{"name": "w", "type": "event", "url": "http://w", "muteAlert": true, "timeout": "5s", "retries": 2, "disableTLS": true,
                "metadata": {"k": "v"}}]},
        "skipAnalysis": true, "revertOnDeletion": true, "suspend": true});
    let canary = canary(&spec);
    assert_eq!(serde_json::to_value(&canary.spec).unwrap(), spec);
}
