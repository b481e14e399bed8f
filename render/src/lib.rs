//! Makes files of opened values: a value under another name, a common format, or a template.
//!
//! - [`shape`] and [`check`] say what is wrong with `spec.files`, without any value and any key. The operator, the
//!   webhook and the command line ask the same question.
//! - [`Values`] holds the values of one SealedEnv, [`render`] makes one file of them.
//!
//! A template comes from whoever may write a SealedEnv, so it is taken for hostile: it can do nothing but make text, its
//! work and its output are bounded, and what it could not be bounded in is refused before it runs (`template/subset.rs`).
//!
//! A [`Fault`] names files, keys and lines. It never holds a value, nor text of a template, where somebody may have
//! written one. Pure: no clock, no file, no environment.

mod check;
mod fault;
mod format;
mod template;
mod values;

use sealedenv_crds::RenderedFile;
use sealedenv_seal::Plain;

pub use check::{Problem, check, shape};
pub use fault::{At, Fault};
pub use values::Values;

/// The most files of one SealedEnv.
pub const MAX_FILES: usize = 32;

/// The largest file, in bytes: what a Secret holds.
pub const MAX_FILE: usize = 1 << 20;

/// The largest template, in bytes.
pub const MAX_TEMPLATE: usize = 32 << 10;

/// The longest path, in bytes: what a key of a Secret may have.
pub const MAX_PATH: usize = 253;

/// The most parts of a path.
pub const MAX_DEPTH: usize = 8;

/// Makes one file.
///
/// # Errors
/// [`Fault`], about this file only.
pub fn render(file: &RenderedFile, values: &Values) -> Result<Plain, Fault> {
    let made = match (&file.key, &file.template, file.format) {
        (Some(key), None, None) => values.bytes(key)?.to_vec().into(),
        (None, Some(template), None) => template::render(template, values)?,
        (None, None, Some(format)) => {
            let text = |key| Ok((key, values.text(key)?));
            let chosen: Vec<_> = match &file.keys {
                Some(keys) => keys.iter().map(|key| text(key.as_str())).collect::<Result<_, _>>()?,
                None => values.names().map(text).collect::<Result<_, _>>()?,
            };
            format::write(format, &chosen)?
        }
        _ => return Err(Fault::NotOne),
    };
    if made.len() > MAX_FILE { Err(Fault::TooLarge) } else { Ok(made) }
}
