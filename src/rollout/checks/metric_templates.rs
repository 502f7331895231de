//! Reads the MetricTemplates of a canary and their Secrets from the snapshot.

use crate::{
    api::{
        canary::{CanaryMetric, CrossNamespaceRef},
        metric_template::{MetricTemplate, MetricTemplateSpec},
    },
    metrics::{Server, ServerError},
    snapshot::{
        Kind, ObjectRef, Snapshot,
        references::{self, Blocked},
        secret::{Credentials, SecretError},
    },
};

/// The reason why a template has no server. Each `Display` text is Flagger's.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template is in another namespace.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// The template does not exist.
    #[error("Metric template {full} error: metrictemplate.flagger.app {name:?} not found")]
    NotFound {
        /// `NAME.NAMESPACE` of the template.
        full: String,
        /// Its name.
        name: String,
    },
    /// The template is not a MetricTemplate as the CRD defines it.
    #[error("Metric template {full} error: {error}")]
    Invalid {
        /// `NAME.NAMESPACE` of the template.
        full: String,
        /// The text of the JSON parser.
        error: serde_json::Error,
    },
    /// The template's Secret does not exist.
    #[error("Metric template {full} secret {secret} error: secrets {secret:?} not found")]
    NoSecret {
        /// `NAME.NAMESPACE` of the template.
        full: String,
        /// The name of the Secret.
        secret: String,
    },
    /// The template's Secret is not sent to the server.
    #[error("Metric template {full} secret {secret} error: {error}")]
    Secret {
        /// `NAME.NAMESPACE` of the template.
        full: String,
        /// The name of the Secret.
        secret: String,
        /// The reason.
        error: SecretError,
    },
    /// The template's provider is incomplete or unknown.
    #[error("Metric template {full} provider {type_} error: {error}")]
    Provider {
        /// `NAME.NAMESPACE` of the template.
        full: String,
        /// The `type` of the provider.
        type_: String,
        /// The reason.
        error: ServerError,
    },
}

/// The objects to read for a template: the template itself, and its Secret once the template is in the snapshot. None if the reference is
/// blocked.
pub fn needs(snapshot: &Snapshot, to: &CrossNamespaceRef) -> Vec<ObjectRef> {
    let Ok(template) = reference(snapshot, to) else {
        return Vec::new();
    };
    let secret = snapshot
        .objects
        .get(&template)
        .and_then(|t| t.pointer("/spec/provider/secretRef/name")?.as_str())
        .map(|name| secret_of(&template, name));
    secret.into_iter().chain([template]).collect()
}

/// `NAME.NAMESPACE` of a template.
pub fn full_name(snapshot: &Snapshot, to: &CrossNamespaceRef) -> String {
    let namespace = references::namespace(to.namespace.as_deref(), snapshot.namespace());
    format!("{}.{namespace}", to.name)
}

fn reference(snapshot: &Snapshot, to: &CrossNamespaceRef) -> Result<ObjectRef, Blocked> {
    references::metric_template(to, snapshot.namespace(), snapshot.other_namespaces())
}

/// Reads a metric's template and builds its server.
pub fn read(
    snapshot: &Snapshot,
    to: &CrossNamespaceRef,
    metric: &CanaryMetric,
) -> Result<(MetricTemplateSpec, Server), TemplateError> {
    let object = reference(snapshot, to)?;
    let full = || format!("{}.{}", object.name, object.namespace);
    let refused = |error: SecretError| TemplateError::Secret {
        full: full(),
        secret: error.secret().to_owned(),
        error,
    };
    let Some(found) = snapshot.objects.get(&object) else {
        return Err(TemplateError::NotFound {
            full: full(),
            name: object.name.clone(),
        });
    };
    let template = serde_json::from_value(found.clone());
    let template: MetricTemplate = template.map_err(|error| TemplateError::Invalid {
        full: full(),
        error,
    })?;
    let provider = &template.spec.provider;
    let credentials = provider.secret_ref.as_ref().map(|secret| {
        let found = snapshot.objects.get(&secret_of(&object, &secret.name));
        let found = found.ok_or_else(|| TemplateError::NoSecret {
            full: full(),
            secret: secret.name.clone(),
        })?;
        Credentials::of(found).map_err(refused)
    });
    let credentials = credentials.transpose()?;
    let values = credentials.as_ref().map(Credentials::values);
    let server = Server::of(provider, values, metric.interval.as_deref());
    let server = server.map_err(|error| TemplateError::Provider {
        full: full(),
        type_: provider.type_.clone(),
        error,
    })?;
    if let Some(credentials) = &credentials {
        let mut checked = server.hosts().map(|host| credentials.check_host(host));
        checked.try_for_each(|checked| checked).map_err(refused)?;
    }
    Ok((template.spec, server))
}

fn secret_of(template: &ObjectRef, name: &str) -> ObjectRef {
    ObjectRef {
        kind: Kind::Secret,
        namespace: template.namespace.clone(),
        name: name.to_owned(),
    }
}
