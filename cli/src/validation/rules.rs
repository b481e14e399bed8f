//! The CRD's CEL rules, evaluated as the API server does.

use kube::core::cel::{CompiledSchema, ErrorKind, Validator, compile_schema};
use serde_json::Value;

use super::Finding;
use crate::yaml::Node;

/// The rules, compiled.
pub(super) struct Rules {
    validator: Validator,
    compiled: CompiledSchema,
}

impl Rules {
    /// Of an `openAPIV3Schema`.
    pub(super) fn new(schema: &Value) -> Self {
        Self { validator: Validator::new(), compiled: compile_schema(schema) }
    }

    /// Which rules an object breaks. Each message is the rule's own, which the CRD fixes.
    pub(super) fn check(&self, object: &Node) -> Vec<Finding> {
        let json = without_nulls(object.to_json());
        let Err(errors) = self.validator.validate_compiled(&self.compiled, &json, None) else {
            return Vec::new();
        };
        errors
            .into_iter()
            .map(|error| {
                let line = line_of(object, &error.field_path);
                if error.kind == ErrorKind::ValidationFailure {
                    Finding::error(line, "Cel", format!("{}: {}", error.field_path, error.message))
                } else {
                    // What went wrong inside may quote the object.
                    let message = format!("{}: a rule of the CRD could not be evaluated", error.field_path);
                    Finding::error(line, "Cel", message)
                }
            })
            .collect()
    }
}

/// The API server leaves out nulls before it applies rules.
pub(super) fn without_nulls(json: Value) -> Value {
    match json {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect(),
        other => other,
    }
}

/// The line of a field such as `spec.secret.labels`, or of the nearest thing around it.
fn line_of(object: &Node, path: &str) -> usize {
    let mut node = object;
    let mut line = object.line;
    for field in path.split('.').filter(|field| !field.is_empty()) {
        let Some(entry) = node.entry(field) else { break };
        (node, line) = (&entry.value, entry.line);
    }
    line
}
