//! Objects of others, and configs that two canaries share.

use flagger_rs::snapshot::Kind;
use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, text};

/// A Canary of this target, whose only webhook is answered at this path.
fn canary(s: &Scenario<'_>, target: &str, hook: &str) -> Value {
    let webhooks = json!([{"name": "hook", "url": format!("http://hooks/{}/{hook}", s.ns)}]);
    let analysis = json!({"iterations": 1, "threshold": 1, "metrics": [], "webhooks": webhooks});
    let mut canary = s.canary_named(target, analysis);
    canary["spec"]["provider"] = json!("kubernetes");
    canary["spec"]["service"] = json!({"port": 9898});
    canary["spec"]["targetRef"]["name"] = json!(target);
    if let Some(spec) = canary["spec"].as_object_mut() {
        spec.remove("autoscalerRef");
    }
    canary
}

/// Waits until an object is as `is` wants it.
async fn wait(s: &Scenario<'_>, kind: Kind, name: &str, is: impl Fn(&Value) -> bool) -> Outcome {
    until(PATIENCE, &format!("{} {name}", kind.name()), async || {
        let object = s.get(kind, name).await?;
        is(&object).then_some(()).ok_or_else(|| object.to_string())
    })
    .await
    .map_err(text)
}

fn is_in(phase: &str) -> impl Fn(&Value) -> bool {
    move |canary| canary["status"]["phase"] == phase
}

pub async fn an_object_of_another_owner_is_left_as_it_is_until_it_is_given_away(
    s: Scenario<'_>,
) -> Outcome {
    s.podinfo().await?;
    s.apply(
        &json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo-primary"},
        "spec": {"selector": {"app": "theirs"}, "ports": [{"port": 80}]}}),
    )
    .await?;
    let before = s.get(Kind::Service, "podinfo-primary").await?;
    s.apply(&canary(&s, "podinfo", "ok")).await?;
    s.event(&format!(
        "Warning canary podinfo.{} is not run: the Service podinfo-primary exists already and belongs to no Canary",
        s.ns
    ))
    .await?;
    ensure(
        s.get(Kind::Service, "podinfo-primary").await? == before,
        "the Service is as it was",
    )?;
    ensure(
        s.get(Kind::Service, "podinfo-canary").await.is_err(),
        "nothing else is made",
    )?;
    let given = json!({"metadata": {"annotations": {"flagger-rs.github.io/adopt": "true"}}});
    s.patch("service", "podinfo-primary", &given).await?;
    s.phase("Initialized").await?;
    let after = s.get(Kind::Service, "podinfo-primary").await?;
    ensure(
        after["spec"]["selector"] == json!({"app": "podinfo-primary"}),
        &after,
    )
}

/// fluxcd/flagger#1889: the application has an HTTPRoute for clients from outside, the Canary is for calls within the mesh.
pub async fn a_route_that_would_lose_something_is_left_as_it_is(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    s.apply(&json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "podinfo"}, "spec": {
        "parentRefs": [{"name": "public", "namespace": "edge"}], "hostnames": ["app.example.com"],
        "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/static"}}], "backendRefs": [{"name": "assets", "port": 80}]}]}}))
        .await?;
    let before = s.get(Kind::HttpRoute, "podinfo").await?;
    let mut canary = canary(&s, "podinfo", "ok");
    canary["spec"]["provider"] = json!("gatewayapi:v1");
    canary["spec"]["service"]["gatewayRefs"] =
        json!([{"group": "core", "kind": "Service", "name": "podinfo", "port": 9898}]);
    canary["spec"]["analysis"]["iterations"] = json!(1);
    s.apply(&canary).await?;
    s.event("the HTTPRoute podinfo exists already and its parentRefs would lose something")
        .await?;
    ensure(
        s.get(Kind::HttpRoute, "podinfo").await? == before,
        "the route is as it was",
    )?;
    s.delete("httproute", "podinfo").await?;
    s.phase("Initialized").await
}

/// fluxcd/flagger#1930: two applications share a ConfigMap. It changes, one canary passes, the other fails.
pub async fn each_primary_keeps_the_config_that_its_version_passed_with(
    s: Scenario<'_>,
) -> Outcome {
    s.apply(&json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": "old"}}))
        .await?;
    s.rig.bed.fakes.script(
        &format!("hooks/{}/not-ok", s.ns),
        testbed::fakes::Answer::Raw(500, "no".to_owned()),
    );
    for name in ["good", "bad"] {
        let container = json!({"name": "main", "image": "example/app:1", "envFrom": [{"configMapRef": {"name": "settings"}}]});
        s.apply(&json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}}))
            .await?;
        let hook = if name == "bad" { "not-ok" } else { "ok" };
        s.apply(&canary(&s, name, hook)).await?;
    }
    for name in ["good", "bad"] {
        wait(&s, Kind::Canary, name, is_in("Initialized")).await?;
    }
    let owners = |copy: &Value| copy["metadata"]["ownerReferences"].as_array().map(Vec::len);
    wait(&s, Kind::ConfigMap, "settings-primary", |copy| {
        owners(copy) == Some(2)
    })
    .await?;
    s.patch("configmap", "settings", &json!({"data": {"mode": "new"}}))
        .await?;
    wait(&s, Kind::Canary, "good", is_in("Succeeded")).await?;
    wait(&s, Kind::Canary, "bad", is_in("Failed")).await?;
    let mode = async |name: &str| {
        let primary = s.get(Kind::Deployment, name).await?;
        let containers = &primary["spec"]["template"]["spec"]["containers"];
        let copy = containers[0]["envFrom"][0]["configMapRef"]["name"].clone();
        let copy = s
            .get(Kind::ConfigMap, copy.as_str().unwrap_or_default())
            .await?;
        Ok::<_, String>(copy["data"]["mode"].clone())
    };
    ensure(mode("good-primary").await? == "new", "the promoted config")?;
    ensure(
        mode("bad-primary").await? == "old",
        "the config that failed",
    )?;
    s.delete("canary", "good").await?;
    wait(&s, Kind::ConfigMap, "settings-primary", |copy| {
        owners(copy) == Some(1)
    })
    .await?;
    ensure(mode("bad-primary").await? == "old", "the copy stays")
}
