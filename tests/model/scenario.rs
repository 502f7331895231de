//! Scenarios of the sweeps: each kind of release once, in its shortest form.

mod objects;

use std::time::Duration;

use flagger_rs::{
    api::action::{ANNOTATION, Action, Signature, Verb},
    shell::clock,
    snapshot::revision::revision,
};
use serde_json::{Value, json};

use super::{
    invariants::KNATIVE_SERVICES,
    rig::{Rig, template},
    routers::{ROUTERS, Row, SOURCE, distinct},
};
use objects::*;

/// The gates before a run, before more traffic and before the promotion, and the rollback hook.
const BEFORE: &str = "http://gate/before";
const TRAFFIC: &str = "http://gate/traffic";
const AFTER: &str = "http://gate/after";
const BACK: &str = "http://gate/back";

/// The providers without a scenario: `Promotion` is that of Istio, other versions of an API have the same writes, the model has no
/// controller of App Mesh, and Skipper's Ingress is like that of NGINX.
const NOT_BEHIND: [&str; 7] = [
    "istio",
    "gatewayapi:v1beta1",
    "osm",
    "smi:v1alpha3",
    "appmesh",
    "appmesh:v1beta2",
    "skipper",
];

fn row_of(provider: &str) -> &'static Row {
    { ROUTERS.iter() }
        .find(|row| row.provider == provider)
        .unwrap()
}

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A good version of two steps.
    Promotion,
    /// A version whose requests fail.
    Rollback,
    /// A good version whose requests are compared with those of the primary.
    Compared,
    /// A good version for users who ask for it with a header.
    AbTesting,
    /// A good version that gets all requests at once.
    BlueGreen,
    /// A good version of two steps, on the router of this provider.
    Behind(&'static str),
    /// A version that is replaced by another in the middle of its run.
    Overtaken,
    /// A version that its user reverts in the middle of its run.
    Reverted,
    /// A version whose pods do not become ready.
    Broken,
    /// A good version whose promotion fails: the primary does not become ready.
    FailedPromotion,
    /// A version that is promoted without an analysis.
    SkipAnalysis,
    /// A good version that waits for its approval before its run and before its promotion.
    Gates,
    /// A version that a rollback hook rolls back.
    RollbackByHook,
    /// A good version that gets a copy of the requests first.
    Mirror,
    /// A good version without a mesh.
    Kubernetes,
    /// A good version whose traffic moves to the primary step by step.
    PromotionSteps,
    /// Two good versions with session affinity, one after the other.
    SessionAffinity,
    /// A good version with a delegate VirtualService.
    Delegation,
    /// A good version behind a Gateway that copies requests to it first.
    GatewayMirror,
    /// A good version behind a Gateway, for users who ask for it with a header.
    GatewayAbTesting,
    /// A good version whose weights the operator sets in a route of the user.
    OwnRoute,
    /// A good version whose weights the operator sets in a VirtualService of the user.
    OwnVirtualService,
    /// A good version whose weights the operator sets in its copy of a user's route.
    RouteTemplate,
    /// A Canary that is deleted while a route of the user leads requests to its new version.
    OwnRouteDeletion,
    /// A good version of a Knative Service.
    Knative,
    /// A good version of a DaemonSet.
    DaemonSet,
    /// A good version of a target that is a Service.
    Service,
    /// A good version of a target that KEDA scales.
    ScaledObject,
    /// A good version whose pods become unready in the middle of its run, and ready again.
    WithoutPods,
    /// A changed `ConfigMap`, and after its release a changed Secret.
    Configs,
    /// A good version that needs more pods than the autoscaler's minimum.
    ScaledUp,
    /// A good version with hooks, chats and a metrics server that answer after seconds.
    SlowAnswers,
    /// A version that a person pauses, resumes, aborts, releases again and lets through a closed gate.
    Steered,
    /// A version that a person aborts before its run, releases again, lets through a closed gate, and promotes at its first weight.
    PromotedByHand,
    /// A Canary that is deleted with the objects created for it.
    Deletion,
    /// A deleted Canary that restores the Service and the route that it took over.
    GivingBack,
}

impl Scenario {
    /// All scenarios.
    pub fn all() -> Vec<Self> {
        let rows = distinct().into_iter().map(|row| row.provider);
        let rows = rows.filter(|provider| !NOT_BEHIND.contains(provider));
        Self::OTHERS
            .into_iter()
            .chain(rows.map(Self::Behind))
            .collect()
    }

