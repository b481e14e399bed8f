//! Environment variables of files: a program of ours in front of a container's command.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Container;

use super::Denied;
use super::volumes::Wanted;
use crate::text::quoted;

/// Where containers have the program.
pub(super) const FOLDER: &str = "/run/sealedenv/bin";

/// The program.
pub(super) const PROGRAM: &str = "/run/sealedenv/bin/sealedenv-exec";

/// The command that a container is to have, if it has it not. Arguments stay as they are: they follow.
///
/// What the pod's own `env` says wins over a file, as it wins over `envFrom`.
pub(super) fn command(container: &Container, wanted: &[Wanted]) -> Result<Option<Vec<String>>, Denied> {
    let folders: Vec<&Wanted> = wanted.iter().filter(|wanted| wanted.is_in_memory()).collect();
    let theirs = container.command.as_deref().unwrap_or_default();
    if folders.is_empty() || theirs.first().is_some_and(|first| first == PROGRAM) {
        return Ok(None);
    }
    if theirs.is_empty() {
        return Err(Denied::CommandMissing { container: quoted(&container.name) });
    }
    let own: BTreeSet<&str> = container.env.iter().flatten().map(|own| own.name.as_str()).collect();
    let folders = folders.iter().flat_map(|folder| ["--from".to_owned(), literal(folder.path.as_str())]);
    let own = own.into_iter().flat_map(|name| ["--keep".to_owned(), literal(name)]);
    let words = [PROGRAM.to_owned()].into_iter().chain(folders).chain(own).chain(["--".to_owned()]);
    Ok(Some(words.chain(theirs.iter().cloned()).collect()))
}

/// The kubelet reads `$(NAME)` in a command as a variable, and `$$` as `$`.
pub(super) fn literal(word: &str) -> String {
    word.replace('$', "$$")
}
