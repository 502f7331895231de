//! `-no-cross-namespace-refs`: no phase writes a route that names an object of another namespace.

use std::sync::Arc;

use flagger_rs::{
    api::canary::{Canary, CanaryPhase},
    rollout,
    snapshot::{Kind, Weights},
};
use serde_json::json;

use super::simulation::{Simulation, release_of};

type Edit = fn(&mut Canary);

/// The edits of a Canary that name an object of the namespace `other`: provider, route, edit, and the field that the message names.
const EDITS: [(&str, Kind, Edit, &str); 8] = [
    (
        "istio",
        Kind::VirtualService,
        |canary| canary.spec.service.gateways = Some(vec!["mesh".into(), "other/public".into()]),
        "spec.service.gateways[1]",
    ),
    (
        "istio",
        Kind::VirtualService,
        |canary| canary.spec.service.hosts = Some(vec!["web.other.svc.cluster.local".into()]),
        "spec.service.hosts[0]",
    ),
    (
        "istio",
        Kind::VirtualService,
        |canary| canary.spec.service.match_ = Some(vec![json!({"gateways": ["other/public"]})]),
        "spec.service.match[0].gateways",
    ),
    (
        "istio",
        Kind::VirtualService,
        |canary| canary.spec.service.hosts = Some(vec!["web.other".into()]),
        "spec.service.hosts[0]",
    ),
    (
        "linkerd",
        Kind::TrafficSplitV1Alpha1,
        |canary| canary.spec.service.hosts = Some(vec!["web.other.svc.cluster.local".into()]),
        "spec.service.hosts[0]",
    ),
    (
        "gatewayapi:v1",
        Kind::HttpRoute,
        |canary| {
            canary.spec.service.gateway_refs =
                Some(vec![json!({"name": "gw", "namespace": "other"})]);
        },
        "spec.service.gatewayRefs[0].namespace",
    ),
    (
        "gatewayapi:v1",
        Kind::HttpRoute,
        |canary| {
            let copy = json!({"backendRef": {"name": "copy", "namespace": "other", "port": 80}});
            canary.spec.service.mirror = Some(vec![copy]);
        },
        "spec.service.mirror[0].backendRef.namespace",
    ),
    (
        "gloo",
        Kind::GlooUpstream,
        |canary| {
            let upstream = json!({"name": "web", "namespace": "other"});
            canary.spec.upstream_ref = serde_json::from_value(upstream).unwrap();
        },
        "spec.upstreamRef",
    ),
];

/// A release with the flag, in this phase. `None` stands for a rollback that has begun.
fn in_phase(provider: &str, phase: Option<CanaryPhase>) -> Simulation {
    let gate = json!({"name": "gate", "type": "confirm-promotion", "url": "http://hooks/gate"});
    let service = json!({"port": 9898, "gatewayRefs": [{"name": "gateway"}]});
    let analysis = json!({"stepWeight": 50, "maxWeight": 50, "threshold": 1, "webhooks": [gate]});
    let mut sim =
        release_of(json!({"provider": provider, "service": service, "analysis": analysis}));
    Arc::make_mut(&mut sim.snapshot.settings).no_cross_namespace_refs = true;
    match phase {
        Some(CanaryPhase::WaitingPromotion) => {
            sim.closed.insert("gate");
        }
        None => sim.metric = "42".to_owned(),
        _ => {}
    }
    match phase {
        Some(CanaryPhase::Initializing) => {
            let status = sim.snapshot.canary.status.as_mut().unwrap();
            status.phase = CanaryPhase::Initializing;
        }
        Some(phase) => sim.run_until_phase(phase),
        None => {
            let is_rolling_back = |sim: &Simulation| {
                let mut conditions = sim.snapshot.status().conditions.iter().flatten();
                conditions.any(|condition| condition.type_.as_str() == "RollingBack")
            };
            while !is_rolling_back(&sim) {
                sim.reconcile();
            }
        }
    }
    sim
}

