//! Contour reports which HTTPProxies it has sent to its Envoys. A release waits for this report.

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout,
    snapshot::{Kind, Weights},
};
use serde_json::json;

use super::{routes::on, simulation::Simulation, transcript};

#[test]
fn contour_shares_traffic_after_it_copied_requests() {
    let mut sim = on("contour", json!({"stepWeight": 50, "mirror": true}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("contour", &sim);
}

#[test]
fn no_run_starts_on_an_httpproxy_that_no_other_includes() {
    let mut sim = on("contour", json!({"stepWeight": 50}));
    let proxy = sim.snapshot.reference(Kind::HttpProxy, "podinfo");
    let live = sim.snapshot.objects.get_mut(&proxy).unwrap();
    live["status"] = json!({"currentStatus": "orphaned", "description": "nobody includes it"});
    sim.run(30);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initialized);
    let is_sent = |text: &str| sim.notified.iter().any(|line| line.contains(text));
    assert!(is_sent(
        "include it from an HTTPProxy that has a virtualhost"
    ));
    sim.snapshot.objects.get_mut(&proxy).unwrap()["status"] = json!({"currentStatus": "valid"});
    sim.run_until(CanaryPhase::Succeeded);
}

/// Until Contour has processed the route, Envoy still sends clients to the target, which must keep its pods.
#[test]
fn the_target_keeps_its_pods_until_contour_has_seen_the_new_route() {
    let mut sim = on("contour", json!({"stepWeight": 50}));
    sim.image("podinfo:1");
    let status = sim.snapshot.canary.status.as_mut().unwrap();
    status.phase = CanaryPhase::Initializing;
    let proxy = sim.snapshot.reference(Kind::HttpProxy, "podinfo");
    let theirs = json!({"services": [{"name": "podinfo", "port": 9898}]});
    let seen = |sim: &mut Simulation, generation: i64| {
        let live = sim.snapshot.objects.get_mut(&proxy).unwrap();
        live["metadata"]["generation"] = json!(7);
        live["status"] =
            json!({"conditions": [{"type": "Valid", "observedGeneration": generation}]});
        live["spec"]["routes"].clone()
    };
    seen(&mut sim, 6);
    let live = sim.snapshot.objects.get_mut(&proxy).unwrap();
    live["spec"]["routes"] = json!([theirs]);
    sim.run(30);
    let routes = seen(&mut sim, 7);
    assert_eq!(routes[0], theirs, "{routes}");
    assert_eq!(routes.as_array().map(Vec::len), Some(2), "{routes}");
    until(&mut sim, |sim| seen(sim, 7)[0] != theirs);
    seen(&mut sim, 6);
    sim.run(30);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initializing);
    seen(&mut sim, 7);
    sim.run_until(CanaryPhase::Initialized);
    sim.run(30);
    let routes = seen(&mut sim, 7);
    assert_eq!(routes.as_array().map(Vec::len), Some(1), "{routes}");
}

/// The operator writes the announcement and the routes again once per tick.
#[test]
fn an_httpproxy_that_somebody_reverts_all_the_time_is_written_once_an_interval() {
    let mut sim = on("contour", json!({"stepWeight": 50}));
    sim.image("podinfo:1");
    sim.snapshot.canary.status.as_mut().unwrap().phase = CanaryPhase::Initializing;
    let proxy = sim.snapshot.reference(Kind::HttpProxy, "podinfo");
    let theirs = json!([{"services": [{"name": "podinfo", "port": 9898}]}]);
    let routes = |sim: &mut Simulation| {
        sim.snapshot.objects.get_mut(&proxy).unwrap()["spec"]["routes"].take()
    };
    let (mut announced, mut taken, start) = (0, 0, sim.snapshot.now);
    routes(&mut sim);
    sim.snapshot.objects.get_mut(&proxy).unwrap()["spec"]["routes"] = theirs.clone();
    for _ in 0..300 {
        sim.reconcile();
        let now = routes(&mut sim);
        let is_announcement = now.as_array().unwrap().len() == 2 && now[0] == theirs[0];
        announced += usize::from(is_announcement);
        taken += usize::from(now[0] != theirs[0]);
        let next = if is_announcement { &now } else { &theirs };
        sim.snapshot.objects.get_mut(&proxy).unwrap()["spec"]["routes"] = next.clone();
    }
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initializing);
    let passed = sim.snapshot.now.duration_since(start).as_secs_f64();
    let intervals = (passed / sim.snapshot.canary.interval().as_secs_f64()) as usize;
    assert!(
        taken >= intervals - 1 && taken <= intervals + 1,
        "{taken} in {intervals}"
    );
    assert_eq!(announced, taken);
}

