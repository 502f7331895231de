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
use serde_json::{Value, json};

use flagger_rs::snapshot::Kind;

use super::{AGAIN, Scenario};

/// The observed changes by resourceVersion, which etcd counts across all kinds.
type Changes = BTreeMap<u64, (Kind, Value)>;
type Seen = Arc<Mutex<Changes>>;

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

    /// The number of observed changes, and those that routed traffic to a side that had no ready pod, or whose pods were never seen.
    pub fn lost(&self) -> (usize, Vec<String>) {
        let seen = self.seen.lock().unwrap();
        (seen.len(), lost(&seen))
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

/// The changes that routed traffic to a side that had no ready pod, or whose pods were never seen.
fn lost(changes: &Changes) -> Vec<String> {
    let workloads = changes.values().filter_map(|(kind, object)| {
        let side = (*kind == Kind::Deployment).then(|| side(object))??;
        Some((side, ready_pods(object)))
    });
    // The first lists may contain a route that is older than the workloads behind it.
    let first = |side| workloads.clone().find(|(of, _)| *of == side);
    let mut ready = [0, 1].map(|side| first(side).map(|(_, ready)| ready));
    let mut weights = [0, 0];
    let mut lost = Vec::new();
    for (version, (kind, object)) in changes {
        if *kind == Kind::VirtualService {
            for (side, weight) in weights.iter_mut().enumerate() {
                let weighed = object.pointer(&format!("/spec/http/0/route/{side}/weight"));
                *weight = weighed.and_then(Value::as_i64).unwrap_or(0);
            }
        } else if let Some(side) = side(object) {
            ready[side] = Some(ready_pods(object));
        }
        for (side, name) in ["the primary", "the canary"].iter().enumerate() {
            let why = match ready[side] {
                _ if weights[side] == 0 => continue,
                None => "its pods were never seen",
                Some(0) => "no ready pod",
                Some(_) => continue,
            };
            lost.push(format!(
                "at {version} {name} has {} % and {why}",
                weights[side]
            ));
        }
    }
    lost
}

fn ready_pods(deployment: &Value) -> i64 {
    let ready = deployment.pointer("/status/readyReplicas");
    ready.and_then(Value::as_i64).unwrap_or(0)
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

/// A route with the weight of the canary, or the number of ready pods of a workload.
fn change(name: &str, number: i64) -> (Kind, Value) {
    match name {
        "route" => {
            let route = json!([{"weight": 100 - number}, {"weight": number}]);
            (
                Kind::VirtualService,
                json!({"spec": {"http": [{"route": route}]}}),
            )
        }
        name => {
            let status = json!({"readyReplicas": number});
            (
                Kind::Deployment,
                json!({"metadata": {"name": name}, "status": status}),
            )
        }
    }
}

#[test]
fn traffic_to_a_side_without_ready_pods_or_whose_pods_were_never_seen_is_found() {
    let (primary, canary) = ("podinfo-primary", "podinfo");
    for (changes, expected) in [
        (
            &[(primary, 2), ("route", 0), (canary, 2), ("route", 5)][..],
            0,
        ),
        (&[("route", 0), (primary, 2)], 0),
        (&[("route", 0)], 1),
        (&[(primary, 2), ("route", 5)], 1),
        (&[(primary, 2), (canary, 2), ("route", 5), (canary, 0)], 1),
        (&[(primary, 0), (canary, 2), ("route", 100)], 0),
        (&[(primary, 0), (canary, 2), ("route", 95)], 1),
    ] {
        let numbered = (1..).zip(changes.iter().map(|(name, number)| change(name, *number)));
        let lost = lost(&numbered.collect());
        assert_eq!(lost.len(), expected, "{changes:?}: {lost:?}");
    }
}
