//! Manifests as users have them: what a real API server accepts whole, and what it refuses.

use kube::Client;
use serde_json::Value;

use crate::cluster::folder;

/// Every manifest of `corpus/accepted.yaml` and of the examples is accepted with nothing unknown and nothing pruned; each of `corpus/refused.yaml` is refused
/// for the reason in its annotation `refused`.
pub async fn accepted_refused_and_kept_whole(client: Client) -> Result<(), String> {
    let mut wrong = Vec::new();
    // The examples' namespace need not be here.
    let here = |mut example: Value| {
        example["metadata"]["namespace"] = Value::from("default");
        example
    };
    let shared = super::examples::shared();
    let shared = shared.filter(|object| object["kind"] != "Secret");
    let examples = examples().into_iter().chain(shared).map(here);
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

/// The Canaries that users are shown.
pub fn examples() -> Vec<Value> {
    let files = ["examples/canaries", "examples/walkthrough"]
        .into_iter()
        .flat_map(|under| std::fs::read_dir(folder(under)).unwrap());
    let objects = files.flat_map(|file| read(&file.unwrap().path()));
    let examples: Vec<_> = objects
        .filter(|object| object["kind"] == "Canary")
        .collect();
    assert!(examples.len() > 5);
    examples
}

fn documents(file: &str) -> Vec<Value> {
    read(&folder("tests/it/api/corpus").join(file))
}

/// The objects of a file.
pub fn read(file: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    let documents: Vec<Value> = text
        .split("\n---\n")
        .map(|doc| serde_saphyr::from_str(doc).unwrap_or_else(|e| panic!("{e}\n{doc}")))
        .collect();
    documents.into_iter().filter(|doc| !doc.is_null()).collect()
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

/// The path of the first thing that was written and is not kept; what the server adds (defaults) does not count.
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