/// The operator takes over from Flagger, or the flag is set, while a release is under way.
#[test]
fn a_run_whose_route_names_another_namespace_already_comes_to_its_end() {
    let mut sim = in_phase("istio", Some(CanaryPhase::Progressing));
    sim.snapshot.canary.spec.service.gateways = Some(vec!["mesh".into(), "other/public".into()]);
    Arc::make_mut(&mut sim.snapshot.settings).no_cross_namespace_refs = false;
    sim.run(20);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Progressing);
    Arc::make_mut(&mut sim.snapshot.settings).no_cross_namespace_refs = true;
    sim.run_until_phase(CanaryPhase::Succeeded);
    sim.run(20);
    let blocked = "spec.service.gateways[1] may name the namespace test only";
    assert_eq!(
        sim.count_notified(blocked),
        1,
        "the next run is refused: {}",
        sim.transcript()
    );
    assert_eq!(
        sim.count_notified("Rolling back"),
        0,
        "{}",
        sim.transcript()
    );
}

/// A user who may edit Canaries may create other routes, too.
#[test]
fn another_route_that_names_an_object_allows_the_canary_nothing() {
    let mut sim = in_phase("istio", Some(CanaryPhase::Progressing));
    let (_, kind, edit, field) = EDITS[0];
    let decoy = sim.snapshot.reference(kind, "decoy");
    let spec = json!({"http": [{"match": [{"gateways": ["other/public"]}]}], "gateways": ["other/public"]});
    sim.store(
        decoy,
        json!({"metadata": {"name": "decoy", "namespace": "test"}, "spec": spec}),
    );
    edit(&mut sim.snapshot.canary);
    sim.run_until(CanaryPhase::Failed);
    let blocked = format!("{field} may name the namespace test only");
    assert!(sim.count_notified(&blocked) > 0, "{:?}", sim.notified);
}

/// Only Istio has such gateways, and only Gateway API has such mirrors.
#[test]
fn a_field_that_the_router_ignores_names_nothing() {
    for (provider, edit) in [
        ("contour", EDITS[0].2),
        ("contour", EDITS[1].2),
        ("istio", EDITS[5].2),
        ("istio", EDITS[6].2),
    ] {
        let mut sim = in_phase(provider, Some(CanaryPhase::Progressing));
        edit(&mut sim.snapshot.canary);
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(sim.count_notified("cross-namespace"), 0, "{provider}");
    }
}

#[test]
fn with_the_flag_no_phase_writes_a_route_that_names_another_namespace() {
    use CanaryPhase as P;
    let phases = [
        P::Initializing,
        P::Initialized,
        P::Progressing,
        P::WaitingPromotion,
        P::Promoting,
        P::Finalising,
        P::Succeeded,
    ];
    for (provider, kind, edit, field) in EDITS {
        for phase in phases.map(Some).into_iter().chain([None]) {
            let mut sim = in_phase(provider, phase);
            let which = format!("{provider} {field} in {phase:?}");
            edit(&mut sim.snapshot.canary);
            for _ in 0..200 {
                sim.reconcile();
                let objects = sim.snapshot.objects.iter();
                let of_routes = objects.filter(|(name, _)| name.kind == kind);
                for (_, live) in of_routes {
                    let text = live["spec"].to_string();
                    assert!(!text.contains("other"), "{which}: {text}");
                }
                let needs = rollout::needs(&sim.snapshot);
                assert!(
                    needs.iter().all(|object| object.namespace != "other"),
                    "{which}"
                );
            }
            let blocked = "cross-namespace references are blocked: with -no-cross-namespace-refs, ";
            let expected = format!("{blocked}{field} may name the namespace test only");
            assert!(
                sim.count_notified(&expected) > 0,
                "{which}\n{}",
                sim.transcript()
            );
            // The version gets no traffic without an analysis.
            assert_eq!(
                rollout::weights(&sim.snapshot),
                Some(Weights::PRIMARY),
                "{which}"
            );
        }
    }
}
