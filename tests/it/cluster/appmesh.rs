//! Checks that a real API server accepts and keeps the objects for App Mesh, beside the fields that App Mesh's controller adds. The CRDs
//! are those of the testbed.

use serde_json::{Value, json};

use super::{
    Outcome, PATIENCE, Scenario, ensure, inputs::a_step_costs_three_writes, routes::initialized,
    text,
};
use flagger_rs::snapshot::Kind;
use testbed::wait::until;

const PROVIDER: &str = "appmesh:v1beta2";

/// The weights of the canary and the primary in the first route of a VirtualRouter.
fn weights(router: &Value) -> Value {
    let targets = &router["spec"]["routes"][0]["httpRoute"]["action"]["weightedTargets"];
    json!([targets[0]["weight"], targets[1]["weight"]])
}

/// How often an object was written.
fn writes(object: &Value) -> &Value {
    &object["metadata"]["generation"]
}

pub async fn app_mesh_shares_traffic_step_by_step_beside_its_controller(
    s: Scenario<'_>,
) -> Outcome {
    let service = json!({"timeout": "15s", "match": [{"uri": {"prefix": "/api"}}], "backends": ["backend", "arn:aws:appmesh:x"],
        "retries": {"attempts": 3, "perTryTimeout": "5s", "retryOn": "gateway-error,stream-error"}});
    let analysis = json!({"stepWeight": 25, "maxWeight": 50, "metrics": []});
    initialized(&s, PROVIDER, service, analysis).await?;
    s.event("Initialization done").await?;
    let added =
        json!({"spec": {"awsName": "podinfo_test", "meshRef": {"name": "global", "uid": "m"}}});
    for (kind, name) in [
        ("virtualnodes", "podinfo-primary"),
        ("virtualrouters", "podinfo"),
        ("virtualservices", "podinfo"),
    ] {
        s.patch(&format!("{kind}.appmesh.k8s.aws"), name, &added)
            .await?;
    }
    let preference =
        json!({"spec": {"serviceDiscovery": {"dns": {"ipPreference": "IPv4_PREFERRED"}}}});
    s.patch(
        "virtualnodes.appmesh.k8s.aws",
        "podinfo-primary",
        &preference,
    )
    .await?;
    a_step_costs_three_writes(&s, "virtualrouters").await?;
    s.phase("Succeeded").await?;
    let router = s.get(Kind::AppMeshRouter, "podinfo").await?;
    ensure(weights(&router) == json!([0, 100]), &router)?;
    ensure(router["spec"]["awsName"] == "podinfo_test", &router)?;
    // Five writes: the creation, the controller's, two steps, and the return of all traffic to the primary.
    ensure(writes(&router) == 5, &router)?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    for (kind, name, expected) in [
        (Kind::AppMeshNode, "podinfo-primary", 3),
        (Kind::AppMeshNode, "podinfo-canary", 1),
        (Kind::AppMeshService, "podinfo", 2),
        (Kind::AppMeshRouter, "podinfo-canary", 1),
    ] {
        let object = s.get(kind, name).await?;
        ensure(writes(&object) == expected, &object)?;
    }
    let gateway = s.get(Kind::AppMeshService, "podinfo").await?;
    let domain = &gateway["metadata"]["annotations"]["gateway.appmesh.k8s.aws/domain"];
    ensure(domain == "app.example.com,", &gateway)?;
    drift_is_repaired(&s).await
}

/// A user changes a VirtualNode and deletes a VirtualService.
async fn drift_is_repaired(s: &Scenario<'_>) -> Outcome {
    let log = json!({"spec": {"logging": {"accessLog": {"file": {"path": "/theirs"}}}}});
    s.patch("virtualnodes.appmesh.k8s.aws", "podinfo-canary", &log)
        .await?;
    s.delete("virtualservices.appmesh.k8s.aws", "podinfo")
        .await?;
    until(PATIENCE, "the repairs", async || {
        let node = s.get(Kind::AppMeshNode, "podinfo-canary").await?;
        s.get(Kind::AppMeshService, "podinfo").await?;
        ensure(node["spec"].get("logging").is_none(), &node)
    })
    .await
    .map_err(text)
}

pub async fn app_mesh_routes_matching_requests_to_the_canary(s: Scenario<'_>) -> Outcome {
    let test = json!([{"headers": {"x-user": {"exact": "insider"}, "x-team": {"prefix": "a"}}}, {"headers": {"cookie": {"suffix": "canary"}}}]);
    let analysis = json!({"iterations": 2, "match": test, "metrics": []});
    initialized(&s, PROVIDER, json!({}), analysis).await?;
    s.image("3.1.1").await?;
    s.event("Advance podinfo").await?;
    let during = s.get(Kind::AppMeshRouter, "podinfo").await?;
    let routes = during["spec"]["routes"].as_array().map(Vec::len);
    ensure(
        weights(&during) == json!([100, 0]) && routes == Some(3),
        &during,
    )?;
    s.phase("Succeeded").await?;
    let after = s.get(Kind::AppMeshRouter, "podinfo").await?;
    ensure(
        weights(&after) == json!([0, 100]) && writes(&after) == 3,
        &after,
    )
}

/// The CRDs of the testbed serve both versions; a real cluster has one of them.
pub async fn the_older_app_mesh_shares_traffic_by_its_virtual_service(s: Scenario<'_>) -> Outcome {
    let service = json!({"meshName": "global", "backends": ["backend"],
        "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "gateway-error"}});
    let analysis = json!({"stepWeight": 25, "maxWeight": 50, "metrics": []});
    initialized(&s, "appmesh", service, analysis).await?;
    s.event("Initialization done").await?;
    a_step_costs_three_writes(&s, "virtualservices").await?;
    s.phase("Succeeded").await?;
    s.image("broken").await?;
    s.phase("Failed").await?;
    let name = format!("podinfo.{}", s.ns);
    let service = s.get(Kind::AppMeshServiceV1Beta1, &name).await?;
    let targets = &service["spec"]["routes"][0]["http"]["action"]["weightedTargets"];
    let expected = json!([{"virtualNodeName": "podinfo-canary", "weight": 0}, {"virtualNodeName": "podinfo-primary", "weight": 100}]);
    ensure(*targets == expected && writes(&service) == 4, &service)?;
    for node in ["podinfo", "podinfo-primary", "podinfo-canary"] {
        let node = s.get(Kind::AppMeshNodeV1Beta1, node).await?;
        ensure(writes(&node) == 1, &node)?;
    }
    Ok(())
}
