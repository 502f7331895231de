//! The differences between routers.

use flagger_rs::{
    api::canary::CanaryPhase,
    snapshot::{Kind, ObjectRef},
};
use serde_json::{Value, json};

use super::{
    routers::{ROUTERS, distinct},
    simulation::{Simulation, release_of},
    transcript,
};

pub fn on(provider: &str, analysis: Value) -> Simulation {
    let gateways = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gateway", "namespace": "infra"}]);
    let service = json!({"port": 9898, "meshName": "global", "gatewayRefs": gateways});
    let mut spec = json!({"provider": provider, "service": service, "analysis": analysis});
    let row = ROUTERS.iter().find(|row| row.provider == provider).unwrap();
    for (field, reference) in row.reference().as_object().unwrap() {
        spec[field] = reference.clone();
    }
    release_of(spec)
}

/// Each transcript has the name of its provider.
#[test]
fn each_router_shares_traffic_and_rolls_a_bad_version_back() {
    for row in distinct() {
        let name = format!("routers/{}", row.provider.replace(':', "-"));
        let mut sim = on(row.provider, json!({"stepWeight": 20, "maxWeight": 40}));
        sim.run_until(CanaryPhase::Succeeded);
        transcript(&name, &sim);
        let mut sim = on(row.provider, json!({"stepWeight": 20, "threshold": 2}));
        sim.metric = "42".to_owned();
        sim.run_until(CanaryPhase::Failed);
        transcript(&format!("{name}-rollback"), &sim);
    }
}

#[test]
fn gateway_api_copies_requests_before_it_sends_any() {
    let mut sim = on("gatewayapi:v1", json!({"iterations": 2, "mirror": true}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gateway-api-mirror", &sim);
}

#[test]
fn nginx_routes_matching_requests_to_the_canary() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = on("nginx", json!({"iterations": 2, "match": test}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("nginx-ab", &sim);
}

/// Skipper ignores the second Ingress before the Services behind it are deleted.
#[test]
fn a_canary_that_is_deleted_midway_leaves_skipper_the_users_ingress() {
    let mut sim = on("skipper", json!({"stepWeight": 50}));
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
fn gloo_routes_matching_requests_to_the_canary() {
    let test = json!([{"headers": {"x-canary": {"exact": "insider"}}}]);
    let mut sim = on("gloo", json!({"iterations": 2, "match": test}));
    sim.run_until(CanaryPhase::Succeeded);
    transcript("gloo-ab", &sim);
}

/// Flagger takes such a TrafficRoute over, and two canaries overwrite each other's weights.
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
    // The routes of these routers keep the names, but send no request there. Other tests check them.
    let others = ["skipper", "appmesh", "appmesh:v1beta2"];
    for row in distinct() {
        if others.contains(&row.provider) {
            continue;
        }
        let (provider, rules) = (row.provider, row.rules.unwrap());
        let mut sim = on(provider, json!({"stepWeight": 50}));
        sim.snapshot.canary.spec.revert_on_deletion = true;
        while sim.analysed.is_empty() {
            sim.reconcile();
        }
        sim.delete();
        sim.run(100);
        assert!(sim.is_gone(), "{provider}: {}", sim.transcript());
        let Some(route) = sim.snapshot.object(rules.kind, rules.name) else {
            continue;
        };
        // Kuma appends the namespace and the port to the name of a Service.
        let route = route["spec"]
            .to_string()
            .replace("podinfo_test_svc_9898\"", "podinfo\"");
        assert!(route.contains("\"podinfo\""), "{provider}: {route}");
        assert!(
            !route.contains("podinfo-canary\"") && !route.contains("podinfo-primary\""),
            "{provider}: {route}"
        );
    }
}

#[test]
fn a_crash_at_any_write_of_a_release_loses_nothing_on_any_route() {
    for row in distinct() {
        let start = || on(row.provider, json!({"stepWeight": 20, "maxWeight": 40}));
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

/// Requests to these ports reach the primary. So the new version is promoted without having answered any of them.
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
