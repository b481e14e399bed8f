//! YAML with the place of every node: what finding a line and editing in place need.
//!
//! The tree is built from the events of the parser that serde-saphyr stands on. Nothing here prints a node: a
//! manifest under inspection may hold a value that was never sealed, so [`Node`] has no `Debug`, and [`YamlError`]
//! repeats none of the text.

mod edit;
mod scalar;
mod tree;

pub(crate) use edit::{Edit, EditError, NewEntry, add, add_mapping, apply, line_of, replace};
pub(crate) use scalar::Reading;
pub(crate) use tree::{Content, Entry, Node, YamlError, parse};
