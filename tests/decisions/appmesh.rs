//! AWS App Mesh: its controller adds fields to each object, refuses changes of them, and gives a pod its proxy by the VirtualNode that
//! selects the pod.

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout,
    snapshot::{Kind, ObjectRef, Weights},
};
use serde_json::{Value, json};

use super::{contour::until, routes::on, simulation::Simulation, transcript};

const PROVIDER: &str = "appmesh:v1beta2";

/// The fields that App Mesh's controller adds to an object.
fn controller(kind: Kind, object: &mut Value) {
    if kind.group_version().0 != "appmesh.k8s.aws" {
        return;
    }
    object["spec"]["awsName"] = json!("podinfo_test");
    object["spec"]["meshRef"] = json!({"name": "global", "uid": "m"});
    object["metadata"]["finalizers"] = json!(["finalizers.appmesh.k8s.aws/aws-appmesh-resources"]);
    if kind == Kind::AppMeshNode {
        object["spec"]["serviceDiscovery"]["dns"]["ipPreference"] = json!("IPv4_PREFERRED");
    }
}

fn release(analysis: Value) -> Simulation {
    let mut sim = on(PROVIDER, analysis);
    sim.policy = Some(controller);
    sim
}

fn spec(sim: &Simulation, kind: Kind, name: &str) -> Value {
    sim.snapshot.object(kind, name).unwrap()["spec"].clone()
}

#[test]
fn appmesh_shares_traffic() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("appmesh", &sim);
}

#[test]
fn the_older_version_of_appmesh_shares_traffic() {
    let mut sim = on("appmesh", json!({"stepWeight": 50}));
    sim.policy = Some(controller);
    sim.run_until(CanaryPhase::Succeeded);
    transcript("appmesh-v1beta1", &sim);
    let before = sim.writes;
    sim.run(50);
    assert_eq!(sim.writes, before, "{}", sim.transcript());
}

/// Flagger reports the missing name at each tick, and creates nothing.
#[test]
fn the_older_version_needs_the_name_of_the_mesh() {
    let service = json!({"port": 9898});
    let mut sim = Simulation::new(
        json!({"provider": "appmesh", "service": service, "analysis": {"stepWeight": 50}}),
    );
    sim.run(30);
    assert!(sim.snapshot.primary().is_none());
    assert!(sim.count_notified("mesh name cannot be empty") > 0);
    sim.snapshot.canary.spec.service.mesh_name = Some("global".to_owned());
    sim.run_until(CanaryPhase::Initialized);
}

