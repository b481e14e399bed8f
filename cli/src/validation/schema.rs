//! The CRD's schema, applied to a tree with lines.
//!
//! It follows what the API server does with a structural schema: a null that the schema does not allow is left out,
//! an unknown field is reported (the server would drop it, or refuse it when asked to be strict).

use std::collections::HashMap;

use kube::CustomResourceExt as _;
use regex::Regex;
use sealedenv_crds::SealedEnv;
use serde_json::Value;

use super::{Finding, shown};
use crate::yaml::{Content, Node};

const RULE: &str = "Schema";

/// The schema of `SealedEnv`, as it stands in the CRD.
pub(super) fn of_sealed_env() -> Value {
    let crd = serde_json::to_value(SealedEnv::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default()
}

/// A schema, made ready.
pub(super) struct Schema {
    spec: Shape,
}

/// What a node may be.
struct Shape {
    kind: Kind,
    nullable: bool,
}

enum Kind {
    Object {
        fields: HashMap<String, Shape>,
        required: Vec<String>,
        values: Option<Box<Shape>>,
        max: Option<usize>,
    },
    Array(Option<Box<Shape>>),
    Text {
        one_of: Vec<String>,
        min: usize,
        max: Option<usize>,
        pattern: Option<Regex>,
    },
    Bool,
    Number,
    Anything,
}

impl Schema {
    /// Of an `openAPIV3Schema`.
    pub(super) fn new(schema: &Value) -> Self {
        Self { spec: Shape::of(schema.pointer("/properties/spec").unwrap_or(&Value::Null)) }
    }

    /// What is wrong with a `spec`.
    pub(super) fn check(&self, spec: &Node) -> Vec<Finding> {
        let mut found = Vec::new();
        self.spec.check(spec, "spec", &mut found);
        found
    }
}

impl Shape {
    fn of(schema: &Value) -> Self {
        let number = |field| schema.get(field).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        let texts = |field| {
            let all = schema.get(field).and_then(Value::as_array).into_iter().flatten();
            all.filter_map(|text| text.as_str().map(str::to_owned)).collect::<Vec<String>>()
        };
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("object") => Kind::Object {
                fields: schema
                    .get("properties")
                    .and_then(Value::as_object)
                    .into_iter()
                    .flatten()
                    .map(|(name, schema)| (name.clone(), Self::of(schema)))
                    .collect(),
                required: texts("required"),
                values: schema.get("additionalProperties").map(|schema| Box::new(Self::of(schema))),
                max: number("maxProperties"),
            },
            Some("array") => Kind::Array(schema.get("items").map(|schema| Box::new(Self::of(schema)))),
            Some("string") => Kind::Text {
                one_of: texts("enum"),
                min: number("minLength").unwrap_or(0),
                max: number("maxLength"),
                pattern: schema.get("pattern").and_then(Value::as_str).and_then(|text| Regex::new(text).ok()),
            },
            Some("boolean") => Kind::Bool,
            Some("integer" | "number") => Kind::Number,
            _ => Kind::Anything,
        };
        Self { kind, nullable: schema.get("nullable").and_then(Value::as_bool).unwrap_or(false) }
    }

    fn check(&self, node: &Node, path: &str, found: &mut Vec<Finding>) {
        if self.nullable && node.is_null() {
            return;
        }
        let mut wrong = |what: String| found.push(Finding::error(node.line, RULE, format!("{path} {what}")));
        match &self.kind {
            Kind::Anything => {}
            Kind::Bool => match &node.content {
                Content::Scalar(_, crate::yaml::Reading::Bool) => {}
                _ => wrong("must be true or false".to_owned()),
            },
            Kind::Number => match &node.content {
                Content::Scalar(_, crate::yaml::Reading::Number) => {}
                _ => wrong("must be a number".to_owned()),
            },
            Kind::Text { one_of, min, max, pattern } => match node.text() {
                None => wrong(not_text(node).to_owned()),
                Some(text) if !one_of.is_empty() && !one_of.iter().any(|one| one == text) => {
                    wrong(format!("must be one of {}", one_of.join(", ")));
                }
                Some(text) => {
                    let length = text.chars().count();
                    if length < *min {
                        wrong(format!("must have at least {min} characters"));
                    } else if max.is_some_and(|max| length > max) {
                        wrong(format!("must have at most {} characters", max.unwrap_or_default()));
                    } else if pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
                        wrong(format!("must match {}", pattern.as_ref().map_or("", Regex::as_str)));
                    }
                }
            },
            Kind::Array(items) => match &node.content {
                Content::Sequence(nodes) => {
                    for (index, node) in nodes.iter().enumerate() {
                        if let Some(items) = items {
                            items.check(node, &format!("{path}[{index}]"), found);
                        }
                    }
                }
                _ => wrong("must be a list".to_owned()),
            },
            Kind::Object { fields, required, values, max } => {
                let Content::Mapping { entries, .. } = &node.content else {
                    return wrong("must be a mapping".to_owned());
                };
                if max.is_some_and(|max| entries.len() > max) {
                    wrong(format!("must have at most {} keys", max.unwrap_or_default()));
                }
                for name in required {
                    if node.get(name).is_none_or(Node::is_null) {
                        wrong(format!("has no {name}"));
                    }
                }
                for entry in entries {
                    let path = format!("{path}.{}", shown(&entry.key));
                    match (fields.get(&entry.key), values) {
                        // A null where none is allowed counts as left out.
                        (Some(_), _) if entry.value.is_null() => {}
                        (Some(shape), _) => shape.check(&entry.value, &path, found),
                        (None, Some(values)) => values.check(&entry.value, &path, found),
                        (None, None) => {
                            let message = format!("unknown field {path}");
                            found.push(Finding::error(entry.line, "UnknownField", message));
                        }
                    }
                }
            }
        }
    }
}

/// Why a node is no text, in the words of who wrote it.
fn not_text(node: &Node) -> &'static str {
    match node.content {
        Content::Scalar(..) if node.is_null() => "has no value",
        Content::Scalar(..) => {
            "must be text: YAML reads this as a number or as true or false, so put it in quotes"
        }
        Content::Sequence(_) | Content::Mapping { .. } => "must be text",
    }
}
