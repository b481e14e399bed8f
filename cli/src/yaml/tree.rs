//! The tree.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StructureStyle, Tag};
use thiserror::Error;

use super::scalar::{Reading, read_plain};

/// The most nodes that are built from one text. Aliases multiply them, so this is the bound on memory.
const MAX_NODES: usize = 1_000_000;
/// The deepest nesting. The parser's own bound is about twice this; aliases could stack it.
const MAX_DEPTH: usize = 128;

/// One node, and where it stands.
#[derive(Clone)]
pub(crate) struct Node {
    /// What it is.
    pub(crate) content: Content,
    /// The bytes it takes, without tag and anchor. Of an alias: those of the alias.
    pub(crate) span: Range<usize>,
    /// Whether it is a block scalar (`|` or `>`): its span is then that of the lines below.
    pub(crate) block: bool,
    /// Its line, from 1.
    pub(crate) line: usize,
}

/// What a node is.
#[derive(Clone)]
pub(crate) enum Content {
    /// A scalar: its text after unescaping, and how Kubernetes' YAML reader takes it.
    Scalar(String, Reading),
    /// A sequence.
    Sequence(Vec<Node>),
    /// A mapping, in the order of the text. Keys are scalars.
    Mapping {
        /// Its entries.
        entries: Vec<Entry>,
        /// Whether it is written as `{…}`.
        flow: bool,
    },
}

/// One entry of a mapping.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The key's text.
    pub(crate) key: String,
    /// The bytes of the key.
    pub(crate) key_span: Range<usize>,
    /// The line of the key, from 1.
    pub(crate) line: usize,
    /// The value.
    pub(crate) value: Node,
}

/// Why a text was not read as YAML. Repeats none of it: a value that starts with `*` or `%` would come out.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum YamlError {
    /// The grammar is broken.
    #[error("not valid YAML: {what}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        what: String,
    },
    /// A mapping key is a list or a mapping.
    #[error("a mapping key must be text")]
    ComplexKey {
        /// The line, from 1.
        line: usize,
    },
    /// A mapping has a key twice.
    #[error("a key stands twice in one mapping")]
    RepeatedKey {
        /// The line of the second one, from 1.
        line: usize,
    },
    /// Too many nodes, or nested too deep.
    #[error("more than {MAX_NODES} nodes, or nested deeper than {MAX_DEPTH}")]
    TooLarge {
        /// The line where the bound was reached, from 1.
        line: usize,
    },
}

/// Every document of a text. An empty document (as between two `---`) is left out.
pub(crate) fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut builder = Builder::default();
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next
            .map_err(|error| YamlError::Syntax { line: error.marker().line(), what: said(error.kind()) })?;
        builder.take(event, &span)?;
    }
    Ok(builder.documents)
}

/// The parser's message, without what it quotes.
fn said(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::UnexpectedCharacter { .. } => "unexpected character".to_owned(),
        kind => kind.to_string(),
    }
}

// === impl YamlError ===

impl YamlError {
    /// Where it is, from 1.
    pub(crate) fn line(&self) -> usize {
        match self {
            Self::Syntax { line, .. }
            | Self::ComplexKey { line }
            | Self::RepeatedKey { line }
            | Self::TooLarge { line } => *line,
        }
    }
}

// === impl Node ===

impl Node {
    /// The entries, if this is a mapping.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.content {
            Content::Mapping { entries, .. } => entries,
            Content::Scalar(..) | Content::Sequence(_) => &[],
        }
    }

    /// The entry of a key, if this is a mapping that has it.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The value of a key, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    /// The value of a key, to be changed.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let entries = self.entries_mut()?;
        entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    /// Gives a key that is there another value.
    pub(crate) fn set(&mut self, key: &str, value: Node) {
        if let Some(node) = self.get_mut(key) {
            *node = value;
        }
    }

    /// Takes a key away.
    pub(crate) fn remove(&mut self, key: &str) {
        if let Some(entries) = self.entries_mut() {
            entries.retain(|entry| entry.key != key);
        }
    }

    fn entries_mut(&mut self) -> Option<&mut Vec<Entry>> {
        match &mut self.content {
            Content::Mapping { entries, .. } => Some(entries),
            Content::Scalar(..) | Content::Sequence(_) => None,
        }
    }

    /// The text, if Kubernetes reads this as text.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar(text, Reading::Text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is an explicit or implicit null.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.content, Content::Scalar(_, Reading::Null))
    }

    /// Whether both mean the same: equal content, wherever it stands and however it is quoted.
    pub(crate) fn means(&self, other: &Node) -> bool {
        match (&self.content, &other.content) {
            (Content::Scalar(a, how_a), Content::Scalar(b, how_b)) => how_a == how_b && a == b,
            (Content::Sequence(a), Content::Sequence(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.means(b))
            }
            (Content::Mapping { entries: a, .. }, Content::Mapping { entries: b, .. }) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.key == b.key && a.value.means(&b.value))
            }
            _ => false,
        }
    }

    /// The JSON that Kubernetes makes of this.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.content {
            Content::Scalar(text, reading) => reading.to_json(text),
            Content::Sequence(items) => items.iter().map(Node::to_json).collect(),
            Content::Mapping { entries, .. } => {
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect()
            }
        }
    }
}

