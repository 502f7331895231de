//! What a user does in a run that is swept: each kind of release once, in its shortest form.

use serde_json::{Value, json};

use super::rig::{Rig, template};

/// Who approves of a version, and who sends it back.
const BEFORE: &str = "http://gate/before";
const AFTER: &str = "http://gate/after";
const BACK: &str = "http://gate/back";

/// The stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// A good version of two steps.
    Promotion,
    /// A version whose requests fail.
    Rollback,
    /// A good version that those meet who ask for it.
    AbTesting,
    /// A good version that gets all requests at once.
    BlueGreen,
    /// A good version of two steps behind a Gateway.
    GatewayApi,
    /// A good version of two steps behind Contour, which takes its time.
    Contour,
    /// A version that another overtakes in the midst of its run.
    Overtaken,
    /// A version that its user takes back in the midst of its run.
    Reverted,
    /// A version whose pods do not become ready.
    Broken,
    /// A good version with which the primary does not become ready.
    FailedPromotion,
    /// A version that is promoted without an analysis.
    SkipAnalysis,
    /// A good version that waits for its approval before its run and before its promotion.
    Gates,
    /// A version that somebody sends back by a hook.
    RollbackByHook,
    /// A good version that gets a copy of the requests first.
    Mirror,
    /// A good version without a mesh.
    Kubernetes,
    /// A good version whose share of the requests goes to the primary step by step.
    PromotionSteps,
    /// A good version that keeps those who met it once.
    SessionAffinity,
    /// A good version behind a route that others lead to.
    Delegation,
    /// A good version behind a Gateway that copies requests to it first.
    GatewayMirror,
    /// A good version behind a Gateway that those meet who ask for it.
    GatewayAbTesting,
    /// A good version behind an NGINX.
    Nginx,
    /// A good version in a mesh that is told by a TrafficSplit.
    Smi,
    /// A good version of what runs on each node.
    DaemonSet,
    /// A good version of pods that the operator knows nothing of.
    Service,
    /// A good version of what KEDA scales.
    ScaledObject,
    /// A good version that loses its pods in the midst of its run, and gets them again.
    WithoutPods,
    /// A Canary that goes with what it made.
    Deletion,
    /// A Canary that gives back the Service and the route that it took over.
    GivingBack,
}

