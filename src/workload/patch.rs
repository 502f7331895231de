//! Changes of single fields of a workload, as a JSON Patch that applies only to the observed object.

use serde_json::{Value, json};

/// A change of one field of a workload: sets or removes it.
#[derive(Debug, PartialEq)]
pub struct Change {
    path: String,
    value: Option<Value>,
}

impl Change {
    /// The change that sets a field to this value, or removes the field. Returns `None` if the object needs no change.
    pub fn of(object: &Value, path: &str, value: Option<Value>) -> Option<Self> {
        (object.pointer(path) != value.as_ref()).then(|| Self {
            path: path.to_owned(),
            value,
        })
    }

    /// The change as an operation of a JSON Patch.
    pub fn operation(self) -> Value {
        match self.value {
            Some(value) => json!({"op": "add", "path": self.path, "value": value}),
            None => json!({"op": "remove", "path": self.path}),
        }
    }

    /// Applies the change to an object, as the API server does.
    ///
    /// # Panics
    ///
    /// Panics if the field has no parent.
    #[cfg(test)]
    pub fn apply(self, object: &mut Value) {
        let Some((parent, key)) = self.path.rsplit_once('/') else {
            return;
        };
        let parent = object.pointer_mut(parent).and_then(Value::as_object_mut);
        let parent = parent.expect("the field's parent");
        match self.value {
            Some(value) => drop(parent.insert(key.to_owned(), value)),
            None => drop(parent.remove(key)),
        }
    }
}

/// A JSON Patch that the API server rejects unless the object still has the observed uid and generation. The patch does not test the
/// `resourceVersion`: a workload's status, and with it the `resourceVersion`, changes with each of its pods.
pub fn conditional(object: &Value, operations: Vec<Value>) -> Value {
    let test = |path: &str| json!({"op": "test", "path": path, "value": object.pointer(path)});
    Value::Array(
        [test("/metadata/uid"), test("/metadata/generation")]
            .into_iter()
            .chain(operations)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_an_operation_of_a_json_patch() {
        let object = json!({"metadata": {"uid": "u", "generation": 7}, "spec": {"a": 1, "b": 2}});
        let change = |path: &str, value: Option<Value>| {
            Change::of(&object, path, value).map(Change::operation)
        };
        assert_eq!(change("/spec/a", Some(json!(1))), None);
        assert_eq!(change("/spec/c", None), None);
        let add = json!({"op": "add", "path": "/spec/a", "value": 3});
        assert_eq!(change("/spec/a", Some(json!(3))), Some(add.clone()));
        let remove = json!({"op": "remove", "path": "/spec/b"});
        assert_eq!(change("/spec/b", None), Some(remove));
        assert_eq!(
            conditional(&object, vec![add.clone()]),
            json!([{"op": "test", "path": "/metadata/uid", "value": "u"}, {"op": "test", "path": "/metadata/generation", "value": 7}, add])
        );
    }
}
