//! Checks that a real API server accepts and keeps the routes of Gateway API, of sessions, and of Canaries without a mesh.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, equal, text};
use flagger_rs::snapshot::Kind;

/// Creates a canary with this provider and waits until it is initialized.
pub async fn initialized(
    s: &Scenario<'_>,
    provider: &str,
    service: Value,
    analysis: Value,
) -> Outcome {
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", analysis);
    canary["spec"]["provider"] = json!(provider);
    // Only NGINX uses `ingressRef`.
    canary["spec"]["ingressRef"] =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "name": "web"});
    canary["spec"]["service"] = json!({"port": 9898, "targetPort": 9898, "hosts": ["app.example.com"],
        "gatewayRefs": [{"name": "gateway", "namespace": "infra"}]});
    for (key, value) in service.as_object().unwrap() {
        canary["spec"]["service"][key] = value.clone();
    }
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    s.notified("Initialization done").await
}

/// The events after the first `since` ones, without the name of the namespace.
fn events_since(s: &Scenario<'_>, since: usize) -> Vec<String> {
    let events = s.events();
    events[since..]
        .iter()
        .map(|line| line.replace(&s.ns, "test"))
        .collect()
}

async fn rules(s: &Scenario<'_>) -> Result<Value, String> {
    let route = s.get(Kind::HttpRoute, "podinfo").await?;
    Ok(route["spec"]["rules"].clone())
}

/// Waits until the rules of the route match this.
async fn routed(s: &Scenario<'_>, what: &str, is: impl Fn(&Value) -> bool) -> Outcome {
    until(Duration::from_secs(60), what, async || {
        let rules = rules(s).await?;
        if is(&rules) {
            Ok(())
        } else {
            Err(rules.to_string())
        }
    })
    .await
    .map_err(text)
}

fn weights(rules: &Value, rule: usize) -> [i64; 2] {
    let weight = |side: usize| rules[rule]["backendRefs"][side]["weight"].as_i64();
    [weight(0).unwrap_or(-1), weight(1).unwrap_or(-1)]
}

/// The API server must keep the decimal place, in the spec and in the status.
pub async fn gateway_api_shares_a_tenth_of_a_percent(s: Scenario<'_>) -> Outcome {
    let analysis = json!({"decimalStepWeights": [0.1, 50]});
    initialized(&s, "gatewayapi:v1", json!({}), analysis).await?;
    s.image("3.1.1").await?;
    routed(&s, "a tenth of a percent", |rules| {
        weights(rules, 0) == [999, 1]
    })
    .await?;
    let recorded = async || {
        let canary = s.get(Kind::Canary, "podinfo").await?;
        let weight = |field: &str| canary["status"][field].to_string();
        Ok::<_, String>([weight("canaryWeight"), weight("canaryWeightDecimal")])
    };
    until(
        Duration::from_secs(10),
        "the weight in the status",
        async || equal("recorded", &recorded().await?, &["1", "0.1"]),
    )
    .await
    .map_err(text)?;
    routed(&s, "the last step", |rules| weights(rules, 0) == [50, 50]).await?;
    s.phase("Succeeded").await?;
    equal("recorded", &recorded().await?, &["0", "null"])
}