impl Story {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::Promotion,
        Self::Rollback,
        Self::AbTesting,
        Self::BlueGreen,
        Self::GatewayApi,
        Self::Contour,
        Self::Overtaken,
        Self::Reverted,
        Self::Broken,
        Self::FailedPromotion,
        Self::SkipAnalysis,
        Self::Gates,
        Self::RollbackByHook,
        Self::Mirror,
        Self::Kubernetes,
        Self::PromotionSteps,
        Self::SessionAffinity,
        Self::Delegation,
        Self::GatewayMirror,
        Self::GatewayAbTesting,
        Self::Nginx,
        Self::Smi,
        Self::DaemonSet,
        Self::Service,
        Self::ScaledObject,
        Self::WithoutPods,
        Self::Deletion,
        Self::GivingBack,
    ];

    /// What is other than in the walkthrough's Canary.
    fn spec(self) -> Value {
        let steps = json!({"interval": "10s", "stepWeight": 25, "threshold": 2});
        let iterations = json!({"interval": "10s", "stepWeight": null, "maxWeight": null, "iterations": 2, "threshold": 2});
        let with = |mut analysis: Value, field: &str, value| {
            analysis[field] = value;
            json!({"analysis": analysis})
        };
        let hook = |kind, url| json!({"name": kind, "type": kind, "url": url});
        let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
        let behind = |provider: &str, service: Value, mut spec: Value| {
            spec["provider"] = json!(provider);
            spec["service"] = service;
            spec
        };
        let alone = json!({"gateways": null, "hosts": null});
        let gateway = json!({"gateways": null, "hosts": ["app.example.com"], "gatewayRefs": [{"name": "gateway", "namespace": "infra"}]});
        let of = |version, kind| {
            let target = json!({"apiVersion": version, "kind": kind});
            json!({"targetRef": target, "autoscalerRef": null, "analysis": steps})
        };
        match self {
            Self::Promotion
            | Self::Rollback
            | Self::Overtaken
            | Self::Reverted
            | Self::Broken
            | Self::FailedPromotion => json!({"analysis": steps}),
            Self::WithoutPods => json!({"progressDeadlineSeconds": 600, "analysis": steps}),
            Self::BlueGreen => json!({"analysis": iterations}),
            Self::SkipAnalysis => json!({"skipAnalysis": true, "analysis": steps}),
            Self::Deletion | Self::GivingBack => {
                json!({"revertOnDeletion": true, "analysis": steps})
            }
            Self::Gates => {
                let gates = [
                    hook("confirm-rollout", BEFORE),
                    hook("confirm-promotion", AFTER),
                    hook("post-rollout", "http://end/"),
                ];
                with(steps, "webhooks", json!(gates))
            }
            Self::RollbackByHook => with(steps, "webhooks", json!([hook("rollback", BACK)])),
            Self::Mirror => with(steps, "mirror", json!(true)),
            Self::AbTesting => with(iterations, "match", test),
            Self::PromotionSteps => with(steps, "stepWeightPromotion", json!(50)),
            Self::SessionAffinity => with(steps, "sessionAffinity", json!({"cookieName": "side"})),
            Self::Delegation => {
                let service = json!({"gateways": null, "hosts": null, "delegation": true});
                json!({"service": service, "analysis": steps})
            }
            Self::Kubernetes => behind("kubernetes", alone, json!({"analysis": iterations})),
            Self::GatewayApi => behind("gatewayapi:v1", gateway, json!({"analysis": steps})),
            Self::GatewayMirror => {
                behind("gatewayapi:v1", gateway, with(steps, "mirror", json!(true)))
            }
            Self::GatewayAbTesting => {
                behind("gatewayapi:v1", gateway, with(iterations, "match", test))
            }
            Self::Contour => behind("contour", alone, json!({"analysis": steps})),
            Self::Smi => behind("linkerd", alone, json!({"analysis": steps})),
            Self::Nginx => {
                let ingress =
                    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"});
                behind(
                    "nginx",
                    alone,
                    json!({"ingressRef": ingress, "analysis": steps}),
                )
            }
            Self::DaemonSet => of("apps/v1", "DaemonSet"),
            Self::Service => of("v1", "Service"),
            Self::ScaledObject => {
                let scaler = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"});
                json!({"autoscalerRef": scaler, "analysis": steps})
            }
        }
    }

    /// What there is before the Canary.
    async fn begin_with(self, rig: &mut Rig) {
        match self {
            Self::DaemonSet => rig.create("daemonsets", workload()),
            Self::Service => rig.create("services", service("3.1.0")),
            Self::ScaledObject => {
                rig.create("deployments", workload());
                rig.create("scaledobjects", scaled_object());
            }
            _ => rig.target("podinfo"),
        }
        match self {
            Self::Nginx => rig.create("ingresses", ingress()),
            // They are waited for as long as it takes.
            Self::WithoutPods => {
                let patience = json!({"spec": {"progressDeadlineSeconds": 600}});
                rig.patch("deployments", "podinfo", patience);
            }
            // Somebody is served already.
            Self::SkipAnalysis => rig.rest(5).await,
            Self::GivingBack => {
                rig.rest(5).await;
                rig.create("services", service("podinfo"));
                rig.create("virtualservices", virtual_service());
            }
            _ => {}
        }
    }

    /// The user asks for a version.
    fn image(self, rig: &Rig, tag: &str) {
        match self {
            Self::DaemonSet => rig.release("daemonsets", "podinfo", tag),
            Self::Service => rig.patch(
                "services",
                "podinfo",
                json!({"spec": {"selector": {"app": tag}}}),
            ),
            _ => rig.image(tag),
        }
    }

    /// Plays it to its end, when all that was under way is done.
    pub async fn play(self, rig: &mut Rig) {
        self.begin_with(rig).await;
        rig.canary("podinfo", self.spec());
        rig.phase("Initialized").await;
        match self {
            Self::Deletion | Self::GivingBack => {
                rig.delete("canaries", "podinfo");
                rig.until("the end of the Canary", |rig| {
                    rig.get("canaries", "podinfo").is_null()
                })
                .await;
            }
            Self::Rollback => {
                rig.outside.measure(10.0);
                self.release(rig, "Failed").await;
            }
            Self::Broken => {
                rig.image("broken");
                rig.phase("Failed").await;
            }
            Self::FailedPromotion => {
                rig.image("broken-primary");
                rig.phase("Failed").await;
            }
            Self::Reverted => {
                self.begin(rig).await;
                rig.image("3.1.0");
                rig.phase("Succeeded").await;
            }
            Self::Gates => {
                rig.outside.close(BEFORE);
                rig.outside.close(AFTER);
                self.image(rig, "3.1.1");
                rig.phase("Waiting").await;
                rig.rest(15).await;
                rig.outside.open(BEFORE);
                rig.phase("WaitingPromotion").await;
                rig.rest(15).await;
                rig.outside.open(AFTER);
                rig.phase("Succeeded").await;
            }
            Self::RollbackByHook => {
                rig.outside.close(BACK);
                self.begin(rig).await;
                rig.outside.open(BACK);
                rig.phase("Failed").await;
            }
            Self::Overtaken => {
                self.begin(rig).await;
                rig.image("3.1.2");
                rig.until("the promotion of the second", |rig| {
                    rig.outcome()["primary"] == "podinfo:3.1.2"
                })
                .await;
                rig.phase("Succeeded").await;
            }
            Self::WithoutPods => {
                self.begin(rig).await;
                let pods = |what: Value| json!({"metadata": {"annotations": {"pods": what}}});
                rig.patch("deployments", "podinfo", pods(json!("dead")));
                rig.until("no share", |rig| {
                    let route = rig.get("virtualservices", "podinfo");
                    route["spec"]["http"][0]["route"][1]["weight"] == 0
                })
                .await;
                rig.patch("deployments", "podinfo", pods(Value::Null));
                rig.phase("Succeeded").await;
            }
            Self::Promotion
            | Self::AbTesting
            | Self::BlueGreen
            | Self::GatewayApi
            | Self::Contour
            | Self::SkipAnalysis
            | Self::Mirror
            | Self::Kubernetes
            | Self::PromotionSteps
            | Self::SessionAffinity
            | Self::Delegation
            | Self::GatewayMirror
            | Self::GatewayAbTesting
            | Self::Nginx
            | Self::Smi
            | Self::DaemonSet
            | Self::Service
            | Self::ScaledObject => {
                self.release(rig, "Succeeded").await;
            }
        }
    }

    /// What the chat is told of its end, if anything.
    pub const fn told_at_its_end(self) -> Option<&'static str> {
        match self {
            Self::Rollback => Some("Failed checks threshold reached"),
            Self::Broken => Some("Progress deadline exceeded"),
            Self::FailedPromotion => Some("Promotion failed, primary not ready"),
            Self::RollbackByHook => Some("Rolling back manual webhook invoked"),
            Self::Reverted => Some("back at the promoted revision"),
            Self::Deletion | Self::GivingBack => None,
            _ => Some("promotion finished"),
        }
    }

    /// What a user is left with.
    pub fn outcome(self, rig: &Rig) -> Value {
        let spec = |plural| rig.get(plural, "podinfo")["spec"].clone();
        match self {
            // Of what was made for the Canary, what a user made again stays.
            Self::Deletion => spec("deployments"),
            Self::GivingBack => {
                json!([
                    spec("deployments"),
                    spec("services")["selector"],
                    spec("virtualservices")
                ])
            }
            Self::SessionAffinity => {
                // Each run has a cookie of its own.
                let status = &rig.get("canaries", "podinfo")["status"];
                let cookie = status["previousSessionAffinityCookie"].as_str();
                let (_, value) = cookie.and_then(|cookie| cookie.split_once('=')).unwrap();
                json!(rig.outcome().to_string().replace(value, "its own"))
            }
            Self::WithoutPods => {
                let mut outcome = rig.outcome();
                // Who hears of it late, or dies of it, fails no check.
                outcome["failed"].take();
                outcome
            }
            _ => rig.outcome(),
        }
    }

    /// A version comes to its first share of the requests.
    async fn begin(self, rig: &mut Rig) {
        self.image(rig, "3.1.1");
        rig.until("a share of 25 %", |rig| {
            rig.get("canaries", "podinfo")["status"]["canaryWeight"] == 25
        })
        .await;
    }

    async fn release(self, rig: &mut Rig, end: &str) {
        self.image(rig, "3.1.1");
        rig.phase("Progressing").await;
        rig.phase(end).await;
    }
}

