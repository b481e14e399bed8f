//! The pages of the book, for tests that run what they say.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The checkout that the tests were built in.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The block of YAML on a page whose first line is `# NAME`, without that line.
///
/// # Errors
/// When the page has no such block.
pub fn yaml(page: &str, name: &str) -> Result<String> {
    let path = checkout().join("docs/src").join(page);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let start = format!("\n```yaml\n# {name}\n");
    let block = text.split_once(&start).and_then(|(_, rest)| rest.split_once("\n```\n"));
    let (block, _) = block.with_context(|| format!("{page} has no block {name}"))?;
    Ok(format!("{block}\n"))
}

/// Replaces text that must be there.
///
/// # Errors
/// When it is not.
pub fn replace(text: &str, from: &str, to: &str) -> Result<String> {
    anyhow::ensure!(text.contains(from), "there is no {from:?} in:\n{text}");
    Ok(text.replace(from, to))
}
