//! Checks routes of the user on a real API server (`spec.service.routeRefs`): two weights change and nothing else, edits of others are put
//! back, and a deletion gives the routes back.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Rig, Scenario, ensure, text};
use flagger_rs::snapshot::Kind;

const KINDS: [Kind; 2] = [Kind::HttpRoute, Kind::GrpcRoute];

/// A user's route, of this kind and with the name `web`. The API server adds its defaults.
fn route(kind: Kind) -> Value {
    let backend = |name: &str, weight: u64| json!({"name": name, "port": 9898, "weight": weight});
    let rules = json!([
        {"name": "old", "backendRefs": [backend("podinfo", 1)]},
        {"name": "api", "backendRefs": [backend("legacy", 50), backend("podinfo", 200), backend("podinfo-canary", 0)]},
    ]);
    let metadata = json!({"name": "web", "labels": {"team": "a"}, "annotations": {"owner": "b"}});
    let spec = json!({"parentRefs": [{"name": "public"}], "rules": rules});
    json!({"apiVersion": kind.api_version(), "kind": kind.name(), "metadata": metadata, "spec": spec})
}

/// Both weights of the second rule.
async fn weights(s: &Scenario<'_>, kind: Kind) -> Result<[i64; 2], String> {
    let route = s.get(kind, "web").await?;
    let weight = |place: usize| route["spec"]["rules"][1]["backendRefs"][place]["weight"].as_i64();
    Ok([1, 2].map(|place| weight(place).unwrap_or(-1)))
}

async fn have_weights(s: &Scenario<'_>, expected: [i64; 2]) -> Outcome {
    until(Duration::from_secs(15), "the weights", async || {
        for kind in KINDS {
            let found = weights(s, kind).await?;
            if found != expected {
                return Err(format!("{} has {found:?}", kind.name()));
            }
        }
        Ok(())
    })
    .await
    .map_err(text)
}

/// A route without what the API server counts, and without both weights.
async fn without_weights(s: &Scenario<'_>, kind: Kind) -> Result<Value, String> {
    let mut route = s.get(kind, "web").await?;
    let metadata = route["metadata"].as_object_mut().unwrap();
    for field in ["managedFields", "resourceVersion", "generation"] {
        metadata.remove(field);
    }
    for place in [1, 2] {
        route["spec"]["rules"][1]["backendRefs"][place]["weight"].take();
    }
    Ok(route)
}

/// Checks that the routes are the same but for the weights.
async fn are_the_same(s: &Scenario<'_>, before: &[Value]) -> Outcome {
    for (kind, before) in KINDS.into_iter().zip(before) {
        let now = without_weights(s, kind).await?;
        ensure(now == *before, format!("{now} is not {before}"))?;
    }
    Ok(())
}

pub async fn routes_of_a_user_get_two_weights_and_nothing_else(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    let mut before = Vec::new();
    for kind in KINDS {
        s.apply(&route(kind)).await?;
        before.push(without_weights(&s, kind).await?);
    }
    let mut canary = s.canary_named("podinfo", json!({"stepWeight": 25, "maxWeight": 50}));
    let refs = json!([{"kind": "HTTPRoute", "name": "web", "rules": ["api"]}, {"kind": "GRPCRoute", "name": "web"}]);
    canary["spec"]["service"] = json!({"port": 9898, "targetPort": 9898, "routeRefs": refs});
    s.apply(&canary).await?;
    s.phase("Initialized").await?;
    have_weights(&s, [200, 0]).await?;

    s.image("3.1.1").await?;
    s.line("Progressing 25").await?;
    have_weights(&s, [150, 50]).await?;
    // A tool applies the manifest in Git again.
    let edit = json!([{"op": "replace", "path": "/spec/rules/1/backendRefs/1/weight", "value": 200},
        {"op": "replace", "path": "/spec/rules/1/backendRefs/2/weight", "value": 0}]);
    let edit = edit.to_string();
    let args = [
        "-n",
        &s.ns,
        "patch",
        "httproute",
        "web",
        "--type=json",
        "-p",
        &edit,
    ];
    s.rig.bed.kubectl(&args).await.map_err(text)?;
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