/// A workload that no autoscaler of Kubernetes itself scales.
fn workload() -> Value {
    let labels = json!({"app": "podinfo"});
    json!({"metadata": {"name": "podinfo", "labels": labels}, "spec": {"selector": {"matchLabels": labels}, "template": template("podinfo", "3.1.0")}})
}

/// What KEDA scales it by.
fn scaled_object() -> Value {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"});
    let trigger =
        json!({"type": "prometheus", "metadata": {"query": "rate(x[1m])", "threshold": "10"}});
    json!({"metadata": {"name": "podinfo"}, "spec": {"scaleTargetRef": target, "minReplicaCount": 2, "maxReplicaCount": 4, "triggers": [trigger]}})
}

/// Where requests come in.
fn ingress() -> Value {
    let backend = json!({"service": {"name": "podinfo", "port": {"number": 9898}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    json!({"metadata": {"name": "web"}, "spec": {"ingressClassName": "nginx", "rules": [{"host": "app.example.com", "http": {"paths": paths}}]}})
}

/// The Service that users are led to before there is a Canary, and the pods that it has.
fn service(app: &str) -> Value {
    json!({"metadata": {"name": "podinfo"}, "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 9898}]}})
}

/// And the route to it, as kubectl applied it.
fn virtual_service() -> Value {
    let route = json!([{"route": [{"destination": {"host": "podinfo"}}]}]);
    let spec = json!({"hosts": ["app.example.com"], "http": route});
    let applied = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "podinfo"}, "spec": spec});
    let annotations =
        json!({"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()});
    json!({"metadata": {"name": "podinfo", "annotations": annotations}, "spec": spec})
}
