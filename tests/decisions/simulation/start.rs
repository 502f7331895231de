//! The initial objects of a simulation: a Canary, its target, and the objects that its spec refers to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flagger_rs::{
    api::canary::Canary,
    rollout::Evidence,
    shell::controller::reconcile_state::ReconcileState,
    snapshot::{Kind, ObjectRef, Settings, Snapshot, TargetKind},
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Simulation, cluster::bump_generation};
use crate::routers;

/// An initialized canary with this analysis, whose target has just got a new version.
pub fn release(analysis: Value) -> Simulation {
    release_of(json!({"analysis": analysis}))
}

/// Like `release`, but any field of the Canary's spec can replace its usual value.
pub fn release_of(spec: Value) -> Simulation {
    begin(Simulation::new(spec))
}

/// Like `release`, for a target that a ScaledObject with these fields scales.
pub fn scaled(analysis: Value, spec: &Value) -> Simulation {
    let reference =
        json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "podinfo-so"});
    let mut sim = Simulation::new(json!({"analysis": analysis, "autoscalerRef": reference}));
    let mut all = json!({"scaleTargetRef": {"name": "podinfo"}, "triggers": []});
    merge(&mut all, spec);
    let name = sim.snapshot.reference(Kind::ScaledObject, "podinfo-so");
    let object = json!({"metadata": {"name": "podinfo-so", "namespace": "test"}, "spec": all});
    sim.store(name, object);
    begin(sim)
}

/// Initializes the canary, updates the image of its target, and forgets what happened until then.
fn begin(mut sim: Simulation) -> Simulation {
    while sim.snapshot.now.as_second() < 15 {
        sim.reconcile();
    }
    sim.image("podinfo:2");
    sim.lines.clear();
    sim.routed.clear();
    sim.notified.clear();
    sim.writes = 0;
    sim
}

impl Simulation {
    /// A cluster with a new Canary, and with the objects that it refers to.
    pub fn new(spec: Value) -> Self {
        let mut sim = Self::empty(snapshot(canary(&spec)));
        sim.store_sources();
        sim.store_autoscaler();
        sim.store_target();
        sim
    }

    /// A cluster with these objects of a user, one of which is a new Canary. If an object comes twice, the second is its next version.
    pub fn given(objects: &[Value]) -> Self {
        let canary = objects.iter().find(|object| object["kind"] == "Canary");
        let mut canary = canary.unwrap().clone();
        canary["metadata"]["uid"] = json!("c");
        let mut sim = Self::empty(snapshot(serde_json::from_value(canary).unwrap()));
        let settings = Arc::make_mut(&mut sim.snapshot.settings);
        settings.include_label_prefix = vec!["team".into()];
        for object in objects.iter().filter(|object| object["kind"] != "Canary") {
            let name = sim.named(object);
            if !sim.snapshot.objects.contains_key(&name) {
                sim.store(name, object.clone());
            }
        }
        sim
    }

    /// Updates the objects that come twice to their second version.
    pub fn update(&mut self, objects: &[Value]) {
        for (index, object) in objects.iter().enumerate() {
            let name = self.named(object);
            if !objects[..index]
                .iter()
                .any(|first| self.named(first) == name)
            {
                continue;
            }
            let mut next = object.clone();
            let metadata = &self.snapshot.objects[&name]["metadata"];
            next["metadata"]["uid"] = metadata["uid"].clone();
            next["metadata"]["generation"] = metadata["generation"].clone();
            bump_generation(&mut next);
            self.store(name, next);
        }
    }

    fn named(&self, object: &Value) -> ObjectRef {
        let is = |kind: &&Kind| {
            object["kind"] == kind.name() && object["apiVersion"] == kind.api_version()
        };
        let kind = *Kind::ALL.iter().find(is).unwrap();
        self.snapshot
            .reference(kind, object["metadata"]["name"].as_str().unwrap())
    }

    fn empty(snapshot: Snapshot) -> Self {
        Self {
            snapshot,
            evidence: Evidence::new(),
            memory: ReconcileState::default(),
            metric: "100".into(),
            online: "1",
            traffic: None,
            closed: BTreeSet::new(),
            dead: false,
            broken: None,
            short: None,
            unready: None,
            frozen: false,
            policy: None,
            answers_take: 0,
            crash_after: None,
            writes: 0,
            kept: Vec::new(),
            failed_lists: 0,
            refusals: vec![],
            notified: vec![],
            cookies: BTreeSet::new(),
            analysed: vec![],
            routed: vec![],
            lines: vec![],
        }
    }

