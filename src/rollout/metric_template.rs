//! The MetricTemplates of a canary: which objects they are, and what they and their Secrets say.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    api::{
        canary::{CanaryMetric, CrossNamespaceRef},
        metric_template::{MetricTemplate, MetricTemplateSpec},
    },
    metrics::Server,
    notifications::alert::secret_text,
    snapshot::{Kind, ObjectRef, Snapshot},
};

/// The template, and the Secret that it names once it is known.
pub fn needs(snapshot: &Snapshot, to: &CrossNamespaceRef) -> Vec<ObjectRef> {
    let template = reference(snapshot, to);
    let secret = snapshot
        .objects
        .get(&template)
        .and_then(|t| t.pointer("/spec/provider/secretRef/name")?.as_str())
        .map(|name| secret_of(&template, name));
    secret.into_iter().chain([template]).collect()
}

/// A template by its whole name.
pub fn reference(snapshot: &Snapshot, to: &CrossNamespaceRef) -> ObjectRef {
    let namespace = to
        .namespace
        .clone()
        .filter(|namespace| !namespace.is_empty());
    ObjectRef {
        kind: Kind::MetricTemplate,
        namespace: namespace.unwrap_or_else(|| snapshot.namespace().to_owned()),
        name: to.name.clone(),
    }
}

/// A metric's template and its server, or what a user reads if there is none.
pub fn read(
    snapshot: &Snapshot,
    to: &CrossNamespaceRef,
    metric: &CanaryMetric,
) -> Result<(MetricTemplateSpec, Server), String> {
    let object = reference(snapshot, to);
    let full = format!("Metric template {}.{}", object.name, object.namespace);
    let found = snapshot.objects.get(&object).ok_or_else(|| {
        format!(
            "{full} error: metrictemplate.flagger.app {:?} not found",
            object.name
        )
    })?;
    let template: MetricTemplate =
        serde_json::from_value(found.clone()).map_err(|error| format!("{full} error: {error}"))?;
    let provider = &template.spec.provider;
    let credentials = match &provider.secret_ref {
        Some(secret) => {
            let found = snapshot.objects.get(&secret_of(&object, &secret.name));
            Some(credentials(found.ok_or_else(|| {
                format!(
                    "{full} secret {} error: secrets {:?} not found",
                    secret.name, secret.name
                )
            })?))
        }
        None => None,
    };
    let server = Server::of(provider, credentials.as_ref(), metric.interval.as_deref())
        .map_err(|error| format!("{full} provider {} error: {error}", provider.type_))?;
    Ok((template.spec, server))
}

fn secret_of(template: &ObjectRef, name: &str) -> ObjectRef {
    ObjectRef {
        kind: Kind::Secret,
        namespace: template.namespace.clone(),
        name: name.to_owned(),
    }
}

fn credentials(secret: &Value) -> BTreeMap<String, String> {
    let keys = secret
        .get("data")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|data| data.keys());
    keys.filter_map(|key| Some((key.clone(), secret_text(secret, key)?)))
        .collect()
}
