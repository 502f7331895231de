//! Services that stand before their Canary, and Services of several ports.

use flagger_rs::snapshot::Kind;
use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, edits::workload, ensure, text};

/// The Service without the fields that change with each write.
async fn stripped(s: &Scenario<'_>) -> Result<Value, String> {
    let mut service = s.get(Kind::Service, "podinfo").await?;
    let metadata = service["metadata"].as_object_mut().ok_or("no metadata")?;
    metadata.retain(|key, _| !["resourceVersion", "managedFields"].contains(&key.as_str()));
    Ok(service)
}

/// A Canary without a mesh, with these fields of its service.
fn canary(s: &Scenario<'_>, service: Value) -> Value {
    let mut canary = s.canary_named(
        "podinfo",
        json!({"iterations": 1, "metrics": [], "webhooks": []}),
    );
    canary["spec"]["provider"] = json!("kubernetes");
    canary["spec"]["revertOnDeletion"] = json!(true);
    canary["spec"]["service"] = service;
    canary
}

async fn adopted(s: &Scenario<'_>) -> Result<Value, String> {
    let is_led = async || {
        let service = s.get(Kind::Service, "podinfo").await?;
        let is_led = service["spec"]["selector"] == json!({"app": "podinfo-primary"});
        is_led
            .then_some(service.clone())
            .ok_or_else(|| service["spec"].to_string())
    };
    until(PATIENCE, "the Service to lead to the primary", is_led)
        .await
        .map_err(text)
}

fn same(seen: &Value, expected: &Value) -> Outcome {
    ensure(seen == expected, format!("{seen} is not {expected}"))
}

async fn delete(s: &Scenario<'_>) -> Outcome {
    s.delete("canary", "podinfo").await?;
    until(PATIENCE, "the Canary to go", async || {
        let canary = s.get(Kind::Canary, "podinfo").await;
        canary.map_or(Ok(()), |canary| Err(canary["status"].to_string()))
    })
    .await
    .map_err(text)
}

/// fluxcd/flagger#1534: two labels, two ports, a node port each.
pub async fn a_service_of_two_ports_is_given_back_to_the_byte(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    let ports = json!([{"name": "http-server", "port": 80, "targetPort": "http", "nodePort": 30429},
        {"name": "https-server", "port": 443, "targetPort": "https", "nodePort": 30443}]);
    s.apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo", "labels": {"team": "a"}},
        "spec": {"type": "NodePort", "selector": {"app": "podinfo", "tier": "web"}, "ports": ports}}))
        .await?;
    let before = stripped(&s).await?;
    let service = json!({"port": 80, "portName": "http-server", "targetPort": "http"});
    s.apply(&canary(&s, service)).await?;
    s.phase("Initialized").await?;
    let adopted = adopted(&s).await?;
    same(&adopted["spec"]["ports"], &before["spec"]["ports"])?;
    delete(&s).await?;
    same(&stripped(&s).await?, &before)
}

/// fluxcd/flagger#513: a fixed node port, its port without a name. The user applies the manifest again, with one more port.
pub async fn a_service_that_is_applied_again_is_given_back_as_applied(s: Scenario<'_>) -> Outcome {
    s.podinfo().await?;
    let service = |ports: Value| {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "podinfo", "annotations": {"theirs": "1"}},
        "spec": {"type": "NodePort", "selector": {"app": "podinfo"}, "ports": ports}})
    };
    let first = json!({"port": 80, "targetPort": 9898, "nodePort": 30080});
    s.apply(&service(json!([first]))).await?;
    let before = stripped(&s).await?;
    s.apply(&canary(&s, json!({"port": 80, "targetPort": 9898})))
        .await?;
    s.phase("Initialized").await?;
    let ports = adopted(&s).await?["spec"]["ports"].clone();
    ensure(
        ports.as_array().map(Vec::len) == Some(1) && ports[0]["nodePort"] == 30080,
        format!("the node port stays: {ports}"),
    )?;
    let more = json!([{"name": "web", "port": 80, "targetPort": 9898, "nodePort": 30080},
        {"name": "admin", "port": 9000, "targetPort": 9000, "nodePort": 30090}]);
    s.apply(&service(more)).await?;
    let ports = adopted(&s).await?["spec"]["ports"].clone();
    ensure(
        ports.as_array().map(Vec::len) == Some(2),
        format!("both ports are there: {ports}"),
    )?;
    delete(&s).await?;
    let after = stripped(&s).await?;
    same(&after["spec"]["selector"], &before["spec"]["selector"])?;
    let kept = |key: &str| {
        after["spec"]["ports"].as_array().map(|ports| {
            ports
                .iter()
                .map(|port| port[key].clone())
                .collect::<Vec<_>>()
        })
    };
    same(&json!(kept("name")), &json!(["web", "admin"]))?;
    same(&json!(kept("nodePort")), &json!([30080, 30090]))?;
    let annotations = after["metadata"]["annotations"].to_string();
    ensure(
        annotations.contains("theirs")
            && !annotations.contains("disabled")
            && !annotations.contains("original-configuration"),
        format!("only the user's annotations are left: {annotations}"),
    )
}

/// fluxcd/flagger#1441, #948: two names of one number, and DNS over TCP and UDP.
pub async fn ports_of_one_number_and_of_two_protocols_are_accepted(s: Scenario<'_>) -> Outcome {
    let [mut deployment, scaler] = workload();
    let ports = json!([{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "containerPort": 53}]);
    deployment["spec"]["template"]["spec"]["containers"][0]["ports"] = ports;
    // The API server merges two ports of one number in an apply, so the second name is that of another container.
    let monitoring = json!({"name": "side", "image": "side:1", "ports": [{"name": "monitoring", "containerPort": 8080}]});
    let containers = deployment["spec"]["template"]["spec"]["containers"].as_array_mut();
    containers.ok_or("no containers")?.push(monitoring);
    s.apply(&deployment).await?;
    s.apply(&scaler).await?;
    let service = json!({"port": 8080, "targetPort": "http", "portDiscovery": true});
    s.apply(&canary(&s, service)).await?;
    s.phase("Initialized").await?;
    for name in ["podinfo", "podinfo-primary", "podinfo-canary"] {
        let service = s.get(Kind::Service, name).await?;
        let ports = service["spec"]["ports"].as_array().ok_or("no ports")?;
        let ports: Vec<_> = ports
            .iter()
            .map(|port| {
                format!(
                    "{}/{}",
                    port["port"],
                    port["protocol"].as_str().unwrap_or_default()
                )
            })
            .collect();
        same(&json!(ports), &json!(["8080/TCP", "53/UDP", "53/TCP"]))?;
    }
    Ok(())
}
