//! An object as the API server delivers it: its name, and its fields as text. No tree is built of an object that nobody looks at,
//! and none ever of `managedFields`.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use kube::{
    Resource,
    api::{ApiResource, DynamicObject},
    core::ObjectMeta,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The bookkeeping of server-side apply: often half of an object. Who writes an object without it leaves it as it is.
const MANAGED: &str = "managedFields";

/// One object.
#[derive(Clone)]
pub struct Served {
    /// Its name, namespace and resourceVersion, and nothing else.
    meta: ObjectMeta,
    fields: Fields,
}

impl fmt::Debug for Served {
    /// It may be a Secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.meta.fmt(f)
    }
}

impl Served {
    /// The object as JSON, without `managedFields`.
    pub fn text(&self) -> String {
        self.fields.text()
    }

    /// The same as a tree; an error if it is nested too deeply for one.
    pub fn value(&self) -> serde_json::Result<Value> {
        serde_json::from_str(&self.text())
    }

    /// Its resourceVersion.
    pub fn version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }

    /// The `type` of a Secret.
    pub fn type_name(&self) -> Option<String> {
        serde_json::from_str(self.fields.0.get("type")?.get()).ok()
    }
}

impl<'de> Deserialize<'de> for Served {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Named {
            name: Option<String>,
            namespace: Option<String>,
            resource_version: Option<String>,
        }
        let mut fields = Fields::deserialize(deserializer)?;
        let metadata: Fields = fields.parse("metadata").map_err(D::Error::custom)?;
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

/// The fields of a JSON object, each as the text that it is.
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
                    if key == MANAGED {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        fields.insert(key, map.next_value()?);
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

impl Resource for Served {
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
    fn all_of_an_object_is_kept_but_its_managed_fields() {
        let event = r#"{"type":"MODIFIED","object":{"apiVersion":"apps/v1","kind":"Deployment",
            "metadata":{"name":"podinfo","namespace":"test","resourceVersion":"7","managedFields":[{"manager":"kubectl"}],
                "labels":{"a":"\"b\""}},
            "spec":{"replicas":2,"new field":1.50},"status":{}}}"#;
        let Ok(WatchEvent::Modified(served)) = serde_json::from_str::<WatchEvent<Served>>(event)
        else {
            panic!("no object");
        };
        assert_eq!(served.meta.resource_version.as_deref(), Some("7"));
        assert_eq!(
            serde_json::from_str::<Value>(&served.text()).unwrap(),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "podinfo", "namespace": "test",
                "resourceVersion": "7", "labels": {"a": "\"b\""}}, "spec": {"replicas": 2, "new field": 1.50}, "status": {}})
        );
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        assert!(serde_json::from_str::<Served>("[]").is_err());
        assert!(serde_json::from_str::<Served>(r#"{"metadata":{"name":1}}"#).is_err());
        assert!(serde_json::from_str::<Served>(r#"{"metadata":"x"}"#).is_err());
    }
}