// === Builder ===

/// Makes a tree of events.
#[derive(Default)]
struct Builder {
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
}

/// A collection whose end has not come yet.
struct Open {
    collection: Collection,
    anchor: usize,
    start: usize,
    line: usize,
    height: usize,
}

enum Collection {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, seen: HashSet<String>, key: Option<Key>, flow: bool },
}

struct Key {
    text: String,
    span: Range<usize>,
    line: usize,
}

/// A node that an alias may repeat, with what repeating it costs.
struct Anchored {
    node: Node,
    nodes: usize,
    height: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        let line = span.start.line();
        let bytes = span.byte_range().unwrap_or_default();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let reading = reading(&text, style, tag.as_deref());
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let node =
                    Node { content: Content::Scalar(text.into_owned(), reading), span: bytes, block, line };
                self.place(node, 1, 0, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(Collection::Sequence(Vec::new()), anchor, bytes.start, line)
            }
            Event::MappingStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                let mapping =
                    Collection::Mapping { entries: Vec::new(), seen: HashSet::new(), key: None, flow };
                self.open(mapping, anchor, bytes.start, line)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(bytes.end),
            Event::Alias(anchor) => {
                // The parser knows every anchor it hands out; one that is still open would contain itself.
                let Some(anchored) = self.anchors.get(&anchor) else {
                    return Err(YamlError::Syntax {
                        line,
                        what: "an alias within its own anchor".to_owned(),
                    });
                };
                let (nodes, height) = (anchored.nodes, anchored.height);
                self.room(nodes, height, line)?;
                let node = Node { span: bytes, block: false, line, ..anchored.node.clone() };
                self.place(node, nodes, height, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(
        &mut self,
        collection: Collection,
        anchor: usize,
        start: usize,
        line: usize,
    ) -> Result<(), YamlError> {
        self.room(1, 1, line)?;
        self.open.push(Open { collection, anchor, start, line, height: 1 });
        Ok(())
    }

    fn close(&mut self, end: usize) -> Result<(), YamlError> {
        let Some(Open { collection, anchor, start, line, height }) = self.open.pop() else { return Ok(()) };
        let content = match collection {
            Collection::Sequence(items) => Content::Sequence(items),
            Collection::Mapping { entries, flow, .. } => Content::Mapping { entries, flow },
        };
        let node = Node { content, span: start..end, block: false, line };
        self.place(node, 1, height, anchor)
    }

    /// Refuses what would exceed the bounds, before it is cloned.
    fn room(&self, nodes: usize, height: usize, line: usize) -> Result<(), YamlError> {
        if self.nodes + nodes > MAX_NODES || self.open.len() + height > MAX_DEPTH {
            return Err(YamlError::TooLarge { line });
        }
        Ok(())
    }

    /// Puts a finished node where it belongs: into the innermost open collection, or among the documents.
    fn place(&mut self, node: Node, nodes: usize, height: usize, anchor: usize) -> Result<(), YamlError> {
        self.room(nodes, height, node.line)?;
        self.nodes += nodes;
        if anchor != 0 {
            let nodes = count(&node);
            self.room(nodes, 0, node.line)?;
            self.nodes += nodes;
            self.anchors.insert(anchor, Anchored { node: node.clone(), nodes, height });
        }
        let Some(parent) = self.open.last_mut() else {
            self.anchors.clear();
            // What stands between two `---`, or after the last: no document.
            if !(node.is_null() && node.span.is_empty()) {
                self.documents.push(node);
            }
            return Ok(());
        };
        parent.height = parent.height.max(height + 1);
        match &mut parent.collection {
            Collection::Sequence(items) => items.push(node),
            Collection::Mapping { entries, seen, key, .. } => match key.take() {
                None => {
                    let Content::Scalar(text, _) = node.content else {
                        return Err(YamlError::ComplexKey { line: node.line });
                    };
                    if !seen.insert(text.clone()) {
                        return Err(YamlError::RepeatedKey { line: node.line });
                    }
                    *key = Some(Key { text, span: node.span, line: node.line });
                }
                Some(Key { text, span, line }) => {
                    entries.push(Entry { key: text, key_span: span, line, value: node });
                }
            },
        }
        Ok(())
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar(..) => 0,
        Content::Sequence(items) => items.iter().map(count).sum(),
        Content::Mapping { entries, .. } => entries.iter().map(|entry| 1 + count(&entry.value)).sum(),
    }
}

fn reading(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Reading {
    match tag.and_then(Tag::core_suffix) {
        Some("str") => Reading::Text,
        Some(_) => read_plain(text),
        None if style == ScalarStyle::Plain => read_plain(text),
        None => Reading::Text,
    }
}

#[cfg(test)]
mod tests;
