//! Schemas of single fields where Flagger's CRD says something else than the Rust type would.

use schemars::{Schema, SchemaGenerator, json_schema};

/// `number`: also for whole numbers, as in Flagger.
pub fn number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "number"})
}

/// A list of `number`.
pub fn numbers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": {"type": "number"}})
}

/// An integer of at least 1.
pub fn positive(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer", "minimum": 1})
}

/// A number or a name.
pub fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-int-or-string": true})
}

/// A duration in minutes or seconds; Flagger's pattern, which leaves the end open.
pub fn interval(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[0-9]+(m|s)"})
}

/// What `traffic` says.
pub fn elsewhere(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object"})
}