    /// All scenarios but those that are one for each router.
    const OTHERS: [Self; 35] = [
        Self::Promotion,
        Self::Rollback,
        Self::Compared,
        Self::AbTesting,
        Self::BlueGreen,
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
        Self::OwnRoute,
        Self::OwnVirtualService,
        Self::RouteTemplate,
        Self::OwnRouteDeletion,
        Self::Knative,
        Self::DaemonSet,
        Self::Service,
        Self::ScaledObject,
        Self::WithoutPods,
        Self::Configs,
        Self::ScaledUp,
        Self::SlowAnswers,
        Self::Steered,
        Self::PromotedByHand,
        Self::Deletion,
        Self::GivingBack,
    ];

    /// The changes to the spec of the walkthrough's Canary.
    fn spec(self) -> Value {
        let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
        match self {
            Self::Promotion
            | Self::Rollback
            | Self::Overtaken
            | Self::Reverted
            | Self::Broken
            | Self::Configs
            | Self::ScaledUp
            | Self::SlowAnswers
            | Self::FailedPromotion => json!({"analysis": steps()}),
            Self::Compared => {
                let metric = json!({"name": "request-success-rate", "thresholdRange": {"min": 99}, "interval": "1m", "compare": {}});
                with(steps(), "metrics", json!([metric]))
            }
            Self::WithoutPods => json!({"progressDeadlineSeconds": 600, "analysis": steps()}),
            Self::BlueGreen => json!({"analysis": iterations()}),
            Self::SkipAnalysis => json!({"skipAnalysis": true, "analysis": steps()}),
            Self::Deletion | Self::GivingBack => {
                json!({"revertOnDeletion": true, "analysis": steps()})
            }
            Self::Gates => {
                let gates = [
                    hook("confirm-rollout", BEFORE),
                    hook("confirm-traffic-increase", TRAFFIC),
                    hook("confirm-promotion", AFTER),
                    hook("post-rollout", "http://end/"),
                ];
                with(steps(), "webhooks", json!(gates))
            }
            Self::Steered => with(
                steps(),
                "webhooks",
                json!([hook("confirm-promotion", AFTER)]),
            ),
            Self::PromotedByHand => with(
                steps(),
                "webhooks",
                json!([hook("confirm-rollout", BEFORE)]),
            ),
            Self::RollbackByHook => with(steps(), "webhooks", json!([hook("rollback", BACK)])),
            Self::Mirror => {
                let hooks = [
                    hook("confirm-traffic-increase", TRAFFIC),
                    hook("pre-rollout", "http://flagger-loadtester.test/acceptance"),
                    hook("rollout", "http://flagger-loadtester.test/load"),
                ];
                let gated = with(steps(), "webhooks", json!(hooks));
                with(gated["analysis"].clone(), "mirror", json!(true))
            }
            Self::AbTesting => with(iterations(), "match", test),
            Self::PromotionSteps => with(steps(), "stepWeightPromotion", json!(50)),
            Self::SessionAffinity => {
                with(steps(), "sessionAffinity", json!({"cookieName": "side"}))
            }
            Self::Delegation => {
                let service = json!({"gateways": null, "hosts": null, "delegation": true});
                json!({"service": service, "analysis": steps()})
            }
            Self::Behind(provider) => {
                let mut spec = row_of(provider).reference();
                spec["analysis"] = steps();
                behind(provider, spec)
            }
            Self::Kubernetes => behind("kubernetes", json!({"analysis": iterations()})),
            Self::GatewayMirror => behind("gatewayapi:v1", with(steps(), "mirror", json!(true))),
            Self::GatewayAbTesting => behind("gatewayapi:v1", with(iterations(), "match", test)),
            Self::OwnRoute | Self::OwnRouteDeletion => on_own_route(),
            Self::OwnVirtualService => on_own_virtual_service(),
            Self::RouteTemplate => on_template(),
            Self::Knative => behind("knative", of("serving.knative.dev/v1", "Service")),
            Self::DaemonSet => of("apps/v1", "DaemonSet"),
            Self::Service => of("v1", "Service"),
            Self::ScaledObject => {
                let scaler = json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"});
                json!({"autoscalerRef": scaler, "analysis": steps()})
            }
        }
    }

