//! Pods without a sidecar: in Istio's ambient mode the waypoint of their Service reports the requests, or else the gateway that sends them.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::json;

use super::{
    comparison::{BOTH, release, until, verdict},
    files,
    metrics::asked,
    simulation::{Simulation, Traffic, release_of},
};

const AMBIENT: &str = "flagger-rs.github.io/istio-ambient";
const GATEWAY: &str = "flagger-rs.github.io/istio-gateway";

/// Traffic through a waypoint.
fn ambient() -> Traffic {
    Traffic {
        reporter: "waypoint",
        ..Traffic::of(200.0)
    }
}

/// Traffic through a gateway, whose reports the user asks for.
fn through_gateway(traffic: Traffic) -> Simulation {
    let mut sim = compared(Traffic {
        reporter: "source",
        ..traffic
    });
    annotate(&mut sim, GATEWAY, "true");
    sim
}

fn annotate(sim: &mut Simulation, name: &str, value: &str) {
    let annotations = &mut sim.snapshot.canary.metadata.annotations;
    let annotations = annotations.get_or_insert_default();
    annotations.insert(name.to_owned(), value.to_owned());
}

fn compared(traffic: Traffic) -> Simulation {
    release(&BOTH, &json!({"compare": {}}), traffic)
}

#[test]
fn a_good_version_without_sidecars_is_promoted_by_the_counts_of_its_waypoint() {
    let mut sim = compared(ambient());
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [10, 20, 30, 40, 50, 0], "{}", sim.transcript());
}

/// The failures reach clients through one pod of the waypoint, which is no pod of the canary: the version is not excused by a bad node.
#[test]
fn a_bad_version_behind_one_pod_of_its_waypoint_is_rolled_back() {
    let mut sim = compared(Traffic {
        canary_fails: 0.05,
        one_pod_fails: true,
        ..ambient()
    });
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.routed, [10, 0], "{}", sim.transcript());
    let sentence = "Regression The canary is worse than the primary: request-success-rate: ";
    assert!(verdict(&sim).starts_with(sentence), "{}", verdict(&sim));
}

#[test]
fn a_good_version_without_sidecars_is_promoted_by_the_counts_of_the_gateway() {
    let mut sim = through_gateway(Traffic::of(200.0));
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [10, 20, 30, 40, 50, 0], "{}", sim.transcript());
}

/// The failures are reported by one pod of the gateway, which is no pod of the canary.
#[test]
fn a_bad_version_without_sidecars_is_rolled_back_by_the_counts_of_the_gateway() {
    let mut sim = through_gateway(Traffic {
        canary_fails: 0.05,
        one_pod_fails: true,
        ..Traffic::of(200.0)
    });
    sim.run_until(CanaryPhase::Failed);
    assert_eq!(sim.routed, [10, 0], "{}", sim.transcript());
    let sentence = "Regression The canary is worse than the primary: request-success-rate: ";
    assert!(verdict(&sim).starts_with(sentence), "{}", verdict(&sim));
}

/// A gateway reports the requests that a sidecar reports, too.
#[test]
fn without_the_annotation_no_request_is_counted_by_a_gateway() {
    let mut sim = compared(Traffic {
        reporter: "source",
        ..Traffic::of(200.0)
    });
    until(&mut sim, |sim| sim.canary_weight() == 10);
    sim.run(300);
    assert_eq!(sim.routed, [10], "{}", sim.transcript());
}

/// The annotation, the provider, and the reporter that thresholds ask for; none if they do not ask Istio.
#[test]
fn thresholds_ask_for_waypoints_and_gateways_only_if_the_user_says_so() {
    let (sidecar, waypoint, gateway) = ("destination", "waypoint", "source");
    for (annotation, provider, reporter) in [
        (None, "istio", Some(sidecar)),
        (Some((AMBIENT, "false")), "istio", Some(sidecar)),
        (Some((AMBIENT, "true")), "istio", Some(waypoint)),
        (Some((GATEWAY, "false")), "istio", Some(sidecar)),
        (Some((GATEWAY, "true")), "istio", Some(gateway)),
        (None, "gatewayapi:v1", None),
        (Some((AMBIENT, "true")), "gatewayapi:v1", Some(waypoint)),
        (Some((GATEWAY, "true")), "gatewayapi:v1", Some(gateway)),
    ] {
        for name in BOTH {
            let metrics = json!([{"name": name, "thresholdRange": {"min": 1}}]);
            let service = json!({"port": 9898, "gatewayRefs": [{"name": "gateway"}]});
            let mut sim = release_of(json!({"provider": provider, "service": service,
                "analysis": {"stepWeight": 50, "metrics": metrics}}));
            if let Some((name, value)) = annotation {
                annotate(&mut sim, name, value);
            }
            let query = loop {
                sim.reconcile();
                if let Some(query) = asked(&sim) {
                    break query;
                }
            };
            let text = query.text();
            let asks = reporter.map_or(!text.contains("reporter"), |it| {
                text.contains(&format!("reporter=\"{it}\", "))
            });
            assert!(asks, "{annotation:?} {provider}: {text}");
        }
    }
}

/// The release of the examples: the route belongs to the Service, and the waypoint counts and reports about the route.
#[test]
fn a_route_of_a_service_moves_by_the_counts_of_its_waypoint_and_waits_for_the_report_of_the_service()
 {
    let file = |name: &str| files::objects(&files::path(name));
    let deployment = file("kustomize/podinfo/deployment.yaml").into_iter();
    let mut deployment = deployment.filter(|object| object["kind"] == "Deployment");
    let mut deployment = deployment.next().unwrap();
    deployment["metadata"]["namespace"] = json!("test");
    let objects = ["route", "canary"].map(|name| file(&format!("examples/ambient/{name}.yaml")));
    let mut sim = Simulation::given(&[vec![deployment], objects.concat()].concat());
    sim.traffic = Some(ambient());
    sim.run_until(CanaryPhase::Initialized);
    sim.image("podinfo:2");
    until(&mut sim, |sim| sim.canary_weight() == 20);
    let name = sim.snapshot.reference(Kind::HttpRoute, "podinfo-mesh");
    let route = sim.snapshot.objects.get_mut(&name).unwrap();
    let weights = route.pointer("/spec/rules/0/backendRefs").unwrap();
    assert_eq!(
        [0, 1].map(|backend| weights[backend]["weight"].clone()),
        [80, 20]
    );
    let condition = json!({"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "observedGeneration": 99});
    let parent = route["spec"]["parentRefs"][0].clone();
    route["status"] = json!({"parents": [{"parentRef": parent, "conditions": [condition]}]});
    sim.run(90);
    let why = "HTTPRoute podinfo-mesh.test is not ready at Service podinfo (Accepted: False";
    assert!(sim.count_notified(why) > 0, "{}", sim.transcript());
    assert_eq!(sim.canary_weight(), 20);
    sim.snapshot.objects.get_mut(&name).unwrap()["status"] = json!({});
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.routed, [10, 20, 30, 40, 50, 0], "{}", sim.transcript());
}