pub async fn gateway_api_shares_traffic_step_by_step_and_rolls_back(s: Scenario<'_>) -> Outcome {
    // The API server adds a default path to matches, and keeps headers in its own order.
    let service = json!({"timeout": "10s", "backendTimeout": "5s",
        "match": [{"headers": {"x-c": {"exact": "3"}, "x-a": {"regex": "1.*"}, "x-b": {"exact": "2"}}}],
        "headers": {"request": {"add": {"x-z": "1", "x-y": "2"}}, "response": {"set": {"x-o": "4"}}},
        "corsPolicy": {"allowOrigin": ["https://example.com"]}});
    initialized(
        &s,
        "gatewayapi:v1",
        service,
        json!({"stepWeight": 25, "maxWeight": 50}),
    )
    .await?;
    ensure(
        weights(&rules(&s).await?, 0) == [100, 0],
        "all to the primary",
    )?;
    let (seen, since) = (s.table().len(), s.events().len());
    s.image("3.1.1").await?;
    s.line("Progressing 25").await?;
    routed(&s, "the first step", |rules| weights(rules, 0) == [75, 25]).await?;
    // A user edits the route. The operator repairs it without a change of its weights.
    s.patch(
        "httproute",
        "podinfo",
        &json!({"spec": {"hostnames": ["other.example.com"]}}),
    )
    .await?;
    until(
        Duration::from_secs(10),
        "the route to be repaired",
        async || {
            let route = s.get(Kind::HttpRoute, "podinfo").await?;
            let recently_written = route["spec"]["hostnames"] == json!(["app.example.com"]);
            let weights = weights(&route["spec"]["rules"], 0);
            if weights[1] < 25 {
                return Err(format!("weights were reset: {weights:?}"));
            }
            recently_written
                .then_some(())
                .ok_or_else(|| route["spec"].to_string())
        },
    )
    .await
    .map_err(text)?;
    s.phase("Succeeded").await?;
    let steps = [
        "Progressing 0",
        "Progressing 25",
        "Progressing 50",
        "Promoting 50",
        "Finalising 0",
        "Succeeded 0",
    ];
    equal("the table", &s.table()[seen..], &steps)?;
    ensure(
        weights(&rules(&s).await?, 0) == [100, 0],
        "all to the primary",
    )?;
    s.notified("Promotion completed!").await?;
    equal(
        "the events",
        &events_since(&s, since),
        &[
            "Normal [Progressing] New revision detected! Scaling up podinfo.test",
            "Normal [Progressing] Starting canary analysis for podinfo.test",
            "Normal [Progressing] Pre-rollout check acceptance-test passed",
            "Normal [Progressing] Advance podinfo.test canary weight 25",
            "Normal [Progressing] Advance podinfo.test canary weight 50",
            "Normal [Progressing] Copying podinfo.test template spec to podinfo-primary.test",
            "Normal [Promoting] Routing all traffic to primary",
            "Normal [Succeeded] Promotion completed! Scaling down podinfo.test",
        ],
    )?;
    s.rig.bed.fakes.latency(&s.ns, 600.0);
    s.image("3.1.2").await?;
    s.phase("Failed").await?;
    s.event("Halt podinfo.").await?;
    s.event("advancement request duration 600ms > 500ms")
        .await?;
    ensure(
        weights(&rules(&s).await?, 0) == [100, 0],
        "all to the primary",
    )
}