#[test]
fn appmesh_rolls_a_bad_version_back() {
    let mut sim = release(json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("appmesh-rollback", &sim);
}

#[test]
fn appmesh_routes_matching_requests_to_the_canary() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = release(json!({"iterations": 2, "match": test}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("appmesh-ab", &sim);
}

/// Flagger updates the VirtualNodes of the older version at each tick.
#[test]
fn the_fields_of_the_controller_cause_no_write() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.run_until(CanaryPhase::Succeeded);
    let before = sim.writes;
    sim.run(50);
    assert_eq!(sim.writes, before, "{}", sim.transcript());
}

/// A new Canary, none of whose objects exist.
fn new() -> Simulation {
    let analysis = json!({"stepWeight": 50});
    let mut sim = Simulation::new(
        json!({"provider": PROVIDER, "service": {"port": 9898}, "analysis": analysis}),
    );
    sim.policy = Some(controller);
    sim
}

/// The controller gives a pod its proxy when the pod is created, if a VirtualNode selects it.
#[test]
fn the_virtual_nodes_are_there_before_the_primarys_pods() {
    let mut sim = new();
    until(&mut sim, |sim| {
        let node = |name: &str| sim.snapshot.object(Kind::AppMeshNode, name).is_some();
        let is_there = sim.snapshot.primary().is_some();
        assert!(!is_there || node("podinfo-primary") && node("podinfo-canary"));
        is_there
    });
    assert!(rollout::weights(&sim.snapshot).is_none());
    sim.run_until(CanaryPhase::Initialized);
    assert_eq!(rollout::weights(&sim.snapshot), Some(Weights::PRIMARY));
}

/// A release with half of the traffic on the canary.
fn midway() -> Simulation {
    let mut sim = release(json!({"stepWeight": 50}));
    until(&mut sim, |sim| {
        rollout::weights(&sim.snapshot) == Some(Weights::canary(50))
    });
    sim
}

/// The specs of all objects of App Mesh, without the fields of the controller.
fn specs(sim: &Simulation) -> Vec<(ObjectRef, Value)> {
    let all = sim.snapshot.objects.iter();
    let ours = all.filter(|(name, _)| name.kind.group_version().0 == "appmesh.k8s.aws");
    ours.map(|(name, object)| {
        let mut spec = object["spec"].clone();
        spec["awsName"].take();
        spec["meshRef"].take();
        if let Some(dns) = spec.pointer_mut("/serviceDiscovery/dns") {
            dns["ipPreference"].take();
        }
        (name.clone(), spec)
    })
    .collect()
}

#[test]
fn drift_is_repaired_with_the_current_weights() {
    let before = specs(&midway());
    assert_eq!(before.len(), 6);
    for (name, spec) in &before {
        let has = |field: &&str| spec.get(*field).is_some();
        let fields = ["listeners", "podSelector", "provider", "routes"].into_iter();
        for field in fields.filter(has) {
            let mut sim = midway();
            let live = sim.snapshot.objects.get_mut(name).unwrap();
            live["spec"][field] = json!([]);
            sim.reconcile();
            assert_eq!(specs(&sim), before, "{name:?} {field}");
        }
        let mut sim = midway();
        sim.snapshot.objects.remove(name);
        sim.reconcile();
        assert_eq!(specs(&sim), before, "{name:?}");
    }
}

#[test]
fn a_step_waits_until_the_controller_has_processed_the_last_one() {
    let mut sim = release(json!({"stepWeight": 20, "maxWeight": 60}));
    until(&mut sim, |sim| {
        rollout::weights(&sim.snapshot) == Some(Weights::canary(20))
    });
    let router = sim.snapshot.reference(Kind::AppMeshRouter, "podinfo");
    let observe = |sim: &mut Simulation, generation: i64| {
        let live = sim.snapshot.objects.get_mut(&router).unwrap();
        live["metadata"]["generation"] = json!(7);
        live["status"] = json!({"observedGeneration": generation});
    };
    observe(&mut sim, 6);
    sim.run(30);
    assert_eq!(rollout::weights(&sim.snapshot), Some(Weights::canary(20)));
    assert!(
        sim.count_notified("VirtualRouter podinfo is not taken up by App Mesh's controller") > 0
    );
    // A rollback does not wait.
    let mut bad = release(json!({"stepWeight": 20, "threshold": 1}));
    bad.metric = "42".to_owned();
    until(&mut bad, |sim| {
        rollout::weights(&sim.snapshot) == Some(Weights::canary(20))
    });
    until(&mut bad, |sim| {
        rollout::weights(&sim.snapshot) == Some(Weights::PRIMARY)
    });
    observe(&mut sim, 7);
    until(&mut sim, |sim| {
        rollout::weights(&sim.snapshot) == Some(Weights::canary(40))
    });
}

/// The Services of the primary and of the canary are deleted with the Canary: no VirtualNode may have their DNS names.
#[test]
fn a_canary_that_is_deleted_midway_leaves_routes_to_the_target_only() {
    let mut sim = release(json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    while sim.analysed.is_empty() {
        sim.reconcile();
    }
    sim.delete();
    sim.run(100);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(rollout::weights(&sim.snapshot), Some(Weights::PRIMARY));
    let node = spec(&sim, Kind::AppMeshNode, "podinfo-primary");
    let host = &node["serviceDiscovery"]["dns"]["hostname"];
    assert_eq!(host, "podinfo.test.svc.cluster.local.");
    assert_eq!(node["awsName"], "podinfo_test");
}

/// Clients use the VirtualService that their user made. Its routes stay until the primary can answer.
#[test]
fn a_virtual_router_of_a_user_leads_to_the_primary_when_the_primary_is_ready() {
    let mut sim = new();
    let targets = json!([{"virtualNodeRef": {"name": "podinfo"}, "weight": 100}]);
    let routes = json!([{"name": "main", "httpRoute": {"match": {"prefix": "/"}, "action": {"weightedTargets": targets}}}]);
    let router = sim.snapshot.reference(Kind::AppMeshRouter, "podinfo");
    let theirs =
        json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": {"routes": routes}});
    sim.store(router.clone(), theirs);
    until(&mut sim, |sim| {
        let is_theirs = sim.snapshot.objects[&router]["spec"]["routes"] == routes;
        assert!(is_theirs || sim.snapshot.primary_has_ready_pods());
        !is_theirs
    });
    sim.run_until(CanaryPhase::Initialized);
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run(20);
    sim.delete();
    sim.run(100);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(sim.snapshot.objects[&router]["spec"]["routes"], routes);
}

#[test]
fn a_suspended_canary_is_not_written() {
    let mut sim = midway();
    sim.snapshot.canary.spec.suspend = true;
    sim.run(3);
    let before = sim.writes;
    sim.image("podinfo:3");
    sim.run(30);
    assert_eq!(sim.writes, before, "{}", sim.transcript());
    assert_eq!(rollout::weights(&sim.snapshot), Some(Weights::canary(50)));
}
