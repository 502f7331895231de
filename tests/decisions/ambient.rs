//! Istio's ambient mode: pods have no sidecar, and the waypoint of their Service reports the requests.

use flagger_rs::{api::canary::CanaryPhase, snapshot::Kind};
use serde_json::json;

use super::{
    comparison::{BOTH, release, until, verdict},
    files,
    metrics::asked,
    simulation::{Simulation, Traffic, release_of},
};

/// Traffic through a waypoint.
fn ambient() -> Traffic {
    Traffic {
        reporter: "waypoint",
        ..Traffic::of(200.0)
    }
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

/// The annotation, the provider, and the reporter that thresholds ask for; none if they do not ask Istio.
#[test]
fn thresholds_ask_for_waypoints_only_if_the_user_says_so() {
    for (annotation, provider, reporter) in [
        (None, "istio", Some("reporter=\"destination\", ")),
        (Some("false"), "istio", Some("reporter=\"destination\", ")),
        (Some("true"), "istio", Some("reporter=\"waypoint\", ")),
        (None, "gatewayapi:v1", None),
        (
            Some("true"),
            "gatewayapi:v1",
            Some("reporter=\"waypoint\", "),
        ),
    ] {
        for name in BOTH {
            let metrics = json!([{"name": name, "thresholdRange": {"min": 1}}]);
            let service = json!({"port": 9898, "gatewayRefs": [{"name": "gateway"}]});
            let mut sim = release_of(json!({"provider": provider, "service": service,
                "analysis": {"stepWeight": 50, "metrics": metrics}}));
            let annotations = &mut sim.snapshot.canary.metadata.annotations;
            let annotations = annotations.get_or_insert_default();
            let key = "flagger-rs.github.io/istio-ambient".to_owned();
            annotations.extend(annotation.map(|value| (key, value.to_owned())));
            let query = loop {
                sim.reconcile();
                if let Some(query) = asked(&sim) {
                    break query;
                }
            };
            let text = query.text();
            let asks = reporter.map_or(!text.contains("reporter"), |it| text.contains(it));
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
