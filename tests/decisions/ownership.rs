//! Checks that objects of other owners are refused, with an event, and are neither changed nor deleted.

use std::collections::BTreeMap;

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
    snapshot::{Kind, ObjectRef},
};
use serde_json::{Value, json};

use super::{routers::distinct, simulation::Simulation};

/// The names of the annotation and the condition on the wire.
const ADOPT: &str = "flagger-rs.github.io/adopt";
const CONDITION: &str = "ForeignObject";

/// A Canary's spec that needs an object of this kind and name.
type Case = (Kind, &'static str, Value);

/// The objects that the operator makes for workloads, and those of each router.
fn cases() -> Vec<Case> {
    let of_workloads = [
        (Kind::Deployment, "podinfo-primary", json!({})),
        (
            Kind::DaemonSet,
            "podinfo-primary",
            json!({"targetRef": {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "podinfo"}}),
        ),
        (Kind::Service, "podinfo-canary", json!({})),
        (Kind::ConfigMap, "color-primary", json!({})),
        (Kind::Secret, "color-primary", json!({})),
    ];
    let scalers = [Kind::HorizontalPodAutoscaler, Kind::ScaledObject].map(|kind| {
        let scaler = json!({"apiVersion": "v", "kind": kind.name(), "name": "podinfo"});
        (kind, "podinfo-primary", json!({"autoscalerRef": scaler}))
    });
    let of_workloads = of_workloads.into_iter().chain(scalers).map(|mut case| {
        case.2["provider"] = json!("kubernetes");
        case
    });
    let of_routers = distinct().into_iter().flat_map(|row| {
        let mut spec = row.reference();
        spec["provider"] = json!(row.provider);
        row.written()
            .map(move |(kind, name)| (kind, name, spec.clone()))
    });
    let grpc = [(
        Kind::GrpcRoute,
        "podinfo",
        json!({"provider": "gatewayapi:v1"}),
    )];
    let copies = COPIES.map(|kind| (kind, "podinfo-flagger", json!({"provider": "kubernetes"})));
    let cases = of_workloads.chain(of_routers).chain(grpc).chain(copies);
    let mut cases: Vec<_> = cases.collect();
    for (kind, _, spec) in &mut cases {
        spec["service"] =
            json!({"port": 80, "meshName": "global", "gatewayRefs": [{"name": "gw"}]});
        if *kind == Kind::GrpcRoute {
            spec["service"]["grpc"] = json!({});
        }
        if COPIES.contains(kind) {
            let parents = json!([{"name": "gw"}]);
            let copy = json!({"kind": kind.name(), "name": "podinfo", "mode": "Template", "parentRefs": parents});
            spec["service"]["routeRefs"] = json!([copy]);
        }
    }
    cases
}

/// The kinds of routes that the operator creates only as copies of the user's.
const COPIES: [Kind; 2] = [Kind::TlsRoute, Kind::TcpRoute];

/// The first case of a kind.
fn spec_for(kind: Kind) -> Value {
    let mut cases = cases().into_iter();
    cases.find(|case| case.0 == kind).unwrap().2
}

/// A new canary with all that it refers to.
fn new(kind: Kind, spec: &Value) -> Simulation {
    let mut spec = spec.clone();
    spec["analysis"] = json!({"stepWeight": 50});
    let mut sim = Simulation::new(spec);
    match kind {
        Kind::ConfigMap | Kind::Secret => refer_to(&mut sim, kind, "color"),
        kind if COPIES.contains(&kind) => {
            let template = sim.snapshot.reference(kind, "podinfo");
            let rule = json!({"backendRefs": [{"name": "podinfo", "port": 80}]});
            sim.store(template, json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": {"rules": [rule]}}));
        }
        Kind::ScaledObject => {
            let source = sim.snapshot.reference(kind, "podinfo");
            sim.store(source, json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": {"scaleTargetRef": {"name": "podinfo"}, "minReplicaCount": 2, "triggers": []}}));
        }
        _ => {}
    }
    sim
}

/// Makes the target read a config, which exists.
fn refer_to(sim: &mut Simulation, kind: Kind, name: &str) {
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    let field = if kind == Kind::Secret {
        "secretRef"
    } else {
        "configMapRef"
    };
    let container = "/spec/template/spec/containers/0";
    let target = sim.snapshot.objects.get_mut(&target).unwrap();
    target.pointer_mut(container).unwrap()["envFrom"] = json!([{field: {"name": name}}]);
    let mut config = json!({"metadata": {"name": name, "namespace": "test"}, "data": {"k": "v"}});
    if kind == Kind::Secret {
        config["type"] = json!("Opaque");
    }
    let name = sim.snapshot.reference(kind, name);
    sim.store(name, config);
}

fn controlled_by(version: &str, kind: &str, name: &str) -> Value {
    json!([{"apiVersion": version, "kind": kind, "name": name, "uid": "u", "controller": true}])
}

/// Stores an object of another owner.
fn store(sim: &mut Simulation, name: &ObjectRef, owners: &Value) -> Value {
    let mut object = json!({"apiVersion": name.kind.api_version(), "kind": name.kind.name(),
        "metadata": {"name": name.name, "namespace": "test", "ownerReferences": owners},
        "spec": {"theirs": true, "parentRefs": [{"name": "public"}], "scaleTargetRef": {"name": "elsewhere"}, "service": "podinfo", "backends": [{"service": "podinfo", "weight": 100}]}, "data": {"theirs": "yes"}});
    if matches!(name.kind, Kind::Deployment | Kind::DaemonSet) {
        let labels = json!({"app": "theirs"});
        object["spec"]["selector"] = json!({"matchLabels": labels});
        object["spec"]["template"]["metadata"]["labels"] = labels;
    }
    sim.store(name.clone(), object);
    sim.snapshot.objects[name].clone()
}

fn has_condition(sim: &Simulation) -> bool {
    let mut conditions = sim.snapshot.status().conditions.iter().flatten();
    conditions.any(|condition| condition.type_ == CONDITION)
}

/// All objects, without the status that the controllers of Kubernetes write.
fn written(sim: &Simulation) -> BTreeMap<ObjectRef, Value> {
    let mut objects = sim.snapshot.objects.clone();
    for object in objects.values_mut() {
        object["status"].take();
    }
    objects
}

/// Fails unless the canary is refused because of this object, and writes nothing.
fn is_refused(sim: &mut Simulation, name: &ObjectRef, owner: &str) {
    let before = written(sim);
    sim.notified.clear();
    sim.run(100);
    let after = written(sim);
    let (kind, text) = (name.kind.name(), &name.name);
    let changed: Vec<_> = before
        .iter()
        .filter(|(object, value)| after.get(object) != Some(value))
        .collect();
    assert!(changed.is_empty(), "{kind} {text}: {changed:?}");
    assert_eq!(
        after.len(),
        before.len(),
        "{kind} {text}: {}",
        sim.transcript()
    );
    let event = format!("the {kind} {text} exists already and belongs to {owner}. ");
    assert_eq!(sim.count_notified(&event), 1, "{event}: {:?}", sim.notified);
    assert_eq!(sim.count_notified(ADOPT), 1);
    assert!(has_condition(sim));
}

/// Each kind that the operator creates needs a case. The kinds of routers have theirs from the table of routers.
#[test]
fn an_object_of_another_owner_is_refused_until_it_is_gone_or_given_away() {
    for kind in Kind::ALL {
        // The names of records are not those of users' objects.
        let is_written = kind.verbs().contains(&"create") && *kind != Kind::Release;
        let has_case = cases().iter().any(|case| case.0 == *kind);
        assert_eq!(has_case, is_written, "{kind:?}");
    }
    for (kind, name, spec) in cases() {
        // Flagger adopts a route that belongs to no Canary.
        let is_adopted = ["podinfo", "podinfo.test"].contains(&name);
        let is_config = matches!(kind, Kind::ConfigMap | Kind::Secret);
        let cases = [
            (
                controlled_by("flagger.app/v1beta1", "Canary", "other"),
                "Canary other",
                is_config,
            ),
            (
                controlled_by("apps/v1", "Deployment", "podinfo"),
                "Deployment podinfo",
                is_adopted,
            ),
            (
                controlled_by("birds.io/v1", "Canary", "podinfo"),
                "Canary podinfo",
                is_adopted,
            ),
            (json!([]), "no Canary", is_adopted),
        ];
        for (owners, owner, is_fine) in cases {
            if is_fine {
                continue;
            }
            let mut sim = new(kind, &spec);
            let name = sim.snapshot.reference(kind, name);
            store(&mut sim, &name, &owners);
            is_refused(&mut sim, &name, owner);
            let mut given = sim.snapshot.objects[&name].clone();
            given["metadata"]["annotations"] = json!({ADOPT: "true"});
            sim.snapshot.objects.insert(name.clone(), given);
            let before = sim.writes;
            sim.run(3);
            assert!(
                !has_condition(&sim) && sim.writes > before + 1,
                "{name:?} is given away"
            );
            let mut sim = new(kind, &spec);
            store(&mut sim, &name, &owners);
            sim.run(50);
            sim.snapshot.objects.remove(&name);
            sim.run_until(CanaryPhase::Initialized);
            assert!(sim.snapshot.objects.contains_key(&name) && !has_condition(&sim));
        }
    }
}

/// A restored backup gives a Canary another uid, and `kubectl delete --cascade=orphan` removes the owners.
#[test]
fn a_canary_that_is_made_again_goes_on_with_the_objects_of_the_earlier_one() {
    for (kind, name, spec) in cases() {
        for orphaned in [false, true] {
            let mut sim = new(kind, &spec);
            sim.run_until(CanaryPhase::Initialized);
            sim.snapshot.canary.status = None;
            sim.snapshot.canary.metadata.uid = Some("new".to_owned());
            for object in sim.snapshot.objects.values_mut() {
                if orphaned {
                    object["metadata"]
                        .as_object_mut()
                        .unwrap()
                        .remove("ownerReferences");
                }
            }
            let before: Vec<_> = sim.snapshot.objects.keys().cloned().collect();
            sim.run_until(CanaryPhase::Initialized);
            sim.image("podinfo:2");
            sim.run_until(CanaryPhase::Succeeded);
            assert_eq!(sim.count_notified(ADOPT), 0, "{kind:?} {name}");
            let after: Vec<_> = sim.snapshot.objects.keys().cloned().collect();
            assert_eq!(after, before, "{kind:?}: no object gets another name");
            // The garbage collector deletes what belongs to a uid that does not exist.
            for (name, object) in &sim.snapshot.objects {
                let owners = object["metadata"]["ownerReferences"].as_array();
                let mut owners = owners.into_iter().flatten();
                assert!(
                    owners.all(|owner| owner["uid"] == "new"),
                    "{name:?} {object}"
                );
            }
        }
    }
}

/// Until the object is gone, the primary serves all requests, and the operator repairs the canary's own objects.
#[test]
fn a_new_version_that_needs_an_object_of_others_starts_no_run() {
    let spec = spec_for(Kind::VirtualService);
    let mut sim = new(Kind::VirtualService, &spec);
    sim.run_until(CanaryPhase::Initialized);
    refer_to(&mut sim, Kind::ConfigMap, "color");
    sim.image("podinfo:2");
    let name = sim.snapshot.reference(Kind::ConfigMap, "color-primary");
    store(&mut sim, &name, &json!([]));
    is_refused(&mut sim, &name, "no Canary");
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initialized);
    let route = sim.snapshot.reference(Kind::VirtualService, "podinfo");
    sim.snapshot.objects.remove(&route);
    sim.run(20);
    assert!(sim.snapshot.objects.contains_key(&route));
    sim.snapshot.objects.remove(&name);
    sim.run(10);
    sim.run_until(CanaryPhase::Succeeded);
}

/// Another owner replaces the primary while a version is under analysis.
#[test]
fn a_run_changes_no_object_of_others_either() {
    let spec = spec_for(Kind::VirtualService);
    let mut sim = new(Kind::VirtualService, &spec);
    sim.run_until(CanaryPhase::Initialized);
    sim.image("podinfo:2");
    sim.run_until_phase(CanaryPhase::Progressing);
    let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    let object = sim.snapshot.objects.get_mut(&primary).unwrap();
    object["metadata"]["ownerReferences"] = controlled_by("example.com/v1", "App", "shop");
    let template = object["spec"]["template"].clone();
    sim.run(100);
    assert_eq!(sim.snapshot.objects[&primary]["spec"]["template"], template);
    assert!(
        sim.count_notified("the Deployment podinfo-primary exists already and belongs to App shop")
            > 0
    );
    sim.snapshot.objects.get_mut(&primary).unwrap()["metadata"]["annotations"] =
        json!({ADOPT: "true"});
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_deletion_gives_back_no_object_of_another_canary() {
    let mut spec = spec_for(Kind::VirtualService);
    spec["revertOnDeletion"] = json!(true);
    let mut sim = new(Kind::VirtualService, &spec);
    sim.run_until(CanaryPhase::Initialized);
    let owners = controlled_by("flagger.app/v1beta1", "Canary", "other");
    let names =
        [Kind::VirtualService, Kind::Service].map(|kind| sim.snapshot.reference(kind, "podinfo"));
    for name in &names {
        sim.snapshot.objects.get_mut(name).unwrap()["metadata"]["ownerReferences"] = owners.clone();
    }
    let before = names
        .each_ref()
        .map(|name| sim.snapshot.objects[name].clone());
    sim.delete();
    sim.run(200);
    assert!(sim.is_gone(), "{}", sim.transcript());
    assert_eq!(
        names
            .each_ref()
            .map(|name| sim.snapshot.objects[name].clone()),
        before
    );
}

/// After an edit of the Canary, its release needs objects under names that the initialization did not use.
#[test]
fn an_object_of_others_stays_when_an_edit_of_the_canary_asks_for_its_name() {
    type Edit = fn(&mut Simulation);
    let edits: [(Kind, &str, Edit); 3] = [
        (Kind::Service, "shop-primary", |sim| {
            sim.snapshot.canary.spec.service.name = Some("shop".to_owned());
        }),
        (Kind::Service, "shop-canary", |sim| {
            sim.snapshot.canary.spec.service.name = Some("shop".to_owned());
        }),
        (Kind::DestinationRule, "podinfo-primary", |sim| {
            sim.snapshot.canary.spec.provider = Some("istio".to_owned());
        }),
    ];
    for (kind, name, edit) in edits {
        let mut sim = new(kind, &spec_for(Kind::Service));
        sim.run_until(CanaryPhase::Initialized);
        let name = sim.snapshot.reference(kind, name);
        store(&mut sim, &name, &json!([]));
        let before = sim.snapshot.objects[&name].clone();
        edit(&mut sim);
        sim.run(50);
        assert_eq!(sim.snapshot.objects[&name], before, "{kind:?}");
        assert!(has_condition(&sim), "{kind:?}");
        assert_eq!(sim.count_notified(ADOPT), 1, "{kind:?}: {:?}", sim.notified);
    }
}

/// The DNS name of such a Service resolves to a host outside of the cluster, whatever its selector is.
#[test]
fn a_service_that_leads_to_an_external_name_is_refused() {
    let mut sim = new(Kind::Service, &spec_for(Kind::Service));
    let name = sim.snapshot.reference(Kind::Service, "podinfo");
    let external = json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": {"type": "ExternalName", "externalName": "shop.example.com"}});
    sim.store(name.clone(), external.clone());
    sim.run(50);
    assert_eq!(sim.snapshot.objects[&name]["spec"], external["spec"]);
    let why = "the Service podinfo exists already and is of the type ExternalName, which leads to no pods";
    assert_eq!(sim.count_notified(why), 1, "{:?}", sim.notified);
}

/// The operator only reads an object of another namespace. Kubernetes would delete an object whose owner is in another namespace.
#[test]
fn an_object_of_another_namespace_is_not_given_to_a_canary_of_the_same_name() {
    let mut sim = new(Kind::VirtualService, &spec_for(Kind::VirtualService));
    let mut read = sim.snapshot.reference(Kind::Service, "podinfo");
    read.namespace = "elsewhere".to_owned();
    let owners = controlled_by("flagger.app/v1beta1", "Canary", "podinfo");
    let theirs = json!({"metadata": {"name": "podinfo", "namespace": "elsewhere", "ownerReferences": owners}});
    sim.snapshot.objects.insert(read.clone(), theirs.clone());
    sim.run_until(CanaryPhase::Initialized);
    assert_eq!(sim.snapshot.objects[&read], theirs);
}

/// The user's route keeps its gateway.
#[test]
fn a_route_that_an_adoption_would_take_something_from_stays_and_the_canary_is_not_run() {
    for is_initialized in [false, true] {
        let mut sim = new(Kind::HttpRoute, &spec_for(Kind::HttpRoute));
        if is_initialized {
            sim.run_until(CanaryPhase::Initialized);
        }
        let name = sim.snapshot.reference(Kind::HttpRoute, "podinfo");
        let theirs = json!({"metadata": {"name": "podinfo", "namespace": "test"}, "spec": {"parentRefs": [{"name": "of-shop"}], "rules": []}});
        sim.store(name.clone(), theirs.clone());
        sim.notified.clear();
        sim.run(50);
        assert_eq!(sim.snapshot.objects[&name]["spec"], theirs["spec"]);
        assert!(has_condition(&sim), "{}", sim.transcript());
        let why = format!("the {} podinfo", name.kind.name());
        assert_eq!(sim.count_notified(&why), 1, "{:?}", sim.notified);
    }
}

/// A restore or `kubectl replace` has taken the owner and the selector of a Service. The routes of the run lead to it.
#[test]
fn a_service_that_is_replaced_in_a_run_selects_its_workload_again_before_it_gets_more_traffic() {
    for name in ["podinfo-primary", "podinfo-canary"] {
        let mut sim = new(Kind::VirtualService, &spec_for(Kind::VirtualService));
        sim.run_until(CanaryPhase::Initialized);
        sim.image("podinfo:2");
        while sim.canary_weight() == 0 {
            sim.reconcile();
        }
        let name = sim.snapshot.reference(Kind::Service, name);
        let object = sim.snapshot.objects.get_mut(&name).unwrap();
        let selector = object["spec"]["selector"].clone();
        for field in ["ownerReferences", "annotations", "labels"] {
            object["metadata"].as_object_mut().unwrap().remove(field);
        }
        object["spec"]["selector"] = json!({"app": "somebody"});
        let weight = sim.canary_weight();
        while sim.snapshot.objects[&name]["spec"]["selector"] != selector {
            sim.reconcile();
            assert_eq!(sim.canary_weight(), weight, "{}", sim.transcript());
        }
        sim.run_until(CanaryPhase::Succeeded);
    }
}

/// The primary still has the promoted version, so the traffic of the new one goes back to it.
#[test]
fn a_promotion_that_an_object_of_others_blocks_is_rolled_back_at_the_deadline() {
    let mut sim = new(Kind::VirtualService, &spec_for(Kind::VirtualService));
    sim.run_until(CanaryPhase::Initialized);
    sim.snapshot.canary.spec.progress_deadline_seconds = Some(60);
    sim.image("podinfo:2");
    sim.run_until_phase(CanaryPhase::Progressing);
    let primary = sim.snapshot.reference(Kind::Deployment, "podinfo-primary");
    let object = sim.snapshot.objects.get_mut(&primary).unwrap();
    object["metadata"]["ownerReferences"] = controlled_by("example.com/v1", "App", "shop");
    sim.run_until_phase(CanaryPhase::Failed);
    assert_eq!(sim.canary_weight(), 0, "{}", sim.transcript());
    let verdict = sim.snapshot.status().condition(ConditionType::Verdict);
    let verdict = verdict.and_then(|it| it.message.clone()).unwrap();
    assert!(verdict.contains("belongs to App shop"), "{verdict}");
}
