//! Services that exist before their Canary.

use flagger_rs::snapshot::Kind;
use serde_json::{Value, json};
use testbed::wait::until;

use super::{Outcome, PATIENCE, Scenario, ensure, text};

/// The Service without the fields that change with each write.
async fn stripped(s: &Scenario<'_>, name: &str) -> Result<Value, String> {
    let mut service = s.get(Kind::Service, name).await?;
    let metadata = service["metadata"].as_object_mut().ok_or("no metadata")?;
    metadata.retain(|key, _| !["resourceVersion", "managedFields"].contains(&key.as_str()));
    Ok(service)
}

/// Waits until the Service leads to the pods with this label. Returns its ports.
async fn adopted(s: &Scenario<'_>, name: &str, app: &str) -> Result<Value, String> {
    let is_led = async || {
        let service = s.get(Kind::Service, name).await?;
        let is_led = service["spec"]["selector"]["app"] == app;
        is_led
            .then_some(service["spec"]["ports"].clone())
            .ok_or_else(|| service["spec"].to_string())
    };
    until(PATIENCE, "the Service to lead to the primary", is_led)
        .await
        .map_err(text)
}

fn same(seen: &Value, expected: &Value) -> Outcome {
    ensure(seen == expected, format!("{seen} is not {expected}"))
}

async fn delete(s: &Scenario<'_>, canary: &str) -> Outcome {
    s.delete("canary", canary).await?;
    until(PATIENCE, "the Canary to go", async || {
        let canary = s.get(Kind::Canary, canary).await;
        canary.map_or(Ok(()), |canary| Err(canary["status"].to_string()))
    })
    .await
    .map_err(text)
}

pub async fn a_service_of_two_ports_is_given_back_to_the_byte(s: Scenario<'_>) -> Outcome {
    let objects = s.field("f22-service-with-two-ports");
    let (canary, others) = objects.split_last().ok_or("no objects")?;
    for object in others {
        s.apply(object).await?;
    }
    let before = stripped(&s, "serving").await?;
    s.apply(canary).await?;
    s.phase_of("serving", "Initialized").await?;
    let ports = adopted(&s, "serving", "keystone-primary").await?;
    same(&ports, &before["spec"]["ports"])?;
    delete(&s, "serving").await?;
    same(&stripped(&s, "serving").await?, &before)
}

/// The user applies the manifest again, with one more port.
pub async fn a_service_that_is_applied_again_is_given_back_as_applied(s: Scenario<'_>) -> Outcome {
    let mut objects = s.field("f08-node-port");
    let [service, target, canary] = objects.as_mut_slice() else {
        return Err("other objects".to_owned());
    };
    service["metadata"]["annotations"] = json!({"theirs": "1"});
    canary["spec"]["revertOnDeletion"] = json!(true);
    s.apply(service).await?;
    s.apply(target).await?;
    let before = stripped(&s, "edge").await?;
    s.apply(canary).await?;
    s.phase_of("edge", "Initialized").await?;
    let ports = adopted(&s, "edge", "edge-primary").await?;
    ensure(
        ports.as_array().map(Vec::len) == Some(1) && ports[0]["nodePort"] == 30080,
        format!("the node port stays: {ports}"),
    )?;
    service["spec"]["ports"] = json!([{"name": "web", "port": 80, "targetPort": 8080, "nodePort": 30080},
        {"name": "admin", "port": 9000, "targetPort": 9000, "nodePort": 30090}]);
    s.apply(service).await?;
    let ports = adopted(&s, "edge", "edge-primary").await?;
    ensure(
        ports.as_array().map(Vec::len) == Some(2),
        format!("both ports are there: {ports}"),
    )?;
    delete(&s, "edge").await?;
    let after = stripped(&s, "edge").await?;
    same(&after["spec"]["selector"], &before["spec"]["selector"])?;
    let ports = after["spec"]["ports"].as_array().ok_or("no ports")?;
    let kept = |key: &str| ports.iter().map(|port| port[key].clone()).collect();
    same(&Value::Array(kept("name")), &json!(["web", "admin"]))?;
    same(&Value::Array(kept("nodePort")), &json!([30080, 30090]))?;
    let annotations = after["metadata"]["annotations"].to_string();
    ensure(
        annotations.contains("theirs")
            && !annotations.contains("disabled")
            && !annotations.contains("original-configuration"),
        format!("only the user's annotations are left: {annotations}"),
    )
}
