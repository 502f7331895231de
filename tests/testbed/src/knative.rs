//! Plays Knative's controller: creates a Revision for each template of a Knative Service, and reports its routes as they are in the spec.
//!
//! No pod runs, and no request is routed. A Revision whose image has a tag `broken…` never becomes ready.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    },
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// How long the controller takes to process a change.
const LAG: Duration = Duration::from_millis(200);
/// The tries of one change.
const TRIES: usize = 10;
/// The annotation of a Revision with the template that it was created from.
const TEMPLATE: &str = "testbed/template";

/// Runs the controller.
pub async fn run(client: Client) {
    let services = Api::all_with(client.clone(), &resource("Service"));
    let mut changes = watcher(services, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    loop {
        // The watcher recovers from errors by itself, also before the CRD exists.
        let Ok(service) = changes.try_next().await else {
            continue;
        };
        let Some(service) = service else { return };
        for _ in 0..TRIES {
            sleep(LAG).await;
            if reconcile(&client, &service).await.is_ok() {
                break;
            }
        }
    }
}

fn resource(kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("serving.knative.dev", "v1", kind))
}

async fn reconcile(client: &Client, changed: &DynamicObject) -> Result<(), kube::Error> {
    let (name, namespace) = (changed.name_any(), changed.namespace().unwrap_or_default());
    let services: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &resource("Service"));
    let Some(service) = services.get_opt(&name).await? else {
        return Ok(());
    };
    let (revision, is_ready) = revision(client, &service).await?;
    let data = &service.data;
    let ready = match &data["status"]["latestReadyRevisionName"] {
        former if !is_ready => former.clone(),
        _ => json!(revision),
    };
    let whole = json!([{"latestRevision": true, "percent": 100}]);
    let mut traffic = data["spec"].get("traffic").cloned().unwrap_or(whole);
    for route in traffic.as_array_mut().into_iter().flatten() {
        if route["latestRevision"] == true {
            route["revisionName"] = ready.clone();
        }
    }
    let status = json!({"latestCreatedRevisionName": revision, "latestReadyRevisionName": ready, "traffic": traffic,
        "observedGeneration": service.metadata.generation, "conditions": [condition(is_ready)]});
    if data["status"] == status {
        return Ok(());
    }
    let patch = Patch::Merge(json!({"status": status}));
    let params = PatchParams::default();
    services.patch_status(&name, &params, &patch).await?;
    Ok(())
}

/// The name of the latest Revision, and whether the Revision is ready. Creates a Revision if there is none of this template.
async fn revision(client: &Client, service: &DynamicObject) -> Result<(String, bool), kube::Error> {
    let (name, namespace) = (service.name_any(), service.namespace().unwrap_or_default());
    let revisions: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &resource("Revision"));
    let template = &service.data["spec"]["template"];
    let image = template["spec"]["containers"][0]["image"].as_str();
    let tag = image.and_then(|image| image.rsplit_once(':'));
    let is_ready = tag.is_none_or(|(_, tag)| !tag.starts_with("broken"));
    let mut existing = revisions.list(&ListParams::default()).await?.items;
    existing.retain(|revision| revision.name_any().starts_with(&format!("{name}-")));
    existing.sort_by_key(ResourceExt::name_any);
    // Clients add empty objects to a template. These make no new version.
    let template = pruned(&template["spec"]);
    let text = template.to_string();
    if let Some(latest) = existing.last()
        && latest.annotations().get(TEMPLATE) == Some(&text)
    {
        return Ok((latest.name_any(), is_ready));
    }
    let latest = format!("{name}-{:05}", existing.len() + 1);
    let metadata = json!({"name": latest, "namespace": namespace, "annotations": {TEMPLATE: text}});
    let made = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Revision", "metadata": metadata, "spec": template});
    let made: DynamicObject = serde_json::from_value(made).map_err(kube::Error::SerdeError)?;
    let made = revisions.create(&PostParams::default(), &made).await?;
    let status = json!({"observedGeneration": made.metadata.generation, "conditions": [condition(is_ready)]});
    let patch = Patch::Merge(json!({"status": status}));
    let params = PatchParams::default();
    revisions.patch_status(&latest, &params, &patch).await?;
    Ok((latest, is_ready))
}

fn condition(is_ready: bool) -> Value {
    json!({"type": "Ready", "status": if is_ready { "True" } else { "False" }})
}

/// A value without nulls and empty objects.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| (key.clone(), pruned(value)));
            let is_empty = |value: &Value| value.is_null() || *value == json!({});
            Value::Object(fields.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => items.iter().map(pruned).collect(),
        value => value.clone(),
    }
}
