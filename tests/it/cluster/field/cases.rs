//! The table of cases: which steps each user took, and what must be true then. The files in `tests/field` describe the problem that the
//! user reported.

use flagger_rs::snapshot::Kind::{
    Canary, Deployment, HttpRoute, ScaledObject, Service, VirtualService,
};

use super::{Case, steps::Step::*};

pub static ALL: &[Case] = &[
    Case {
        input: "f02-anti-affinity",
        steps: &[
            Apply,
            Phase("shop-api", "Initialized"),
            Is(
                Deployment,
                "shop-api-primary",
                "/spec/template/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/labelSelector",
                r#"{"matchLabels": {"app.kubernetes.io/name": "api-primary"}}"#,
            ),
            Is(
                Deployment,
                "shop-api-primary",
                "/spec/template/spec/topologySpreadConstraints/0/labelSelector",
                r#"{"matchLabels": {"app.kubernetes.io/name": "api-primary"}}"#,
            ),
            Is(
                Deployment,
                "shop-api-primary",
                "/spec/template/metadata/labels",
                r#"{"app.kubernetes.io/name": "api-primary", "app.kubernetes.io/instance": "shop"}"#,
            ),
        ],
    },
    Case {
        input: "f04-ab-query-params",
        steps: &[
            Apply,
            Phase("chat", "Initialized"),
            Kubectl("set image deploy/chat main=example/app:2"),
            Event("Advance chat.NAMESPACE canary iteration 1/6"),
            Is(
                VirtualService,
                "chat",
                "/spec/http/0/match",
                r#"[{"uri": {"prefix": "/chat"}, "queryParams": {"beta": {"exact": "yes"}}}]"#,
            ),
            Is(VirtualService, "chat", "/spec/http/0/route/1/weight", "100"),
            Is(
                VirtualService,
                "chat",
                "/spec/http/1/match",
                r#"[{"uri": {"prefix": "/chat"}}]"#,
            ),
            Is(
                VirtualService,
                "chat",
                "/spec/http/1/route/0/destination/host",
                r#""chat-primary""#,
            ),
            Is(VirtualService, "chat", "/spec/http/1/route/1", "null"),
            Phase("chat", "Succeeded"),
        ],
    },
    Case {
        input: "f05-promotion-shrinks",
        steps: &[
            Apply,
            Phase("api", "Initialized"),
            Kubectl("scale deploy/api-primary --replicas=12"),
            Becomes(Deployment, "api-primary", "/status/readyReplicas", "12"),
            Kubectl("set image deploy/api main=example/app:2"),
            Becomes(Canary, "api", "/status/phase", r#""Progressing""#),
            Kubectl("scale deploy/api --replicas=2"),
            Phase("api", "Succeeded"),
            Is(Deployment, "api-primary", "/spec/replicas", "12"),
            // Its generation counts the creation, the user's scaling and the promotion: no actor scaled it down and up in between.
            Is(Deployment, "api-primary", "/metadata/generation", "3"),
        ],
    },
    Case {
        input: "f06-gate-repeats-hooks",
        steps: &[
            Answers("hooks/NAMESPACE/gate", 403),
            Apply,
            Phase("pay", "Initialized"),
            Kubectl("set image deploy/pay main=example/app:2"),
            Event("waiting for traffic increase approval"),
            Asked("hooks/NAMESPACE/gate", 3),
            Calls("hooks/NAMESPACE/acceptance", 0),
            Answers("hooks/NAMESPACE/gate", 200),
            Event("Advance pay.NAMESPACE canary weight 20"),
            Calls("hooks/NAMESPACE/acceptance", 1),
        ],
    },
    Case {
        input: "f07-port-discovery",
        steps: &[
            Apply,
            Phase("same", "Initialized"),
            Is(
                Service,
                "same",
                "/spec/ports",
                r#"[{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": "http"}]"#,
            ),
            Phase("dns", "Initialized"),
            Is(
                Service,
                "dns-primary",
                "/spec/ports",
                r#"[{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"},
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53}]"#,
            ),
        ],
    },
    Case {
        input: "f10-keda-zero",
        steps: &[
            Apply,
            Phase("worker", "Initialized"),
            Is(ScaledObject, "worker-primary", "/spec/minReplicaCount", "0"),
            Is(
                ScaledObject,
                "worker-primary",
                "/spec/maxReplicaCount",
                "10",
            ),
        ],
    },
    Case {
        input: "f12-route-of-the-same-name",
        steps: &[
            Apply,
            Event("the HTTPRoute app exists already and its parentRefs would lose something"),
            Absent(Deployment, "app-primary"),
            Updates(HttpRoute, "app", 0),
            Kubectl("delete httproute app"),
            Phase("app", "Initialized"),
        ],
    },
    Case {
        input: "f14-restarted-primary",
        steps: &[
            Answers("hooks/NAMESPACE/not-ok", 500),
            Apply,
            Phase("ledger", "Initialized"),
            Kubectl("rollout restart deploy/ledger-primary"),
            Kubectl("set image deploy/ledger main=example/app:2"),
            Phase("ledger", "Failed"),
            Kubectl("set image deploy/ledger main=example/app:1"),
            // Since this step, the status has the version as the promoted one.
            Agree(
                Canary,
                "ledger",
                ["/status/lastAppliedSpec", "/status/lastPromotedSpec"],
            ),
            Answers("hooks/NAMESPACE/not-ok", 200),
            Kubectl("set image deploy/ledger main=example/app:3"),
            Phase("ledger", "Succeeded"),
            // Versions 2 and 3.
            Events("New revision detected!", 2),
        ],
    },
    Case {
        input: "f15-one-pod-never-ready",
        steps: &[
            Apply,
            Phase("mail", "Initialized"),
            Becomes(Deployment, "mail-primary", "/status/readyReplicas", "4"),
            Kubectl("create quota room --hard=pods=7"),
            Kubectl("wait --for=jsonpath={.status.hard.pods}=7 quota/room"),
            Kubectl("set image deploy/mail main=example/app:2"),
            Becomes(Deployment, "mail", "/status/readyReplicas", "3"),
            Event("Rolling back mail.NAMESPACE progress deadline exceeded"),
            Phase("mail", "Failed"),
            Is(VirtualService, "mail", "/spec/http/0/route/0/weight", "100"),
        ],
    },
    Case {
        input: "f18-token-line-end",
        steps: &[
            Apply,
            Phase("stats", "Initialized"),
            Kubectl("set image deploy/stats main=example/app:2"),
            Phase("stats", "Succeeded"),
            Authorization("prometheus.NAMESPACE", "Bearer abc"),
        ],
    },
    Case {
        input: "f20-test-changed-midway",
        steps: &[
            Apply,
            Phase("tasks", "Initialized"),
            Kubectl("set image deploy/tasks main=example/app:2"),
            Event("Advance tasks.NAMESPACE canary iteration 1/30"),
            Is(
                VirtualService,
                "tasks",
                "/spec/http/0/match/0/headers/x-account/exact",
                r#""one""#,
            ),
            Kubectl(
                r#"patch canary tasks --type json -p [{"op":"replace","path":"/spec/analysis/match/0/headers/x-account/exact","value":"two"}]"#,
            ),
            Becomes(
                VirtualService,
                "tasks",
                "/spec/http/0/match",
                r#"[{"uri": {"prefix": "/tasks/"}, "headers": {"x-account": {"exact": "two"}}}]"#,
            ),
            Is(
                VirtualService,
                "tasks",
                "/spec/http/0/route/1/weight",
                "100",
            ),
            Event("Advance tasks.NAMESPACE canary iteration 3/30"),
            Is(
                VirtualService,
                "tasks",
                "/spec/http/0/route/1/weight",
                "100",
            ),
            Events("Starting canary analysis", 1),
        ],
    },
    Case {
        input: "f21-skip-midway",
        steps: &[
            Answers("hooks/NAMESPACE/not-ok", 500),
            Apply,
            Phase("fix", "Initialized"),
            Kubectl("set image deploy/fix main=example/app:2"),
            Reaches(Canary, "fix", "/status/failedChecks", 2),
            Kubectl(r#"patch canary fix --type merge -p {"spec":{"skipAnalysis":true}}"#),
            Phase("fix", "Succeeded"),
            Is(
                Deployment,
                "fix-primary",
                "/spec/template/spec/containers/0/image",
                r#""example/app:2""#,
            ),
        ],
    },
    Case {
        input: "f23-one-service-name",
        steps: &[
            ApplyWithout("new"),
            Phase("old", "Initialized"),
            Apply,
            Event("canary new.NAMESPACE is not run: old.NAMESPACE has the "),
            Kubectl("set image deploy/shop-old main=example/app:2"),
            Phase("old", "Succeeded"),
            Is(
                Service,
                "shop",
                "/spec/selector",
                r#"{"app": "shop-old-primary"}"#,
            ),
            Updates(Service, "shop", 0),
            Updates(Service, "shop-primary", 0),
            Is(
                Canary,
                "new",
                "/status/conditions/0/type",
                r#""TargetConflict""#,
            ),
            Absent(Deployment, "shop-new-primary"),
        ],
    },
    Case {
        input: "f24-alerts-and-odd-metrics",
        steps: &[
            Apply,
            Phase("odd", "Initialized"),
            Calls("slack/NAMESPACE", 1),
            Is(
                VirtualService,
                "odd",
                "/spec/http/0/retries",
                r#"{"attempts": 0}"#,
            ),
            Is(
                Service,
                "odd",
                "/metadata/annotations/example.com~1note",
                r#""a \"quoted\" {value}: 1""#,
            ),
            Kubectl("set image deploy/odd main=example/app:2"),
            Phase("odd", "Succeeded"),
            Metric(
                r#"flagger_canary_metric_analysis{metric="errors of \"odd\", in %",name="odd",namespace="NAMESPACE"} 1"#,
            ),
            Kubectl(
                r#"patch canary odd --type merge -p {"spec":{"service":{"apex":{"annotations":{"example.com/note":"other"}}}}}"#,
            ),
            Becomes(
                Service,
                "odd",
                "/metadata/annotations/example.com~1note",
                r#""other""#,
            ),
            // The initialization, the beginning and the end of the run.
            Calls("slack/NAMESPACE", 3),
        ],
    },
];
