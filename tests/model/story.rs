//! What a user does in a run that is swept: each kind of release once, in its shortest form.

use serde_json::{Value, json};

use super::rig::Rig;

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
    /// A Canary that gives back what it took over.
    Deletion,
}

impl Story {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Promotion,
        Self::Rollback,
        Self::AbTesting,
        Self::BlueGreen,
        Self::GatewayApi,
        Self::Deletion,
    ];

    /// What is other than in the walkthrough's Canary.
    fn spec(self) -> Value {
        let steps = json!({"interval": "10s", "stepWeight": 25, "threshold": 2});
        let iterations = json!({"interval": "10s", "stepWeight": null, "maxWeight": null, "iterations": 2, "threshold": 2});
        match self {
            Self::Promotion | Self::Rollback => json!({"analysis": steps}),
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
            Self::Deletion => json!({"revertOnDeletion": true, "analysis": steps}),
        }
    }

    /// Plays it to its end, when all that was under way is done.
    pub async fn play(self, rig: &mut Rig) {
        rig.walkthrough(self.spec());
        rig.phase("Initialized").await;
        match self {
            Self::Deletion => {
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
            Self::Promotion | Self::AbTesting | Self::BlueGreen | Self::GatewayApi => {
                Self::release(rig, "Succeeded").await;
            }
        }
    }

    async fn release(rig: &mut Rig, end: &str) {
        rig.image("3.1.1");
        rig.phase("Progressing").await;
        rig.phase(end).await;
    }
}