/// The API server adds its defaults to a GRPCRoute, too, which are no drift.
pub async fn gateway_api_shares_calls_of_grpc_by_a_grpc_route(s: Scenario<'_>) -> Outcome {
    let service = json!({"grpc": {"methods": [{"service": "shop.Cart", "method": "Add"}, {"service": "shop.Pay"}]},
        "match": [{"headers": {"x-b": {"exact": "2"}, "x-a": {"regex": "1.*"}}}], "hosts": ["grpc.example.com"]});
    initialized(
        &s,
        "gatewayapi:v1",
        service,
        json!({"stepWeight": 25, "maxWeight": 50}),
    )
    .await?;
    let route = async || s.get(Kind::GrpcRoute, "podinfo").await;
    let has = async |expected: [i64; 2], what: &str| {
        until(Duration::from_secs(15), what, async || {
            let found = weights(&route().await?["spec"]["rules"], 0);
            (found == expected)
                .then_some(())
                .ok_or(format!("{found:?}"))
        })
        .await
        .map_err(text)
    };
    has([100, 0], "all to the primary").await?;
    let matches = route().await?["spec"]["rules"][0]["matches"].clone();
    ensure(matches[1]["method"]["service"] == "shop.Pay", &matches)?;
    let none = s.get(Kind::HttpRoute, "podinfo").await;
    ensure(none.is_err(), "an HTTPRoute beside the GRPCRoute")?;
    s.image("3.1.1").await?;
    s.line("Progressing 25").await?;
    has([75, 25], "the first step").await?;
    // A user edits the route. The operator repairs it.
    let edit = json!({"spec": {"hostnames": ["other.example.com"]}});
    s.patch("grpcroute", "podinfo", &edit).await?;
    until(PATIENCE, "the route to be repaired", async || {
        let spec = route().await?["spec"].take();
        let is_repaired = spec["hostnames"] == json!(["grpc.example.com"]);
        is_repaired.then_some(()).ok_or(spec.to_string())
    })
    .await
    .map_err(text)?;
    s.phase("Succeeded").await?;
    has([100, 0], "all to the primary").await?;
    // It was created, had three weights and one edit, and was repaired: no default was taken for drift.
    let generation = route().await?["metadata"]["generation"].as_i64();
    let are_few = generation.is_some_and(|versions| versions <= 6);
    ensure(are_few, format!("{generation:?} versions"))?;
    // The user takes `grpc` out: an HTTPRoute takes the place.
    let service = json!({"spec": {"service": {"grpc": null}}});
    s.patch("canary", "podinfo", &service).await?;
    until(PATIENCE, "an HTTPRoute alone", async || {
        let http = s.get(Kind::HttpRoute, "podinfo").await?["spec"].take();
        let has_parents = |spec: &Value| spec["parentRefs"][0].is_object();
        let grpc = route().await?["spec"].take();
        let canary = s.get(Kind::Canary, "podinfo").await?["status"].to_string();
        (has_parents(&http) && !has_parents(&grpc) && !canary.contains("GrpcRoute"))
            .then_some(())
            .ok_or(format!("{http} {grpc} {canary}"))
    })
    .await
    .map_err(text)
}

pub async fn gateway_api_copies_requests_in_blue_green(s: Scenario<'_>) -> Outcome {
    let analysis = json!({"iterations": 2, "mirror": true, "mirrorWeight": 100});
    initialized(&s, "gatewayapi:v1beta1", json!({}), analysis).await?;
    s.image("3.1.1").await?;
    let mirrors = |rules: &Value| {
        rules[0]["filters"][0]["requestMirror"]["backendRef"]["name"] == "podinfo-canary"
    };
    routed(&s, "copies", |rules| {
        mirrors(rules) && weights(rules, 0) == [100, 0]
    })
    .await?;
    s.event("Stop traffic mirroring and route all traffic to canary")
        .await?;
    routed(&s, "all to the canary", |rules| {
        !mirrors(rules) && weights(rules, 0) == [0, 100]
    })
    .await?;
    s.phase("Succeeded").await?;
    ensure(
        weights(&rules(&s).await?, 0) == [100, 0],
        "all to the primary",
    )
}

