//! The differences between routers.

use flagger_rs::{
    api::canary::CanaryPhase,
    rollout,
    snapshot::{Kind, ObjectRef, Weights},
};
use serde_json::{Value, json};

use super::{
    simulation::{Simulation, release_of},
    transcript,
};

pub fn on(provider: &str, analysis: Value) -> Simulation {
    let gateways = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway", "namespace": "infra"}]);
    let service = json!({"port": 9898, "meshName": "global", "gatewayRefs": gateways});
    release_of(json!({"provider": provider, "service": service, "analysis": analysis}))
}

#[test]
fn gateway_api_shares_traffic() {
    let mut sim = on("gatewayapi:v1", json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gateway-api", &sim);
}

#[test]
fn gateway_api_copies_requests_before_it_sends_any() {
    let mut sim = on("gatewayapi:v1", json!({"iterations": 2, "mirror": true}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gateway-api-mirror", &sim);
}

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

/// Until Contour has seen the route, Envoy still sends clients to the target, which must keep its pods.
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

/// The operator announces and writes its routes again once per tick.
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

fn on_nginx(analysis: Value) -> Simulation {
    behind_an_ingress("nginx", analysis)
}

fn behind_an_ingress(provider: &str, analysis: Value) -> Simulation {
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"});
    let service = json!({"port": 9898});
    release_of(
        json!({"provider": provider, "ingressRef": ingress, "service": service, "analysis": analysis}),
    )
}

#[test]
fn nginx_shares_traffic() {
    let mut sim = on_nginx(json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("nginx", &sim);
}

#[test]
fn nginx_routes_matching_requests_to_the_canary() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = on_nginx(json!({"iterations": 2, "match": test}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("nginx-ab", &sim);
}

#[test]
fn skipper_shares_traffic_and_rolls_a_bad_version_back() {
    let mut sim = behind_an_ingress("skipper", json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("skipper", &sim);
    let analysis = json!({"stepWeight": 20, "threshold": 2});
    let mut sim = behind_an_ingress("skipper", analysis);
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("skipper-rollback", &sim);
}

/// Skipper ignores the second Ingress before the Services behind it are deleted.
#[test]
fn a_canary_that_is_deleted_midway_leaves_skipper_the_users_ingress() {
    let mut sim = behind_an_ingress("skipper", json!({"stepWeight": 50}));
    sim.snapshot.canary.spec.revert_on_deletion = true;
    while sim.analysed.is_empty() {
        sim.reconcile();
    }
    sim.delete();
    sim.run(100);
    assert!(sim.is_gone(), "{}", sim.transcript());
    let left = sim.snapshot.object(Kind::Ingress, "web-canary");
    let predicate = "zalando.org/skipper-predicate";
    assert!(left.is_none_or(|left| left["metadata"]["annotations"][predicate] == "False()"));
}

#[test]
fn gloo_shares_traffic_and_rolls_a_bad_version_back() {
    let mut sim = on("gloo", json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gloo", &sim);
    let mut sim = on("gloo", json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("gloo-rollback", &sim);
}

#[test]
fn gloo_routes_matching_requests_to_the_canary() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = on("gloo", json!({"iterations": 2, "match": test}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gloo-ab", &sim);
}

#[test]
fn linkerd_rolls_a_bad_version_back() {
    let mut sim = on("linkerd", json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("linkerd-rollback", &sim);
}

#[test]
fn traefik_shares_traffic() {
    let mut sim = on("traefik", json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("traefik", &sim);
}

#[test]
fn traefik_rolls_a_bad_version_back() {
    let mut sim = on("traefik", json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("traefik-rollback", &sim);
}

#[test]
fn kuma_shares_traffic() {
    let mut sim = on("kuma", json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("kuma", &sim);
}

#[test]
fn kuma_rolls_a_bad_version_back() {
    let mut sim = on("kuma", json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("kuma-rollback", &sim);
}

/// Flagger takes it over, and the two canaries fight.
#[test]
fn the_traffic_route_of_another_namespace_is_left_alone() {
    let mut sim = Simulation::new(json!({"provider": "kuma", "analysis": {"stepWeight": 50}}));
    let theirs = json!({"metadata": {"name": "podinfo"}, "mesh": "default", "spec": {
        "destinations": [{"match": {"kuma.io/service": "podinfo_other_svc_80"}}]}});
    let name = sim.snapshot.reference(Kind::TrafficRoute, "podinfo");
    sim.store(name.clone(), theirs);
    let theirs = sim.snapshot.objects[&name].clone();
    sim.run(50);
    assert_eq!(sim.snapshot.objects[&name], theirs);
    let text = "exists already for podinfo_other_svc_80: delete it, or give this canary another spec.service.name";
    assert!(sim.count_notified(text) > 0, "{:?}", sim.notified);
    sim.snapshot.objects.remove(&name);
    sim.run_until(CanaryPhase::Initialized);
}

fn on_apisix(analysis: Value) -> Simulation {
    let route = json!({"apiVersion": "apisix.apache.org/v2", "kind": "ApisixRoute", "name": "web"});
    let service = json!({"port": 9898});
    release_of(
        json!({"provider": "apisix", "routeRef": route, "service": service, "analysis": analysis}),
    )
}

#[test]
fn apisix_shares_traffic() {
    let mut sim = on_apisix(json!({"stepWeight": 20, "maxWeight": 40}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("apisix", &sim);
}

#[test]
fn apisix_rolls_a_bad_version_back() {
    let mut sim = on_apisix(json!({"stepWeight": 20, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("apisix-rollback", &sim);
}

/// Each problem is reported, and nothing is created until the user solves it.
#[test]
fn apisix_needs_a_route_of_the_user_with_our_backend() {
    type Break = fn(&mut Simulation, ObjectRef);
    let problems: [(Break, &str); 4] = [
        (
            |sim, _| sim.snapshot.canary.spec.route_ref = None,
            "apisix route selector is empty",
        ),
        (
            |sim, source| drop(sim.snapshot.objects.remove(&source)),
            "apisixroutes.apisix.apache.org \"web\" not found",
        ),
        (
            |sim, source| {
                let route = sim.snapshot.objects.get_mut(&source).unwrap();
                route["spec"]["http"][0]["backends"][0]["serviceName"] = json!("other");
            },
            "Can not find podinfo backend on apisix route web.test",
        ),
        (
            |sim, source| {
                let route = sim.snapshot.objects.get_mut(&source).unwrap();
                route["spec"] = json!({});
            },
            "APISIX route web.test's spec.http is empty",
        ),
    ];
    for (with_problem, text) in problems {
        let route = json!({"name": "web"});
        let spec = json!({"provider": "apisix", "routeRef": route, "analysis": {"stepWeight": 50}});
        let mut sim = Simulation::new(spec);
        let solved = sim.snapshot.clone();
        let source = sim.snapshot.reference(Kind::ApisixRoute, "web");
        with_problem(&mut sim, source.clone());
        sim.run(30);
        assert!(sim.count_notified(text) > 0, "{text}: {:?}", sim.notified);
        let ours = sim.snapshot.object(Kind::ApisixRoute, "web-podinfo-canary");
        assert!(ours.is_none(), "{text}");
        sim.snapshot.canary.spec.route_ref = solved.canary.spec.route_ref;
        let route = solved.objects[&source].clone();
        sim.snapshot.objects.insert(source, route);
        sim.run_until(CanaryPhase::Initialized);
    }
}

/// Flagger repeats the mirror step for ever.
#[test]
fn a_mirror_is_skipped_if_the_router_cannot_copy_requests() {
    let mut sim = on("linkerd", json!({"stepWeight": 50, "mirror": true}));
    sim.run_until(CanaryPhase::Succeeded);
    assert_eq!(sim.analysed, [50, 100]);
}

/// The Services of the primary and of the canary are deleted with the Canary: no route may name them.
#[test]
fn a_canary_that_is_deleted_midway_leaves_routes_to_the_target_only() {
    for provider in [
        "contour", "nginx", "gloo", "linkerd", "traefik", "apisix", "kuma",
    ] {
        let mut sim = on(provider, json!({"stepWeight": 50}));
        if provider == "apisix" {
            sim = on_apisix(json!({"stepWeight": 50}));
        }
        if provider == "nginx" {
            sim = on_nginx(json!({"stepWeight": 50}));
        }
        sim.snapshot.canary.spec.revert_on_deletion = true;
        while sim.analysed.is_empty() {
            sim.reconcile();
        }
        sim.delete();
        sim.run(100);
        assert!(sim.is_gone(), "{provider}: {}", sim.transcript());
        let route = |kind, name| {
            sim.snapshot
                .object(kind, name)
                .map(|route| route["spec"].to_string())
        };
        let routes = [
            route(Kind::HttpProxy, "podinfo"),
            route(Kind::Ingress, "web-canary"),
            route(Kind::TrafficSplitV1Alpha1, "podinfo"),
            route(Kind::TraefikService, "podinfo"),
            route(Kind::GlooRouteTable, "podinfo"),
            route(Kind::ApisixRoute, "web-podinfo-canary"),
            route(Kind::TrafficRoute, "podinfo")
                .map(|route| route.replace("podinfo_test_svc_9898\"", "podinfo\"")),
        ];
        for route in routes.into_iter().flatten() {
            assert!(route.contains("\"podinfo\""), "{route}");
            assert!(
                !route.contains("podinfo-canary\"") && !route.contains("podinfo-primary\""),
                "{route}"
            );
        }
    }
}

#[test]
fn a_crash_at_any_write_of_a_release_loses_nothing_on_any_route() {
    for provider in [
        "contour",
        "nginx",
        "skipper",
        "gloo",
        "linkerd",
        "traefik",
        "apisix",
        "kuma",
        "appmesh",
        "appmesh:v1beta2",
    ] {
        let start = || {
            if ["nginx", "skipper"].contains(&provider) {
                behind_an_ingress(provider, json!({"stepWeight": 20, "maxWeight": 40}))
            } else if provider == "apisix" {
                on_apisix(json!({"stepWeight": 20, "maxWeight": 40}))
            } else {
                on(provider, json!({"stepWeight": 20, "maxWeight": 40}))
            }
        };
        super::crashes::crash_at_every_write_of(start, "100", CanaryPhase::Succeeded);
        super::crashes::crash_at_every_write_of(start, "42", CanaryPhase::Failed);
    }
}

#[test]
fn no_run_starts_on_a_route_that_its_gateway_did_not_accept() {
    let mut sim = on("gatewayapi:v1", json!({"stepWeight": 50}));
    let route = sim.snapshot.reference(Kind::HttpRoute, "podinfo");
    let live = sim.snapshot.objects.get_mut(&route).unwrap();
    let parent = live["spec"]["parentRefs"][0].clone();
    live["status"] = json!({"parents": [{"parentRef": parent, "conditions": [{"type": "Accepted", "status": "False"}]}]});
    sim.run(30);
    assert_eq!(sim.snapshot.phase(), CanaryPhase::Initialized);
    let is_sent = |text: &str| sim.notified.iter().any(|line| line.contains(text));
    assert!(is_sent("parent gateway is not ready (status: False"));
    let live = sim.snapshot.objects.get_mut(&route).unwrap();
    live["status"]["parents"][0]["conditions"][0] =
        json!({"type": "Accepted", "status": "True", "observedGeneration": 99});
    sim.run_until(CanaryPhase::Succeeded);
}

#[test]
fn without_a_mesh_the_version_is_analysed_behind_its_own_service() {
    let mut sim = on("kubernetes", json!({"iterations": 2}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("kubernetes", &sim);
}

#[test]
fn without_a_mesh_a_bad_version_is_rolled_back() {
    let mut sim = on("kubernetes", json!({"iterations": 2, "threshold": 2}));
    sim.metric = "42".to_owned();
    sim.run_until(CanaryPhase::Failed);
    transcript("kubernetes-rollback", &sim);
}

#[test]
fn without_a_mesh_unsupported_strategies_are_reported() {
    let mut sim = on("kubernetes", json!({"stepWeight": 20, "match": [{}]}));
    sim.run_until(CanaryPhase::Succeeded);
    for text in [
        "A/B testing is not supported",
        "Progressive traffic is not supported",
        "Setting canaryAnalysis.iterations: 10",
        "canary iteration 10/10",
    ] {
        assert!(
            sim.notified.iter().any(|line| line.contains(text)),
            "{text}"
        );
    }
}

fn sticky(provider: &str) -> Simulation {
    let affinity = json!({"cookieName": "flagger-cookie", "primaryCookieName": "primary-cookie"});
    on(
        provider,
        json!({"stepWeight": 50, "maxWeight": 50, "sessionAffinity": affinity}),
    )
}

#[test]
fn clients_stay_on_the_version_that_answered_them() {
    let mut sim = sticky("istio");
    sim.run_until(CanaryPhase::Succeeded);
    transcript("session-affinity", &sim);
    let status = sim.snapshot.canary.status.clone().unwrap();
    assert_eq!(status.session_affinity_cookie, None);
    let previous = status.previous_session_affinity_cookie.unwrap();
    let route = sim
        .snapshot
        .object(Kind::VirtualService, "podinfo")
        .unwrap();
    assert!(
        route
            .to_string()
            .contains(&format!("{previous}; Max-Age=-1")),
        "{route}"
    );
}

/// Flagger loses the cookie that clients already have if its write of the status conflicts.
#[test]
fn a_crash_at_any_write_of_a_release_moves_no_client_to_the_other_version() {
    for provider in ["istio", "gatewayapi:v1", "gatewayapi:v1beta1"] {
        let mut undisturbed = sticky(provider);
        undisturbed.run_until(CanaryPhase::Succeeded);
        for crash in 1..=undisturbed.writes {
            let mut sim = sticky(provider);
            sim.crash_after = Some(crash);
            sim.run_until(CanaryPhase::Succeeded);
            assert_eq!(sim.outcome(), undisturbed.outcome());
            assert_eq!(
                sim.cookies.len(),
                undisturbed.cookies.len(),
                "cookies after a crash at {crash}: {:?}",
                sim.cookies
            );
        }
    }
}

#[test]
fn gateway_api_routes_matching_requests_to_the_canary() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = on("gatewayapi:v1", json!({"iterations": 2, "match": test}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gateway-api-ab", &sim);
}

#[test]
fn gateway_api_keeps_clients_on_their_version() {
    let mut sim = sticky("gatewayapi:v1");
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gateway-api-session", &sim);
}

#[test]
fn a_delegated_route_is_released_without_hosts_of_its_own() {
    let analysis = json!({"stepWeight": 50, "maxWeight": 50});
    let service = json!({"port": 9898, "delegation": true});
    let mut sim = release_of(json!({"service": service, "analysis": analysis}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("delegation", &sim);
    let route = sim
        .snapshot
        .object(Kind::VirtualService, "podinfo")
        .unwrap();
    assert_eq!(route["spec"]["hosts"], json!([]));
    assert_eq!(route["spec"].get("gateways"), None);
}

/// Their requests reach the primary, so nobody has seen the new version answer them when it is promoted.
#[test]
fn ports_to_which_no_requests_are_split_are_named_at_the_start_of_each_run() {
    let ports =
        json!([{"name": "http", "containerPort": 9898}, {"name": "grpc", "containerPort": 9999}]);
    let mesh = json!([{"kind": "Service", "group": "", "name": "podinfo"}]);
    let gateway = json!([{"name": "gateway"}]);
    for (provider, parents, is_split) in [
        ("gatewayapi:v1", &mesh, false),
        ("gatewayapi:v1beta1", &mesh, false),
        ("gatewayapi:v1", &gateway, true),
        ("appmesh", &gateway, false),
        ("appmesh:v1beta2", &gateway, false),
        ("istio", &gateway, true),
        ("linkerd", &gateway, true),
    ] {
        let service = json!({"port": 9898, "portDiscovery": true, "meshName": "global", "gatewayRefs": parents});
        let analysis = json!({"stepWeight": 50});
        let mut sim = Simulation::new(
            json!({"provider": provider, "service": service, "analysis": analysis}),
        );
        let target = sim.snapshot.reference(Kind::Deployment, "podinfo");
        let live = sim.snapshot.objects.get_mut(&target).unwrap();
        live["spec"]["template"]["spec"]["containers"][0]["ports"] = ports.clone();
        let text = format!(
            "Requests to the ports 9999/TCP of podinfo.test are not split, they reach the primary: with the provider {provider}, only the port 9898 of the Service is analysed"
        );
        let count = |sim: &Simulation| sim.count_notified(&text);
        sim.run_until(CanaryPhase::Initialized);
        assert_eq!(count(&sim), usize::from(!is_split), "{provider}");
        sim.run(100);
        sim.image("podinfo:2");
        sim.run_until(CanaryPhase::Succeeded);
        assert_eq!(count(&sim), 2 * usize::from(!is_split), "{provider}");
    }
}
