//! An object as the API server sends it: its name, and its fields as unparsed JSON. An object that no canary needs is never parsed. Of
//! `managedFields`, only the entries of the subresource `scale` are kept, which show whether an autoscaler sets the replicas. An adopted
//! route keeps all entries, which show the fields that the user applied last.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use kube::{
    Resource,
    api::{ApiResource, DynamicObject},
    core::ObjectMeta,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::workload::metadata::ORIGINAL_METADATA;

/// The bookkeeping of server-side apply, often half of an object. The API server keeps it if a write leaves it out.
const MANAGED: &str = "managedFields";
/// The subresource through which autoscalers, and `kubectl scale`, set replicas.
const SCALE: &str = "scale";

/// One object.
#[derive(Clone)]
pub struct RawObject {
    /// Name, namespace and resourceVersion only.
    meta: ObjectMeta,
    fields: Fields,
}

impl fmt::Debug for RawObject {
    /// Prints no fields: the object may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.meta.fmt(f)
    }
}

impl RawObject {
    /// Returns the object as JSON, without most `managedFields`.
    pub fn text(&self) -> String {
        self.fields.text()
    }

    /// Returns the object parsed.
    ///
    /// # Errors
    /// The object is nested too deeply.
    pub fn value(&self) -> serde_json::Result<Value> {
        serde_json::from_str(&self.text())
    }

    /// The resourceVersion.
    pub fn version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }

    /// The `type` of a Secret.
    pub fn type_name(&self) -> Option<String> {
        serde_json::from_str(self.fields.0.get("type")?.get()).ok()
    }
}

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Named {
            name: Option<String>,
            namespace: Option<String>,
            resource_version: Option<String>,
        }
        let mut fields = Fields::deserialize(deserializer)?;
        let mut metadata: Fields = fields.parse("metadata").map_err(D::Error::custom)?;
        let annotations = metadata.0.get("annotations");
        if !annotations.is_some_and(|raw| raw.get().contains(ORIGINAL_METADATA))
            && let Some(managed) = metadata.0.remove(MANAGED)
            && let Some(scaled) = scaled(&managed)
        {
            metadata.0.insert(MANAGED.to_owned(), scaled);
        }
        let metadata = metadata.text();
        let Named {
            name,
            namespace,
            resource_version,
        } = serde_json::from_str(&metadata).map_err(D::Error::custom)?;
        let metadata = RawValue::from_string(metadata).map_err(D::Error::custom)?;
        fields.0.insert("metadata".to_owned(), metadata);
        let meta = ObjectMeta {
            name,
            namespace,
            resource_version,
            ..ObjectMeta::default()
        };
        Ok(Self { meta, fields })
    }
}

/// The fields of a JSON object, each as unparsed text.
#[derive(Clone, Default)]
struct Fields(BTreeMap<String, Box<RawValue>>);

impl Fields {
    fn parse(&self, field: &str) -> serde_json::Result<Self> {
        self.0.get(field).map_or_else(
            || Ok(Self::default()),
            |raw| serde_json::from_str(raw.get()),
        )
    }

    fn text(&self) -> String {
        let size = self
            .0
            .iter()
            .map(|(key, raw)| key.len() + raw.get().len() + 4);
        let mut text = String::with_capacity(2 + size.sum::<usize>());
        text.push('{');
        for (i, (key, raw)) in self.0.iter().enumerate() {
            if i > 0 {
                text.push(',');
            }
            text.push_str(&serde_json::Value::from(key.as_str()).to_string());
            text.push(':');
            text.push_str(raw.get());
        }
        text.push('}');
        text
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    fields.insert(key, map.next_value()?);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// The entries of the subresource `scale`; `None` if there are none.
fn scaled(managed: &RawValue) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        subresource: Option<Cow<'a, str>>,
    }
    // Do not parse the entries of the many objects that have none of this subresource.
    if !managed.get().contains(SCALE) {
        return None;
    }
    let entries: Vec<&RawValue> = serde_json::from_str(managed.get()).ok()?;
    let is_scale = |entry: &&&RawValue| {
        let entry = serde_json::from_str::<Entry<'_>>(entry.get()).ok();
        entry.and_then(|entry| entry.subresource).as_deref() == Some(SCALE)
    };
    let kept: Vec<_> = entries
        .iter()
        .filter(is_scale)
        .map(|entry| entry.get())
        .collect();
    let text = format!("[{}]", kept.join(","));
    (!kept.is_empty()).then(|| RawValue::from_string(text).ok())?
}

impl Resource for RawObject {
    type DynamicType = ApiResource;
    type Scope = <DynamicObject as Resource>::Scope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::kind(kind)
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::group(kind)
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::version(kind)
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        DynamicObject::plural(kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use kube::api::WatchEvent;
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_of_an_object_but_managed_fields_is_kept() {
        let event = r#"{"type":"MODIFIED","object":{"apiVersion":"apps/v1","kind":"Deployment",
            "metadata":{"name":"podinfo","namespace":"test","resourceVersion":"7","managedFields":[{"manager":"kubectl"}],
                "labels":{"a":"\"b\""}},
            "spec":{"replicas":2,"new field":1.50},"status":{}}}"#;
        let Ok(WatchEvent::Modified(object)) = serde_json::from_str::<WatchEvent<RawObject>>(event)
        else {
            panic!("no object");
        };
        assert_eq!(object.meta.resource_version.as_deref(), Some("7"));
        assert_eq!(
            serde_json::from_str::<Value>(&object.text()).unwrap(),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "test",
                "resourceVersion": "7", "labels": {"a": "\"b\""}}, "spec": {"replicas": 2, "new field": 1.50}, "status": {}})
        );
    }

    #[test]
    fn the_manager_of_the_replicas_is_kept() {
        let entry = |subresource: &str| json!({"manager": "hpa", "subresource": subresource, "fieldsV1": {"f:spec": {"f:replicas": {}}}});
        let scaled = |managed: Value| {
            let object = json!({"metadata": {"name": "a", "managedFields": managed}}).to_string();
            let object: RawObject = serde_json::from_str(&object).unwrap();
            object.value().unwrap()["metadata"]["managedFields"].take()
        };
        let other = json!({"manager": "kubectl-autoscale"});
        assert_eq!(
            scaled(json!([other, entry("scale"), entry("status")])),
            json!([entry("scale")])
        );
        assert_eq!(scaled(json!([other, entry("status")])), Value::Null);
        assert_eq!(scaled(json!("scale")), Value::Null);
    }

    #[test]
    fn the_managers_of_an_adopted_route_are_kept() {
        let annotations = |key: &str| json!({key: "{}"});
        for (key, is_kept) in [(ORIGINAL_METADATA, true), ("other", false)] {
            let managed = json!([{"manager": "kubectl", "operation": "Apply"}]);
            let metadata =
                json!({"name": "a", "managedFields": managed, "annotations": annotations(key)});
            let object = json!({"metadata": metadata}).to_string();
            let object: RawObject = serde_json::from_str(&object).unwrap();
            let kept = object.value().unwrap()["metadata"]["managedFields"].take();
            assert_eq!(kept, if is_kept { managed } else { Value::Null });
        }
    }

    #[test]
    fn a_value_that_is_no_object_is_an_error() {
        assert!(serde_json::from_str::<RawObject>("[]").is_err());
        assert!(serde_json::from_str::<RawObject>(r#"{"metadata":{"name":1}}"#).is_err());
        assert!(serde_json::from_str::<RawObject>(r#"{"metadata":"x"}"#).is_err());
    }
}
