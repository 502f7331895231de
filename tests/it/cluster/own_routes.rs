//! Checks routes of the user on a real API server (`spec.service.routeRefs`): two weights change and nothing else, edits of others are put
//! back, and a deletion gives the routes back.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Rig, Scenario, ensure, text};
use flagger_rs::snapshot::Kind;

/// Each kind of route, its list of rules, the list of backends of a rule, and the resource.
const KINDS: [(Kind, &str, &str, &str); 5] = [
    (Kind::HttpRoute, "rules", "backendRefs", "httproute"),
    (Kind::GrpcRoute, "rules", "backendRefs", "grpcroute"),
    (Kind::TlsRoute, "rules", "backendRefs", "tlsroute"),
    (Kind::TcpRoute, "rules", "backendRefs", "tcproute"),
    (
        Kind::VirtualService,
        "http",
        "route",
        "virtualservices.networking.istio.io",
    ),
];

/// A user's route, of this kind and with the name `web`. The API server adds its defaults.
fn route(kind: Kind) -> Value {
    let metadata = json!({"name": "web", "labels": {"team": "a"}, "annotations": {"owner": "b"}});
    let backend = |name: &str, weight: u64| json!({"name": name, "port": 9898, "weight": weight});
    let backends = [
        backend("legacy", 50),
        backend("podinfo", 200),
        backend("podinfo-canary", 0),
    ];
    let rule = json!({"name": "api", "backendRefs": backends});
    let old = json!({"name": "old", "backendRefs": [backend("podinfo", 1)]});
    let (api_version, parents) = (kind.api_version(), json!([{"name": "public"}]));
    let (api_version, spec) = match kind {
        // These kinds have one rule.
        Kind::TlsRoute => (
            api_version,
            json!({"parentRefs": parents, "hostnames": ["a.example.com"], "rules": [rule]}),
        ),
        Kind::TcpRoute => (api_version, json!({"parentRefs": parents, "rules": [rule]})),
        Kind::VirtualService => {
            let route = |host: &str, weight: u64| json!({"destination": {"host": host, "port": {"number": 9898}}, "weight": weight});
            let rule = json!({"name": "api", "match": [{"uri": {"prefix": "/api"}}], "timeout": "3s",
                "route": [route("legacy", 50), route("podinfo", 200), route("podinfo-canary", 0)]});
            let old = json!({"name": "old", "route": [{"destination": {"host": "podinfo"}}]});
            // Another version than the operator's.
            (
                "networking.istio.io/v1".to_owned(),
                json!({"hosts": ["a.example.com"], "http": [old, rule]}),
            )
        }
        _ => (
            api_version,
            json!({"parentRefs": parents, "rules": [old, rule]}),
        ),
    };
    json!({"apiVersion": api_version, "kind": kind.name(), "metadata": metadata, "spec": spec})
}

/// The backends of the last rule of a route.
fn backends<'a>(route: &'a mut Value, list: &str, backends: &str) -> &'a mut Vec<Value> {
    let rules = route["spec"][list].as_array_mut().unwrap();
    let rule = rules.last_mut().unwrap();
    rule[backends].as_array_mut().unwrap()
}

async fn have_weights(s: &Scenario<'_>, expected: [i64; 2]) -> Outcome {
    until(Duration::from_secs(15), "the weights", async || {
        for (kind, list, field, _) in KINDS {
            let mut route = s.get(kind, "web").await?;
            let backends = backends(&mut route, list, field);
            let found = [1, 2].map(|place| backends[place]["weight"].as_i64().unwrap_or(-1));
            if found != expected {
                return Err(format!("{} has {found:?}", kind.name()));
            }
        }
        Ok(())
    })
    .await
    .map_err(text)
}

/// The routes without what the API server counts, and without both weights, as texts.
async fn without_weights(s: &Scenario<'_>) -> Result<Vec<String>, String> {
    let mut routes = Vec::new();
    for (kind, list, field, _) in KINDS {
        let mut route = s.get(kind, "web").await?;
        let metadata = route["metadata"].as_object_mut().unwrap();
        for counted in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(counted);
        }
        let backends = backends(&mut route, list, field);
        for place in [1, 2] {
            backends[place]["weight"].take();
        }
        routes.push(route.to_string());
    }
    Ok(routes)
}

