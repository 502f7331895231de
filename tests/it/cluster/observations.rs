//! The observations and waits of a scenario.

use std::time::Duration;

use flagger_rs::snapshot::{Kind, ObjectRef};
use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};
use testbed::{bed::ACCOUNT, wait::until};

use super::{Outcome, PATIENCE, Scenario, text};

/// A part of the events about pods that are not ready yet.
const LATE_PODS: &str = "not ready: waiting for rollout";

impl Scenario<'_> {
    /// The requests of the operator for objects of this namespace so far, and for those of the whole cluster whose names end with the
    /// namespace, without watches and the leader election. Each overlay gives its operator another account.
    pub fn requests(&self) -> Result<Vec<testbed::Audit>, String> {
        let audit = self.rig.bed.audit().map_err(text)?;
        let ours = |line: &testbed::Audit| {
            let is_here = line.namespace == self.ns
                || (line.namespace.is_empty() && line.name.ends_with(&self.ns));
            let is_counted = line.resource != "leases" && line.verb != "watch";
            line.user.contains(":flagger") && is_here && is_counted
        };
        Ok(audit.into_iter().filter(ours).collect())
    }

    /// Waits until a canary has had at least three ticks. The operator renews its watches every half a minute. The audit log has a line for
    /// the beginning and for the end of each watch.
    pub async fn ticks(&self) -> Outcome {
        let renewals = || -> Result<usize, String> {
            let audit = self.rig.bed.audit().map_err(text)?;
            let of_canaries = |line: &&testbed::Audit| {
                line.user == ACCOUNT && line.verb == "watch" && line.resource == "canaries"
            };
            Ok(audit.iter().filter(of_canaries).count())
        };
        let before = renewals()?;
        until(
            Duration::from_secs(150),
            "two renewals of a watch",
            async || {
                let now = renewals()?;
                if now >= before + 4 {
                    Ok(())
                } else {
                    Err(format!("{now} of {}", before + 4))
                }
            },
        )
        .await
        .map_err(text)
    }

    /// The object, or the error of the API server if it does not exist.
    pub async fn get(&self, kind: Kind, name: &str) -> Result<Value, String> {
        get(
            &self.client,
            &ObjectRef {
                kind,
                namespace: self.ns.clone(),
                name: name.to_owned(),
            },
        )
        .await
    }

    /// The versions of all objects that a release writes or depends on.
    pub async fn versions(&self) -> Result<Vec<(Kind, &'static str, String)>, String> {
        let mut versions = Vec::new();
        for (kind, name) in [
            (Kind::Canary, "podinfo"),
            (Kind::VirtualService, "podinfo"),
            (Kind::Deployment, "podinfo"),
            (Kind::Deployment, "podinfo-primary"),
            (Kind::HorizontalPodAutoscaler, "podinfo"),
            (Kind::HorizontalPodAutoscaler, "podinfo-primary"),
            (Kind::Service, "podinfo"),
            (Kind::Service, "podinfo-primary"),
            (Kind::Service, "podinfo-canary"),
            (Kind::DestinationRule, "podinfo-primary"),
            (Kind::DestinationRule, "podinfo-canary"),
            (Kind::ConfigMap, "settings"),
            (Kind::ConfigMap, "settings-primary"),
            (Kind::Secret, "keys"),
            (Kind::Secret, "keys-primary"),
        ] {
            let object = self.get(kind, name).await?;
            // Kubernetes writes the status of these two.
            let version = match kind {
                Kind::Deployment | Kind::HorizontalPodAutoscaler => "/spec",
                _ => "/metadata/resourceVersion",
            };
            let version = object.pointer(version).map(ToString::to_string);
            versions.push((kind, name, version.unwrap_or_default()));
        }
        Ok(versions)
    }

    /// Waits until the canary `podinfo` is in this phase and no operation is pending in its conditions.
    pub async fn phase(&self, phase: &str) -> Outcome {
        self.phase_of("podinfo", phase).await
    }

    /// The same for a canary with this name.
    pub async fn phase_of(&self, canary: &str, phase: &str) -> Outcome {
        until(PATIENCE, &format!("phase {phase}"), async || {
            let seen = self.seen.lock().unwrap();
            let status = seen.now.get(canary).cloned().unwrap_or_default();
            let mut conditions = status.conditions.iter().flatten();
            let stay = ["Promoted", "Action", "Verdict", "RouteRefs", "GrpcRoute"];
            let idle = conditions.all(|c| stay.contains(&c.type_.as_str()));
            let line = format!(
                "{} {} {:?}",
                status.phase, status.canary_weight, status.conditions
            );
            (status.phase.as_str() == phase && idle)
                .then_some(())
                .ok_or(line)
        })
        .await
        .map_err(|error| {
            format!(
                "{error}\nseen: {:?}\nevents: {:?}",
                self.table(),
                self.events()
            )
        })
    }

    /// Waits until the table has this line.
    pub async fn line(&self, line: &str) -> Outcome {
        until(PATIENCE, line, async || {
            let table = self.table();
            table
                .iter()
                .any(|seen| seen == line)
                .then_some(())
                .ok_or_else(|| format!("{table:?}"))
        })
        .await
        .map_err(|error| format!("{error}\nevents: {:?}", self.events()))
    }

    /// Waits for an event whose text contains this. Returns its type and text.
    pub async fn event(&self, message: &str) -> Result<String, String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.ns);
        until(PATIENCE, &format!("event {message:?}"), async || {
            let events = api.list(&ListParams::default()).await.map_err(text)?.items;
            let found = events.iter().filter(|event| {
                event.source.as_ref().and_then(|s| s.component.as_deref()) == Some("flagger")
            });
            let texts: Vec<_> = found
                .map(|event| {
                    format!(
                        "{} {}",
                        event.type_.clone().unwrap_or_default(),
                        event.message.clone().unwrap_or_default()
                    )
                })
                .collect();
            texts
                .iter()
                .find(|text| text.contains(message))
                .cloned()
                .ok_or_else(|| format!("{texts:?}"))
        })
        .await
        .map_err(text)
    }

    /// Waits until the event webhook has received this text.
    pub async fn notified(&self, message: &str) -> Outcome {
        until(PATIENCE, message, async || {
            let events = self.events();
            events
                .iter()
                .any(|line| line.contains(message))
                .then_some(())
                .ok_or_else(|| format!("{events:?}"))
        })
        .await
        .map_err(text)
    }

    /// Status and weight, as `kubectl get canary -w` would have shown them.
    pub fn table(&self) -> Vec<String> {
        self.seen.lock().unwrap().table.clone()
    }

    /// The events that the event webhook received: type, phase, text. Those about pods that are late on a busy machine are left out.
    pub fn events(&self) -> Vec<String> {
        let mut events = self.all_events();
        events.retain(|line| !line.contains(LATE_PODS));
        events
    }

    /// How many events say that pods are late.
    pub fn late_pods(&self) -> usize {
        let events = self.all_events();
        let late = events.iter().filter(|line| line.contains(LATE_PODS));
        late.count()
    }

    fn all_events(&self) -> Vec<String> {
        let calls = self.rig.bed.fakes.calls("events/all");
        calls
            .iter()
            .filter(|call| call.body["namespace"] == json!(self.ns))
            .map(|call| {
                let field = |name: &str| {
                    call.body
                        .pointer(&format!("/metadata/{name}"))
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                };
                format!(
                    "{} [{}] {}",
                    field("eventType"),
                    call.body["phase"].as_str().unwrap_or_default(),
                    field("eventMessage")
                )
            })
            .collect()
    }

    /// The weight of the canary in the VirtualService now.
    pub async fn weight(&self) -> Result<i64, String> {
        let service = self.get(Kind::VirtualService, "podinfo").await?;
        service
            .pointer("/spec/http/0/route/1/weight")
            .and_then(Value::as_i64)
            .ok_or_else(|| "no weight".to_owned())
    }
}

pub async fn get(client: &Client, object: &ObjectRef) -> Result<Value, String> {
    let path = match object.kind.group_version() {
        ("", version) => format!("/api/{version}"),
        (group, version) => format!("/apis/{group}/{version}"),
    };
    let place = if object.kind.is_cluster_scoped() {
        String::new()
    } else {
        format!("/namespaces/{}", object.namespace)
    };
    let url = format!("{path}{place}/{}/{}", object.kind.plural(), object.name);
    client
        .request(http::Request::get(url).body(Vec::new()).unwrap())
        .await
        .map_err(text)
}
