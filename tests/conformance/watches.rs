//! Runs one cluster-wide watch per kind and passes each change to the scenario that owns the namespace.

use std::sync::Arc;

use futures::StreamExt;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    cluster::plural,
    objects::FLAGGER,
    rig::Stage,
    seen::{Change, Seen},
};

/// The kinds of route objects.
const ROUTES: [(&str, &str); 15] = [
    ("networking.istio.io/v1beta1", "VirtualService"),
    ("networking.istio.io/v1beta1", "DestinationRule"),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"),
    ("networking.k8s.io/v1", "Ingress"),
    ("projectcontour.io/v1", "HTTPProxy"),
    ("traefik.io/v1alpha1", "TraefikService"),
    ("split.smi-spec.io/v1alpha3", "TrafficSplit"),
    ("appmesh.k8s.aws/v1beta2", "VirtualNode"),
    ("appmesh.k8s.aws/v1beta2", "VirtualService"),
    ("appmesh.k8s.aws/v1beta2", "VirtualRouter"),
    ("gateway.solo.io/v1", "RouteTable"),
    ("gloo.solo.io/v1", "Upstream"),
    ("kuma.io/v1alpha1", "TrafficRoute"),
    ("apisix.apache.org/v2", "ApisixRoute"),
    ("serving.knative.dev/v1", "Service"),
];
const WORKLOADS: [(&str, &str); 7] = [
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("keda.sh/v1alpha1", "ScaledObject"),
];

/// The running watches. Dropping them stops them.
pub struct Watches(Vec<JoinHandle<()>>);

impl Drop for Watches {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Watches {
    pub fn start(client: &Client, stage: &Arc<Stage>) -> Self {
        let routes = ROUTES.map(|kind| (kind, Seen::route as fn(&Seen, &Change)));
        let workloads = WORKLOADS.map(|kind| (kind, Seen::workload as fn(&Seen, &Change)));
        let own = [
            ((FLAGGER, "Canary"), Seen::canary as fn(&Seen, &Change)),
            (("v1", "Event"), Seen::event),
        ];
        let all = routes.into_iter().chain(workloads).chain(own);
        Self(
            all.map(|((version, kind), to)| {
                tokio::spawn(watch(client.clone(), version, kind, stage.clone(), to))
            })
            .collect(),
        )
    }
}

async fn watch(
    client: Client,
    version: &'static str,
    kind: &'static str,
    stage: Arc<Stage>,
    to: fn(&Seen, &Change),
) {
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(group, short, kind),
        &plural(kind),
    );
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut changes = watcher::watcher(api, watcher::Config::default())
        .default_backoff()
        .boxed();
    while let Some(change) = changes.next().await {
        // The watcher continues after an error.
        let (object, is_gone) = match change {
            Ok(Event::Apply(object) | Event::InitApply(object)) => (object, false),
            Ok(Event::Delete(object)) => (object, true),
            Ok(Event::Init | Event::InitDone) | Err(_) => continue,
        };
        let mut object = serde_json::to_value(object).unwrap();
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        let seen = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => stage.of(namespace),
            None => stage.owner(&object.to_string()),
        };
        if let Some(seen) = seen {
            to(seen, &Change { object, is_gone });
        }
    }
}