    /// Creates the objects that exist before the Canary.
    async fn create_target(self, rig: &mut Rig) {
        match self {
            Self::DaemonSet => rig.create("daemonsets", workload()),
            Self::Knative => {
                let spec = json!({"template": template("podinfo", "3.1.0")});
                let service = json!({"metadata": {"name": "podinfo"}, "spec": spec});
                rig.create(KNATIVE_SERVICES, service);
                // Its first Revision is ready then.
                rig.pass(5).await;
            }
            Self::Service => {
                rig.create("deployments", pods_of_service("3.1.0"));
                rig.create("deployments", pods_of_service("3.1.1"));
                rig.create("services", service("3.1.0"));
                rig.pass(5).await;
            }
            Self::ScaledObject => {
                rig.create("deployments", workload());
                rig.create("scaledobjects", scaled_object());
            }
            _ => rig.target("podinfo"),
        }
        match self {
            Self::Behind(provider) => {
                if let Some(source) = row_of(provider).source {
                    let object = json!({"metadata": {"name": SOURCE}, "spec": (source.spec)()});
                    rig.create(source.kind.plural(), object);
                }
            }
            // The operator waits until the pods are ready again.
            Self::WithoutPods => rig.patch("deployments", "podinfo", deadline(600)),
            // The deadline ends between two ticks. At a tick, the number of reports of the wait would depend on which comes first.
            Self::FailedPromotion => rig.patch("deployments", "podinfo", deadline(55)),
            Self::Configs => {
                for (plural, config) in configs("red") {
                    rig.create(plural, config);
                }
                rig.patch("deployments", "podinfo", with_configs());
            }
            Self::SlowAnswers => rig.servers.set_delay(Duration::from_secs(3)),
            // The target serves requests before the Canary exists.
            Self::SkipAnalysis => rig.pass(5).await,
            Self::Kubernetes => {
                rig.create("services", service("podinfo"));
                rig.pass(5).await;
            }
            Self::OwnRoute | Self::OwnRouteDeletion => {
                rig.create("services", service("podinfo"));
                rig.create("httproutes", http_route());
                rig.pass(5).await;
            }
            Self::OwnVirtualService => {
                rig.create("services", service("podinfo"));
                rig.create("virtualservices", own_virtual_service());
                rig.pass(5).await;
            }
            Self::RouteTemplate => {
                rig.create("services", service("podinfo"));
                rig.create("httproutes", route_template());
                rig.pass(5).await;
            }
            Self::GivingBack => {
                rig.pass(5).await;
                rig.create("services", service("podinfo"));
                rig.create("virtualservices", virtual_service());
            }
            _ => {}
        }
    }

    /// The user sets the version.
    fn image(self, rig: &Rig, tag: &str) {
        match self {
            Self::DaemonSet => rig.release("daemonsets", "podinfo", tag),
            Self::Knative => rig.release(KNATIVE_SERVICES, "podinfo", tag),
            Self::Service => rig.patch(
                "services",
                "podinfo",
                json!({"spec": {"selector": {"app": tag}}}),
            ),
            _ => rig.image(tag),
        }
    }

    /// Plays the scenario until the canary is idle.
    pub async fn play(self, rig: &mut Rig) {
        self.create_target(rig).await;
        rig.canary("podinfo", self.spec());
        rig.until_phase("Initialized").await;
        match self {
            Self::Deletion | Self::GivingBack => delete(rig).await,
            Self::OwnRouteDeletion => {
                self.begin(rig).await;
                delete(rig).await;
            }
            Self::Rollback => {
                rig.servers.set_success_rate(10.0);
                self.release(rig, "Failed").await;
            }
            Self::Broken => {
                rig.image("broken");
                rig.until_phase("Failed").await;
            }
            Self::FailedPromotion => {
                rig.image("broken-primary");
                rig.until_phase("Failed").await;
            }
            Self::Reverted => {
                self.begin(rig).await;
                rig.image("3.1.0");
                rig.until_phase("Succeeded").await;
            }
            Self::Gates => self.pass_gates(rig).await,
            Self::RollbackByHook => {
                rig.servers.forbid(BACK);
                self.begin(rig).await;
                rig.servers.allow(BACK);
                rig.until_phase("Failed").await;
            }
            Self::Overtaken => {
                self.begin(rig).await;
                rig.image("3.1.2");
                let is_promoted = |rig: &Rig| rig.image_of("podinfo-primary") == "podinfo:3.1.2";
                rig.until("the promotion of the second version", is_promoted)
                    .await;
                rig.until_phase("Succeeded").await;
            }
            Self::WithoutPods => self.lose_pods(rig).await,
            Self::Steered => self.steer(rig).await,
            Self::PromotedByHand => self.promote_by_hand(rig).await,
            Self::SessionAffinity => {
                self.release(rig, "Succeeded").await;
                rig.image("3.1.2");
                Self::run(rig, "Succeeded").await;
            }
            Self::Configs => {
                for (plural, config) in configs("blue") {
                    let name = config["metadata"]["name"].as_str().unwrap().to_owned();
                    rig.patch(plural, &name, config);
                    Self::run(rig, "Succeeded").await;
                }
            }
            Self::ScaledUp => {
                rig.image("busy3");
                Self::run(rig, "Succeeded").await;
            }
            Self::Promotion
            | Self::Compared
            | Self::AbTesting
            | Self::BlueGreen
            | Self::Behind(_)
            | Self::SkipAnalysis
            | Self::Mirror
            | Self::Kubernetes
            | Self::PromotionSteps
            | Self::Delegation
            | Self::GatewayMirror
            | Self::GatewayAbTesting
            | Self::OwnRoute
            | Self::OwnVirtualService
            | Self::RouteTemplate
            | Self::Knative
            | Self::DaemonSet
            | Self::Service
            | Self::SlowAnswers
            | Self::ScaledObject => self.release(rig, "Succeeded").await,
        }
    }

