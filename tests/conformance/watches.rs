//! Runs one cluster-wide watch per kind and passes each change to the scenario that owns the namespace.

use std::{collections::BTreeMap, sync::Arc};

use flagger_rs::snapshot::Kind;
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
    routers::ROUTERS,
    seen::{Change, Seen},
};

/// The kinds of route objects, each in its newest version. An object is served in all of them.
fn routes() -> Vec<Kind> {
    let mut newest = BTreeMap::new();
    let kinds = ROUTERS
        .iter()
        .flat_map(|row| row.objects)
        .map(|(kind, _)| *kind);
    for kind in kinds {
        let (group, version) = kind.group_version();
        let is_stable = !version.contains("alpha") && !version.contains("beta");
        let one = newest
            .entry((group, kind.plural()))
            .or_insert((is_stable, version, kind));
        *one = (*one).max((is_stable, version, kind));
    }
    newest.into_values().map(|(.., kind)| kind).collect()
}

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
        let routes = routes().into_iter().map(|kind| {
            let kind = (kind.api_version(), kind.name());
            (kind, Seen::route as fn(&Seen, &Change))
        });
        let named = |(version, kind): (&str, &'static str)| (version.to_owned(), kind);
        let workloads = WORKLOADS.map(|kind| (named(kind), Seen::workload as fn(&Seen, &Change)));
        let own = [
            (
                named((FLAGGER, "Canary")),
                Seen::canary as fn(&Seen, &Change),
            ),
            (named(("v1", "Event")), Seen::event),
        ];
        let all = routes.chain(workloads).chain(own);
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
    version: String,
    kind: &'static str,
    stage: Arc<Stage>,
    to: fn(&Seen, &Change),
) {
    let (group, short) = version.rsplit_once('/').unwrap_or(("", &version));
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
