//! Checks that traffic is never routed to a side without ready pods. An independent watch records each change of the route and of both
//! workloads.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures::TryStreamExt;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::Value;

use flagger_rs::snapshot::Kind;

use super::{AGAIN, Scenario};

/// The observed changes by resourceVersion, which etcd counts across all kinds.
type Seen = Arc<Mutex<BTreeMap<u64, (Kind, Value)>>>;

/// Watches the traffic of `podinfo` in a namespace, until it is dropped.
pub struct Traffic {
    seen: Seen,
    watches: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.watches.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Traffic {
    pub fn of(scenario: &Scenario<'_>) -> Self {
        let seen = Seen::default();
        let watches = [Kind::VirtualService, Kind::Deployment].map(|kind| {
            let (group, version) = kind.group_version();
            let gvk = GroupVersionKind::gvk(group, version, kind.name());
            let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
            let api: Api<DynamicObject> =
                Api::namespaced_with(scenario.client.clone(), &scenario.ns, &resource);
            let changes = watcher(api, watcher::Config::default()).applied_objects();
            tokio::spawn(note(kind, changes, seen.clone()))
        });
        Self {
            seen,
            watches: watches.into(),
        }
    }

    /// The number of observed changes, and those that routed traffic to a side without ready pods.
    pub fn lost(&self) -> (usize, Vec<String>) {
        let seen = self.seen.lock().unwrap();
        let (mut weights, mut ready) = ([0, 0], [None, None]);
        let mut lost = Vec::new();
        for (version, (kind, object)) in seen.iter() {
            if *kind == Kind::VirtualService {
                for (side, weight) in weights.iter_mut().enumerate() {
                    let weighed = object.pointer(&format!("/spec/http/0/route/{side}/weight"));
                    *weight = weighed.and_then(Value::as_i64).unwrap_or(0);
                }
            } else if let Some(side) = side(object) {
                let count = object.pointer("/status/readyReplicas");
                ready[side] = Some(count.and_then(Value::as_i64).unwrap_or(0));
            }
            for (side, name) in ["the primary", "the canary"].iter().enumerate() {
                if weights[side] > 0 && ready[side] == Some(0) {
                    lost.push(format!(
                        "at {version} {name} has {} % and no ready pod",
                        weights[side]
                    ));
                }
            }
        }
        (seen.len(), lost)
    }

    /// The images that the primary had, in order.
    pub fn primary_images(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let of_primary = seen
            .values()
            .filter(|(kind, object)| *kind == Kind::Deployment && side(object) == Some(0));
        let image = |(_, object): &(Kind, Value)| {
            let image = object.pointer("/spec/template/spec/containers/0/image");
            image.and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let mut images: Vec<_> = of_primary.map(image).collect();
        images.dedup();
        images
    }
}

fn side(deployment: &Value) -> Option<usize> {
    let name = deployment.pointer("/metadata/name")?.as_str()?;
    ["podinfo-primary", "podinfo"]
        .iter()
        .position(|side| *side == name)
}

async fn note(
    kind: Kind,
    changes: impl futures::Stream<Item = Result<DynamicObject, watcher::Error>>,
    seen: Seen,
) {
    let mut changes = std::pin::pin!(changes);
    loop {
        match changes.try_next().await {
            Ok(Some(object)) => {
                let version = object.metadata.resource_version.as_deref();
                let version = version.and_then(|version| version.parse().ok());
                let object = serde_json::to_value(object).unwrap();
                seen.lock()
                    .unwrap()
                    .insert(version.unwrap_or(0), (kind, object));
            }
            Ok(None) => return,
            // The watch begins again by itself after a pause.
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}
