//! The files of one SealedEnv. Pure: each is made of what was opened and stands beside the keys from there on, so that
//! policies, digests, sizes and status hold for it as for a key.

use std::collections::BTreeMap;

use sealedenv_crds::{Class, SealedEnvSpec, Source};
use sealedenv_render::{Fault, MAX_FILE, Values, render, shape};
use sealedenv_seal::Plain;

use crate::opened::{KeyFault, Opened, OpenedKey};

/// Permission bits by path.
pub type Modes = BTreeMap<String, u32>;

/// The modes that the files of a spec ask for.
pub fn modes(spec: &SealedEnvSpec) -> Modes {
    spec.files.iter().filter_map(|(path, file)| Some((path.clone(), file.mode_bits()?))).collect()
}

/// Makes every file, and puts each beside the keys. None of a spec that [`crate::plan`] refuses.
pub fn add(spec: &SealedEnvSpec, opened: &mut Opened) {
    if spec.files.is_empty() || !shape(spec).is_empty() {
        return;
    }
    let values = Values::new(opened.0.iter().map(|(key, of)| (key.as_str(), of.value.as_ref().ok())));
    let mut size: usize = opened.0.values().flat_map(|key| &key.value).map(Plain::len).sum();
    for (path, file) in &spec.files {
        // What does not fit together is refused as a whole, see `plan::content`. No more is made than that takes.
        let made = if size > MAX_FILE { Err(Fault::NoRoom) } else { render(file, &values) };
        size += made.as_ref().map_or(0, Plain::len);
        let value = made.map_err(|fault| KeyFault { reason: fault.reason(), message: fault.to_string() });
        let file = OpenedKey { source: Source::File, class: Class::Secret, sealed_to: Vec::new(), value };
        opened.0.insert(path.clone(), file);
    }
}