/// Checks that the routes are the same but for the weights.
async fn are_the_same(s: &Scenario<'_>, before: &[String]) -> Outcome {
    let now = without_weights(s).await?;
    ensure(now == before, format!("{now:#?} is not {before:#?}"))
}

/// Writes the weights of Git into each route, as a tool does that applies the manifest again.
async fn apply_git_again(s: &Scenario<'_>) -> Outcome {
    for (kind, list, field, resource) in KINDS {
        let rules = s.get(kind, "web").await?["spec"][list].clone();
        let last = rules.as_array().unwrap().len() - 1;
        let weight = |place: usize| format!("/spec/{list}/{last}/{field}/{place}/weight");
        let edit = json!([{"op": "replace", "path": weight(1), "value": 200},
            {"op": "replace", "path": weight(2), "value": 0}]);
        let edit = edit.to_string();
        let patch = [resource, "web", "--type=json", "-p", &edit];
        let args = [&["-n", &s.ns, "patch"][..], &patch].concat();
        s.rig.bed.kubectl(&args).await.map_err(text)?;
    }
    Ok(())
}

pub async fn routes_of_a_user_get_two_weights_and_nothing_else(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    for (kind, ..) in KINDS {
        s.apply(&route(kind)).await?;
    }
    let before = without_weights(&s).await?;
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 25, "maxWeight": 50}));
    let refs = KINDS.map(|(kind, ..)| json!({"kind": kind.name(), "name": "web"}));
    let mut refs = json!(refs);
    refs[0]["rules"] = json!(["api"]);
    canary["spec"]["service"] = json!({"port": 9898, "targetPort": 9898, "routeRefs": refs});
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    have_weights(&s, [200, 0]).await?;

    s.image("3.1.1").await?;
    s.line("Progressing 25").await?;
    have_weights(&s, [150, 50]).await?;
    apply_git_again(&s).await?;
    have_weights(&s, [150, 50]).await?;
    are_the_same(&s, &before).await?;
    s.phase("Succeeded").await?;
    have_weights(&s, [200, 0]).await?;

    s.image("3.1.2").await?;
    s.line("Progressing 25").await?;
    s.delete("canary", "podinfo").await?;
    until(PATIENCE, "the Canary to go", async || {
        let canary = s.get(Kind::Canary, "podinfo").await;
        canary.map_or(Ok(()), |canary| Err(canary["status"].to_string()))
    })
    .await
    .map_err(text)?;
    have_weights(&s, [200, 0]).await?;
    are_the_same(&s, &before).await
}

fn has_headers(kind: Kind) -> bool {
    matches!(kind, Kind::HttpRoute | Kind::GrpcRoute)
}

/// The copy that the operator made of the route `web`.
async fn copy_has(s: &Scenario<'_>, kind: Kind, expected: &[(&str, i64)]) -> Outcome {
    until(
        Duration::from_secs(15),
        "the weights of the copy",
        async || {
            let mut copy = s.get(kind, "web-flagger").await?;
            let backends = backends(&mut copy, "rules", "backendRefs");
            let backends = backends.iter();
            let found: Vec<_> = backends
                .map(|it| (it["name"].as_str().unwrap(), it["weight"].as_i64().unwrap()))
                .collect();
            if found == expected {
                Ok(())
            } else {
                Err(format!("{}: {found:?}", kind.name()))
            }
        },
    )
    .await
    .map_err(text)
}

