//! JSON merge patches and JSON Patches, as the API server applies them.

use serde_json::Value;

use super::refusal::Refusal;

/// Applies a patch to an object.
pub fn apply(content_type: &str, mut object: Value, patch: &Value) -> Result<Value, Refusal> {
    match content_type {
        "application/merge-patch+json" => {
            json_patch::merge(&mut object, patch);
            Ok(object)
        }
        "application/json-patch+json" => {
            for operation in patch.as_array().ok_or_else(Refusal::patch)? {
                operate(&mut object, operation)?;
            }
            Ok(object)
        }
        other => panic!("the model does not know patches of type {other}"),
    }
}

fn operate(object: &mut Value, operation: &Value) -> Result<(), Refusal> {
    let path = operation["path"].as_str().unwrap_or_default();
    // The library of the API server treats a missing value as null if the parent exists.
    let parent = path
        .rsplit_once('/')
        .and_then(|(parent, _)| object.pointer(parent));
    if operation["op"] == "test" && operation["value"].is_null() && parent.is_some() {
        return match object.pointer(path) {
            None | Some(Value::Null) => Ok(()),
            Some(_) => Err(Refusal::patch()),
        };
    }
    let one: json_patch::Patch = serde_json::from_value(Value::Array(vec![operation.clone()]))
        .map_err(|_| Refusal::patch())?;
    json_patch::patch(object, &one).map_err(|_| Refusal::patch())
}
