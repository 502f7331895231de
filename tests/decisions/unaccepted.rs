//! Routes that the data plane never accepts: a version waits for them no longer than its progress deadline.

use flagger_rs::{
    api::{canary::CanaryPhase, status::ConditionType},
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
    release_of(spec(provider, gate))
}

/// A new canary whose route exists.
fn waiting_for_its_gateway() -> Simulation {
    let mut sim = Simulation::new(spec("gatewayapi:v1", None));
    let route = sim.snapshot.reference(Kind::HttpRoute, "podinfo");
    while !sim.snapshot.objects.contains_key(&route) {
        sim.reconcile();
    }
    sim
}

fn spec(provider: &str, gate: Option<&str>) -> Value {
    let gateways = json!([{"name": "gateway"}]);
    let service = json!({"port": 9898, "gatewayRefs": gateways});
    let hooks = gate.map(|gate| json!([{"name": gate, "type": gate, "url": "http://hooks/gate"}]));
    let analysis =
        json!({"stepWeight": 50, "maxWeight": 50, "webhooks": hooks.unwrap_or(json!([]))});
    json!({"provider": provider, "service": service, "progressDeadlineSeconds": 60, "analysis": analysis})
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

/// The sentence that is_shown why the version failed, or why it waits.
fn verdict(sim: &Simulation) -> Option<&str> {
    let verdict = sim.snapshot.status().condition(ConditionType::Verdict)?;
    verdict.message.as_deref()
}

const PHASES: [CanaryPhase; 2] = [CanaryPhase::Initialized, CanaryPhase::Progressing];

#[test]
fn a_version_whose_routes_are_never_accepted_fails_after_its_deadline() {
    for (provider, kind, accepted, why) in ROUTERS {
        for phase in PHASES {
            let mut sim = in_phase(provider, phase);
            let route = sim.snapshot.reference(kind, "podinfo");
            let start = sim.snapshot.now.as_second();
            let waits = match phase {
                CanaryPhase::Initialized => format!("A new version waits: {why}"),
                _ => format!("The step waits for the routes: {why}"),
            };
            let mut is_shown = false;
            while sim.snapshot.phase() != CanaryPhase::Failed
                && sim.snapshot.now.as_second() < start + 200
            {
                // The controller gives each later version of the route the same report.
                report(&mut sim, &route, accepted, false);
                sim.reconcile();
                is_shown |= verdict(&sim).is_some_and(|sentence| sentence.starts_with(&waits));
            }
            assert!(is_shown, "{provider} in {phase}: {}", sim.transcript());
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
            let sentence = verdict(&sim).unwrap();
            let expected = format!("The routes were not accepted in time: {why}");
            assert!(sentence.starts_with(&expected), "{sentence}");
            if provider.starts_with("gatewayapi") {
                let reason = "its condition Accepted says NoMatchingListenerHostname: no listener has this host";
                assert!(sentence.contains(reason), "{sentence}");
            }
            if phase == CanaryPhase::Progressing && provider.starts_with("gatewayapi") {
                // Until the gateway has processed the return of the traffic, it may send requests to the canary.
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

/// Sets the report of a gateway that has not processed the last change of the route.
fn lags(sim: &mut Simulation) {
    let (_, kind, accepted, _) = ROUTERS[0];
    let route = sim.snapshot.reference(kind, "podinfo");
    if let Some(route) = sim.snapshot.objects.get_mut(&route) {
        accepted(route, false);
    }
}

/// The version before it has waited for nearly the whole deadline.
#[test]
fn a_version_that_comes_during_a_run_has_the_whole_deadline() {
    let mut sim = in_phase("gatewayapi:v1", CanaryPhase::Progressing);
    let run = |sim: &mut Simulation, until: i64| {
        while sim.snapshot.phase() != CanaryPhase::Failed && sim.snapshot.now.as_second() < until {
            lags(sim);
            sim.reconcile();
        }
    };
    let start = sim.snapshot.now.as_second();
    run(&mut sim, start + 50);
    sim.image("podinfo:3");
    run(&mut sim, start + 300);
    let took = sim.snapshot.now.as_second() - start;
    assert!((110..=135).contains(&took), "{took}\n{}", sim.transcript());
}

/// The promotion stops all pods of the primary, so the gateway must have routed the requests to the canary before.
#[test]
fn a_promotion_that_stops_all_pods_waits_until_the_gateway_has_seen_the_routes() {
    let mut sim = on("gatewayapi:v1", None);
    let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
    sim.snapshot.objects.get_mut(&target).unwrap()["spec"]["strategy"] =
        json!({"type": "Recreate"});
    while sim.canary_weight() < 100 {
        sim.reconcile();
    }
    let start = sim.snapshot.now.as_second();
    while sim.snapshot.phase() != CanaryPhase::Failed && sim.snapshot.now.as_second() < start + 200
    {
        lags(&mut sim);
        sim.reconcile();
        assert!(
            !sim.outcome()
                .contains("primary Some(String(\"podinfo:2\"))"),
            "{}",
            sim.transcript()
        );
    }
    let took = sim.snapshot.now.as_second() - start;
    assert!((60..=85).contains(&took), "{took}\n{}", sim.transcript());
}

/// As in Flagger, an approval is enough, whatever the gateway reports about a route that does not change any more.
#[test]
fn an_approval_counts_although_the_gateway_does_not_accept_the_route() {
    let mut sim = in_phase("gatewayapi:v1", CanaryPhase::WaitingPromotion);
    let lagging = |sim: &mut Simulation, seconds: i64| {
        let end = sim.snapshot.now.as_second() + seconds;
        while sim.snapshot.now.as_second() < end {
            lags(sim);
            sim.reconcile();
        }
    };
    lagging(&mut sim, 200);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::WaitingPromotion);
    sim.closed.clear();
    lagging(&mut sim, 60);
    assert_eq!(
        sim.snapshot.phase(),
        CanaryPhase::Finalising,
        "{}",
        sim.transcript()
    );
}

/// A Canary with `revertOnDeletion` that is being deleted.
fn deleted() -> Simulation {
    let mut spec = spec("gatewayapi:v1", None);
    spec["revertOnDeletion"] = json!(true);
    let mut sim = release_of(spec);
    sim.delete();
    sim
}

/// Either the phase ends at the deadline, or an event in each interval names the route for which the release waits.
#[test]
fn each_wait_for_a_gateway_ends_or_is_reported() {
    use CanaryPhase as P;
    for (phase, end) in [
        (P::Initializing, None),
        (P::Initialized, Some(P::Failed)),
        (P::Progressing, Some(P::Failed)),
        (P::WaitingPromotion, None),
        (P::Promoting, None),
        (P::Finalising, None),
        (P::Terminating, Some(P::Terminating)),
    ] {
        let mut sim = match phase {
            P::Initializing => waiting_for_its_gateway(),
            P::Terminating => deleted(),
            _ => in_phase("gatewayapi:v1", phase),
        };
        sim.notified.clear();
        let start = sim.snapshot.now.as_second();
        while sim.snapshot.now.as_second() < start + 200 {
            lags(&mut sim);
            sim.reconcile();
        }
        let reported = sim.count_notified("is not ready (status: False");
        let which = format!(
            "{phase}: {reported} in {}\n{}",
            sim.snapshot.phase(),
            sim.transcript()
        );
        match end {
            None => assert!(reported >= 15, "{which}"),
            Some(end) => assert!(sim.snapshot.phase() == end && reported >= 3, "{which}"),
        }
    }
}

#[test]
fn routes_that_are_accepted_within_the_deadline_hold_the_release_up_and_no_more() {
    for (provider, kind, accepted, _) in ROUTERS {
        for phase in PHASES {
            let mut sim = in_phase(provider, phase);
            let route = sim.snapshot.reference(kind, "podinfo");
            // Each wait has its own deadline: three short waits do not add up to one long wait.
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