    async fn pass_gates(self, rig: &mut Rig) {
        for gate in [BEFORE, TRAFFIC, AFTER] {
            rig.servers.forbid(gate);
        }
        self.image(rig, "3.1.1");
        rig.until_phase("Waiting").await;
        rig.pass(15).await;
        approve(rig, BEFORE, "Canary is waiting for approval.").await;
        rig.until_phase("Progressing").await;
        rig.pass(25).await;
        let route = rig.get("virtualservices", "podinfo");
        let weight = &route["spec"]["http"][0]["route"][1]["weight"];
        assert_eq!(*weight, 0, "the traffic gate is closed");
        approve(
            rig,
            TRAFFIC,
            "Canary traffic increase is waiting for approval.",
        )
        .await;
        rig.until_phase("WaitingPromotion").await;
        rig.pass(15).await;
        approve(rig, AFTER, "Canary promotion is waiting for approval.").await;
        rig.until_phase("Succeeded").await;
    }

    async fn steer(self, rig: &mut Rig) {
        let has = |rig: &Rig, type_: &str| {
            let status = &rig.get("canaries", "podinfo")["status"];
            let mut conditions = status["conditions"].as_array().into_iter().flatten();
            conditions.any(|condition| condition["type"] == type_)
        };
        rig.servers.forbid(AFTER);
        self.begin(rig).await;
        act(rig, Verb::Pause, |rig| has(rig, "Paused")).await;
        rig.pass(25).await;
        let status = &rig.get("canaries", "podinfo")["status"];
        assert_eq!(status["canaryWeight"], 25, "the release is paused");
        act(rig, Verb::Resume, |rig| !has(rig, "Paused")).await;
        act(rig, Verb::Abort, |rig| is_in(rig, "Failed")).await;
        rig.until_phase("Failed").await;
        act(rig, Verb::Retry, |rig| !is_in(rig, "Failed")).await;
        rig.until_phase("WaitingPromotion").await;
        rig.pass(15).await;
        act(rig, Verb::Skip, |rig| !is_in(rig, "WaitingPromotion")).await;
        rig.until_phase("Succeeded").await;
    }

    async fn promote_by_hand(self, rig: &mut Rig) {
        rig.servers.forbid(BEFORE);
        self.image(rig, "3.1.1");
        rig.until_phase("Waiting").await;
        rig.pass(60).await;
        act(rig, Verb::Abort, |rig| is_in(rig, "Failed")).await;
        rig.until_phase("Failed").await;
        rig.pass(60).await;
        act(rig, Verb::Retry, |rig| is_in(rig, "Waiting")).await;
        rig.pass(60).await;
        act(rig, Verb::Resume, |rig| !is_in(rig, "Waiting")).await;
        let has_weight = |rig: &Rig| rig.get("canaries", "podinfo")["status"]["canaryWeight"] == 25;
        rig.until("weight 25", has_weight).await;
        act(rig, Verb::Promote, |rig| !is_in(rig, "Progressing")).await;
        rig.until_phase("Succeeded").await;
    }

