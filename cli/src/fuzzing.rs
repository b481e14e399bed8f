//! What the fuzz targets in `fuzz/` call: text in, verdicts out. Only with the feature `fuzzing`; not an interface.

use serde_json::Value;

use crate::manifest::merge::{find, merge as merge_into};
use crate::manifest::{Block, Change};
use crate::validation::{Checker, Options, Severity};
use crate::yaml;

/// The checks of `sealedenv validate`, made ready.
pub struct Manifests(Checker);

/// What the checks found.
pub struct Checked {
    /// How many errors.
    pub errors: usize,
    /// How many `SealedEnv`s were checked.
    pub sealed_envs: usize,
}

impl Default for Manifests {
    fn default() -> Self {
        Self::new()
    }
}

impl Manifests {
    /// Reads the CRD's schema and rules.
    pub fn new() -> Self {
        Self(Checker::new())
    }

    /// Checks the bytes of a file.
    pub fn check(&self, bytes: &[u8]) -> Checked {
        let options = Options { recipients: None, namespace: Some("shop".to_owned()), strict_secrets: false };
        let checked = self.0.check(bytes, &options);
        let errors = checked.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        Checked { errors, sealed_envs: checked.sealed_envs }
    }
}

/// The documents of a text as JSON; `None` if it is not YAML.
pub fn documents(text: &str) -> Option<Vec<Value>> {
    Some(yaml::parse(text).ok()?.iter().map(yaml::Node::to_json).collect())
}

/// Puts a sealed value under a key of the only `SealedEnv` of a text, in place; `None` where that is refused.
pub fn merge(text: &str, key: &str, sealed: &str) -> Option<String> {
    let target = find(text, "FILE", None, None).ok()?;
    let replaces = target.existing.data.contains_key(key);
    let change = Change { block: Block::Data, key: key.to_owned(), replaces, text: sealed.to_owned() };
    merge_into(text, "FILE", &target, &[change]).ok()
}
