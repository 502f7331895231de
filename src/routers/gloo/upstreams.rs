//! The Upstreams of both sides.

use serde_json::{Map, Value, json};

use crate::{
    api::canary::Canary,
    routers::{
        RouteError,
        route::{new_object, not_found, object_mut, put_fields},
    },
    snapshot::{Action, Kind, ObjectRef, Snapshot, Write, references},
    workload::label_selector::required,
};

const KIND: Kind = Kind::GlooUpstream;

/// The fields of the spec that `spec.upstreamRef` sets.
const SETTINGS: [&str; 9] = [
    "labels",
    "sslConfig",
    "circuitBreakers",
    "connectionConfig",
    "loadBalancerConfig",
    "useHttp2",
    "initialStreamWindowSize",
    "initialConnectionWindowSize",
    "httpProxyHostName",
];

/// A side of the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The promoted version.
    Primary,
    /// The new version.
    Canary,
}

impl Side {
    /// Both, in Flagger's order.
    pub const BOTH: [Self; 2] = [Self::Primary, Self::Canary];

    /// The name of the Upstream.
    pub fn upstream(self, canary: &Canary) -> String {
        let namespace = canary.metadata.namespace.as_deref().unwrap_or_default();
        let (apex, port) = (canary.apex_name(), canary.spec.service.port);
        format!("{namespace}-{apex}-{}upstream-{port}", self.word())
    }

    fn service(self, canary: &Canary) -> String {
        match self {
            Self::Primary => canary.primary_name(),
            Self::Canary => canary.canary_name(),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Canary => "canary",
        }
    }
}

/// The Upstream of the user with the settings; `None` if the Canary names none, or may not read it.
pub fn source(snapshot: &Snapshot) -> Option<ObjectRef> {
    let to = snapshot.canary.spec.upstream_ref.as_ref()?;
    let others = snapshot.other_namespaces();
    references::upstream(to, snapshot.namespace(), others).ok()
}

/// The writes that create or repair both Upstreams.
pub fn writes(snapshot: &Snapshot, selector: &(String, String)) -> Result<Vec<Write>, RouteError> {
    let settings = settings(snapshot)?;
    let write = |side| write(snapshot, selector, settings.as_ref(), side);
    Ok(Side::BOTH.into_iter().filter_map(write).collect())
}

/// The settings for both sides; `None` if the Canary names no Upstream to take them from. (Flagger drops the parts of a setting that it does
/// not know, and follows only changes of `loadBalancerConfig`.)
fn settings(snapshot: &Snapshot) -> Result<Option<Map<String, Value>>, RouteError> {
    let Some(to) = &snapshot.canary.spec.upstream_ref else {
        return Ok(None);
    };
    let others = snapshot.other_namespaces();
    let source = references::upstream(to, snapshot.namespace(), others)?;
    let missing = || {
        let route = format!("config upstream {}.{}", source.name, source.namespace);
        not_found(route, "get query error:", KIND, &source.name)
    };
    let live = snapshot.objects.get(&source).ok_or_else(missing)?;
    let spec = live.get("spec").and_then(Value::as_object);
    let mut settings = spec.cloned().unwrap_or_default();
    settings.retain(|field, _| SETTINGS.contains(&field.as_str()));
    Ok(Some(settings))
}

fn write(
    snapshot: &Snapshot,
    selector: &(String, String),
    settings: Option<&Map<String, Value>>,
    side: Side,
) -> Option<Write> {
    let name = side.upstream(&snapshot.canary);
    let live = snapshot.object(KIND, &name);
    let mut wanted = live.cloned().unwrap_or_else(|| {
        let metadata = [Map::new(), Map::new()];
        new_object(snapshot, KIND, &name, metadata, json!({}))
    });
    let spec = object_mut(&mut wanted, "spec");
    let kube = object_mut(spec, "kube");
    for (field, value) in kubernetes_service(snapshot, selector, side) {
        kube[field] = value;
    }
    if let Some(settings) = settings {
        put_fields(&mut wanted, settings.clone(), &SETTINGS);
    }
    if live == Some(&wanted) {
        return None;
    }
    let (action, failure) = match live {
        Some(_) => (Action::Replace(wanted), "spec patch error"),
        None => (Action::Create(wanted), "create query error"),
    };
    let full = format!("upstream {name}.{}", snapshot.namespace());
    Some(Write {
        object: snapshot.reference(KIND, &name),
        action,
        failure: format!(
            "error creating flagger {} upstream: {full} {failure}: ",
            side.word()
        ),
    })
}

/// The Service that an Upstream leads to. Its selector is left out if the target is a Service, whose pods are not known.
fn kubernetes_service(
    snapshot: &Snapshot,
    (key, value): &(String, String),
    side: Side,
) -> Vec<(&'static str, Value)> {
    let canary = &snapshot.canary;
    let mut fields = vec![
        ("serviceName", json!(side.service(canary))),
        ("serviceNamespace", json!(snapshot.namespace())),
        ("servicePort", json!(canary.spec.service.port)),
    ];
    let own = || {
        let selector = snapshot.primary()?.pointer("/spec/selector")?;
        required(selector).remove(key).filter(|own| own != value)
    };
    let value = match side {
        Side::Primary => own().unwrap_or_else(|| format!("{value}-primary")),
        Side::Canary => value.clone(),
    };
    if !key.is_empty() {
        fields.push(("selector", json!({key: value})));
    }
    fields
}