    async fn lose_pods(self, rig: &mut Rig) {
        self.begin(rig).await;
        let pods = |pods: Value| json!({"metadata": {"annotations": {"pods": pods}}});
        rig.patch("deployments", "podinfo", pods(json!("dead")));
        rig.until("weight 0", |rig| {
            let route = rig.get("virtualservices", "podinfo");
            route["spec"]["http"][0]["route"][1]["weight"] == 0
        })
        .await;
        rig.patch("deployments", "podinfo", pods(Value::Null));
        rig.until_phase("Succeeded").await;
    }

    /// The final state of the cluster, as far as a user sees it.
    pub fn outcome(self, rig: &Rig) -> Value {
        let spec = |plural| rig.get(plural, "podinfo")["spec"].clone();
        match self {
            // Objects that a disturbance has recreated survive the Canary, so they are not compared.
            Self::Deletion => spec("deployments"),
            Self::OwnRouteDeletion => spec("httproutes"),
            Self::GivingBack => {
                json!([
                    spec("deployments"),
                    spec("services")["selector"],
                    spec("virtualservices")
                ])
            }
            Self::SessionAffinity => {
                // Each run has another cookie.
                let status = &rig.get("canaries", "podinfo")["status"];
                let cookie = status["previousSessionAffinityCookie"].as_str();
                let (_, value) = cookie.and_then(|cookie| cookie.split_once('=')).unwrap();
                let outcome = rig.outcome().to_string().replace(value, "its own");
                serde_json::from_str(&outcome).unwrap()
            }
            Self::WithoutPods => {
                let mut outcome = rig.outcome();
                // An operator that observes the pods late, or is killed, fails no check.
                outcome["failed"].take();
                outcome
            }
            _ => rig.outcome(),
        }
    }

    /// Releases a version up to its first weight.
    async fn begin(self, rig: &mut Rig) {
        self.image(rig, "3.1.1");
        rig.until("weight 25", |rig| {
            rig.get("canaries", "podinfo")["status"]["canaryWeight"] == 25
        })
        .await;
    }

    async fn release(self, rig: &mut Rig, end: &str) {
        self.image(rig, "3.1.1");
        Self::run(rig, end).await;
    }

    /// Waits until a new run has begun and ended.
    async fn run(rig: &mut Rig, end: &str) {
        rig.until_phase("Progressing").await;
        rig.until_phase(end).await;
    }
}

fn is_in(rig: &Rig, phase: &str) -> bool {
    rig.get("canaries", "podinfo")["status"]["phase"] == phase
}

async fn delete(rig: &mut Rig) {
    rig.delete("canaries", "podinfo");
    let is_deleted = |rig: &Rig| rig.get("canaries", "podinfo").is_null();
    rig.until("the deletion of the Canary", is_deleted).await;
}

/// A person opens a gate after the chat has asked for it. An operator that is killed before it asks leaves that to the next one.
async fn approve(rig: &mut Rig, gate: &str, question: &str) {
    let is_asked = |rig: &Rig| {
        let received = rig.servers.received();
        let mut alerts = { received.iter() }.map(|request| &request.body["attachments"][0]["text"]);
        alerts.any(|text| text == question)
    };
    let mut waited = 0;
    while !is_asked(rig) {
        assert!(waited < 60, "nobody was asked: {question}");
        rig.pass(1).await;
        waited += 1;
    }
    rig.servers.allow(gate);
}

/// A person asks for an action on the present revision, and again after five minutes without an effect.
async fn act(rig: &mut Rig, verb: Verb, has_effect: impl Fn(&Rig) -> bool) {
    for attempt in 1.. {
        let status = &rig.get("canaries", "podinfo")["status"];
        let revision = if status["phase"] == "Waiting" {
            revision(&rig.get("deployments", "podinfo")["spec"]["template"])
        } else {
            status["lastAppliedSpec"].as_str().unwrap().to_owned()
        };
        let signature = Signature {
            revision,
            id: format!("{verb}-{attempt}"),
            at: clock::now(),
            author: "jane".to_owned(),
        };
        let action = Action {
            verb,
            signature: Some(signature),
            reason: "errors at the checkout".to_owned(),
        };
        let annotations = json!({ANNOTATION: action.to_string()});
        let change = json!({"metadata": {"annotations": annotations}});
        rig.patch("canaries", "podinfo", change);
        if rig.within(Duration::from_secs(300), &has_effect).await {
            return;
        }
    }
}
