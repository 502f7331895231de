//! The schemas of single fields whose Rust type has another schema than Flagger's CRD.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A `number`. Flagger's CRD uses it for whole numbers too.
pub fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "number"})
}

/// A list of `number`.
pub fn numbers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "number"}})
}

/// An `integer` of at least 1.
pub fn positive(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1})
}

/// An `integer` of at least 0.
pub fn natural(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 0})
}

/// An integer or a string.
pub fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

/// A duration in minutes or seconds. The pattern is Flagger's; it is not anchored at the end.
pub fn interval(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[0-9]+(h|m|s)"})
}

/// A placeholder. `super::traffic` sets the schema of the field.
pub fn elsewhere(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}