pub fn until(sim: &mut Simulation, holds: impl Fn(&mut Simulation) -> bool) {
    for _ in 0..2000 {
        if holds(sim) {
            return;
        }
        sim.reconcile();
    }
    panic!("it never came:\n{}", sim.transcript());
}

/// Sets the generation that Contour reports as observed to the current one, or to the one before.
pub fn contour_is_late(sim: &mut Simulation, is_late: bool) {
    let proxy = sim.snapshot.reference(Kind::HttpProxy, "podinfo");
    let live = sim.snapshot.objects.get_mut(&proxy).unwrap();
    live["metadata"]["generation"] = json!(7);
    let seen = json!({"type": "Valid", "observedGeneration": if is_late { 6 } else { 7 }});
    live["status"] = json!({"conditions": [seen]});
}

#[test]
fn the_canary_keeps_its_pods_until_contour_has_seen_that_traffic_left_it() {
    for metric in ["100", "97.5"] {
        let mut sim = on("contour", json!({"stepWeight": 50, "threshold": 1}));
        sim.run_until_phase(CanaryPhase::Progressing);
        let is_at_primary =
            |sim: &Simulation| rollout::weights(&sim.snapshot) == Some(Weights::PRIMARY);
        until(&mut sim, |sim| !is_at_primary(sim));
        sim.metric = metric.to_owned();
        until(&mut sim, |sim| is_at_primary(sim));
        contour_is_late(&mut sim, true);
        let replicas =
            |sim: &Simulation| sim.snapshot.target().unwrap()["spec"]["replicas"].clone();
        sim.run(100);
        assert_ne!(replicas(&sim), 0, "{metric}");
        contour_is_late(&mut sim, false);
        sim.run(100);
        assert_eq!(replicas(&sim), 0, "{metric}");
    }
}

#[test]
fn a_release_that_skips_its_analysis_midway_waits_for_contour_too() {
    let mut sim = on("contour", json!({"stepWeight": 50}));
    until(&mut sim, |sim| {
        rollout::weights(&sim.snapshot) == Some(Weights::canary(50))
    });
    contour_is_late(&mut sim, true);
    sim.snapshot.canary.spec.skip_analysis = true;
    sim.run(100);
    assert_eq!(rollout::weights(&sim.snapshot), Some(Weights::PRIMARY));
    assert_ne!(sim.snapshot.target().unwrap()["spec"]["replicas"], 0);
    contour_is_late(&mut sim, false);
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn a_deletion_waits_until_contour_has_seen_the_announced_services() {
    let mut sim = on("contour", json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    sim.run_until(CanaryPhase::Succeeded);
    let proxy = sim.snapshot.reference(Kind::HttpProxy, "podinfo");
    let routes = |sim: &Simulation| sim.snapshot.objects[&proxy]["spec"]["routes"].clone();
    contour_is_late(&mut sim, true);
    sim.delete();
    sim.run(60);
    let announced = routes(&sim);
    assert_eq!(announced.as_array().unwrap().len(), 2, "{announced}");
    assert_eq!(announced[0]["services"][0]["name"], "podinfo-primary");
    assert!(
        sim.notified
            .iter()
            .any(|line| line.contains("not taken up"))
    );
    contour_is_late(&mut sim, false);
    until(&mut sim, |sim| {
        routes(sim)[0]["services"][0]["name"] == "podinfo"
    });
    // Contour may send the deletion of the Service to Envoy before the new route.
    let since = sim.snapshot.now;
    until(&mut sim, |sim| routes(sim).as_array().unwrap().len() == 1);
    assert!(sim.snapshot.now.duration_since(since).as_secs() >= 5);
    until(&mut sim, |sim| sim.is_gone());
}

#[test]
fn a_route_that_was_just_repaired_is_not_reported_as_lagging() {
    let mut sim = on("contour", json!({"stepWeight": 50}));
    sim.run_until_phase(CanaryPhase::Progressing);
    let is_reported = |sim: &Simulation| {
        sim.notified
            .iter()
            .any(|line| line.contains("not taken up"))
    };
    let proxy = sim.snapshot.reference(Kind::HttpProxy, "podinfo");
    until(&mut sim, |sim| {
        contour_is_late(sim, true);
        let live = sim.snapshot.objects.get_mut(&proxy).unwrap();
        live["metadata"]["labels"] = json!({"a": "b"});
        sim.snapshot.tick.is_some() && !sim.snapshot.recently_written.is_empty()
    });
    assert!(!is_reported(&sim), "{:?}", sim.notified);
    sim.run(100);
    assert!(is_reported(&sim));
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Progressing);
    contour_is_late(&mut sim, false);
    sim.run_until(CanaryPhase::Succeeded);
}