/// No tool that applies the user's routes can change a weight: the copies have them.
pub async fn copies_of_a_users_routes_get_the_weights_and_the_routes_stay_as_they_are(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    let of_gateway_api = || KINDS.into_iter().filter(|it| it.2 == "backendRefs");
    let (mut before, mut refs) = (Vec::new(), Vec::new());
    for (kind, ..) in of_gateway_api() {
        let mut template = route(kind);
        let spec = template["spec"].as_object_mut().unwrap();
        spec.remove("parentRefs");
        // The template leads to the promoted version only.
        backends(&mut template, "rules", "backendRefs").pop();
        s.apply(&template).await?;
        before.push(s.get(kind, "web").await?);
        let mut entry = json!({"kind": kind.name(), "name": "web", "rules": ["api"], "mode": "Template", "parentRefs": [{"name": "public"}]});
        if has_headers(kind) {
            entry["debugHeader"] = json!({"name": "x-debug", "value": "1"});
        }
        refs.push(entry);
    }
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 25, "maxWeight": 50}));
    canary["spec"]["service"] = json!({"port": 9898, "targetPort": 9898, "routeRefs": refs});
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    let weights = |stable: i64, canary: i64| {
        [
            ("legacy", 50),
            ("podinfo", stable),
            ("podinfo-canary", canary),
        ]
    };
    for (kind, ..) in of_gateway_api() {
        copy_has(&s, kind, &weights(200, 0)).await?;
        let copy = s.get(kind, "web-flagger").await?;
        let parent = &copy["spec"]["parentRefs"][0];
        ensure(parent["name"] == "public", &copy)?;
        ensure(
            copy["metadata"]["ownerReferences"][0]["kind"] == "Canary",
            &copy,
        )?;
    }
    s.image("3.1.1").await?;
    s.line("Progressing 25").await?;
    for (kind, ..) in of_gateway_api() {
        copy_has(&s, kind, &weights(150, 50)).await?;
        let copy = s.get(kind, "web-flagger").await?;
        let leads_debugging = copy["spec"]["rules"][0]["name"] == "flagger-debug-0";
        ensure(leads_debugging == has_headers(kind), &copy)?;
    }
    s.phase("Succeeded").await?;
    for ((kind, ..), before) in of_gateway_api().zip(&before) {
        copy_has(&s, kind, &weights(200, 0)).await?;
        let now = s.get(kind, "web").await?;
        ensure(now == *before, format!("{now} is not {before}"))?;
    }
    // An idle operator writes nothing.
    let copy = s.get(Kind::HttpRoute, "web-flagger").await?;
    s.patch(
        "httproute",
        "web",
        &json!({"spec": {"hostnames": ["b.example.com"]}}),
    )
    .await?;
    until(
        Duration::from_secs(15),
        "the change of the template",
        async || {
            let now = s.get(Kind::HttpRoute, "web-flagger").await?;
            if now["spec"]["hostnames"] != json!(["b.example.com"]) {
                return Err(now["spec"].to_string());
            }
            let generation = |route: &Value| route["metadata"]["generation"].as_i64().unwrap();
            ensure(generation(&now) == generation(&copy) + 1, &now)
        },
    )
    .await
    .map_err(text)
}

/// The operator was installed again without a router, and may not read the route any more. The finalizer must not keep the Canary for ever.
pub async fn a_canary_goes_although_the_operator_may_not_read_its_route_any_more(
    rig: &Rig,
) -> Outcome {
    let name = "a_canary_goes_although_the_operator_may_not_read_its_route_any_more";
    Scenario::run(rig, name, |s| async move {
        let operator = s.rig.launch("with-rights", &[]).await?;
        s.podinfo().await?;
        s.apply(&route(Kind::GrpcRoute)).await?;
        let mut canary = s.canary_named("podinfo", json!({"stepWeight": 25, "maxWeight": 50}));
        let refs = json!([{"kind": "GRPCRoute", "name": "web"}]);
        canary["spec"]["service"] = json!({"port": 9898, "targetPort": 9898, "routeRefs": refs});
        canary["spec"]["progressDeadlineSeconds"] = json!(10);
        s.apply(&canary).await?;
        s.phase("Initialized").await?;
        let code = operator.terminate().await.map_err(text)?;
        ensure(code.success(), code)?;

        let args = ["get", "clusterrole", "flagger", "-o", "json"];
        let role = rig.bed.kubectl(&args).await.map_err(text)?;
        let mut role: Value = serde_json::from_str(&role).map_err(text)?;
        let rules = role["rules"].as_array_mut().ok_or("no rules")?;
        let of_routes = |rule: &Value| rule["resources"].to_string().contains("grpcroutes");
        ensure(rules.iter().any(of_routes), "the role had the rights")?;
        rules.retain(|rule| !of_routes(rule));
        rig.bed.apply(&role.to_string()).await.map_err(text)?;
        let operator = s.rig.launch("without-rights", &[]).await?;
        s.delete("canary", "podinfo").await?;
        s.event("GRPCRoute web.").await?;
        until(PATIENCE, "the Canary to go", async || {
            let canary = s.get(Kind::Canary, "podinfo").await;
            canary.map_or(Ok(()), |canary| Err(canary["status"].to_string()))
        })
        .await
        .map_err(text)?;
        let code = operator.terminate().await.map_err(text)?;
        ensure(code.success(), code)
    })
    .await
}
