//! Routes that the data plane never accepts: a version waits for them no longer than its progress deadline.

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout,
    snapshot::{Kind, ObjectRef, Weights},
};
use serde_json::{Value, json};

use super::simulation::{Simulation, release_of};

/// Sets what the data plane reports about the routes.
type Report = fn(&mut Value, bool);

/// Each router whose data plane reports whether it accepts the routes, the object with the report, and the beginning of the reason that
/// users read.
const ROUTERS: [(&str, Kind, Report, &str); 3] = [
    (
        "gatewayapi:v1",
        Kind::HttpRoute,
        |route, is_accepted| {
            let (status, observed) = if is_accepted {
                ("True", 999)
            } else {
                ("False", 0)
            };
            let condition = json!({"type": "Accepted", "status": status, "observedGeneration": observed,
                "reason": "NoMatchingListenerHostname", "message": "no listener has this host"});
            let parent = route["spec"]["parentRefs"][0].clone();
            route["status"] =
                json!({"parents": [{"parentRef": parent, "conditions": [condition]}]});
        },
        "HTTPRoute podinfo.test parent gateway is not ready (status: False",
    ),
    (
        "contour",
        Kind::HttpProxy,
        |proxy, is_accepted| {
            let word = if is_accepted { "valid" } else { "invalid" };
            proxy["status"] = json!({"currentStatus": word, "description": "no virtualhost"});
        },
        "HTTPProxy podinfo.test is invalid (no virtualhost)",
    ),
    (
        "appmesh:v1beta2",
        Kind::AppMeshRouter,
        |router, is_accepted| {
            router["metadata"]["generation"] = json!(7);
            router["status"] = json!({"observedGeneration": if is_accepted { 7 } else { 6 }});
        },
        "VirtualRouter podinfo is not taken up by App Mesh's controller",
    ),
];

fn on(provider: &str, gate: Option<&'static str>) -> Simulation {
    let gateways = json!([{"name": "gateway"}]);
    let service = json!({"port": 9898, "gatewayRefs": gateways});
    let hooks = gate.map(|gate| json!([{"name": gate, "type": gate, "url": "http://hooks/gate"}]));
    let analysis =
        json!({"stepWeight": 50, "maxWeight": 50, "webhooks": hooks.unwrap_or(json!([]))});
    let spec = json!({"provider": provider, "service": service, "progressDeadlineSeconds": 60, "analysis": analysis});
    release_of(spec)
}

/// A release in this phase, which has waited for longer than the deadline if a gate can hold it there.
fn in_phase(provider: &str, phase: CanaryPhase) -> Simulation {
    let mut sim = match phase {
        CanaryPhase::WaitingPromotion => on(provider, Some("confirm-promotion")),
        _ => on(provider, None),
    };
    if phase == CanaryPhase::WaitingPromotion {
        sim.closed.insert("gate");
        sim.run_until_phase(phase);
        sim.run(200);
    } else {
        sim.run_until_phase(phase);
    }
    sim
}

fn report(sim: &mut Simulation, name: &ObjectRef, report: Report, is_accepted: bool) {
    report(sim.snapshot.objects.get_mut(name).unwrap(), is_accepted);
}

const PHASES: [CanaryPhase; 2] = [CanaryPhase::Initialized, CanaryPhase::Progressing];

#[test]
fn a_version_whose_routes_are_never_accepted_fails_after_its_deadline() {
    for (provider, kind, accepted, why) in ROUTERS {
        for phase in PHASES {
            let mut sim = in_phase(provider, phase);
            let route = sim.snapshot.reference(kind, "podinfo");
            let start = sim.snapshot.now.as_second();
            while sim.snapshot.phase() != CanaryPhase::Failed
                && sim.snapshot.now.as_second() < start + 200
            {
                // The controller reports nothing else about later versions of the route.
                report(&mut sim, &route, accepted, false);
                sim.reconcile();
            }
            let took = sim.snapshot.now.as_second() - start;
            let which = format!("{provider} in {phase}: {took}\n{}", sim.transcript());
            assert!((60..=85).contains(&took), "{which}");
            assert_eq!(
                rollout::weights(&sim.snapshot),
                Some(Weights::PRIMARY),
                "{which}"
            );
            sim.run(50);
            let rolled_back = format!("Rolling back podinfo.test progress deadline exceeded {why}");
            assert_eq!(sim.count_notified(&rolled_back), 1, "{which}");
            let alert = format!("Progress deadline exceeded {why}");
            assert_eq!(sim.count_notified(&alert), 1, "{which}");
            let verdict = sim.snapshot.status().conditions.iter().flatten();
            let verdict: Vec<_> = verdict
                .filter(|it| it.type_.as_str() == "Verdict")
                .collect();
            let sentence = verdict[0].message.as_deref().unwrap();
            let expected = format!("The routes were not accepted in time: {why}");
            assert!(sentence.starts_with(&expected), "{sentence}");
            if provider.starts_with("gatewayapi") {
                let reason = "its condition Accepted says NoMatchingListenerHostname: no listener has this host";
                assert!(sentence.contains(reason), "{sentence}");
            }
            if phase == CanaryPhase::Progressing && provider.starts_with("gatewayapi") {
                // Until the gateway has seen the return of the traffic, it may send requests to the canary.
                let replicas =
                    |sim: &Simulation| sim.snapshot.target().unwrap()["spec"]["replicas"].clone();
                sim.run(300);
                assert_ne!(replicas(&sim), 0, "{provider}\n{}", sim.transcript());
                report(&mut sim, &route, accepted, true);
                sim.run(50);
                assert_eq!(replicas(&sim), 0, "{provider}\n{}", sim.transcript());
            }
        }
    }
}

#[test]
fn routes_that_are_accepted_within_the_deadline_hold_the_release_up_and_no_more() {
    for (provider, kind, accepted, _) in ROUTERS {
        for phase in PHASES {
            let mut sim = in_phase(provider, phase);
            let route = sim.snapshot.reference(kind, "podinfo");
            // The waits do not add up.
            for _ in 0..3 {
                let start = sim.snapshot.now.as_second();
                while sim.snapshot.now.as_second() < start + 45 {
                    report(&mut sim, &route, accepted, false);
                    sim.reconcile();
                }
                report(&mut sim, &route, accepted, true);
                sim.run(2);
            }
            sim.closed.clear();
            for _ in 0..1000 {
                if sim.snapshot.phase() == CanaryPhase::Succeeded {
                    break;
                }
                report(&mut sim, &route, accepted, true);
                sim.reconcile();
            }
            let phase_now = sim.snapshot.phase();
            assert_eq!(
                phase_now,
                CanaryPhase::Succeeded,
                "{provider} {phase}\n{}",
                sim.transcript()
            );
        }
    }
}
