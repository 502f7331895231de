//! Checks that a real API server with our CRDs accepts the manifests that users have, and refuses wrong ones.

use kube::Client;
use serde_json::Value;

use crate::files;

/// The API server accepts each manifest of `manifests/accepted.yaml` and of the examples, and prunes no field of it. It refuses each
/// manifest of `manifests/refused.yaml` for the reason in its annotation `refused`.
pub async fn are_accepted_without_loss_or_refused(client: Client) -> Result<(), String> {
    let mut wrong = Vec::new();
    // The namespaces of the examples do not exist here.
    let here = |mut example: Value| {
        example["metadata"]["namespace"] = Value::from("default");
        example
    };
    let shared = files::example_templates_and_alerts();
    let shared = shared.filter(|object| object["kind"] != "Secret");
    let examples = files::example_canaries()
        .into_iter()
        .chain(shared)
        .map(here);
    for object in documents("accepted.yaml").into_iter().chain(examples) {
        match dry_run(&client, &object).await {
            Ok(kept) => wrong.extend(
                lost("", &object["spec"], &kept["spec"])
                    .map(|path| format!("{} lost {path}", object["metadata"]["name"])),
            ),
            Err(error) => wrong.push(format!("{} refused: {error}", object["metadata"]["name"])),
        }
    }
    for object in documents("refused.yaml") {
        let reason = object
            .pointer("/metadata/annotations/refused")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        match dry_run(&client, &object).await {
            Err(error) if !reason.is_empty() && error.contains(&reason) => {}
            other => wrong.push(format!(
                "{} should be refused with {reason:?}: {other:?}",
                object["metadata"]["name"]
            )),
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("manifests:\n  {}", wrong.join("\n  ")))
    }
}

fn documents(file: &str) -> Vec<Value> {
    files::objects(&files::path("tests/it/cluster/manifests").join(file))
}

async fn dry_run(client: &Client, object: &Value) -> Result<Value, String> {
    let plural = match object["kind"].as_str() {
        Some("Canary") => "canaries",
        Some("MetricTemplate") => "metrictemplates",
        _ => "alertproviders",
    };
    let url = format!(
        "/apis/flagger.app/v1beta1/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict"
    );
    let request = http::Request::post(url)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())
        .unwrap();
    client
        .request(request)
        .await
        .map_err(|error| error.to_string())
}

/// The path of the first field that was written and not kept. Fields that the API server adds (defaults) do not count.
pub fn lost(path: &str, written: &Value, kept: &Value) -> Option<String> {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => written.iter().find_map(|(key, value)| {
            lost(
                &format!("{path}.{key}"),
                value,
                kept.get(key).unwrap_or(&Value::Null),
            )
        }),
        (Value::Array(written), Value::Array(kept)) if written.len() == kept.len() => written
            .iter()
            .zip(kept)
            .enumerate()
            .find_map(|(i, (written, kept))| lost(&format!("{path}[{i}]"), written, kept)),
        _ => (written != kept).then(|| path.to_owned()),
    }
}
