//! What is wrong with `spec.files`, as far as that can be known without any value.

use std::collections::BTreeSet;

use sealedenv_crds::{Delivery, FileFormat, RenderedFile, SealedEnvSpec};

use crate::format::is_variable;
use crate::{Fault, MAX_DEPTH, MAX_FILES, MAX_PATH, template};

/// One file and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its path.
    pub path: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What the CRD's rules refuse as well: a file that cannot be placed, or that is none.
pub fn shape(spec: &SealedEnvSpec) -> Vec<Problem> {
    let too_many = spec.files.keys().nth(MAX_FILES).map(|path| (path, Fault::TooMany));
    let misshaped = spec.files.iter().filter_map(|(path, file)| Some((path, misshaped(spec, path, file)?)));
    too_many.into_iter().chain(misshaped).map(|(path, fault)| Problem { path: path.clone(), fault }).collect()
}

/// What is wrong beyond that: keys that are not there, and what a template must not do. Such a file cannot be made,
/// whatever the values are.
pub fn check(spec: &SealedEnvSpec) -> Vec<Problem> {
    let shaped = spec.files.iter().filter(|(path, file)| misshaped(spec, path, file).is_none());
    let unfit = shaped.filter_map(|(path, file)| Some((path, unfit(spec, file).err()?)));
    unfit.map(|(path, fault)| Problem { path: path.clone(), fault }).collect()
}

fn misshaped(spec: &SealedEnvSpec, path: &str, file: &RenderedFile) -> Option<Fault> {
    let top = path.split('/').next().unwrap_or_default();
    let sources = [file.key.is_some(), file.template.is_some(), file.format.is_some()];
    let folder = |other: &String| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    if !is_path(path) {
        Some(Fault::Path)
    } else if is_key(spec, top) {
        Some(Fault::TakenByKey)
    } else if spec.files.keys().any(folder) {
        Some(Fault::Folder)
    } else if spec.delivery == Delivery::Secret && path != top {
        Some(Fault::FolderInSecret)
    } else if spec.delivery == Delivery::Secret && file.mode.is_some() {
        Some(Fault::ModeInSecret)
    } else if file.mode.is_some() && file.mode_bits().is_none() {
        Some(Fault::Mode)
    } else if sources.into_iter().filter(|there| *there).count() != 1 {
        Some(Fault::NotOne)
    } else if file.keys.is_some() && file.format.is_none() {
        Some(Fault::KeysWithoutFormat)
    } else {
        None
    }
}

fn unfit(spec: &SealedEnvSpec, file: &RenderedFile) -> Result<(), Fault> {
    if let Some(text) = &file.template {
        return template::check(text, &|key| is_key(spec, key));
    }
    let mut seen = BTreeSet::new();
    for key in file.key.iter().chain(file.keys.iter().flatten()) {
        if !is_key(spec, key) {
            return Err(Fault::NoKey(key.as_str().into()));
        }
        if !seen.insert(key) {
            return Err(Fault::KeyTwice(key.as_str().into()));
        }
    }
    if file.format == Some(FileFormat::Dotenv) {
        let all = || spec.data.keys().chain(spec.public.keys()).collect();
        let variables: Vec<&String> = file.keys.as_ref().map_or_else(all, |keys| keys.iter().collect());
        if let Some(key) = variables.into_iter().find(|key| !is_variable(key)) {
            return Err(Fault::NotAVariable(key.as_str().into()));
        }
    }
    Ok(())
}

fn is_key(spec: &SealedEnvSpec, key: &str) -> bool {
    spec.data.contains_key(key) || spec.public.contains_key(key)
}

fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH
        && path.split('/').count() <= MAX_DEPTH
        && path.split('/').all(|part| {
            let rest = part.strip_prefix('.').unwrap_or(part);
            let named = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            named && !rest.is_empty() && !rest.starts_with('.')
        })
}