pub async fn gateway_api_routes_matching_requests_to_the_canary(s: Scenario<'_>) -> Outcome {
    let test = json!([{"headers": {"x-user": {"exact": "insider"}}}]);
    initialized(
        &s,
        "gatewayapi:v1",
        json!({}),
        json!({"iterations": 2, "match": test}),
    )
    .await?;
    s.image("3.1.1").await?;
    routed(&s, "the match", |rules| weights(rules, 0) == [0, 100]).await?;
    let during = rules(&s).await?;
    ensure(
        during[0]["matches"][0]["headers"][0]["value"] == "insider"
            && during[1]["backendRefs"].as_array().map(Vec::len) == Some(1)
            && during[1]["backendRefs"][0]["name"] == "podinfo-primary",
        &during,
    )?;
    s.phase("Succeeded").await?;
    s.delete("canary", "podinfo").await?;
    until(Duration::from_secs(60), "the route to go", async || match s
        .get(Kind::HttpRoute, "podinfo")
        .await
    {
        Err(error) if error.contains("not found") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await
    .map_err(text)
}

pub async fn without_a_mesh_the_version_is_analysed_behind_its_own_service(
    s: Scenario<'_>,
) -> Outcome {
    initialized(&s, "kubernetes", json!({}), json!({"iterations": 2})).await?;
    let since = s.events().len();
    s.release("3.1.1").await?;
    s.notified("Promotion completed!").await?;
    equal(
        "the events",
        &events_since(&s, since),
        &[
            "Normal [Progressing] New revision detected! Scaling up podinfo.test",
            "Normal [Progressing] Starting canary analysis for podinfo.test",
            "Normal [Progressing] Pre-rollout check acceptance-test passed",
            "Normal [Progressing] Advance podinfo.test canary iteration 1/2",
            "Normal [Progressing] Advance podinfo.test canary iteration 2/2",
            "Normal [Progressing] Copying podinfo.test template spec to podinfo-primary.test",
            "Normal [Succeeded] Promotion completed! Scaling down podinfo.test",
        ],
    )?;
    for kind in [Kind::VirtualService, Kind::HttpRoute] {
        ensure(s.get(kind, "podinfo").await.is_err(), "nothing is routed")?;
    }
    s.rig.bed.fakes.success_rate(&s.ns, 97.5);
    s.image("3.1.2").await?;
    s.phase("Failed").await?;
    s.event("Warning Halt podinfo.").await.map(drop)
}

pub async fn istio_keeps_clients_on_the_version_that_answered_them(s: Scenario<'_>) -> Outcome {
    session(&s, "istio", Kind::VirtualService).await
}

pub async fn gateway_api_keeps_clients_on_the_version_that_answered_them(
    s: Scenario<'_>,
) -> Outcome {
    session(&s, "gatewayapi:v1", Kind::HttpRoute).await
}

async fn session(s: &Scenario<'_>, provider: &str, kind: Kind) -> Outcome {
    let affinity = json!({"cookieName": "canary-side", "primaryCookieName": "primary-side"});
    let analysis =
        json!({"stepWeight": 50, "maxWeight": 50, "metrics": [], "sessionAffinity": affinity});
    initialized(s, provider, json!({}), analysis).await?;
    s.image("3.1.1").await?;
    s.line("Progressing 50").await?;
    let cookie = async |field: &str| {
        let canary = s.get(Kind::Canary, "podinfo").await?;
        let cookie = canary["status"][field].as_str().map(str::to_owned);
        cookie.ok_or_else(|| format!("no {field}: {}", canary["status"]))
    };
    let given = cookie("sessionAffinityCookie").await?;
    let route = s.get(kind, "podinfo").await?.to_string();
    ensure(route.contains(&format!("{given}; Max-Age=86400")), &route)?;
    s.phase("Succeeded").await?;
    ensure(
        cookie("previousSessionAffinityCookie").await? == given,
        "the previous cookie is the one of the run",
    )?;
    let route = s.get(kind, "podinfo").await?.to_string();
    ensure(route.contains(&format!("{given}; Max-Age=-1")), &route)
}

pub async fn a_delegated_route_is_promoted_without_analysis(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 50}));
    canary["spec"]["service"] = json!({"port": 9898, "delegation": true});
    canary["spec"]["skipAnalysis"] = json!(true);
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    let route = s.get(Kind::VirtualService, "podinfo").await?;
    ensure(
        route["spec"]["hosts"].as_array().is_none_or(Vec::is_empty)
            && route["spec"].get("gateways").is_none(),
        &route["spec"],
    )?;
    s.release("3.1.1").await?;
    s.notified("Promotion completed! Canary analysis was skipped")
        .await?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    s.event("progress deadline exceeded").await.map(drop)
}