    /// Stores the objects beside which the router writes its own.
    fn store_sources(&mut self) {
        let spec = serde_json::to_value(&self.snapshot.canary.spec).unwrap();
        for source in routers::sources() {
            let Some(name) = spec[source.field]["name"].as_str() else {
                continue;
            };
            let metadata = json!({"name": name, "namespace": "test"});
            let object = json!({"metadata": metadata, "spec": (source.spec)()});
            self.store(self.snapshot.reference(source.kind, name), object);
        }
    }

    fn store_autoscaler(&mut self) {
        let Some(scaler) = self.snapshot.canary.spec.autoscaler_ref.clone() else {
            return;
        };
        if scaler.kind != "HorizontalPodAutoscaler" {
            return;
        }
        let name = self
            .snapshot
            .reference(Kind::HorizontalPodAutoscaler, &scaler.name);
        let spec =
            json!({"scaleTargetRef": {"name": "podinfo"}, "minReplicas": 2, "maxReplicas": 4});
        let metadata = json!({"name": scaler.name, "namespace": "test"});
        self.store(name, json!({"metadata": metadata, "spec": spec}));
    }

    fn store_target(&mut self) {
        let kind = TargetKind::of(&self.snapshot.canary).unwrap().kind();
        let template = json!({"metadata": {"labels": {"app": "podinfo"}}, "spec": {"containers": [{"name": "podinfod", "image": "podinfo:1"}]}});
        let selector = json!({"matchLabels": {"app": "podinfo"}});
        let spec = match kind {
            Kind::DaemonSet => json!({"selector": selector, "template": template}),
            Kind::KnativeService => json!({"template": template}),
            Kind::Service => {
                json!({"selector": {"app": "podinfo:1"}, "clusterIP": "10.0.0.1", "ports": [{"port": 80}]})
            }
            _ => json!({"replicas": 2, "selector": selector, "template": template}),
        };
        let target = self.snapshot.reference(kind, "podinfo");
        let metadata = json!({"name": "podinfo", "namespace": "test"});
        self.store(target, json!({"metadata": metadata, "spec": spec}));
    }
}

/// A Canary with the usual spec, in which these fields replace the usual ones.
fn canary(own: &Value) -> Canary {
    let mut spec = json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"}, "service": {"port": 9898}});
    let mut analysis = json!({"interval": "10s", "threshold": 5, "metrics": [{"name": "request-success-rate", "thresholdRange": {"min": 99}}],
        "webhooks": [{"name": "acceptance", "type": "pre-rollout", "url": "http://hooks/acceptance"}, {"name": "load", "url": "http://hooks/load"},
            {"name": "after", "type": "post-rollout", "url": "http://hooks/after"}]});
    merge(&mut analysis, &own["analysis"]);
    merge(&mut spec, own);
    spec["analysis"] = analysis;
    let metadata = json!({"name": "podinfo", "namespace": "test", "uid": "c"});
    let canary = json!({"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": metadata, "spec": spec});
    serde_json::from_value(canary).unwrap()
}

/// Sets the fields of `to` that `from` has; does nothing if `from` is no object.
fn merge(to: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        to[key] = value.clone();
    }
}

fn snapshot(canary: Canary) -> Snapshot {
    let settings = Settings {
        mesh_provider: "istio".into(),
        ingress_annotations_prefix: "nginx.ingress.kubernetes.io".into(),
        ingress_class: String::new(),
        metrics_server: "http://prometheus:9090".into(),
        selector_labels: vec!["app".into()],
        include_label_prefix: vec![],
        config_tracking: true,
        no_cross_namespace_refs: false,
        cluster_name: String::new(),
    };
    Snapshot {
        canary,
        objects: BTreeMap::new(),
        workloads: Arc::default(),
        seen: BTreeSet::new(),
        now: Timestamp::from_second(0).unwrap(),
        tick: None,
        changed: None,
        stalled: BTreeMap::new(),
        paused: BTreeMap::new(),
        undone: BTreeMap::new(),
        forbidden: BTreeMap::new(),
        recently_written: BTreeSet::new(),
        refused: None,
        conflicting_canary: None,
        jitter: jiff::SignedDuration::ZERO,
        nonce: 7,
        settings: Arc::new(settings),
    }
}
