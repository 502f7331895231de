//! What a user does in a run that is swept: each kind of release once, in its shortest form.

use serde_json::{Value, json};

use super::rig::Rig;

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
    /// A Canary that goes with what it made.
    Deletion,
    /// A Canary that gives back the Service and the route that it took over.
    GivingBack,
}

impl Story {
    /// All of them.
    pub const ALL: [Self; 17] = [
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
        Self::Deletion,
        Self::GivingBack,
    ];

    /// What is other than in the walkthrough's Canary.
    fn spec(self) -> Value {
        let steps = json!({"interval": "10s", "stepWeight": 25, "threshold": 2});
        let iterations = json!({"interval": "10s", "stepWeight": null, "maxWeight": null, "iterations": 2, "threshold": 2});
        match self {
            Self::Promotion
            | Self::Rollback
            | Self::Overtaken
            | Self::Reverted
            | Self::Broken
            | Self::FailedPromotion => json!({"analysis": steps}),
            Self::SkipAnalysis => json!({"skipAnalysis": true, "analysis": steps}),
            Self::Gates => {
                let hook = |kind, url| json!({"name": kind, "type": kind, "url": url});
                let mut analysis = steps;
                analysis["webhooks"] = json!([
                    hook("confirm-rollout", BEFORE),
                    hook("confirm-promotion", AFTER),
                    hook("post-rollout", "http://end/")
                ]);
                json!({"analysis": analysis})
            }
            Self::RollbackByHook => {
                let mut analysis = steps;
                analysis["webhooks"] = json!([{"name": "back", "type": "rollback", "url": BACK}]);
                json!({"analysis": analysis})
            }
            Self::Mirror => {
                let mut analysis = steps;
                analysis["mirror"] = json!(true);
                json!({"analysis": analysis})
            }
            Self::Kubernetes => {
                let service = json!({"gateways": null, "hosts": null});
                json!({"provider": "kubernetes", "service": service, "analysis": iterations})
            }
            Self::AbTesting => {
                let mut analysis = iterations;
                analysis["match"] = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
                json!({"analysis": analysis})
            }
            Self::BlueGreen => json!({"analysis": iterations}),
            Self::GatewayApi => {
                let gateway = json!({"name": "gateway", "namespace": "infra"});
                let service = json!({"gateways": null, "hosts": ["app.example.com"], "gatewayRefs": [gateway]});
                json!({"provider": "gatewayapi:v1", "service": service, "analysis": steps})
            }
            Self::Contour => {
                let service = json!({"gateways": null, "hosts": null});
                json!({"provider": "contour", "service": service, "analysis": steps})
            }
            Self::Deletion | Self::GivingBack => {
                json!({"revertOnDeletion": true, "analysis": steps})
            }
        }
    }

    /// Plays it to its end, when all that was under way is done.
    pub async fn play(self, rig: &mut Rig) {
        rig.target("podinfo");
        if matches!(self, Self::GivingBack | Self::SkipAnalysis) {
            // Somebody is served already.
            rig.rest(5).await;
        }
        if self == Self::GivingBack {
            rig.create("services", service());
            rig.create("virtualservices", virtual_service());
        }
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
                Self::release(rig, "Failed").await;
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
                Self::begin(rig).await;
                rig.image("3.1.0");
                rig.phase("Succeeded").await;
            }
            Self::Gates => {
                rig.outside.close(BEFORE);
                rig.outside.close(AFTER);
                rig.image("3.1.1");
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
                Self::begin(rig).await;
                rig.outside.open(BACK);
                rig.phase("Failed").await;
            }
            Self::Overtaken => {
                Self::begin(rig).await;
                rig.image("3.1.2");
                rig.until("the promotion of the second", |rig| {
                    rig.outcome()["primary"] == "podinfo:3.1.2"
                })
                .await;
                rig.phase("Succeeded").await;
            }
            Self::Promotion
            | Self::AbTesting
            | Self::BlueGreen
            | Self::GatewayApi
            | Self::Contour
            | Self::SkipAnalysis
            | Self::Mirror
            | Self::Kubernetes => {
                Self::release(rig, "Succeeded").await;
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
            _ => rig.outcome(),
        }
    }

    /// A version comes to its first share of the requests.
    async fn begin(rig: &mut Rig) {
        rig.image("3.1.1");
        rig.until("a share of 25 %", |rig| {
            rig.get("canaries", "podinfo")["status"]["canaryWeight"] == 25
        })
        .await;
    }

    async fn release(rig: &mut Rig, end: &str) {
        rig.image("3.1.1");
        rig.phase("Progressing").await;
        rig.phase(end).await;
    }
}

/// The Service that users are led to before there is a Canary.
fn service() -> Value {
    json!({"metadata": {"name": "podinfo"}, "spec": {"selector": {"app": "podinfo"}, "ports": [{"name": "http", "port": 9898}]}})
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
