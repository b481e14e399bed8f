//! Opens the values of one SealedEnv for one pod.

use std::time::Duration;

use sealedenv_crds::{SealedEnv, SealedEnvSpec};
use sealedenv_delivery::{Content, File, FilePath, Files, Reason};
use sealedenv_seal::OpenPolicy;

use crate::files;
use crate::opened::{Opened, open_all};
use crate::plan::{self, memory};
use crate::reconcile::Context;

/// When a pod should ask again.
pub(super) const REFRESH: Duration = Duration::from_mins(1);

/// The most values that are opened on the spot.
const QUICK_VALUES: usize = 32;

/// The most bytes of sealed text that are.
const QUICK_BYTES: usize = 128 << 10;

/// Values that wait for their record.
pub(super) struct Release {
    pub(super) files: Files,
    pub(super) keys: Vec<String>,
    pub(super) recipients: Vec<String>,
}

/// Whether opening takes about a millisecond at most.
pub(super) fn is_quick(env: &SealedEnv) -> bool {
    let texts = env.spec.data.values().map(String::len).sum::<usize>();
    env.spec.files.is_empty() && env.spec.data.len() <= QUICK_VALUES && texts <= QUICK_BYTES
}

/// Opens the values. Wiped when what comes of it is dropped.
pub(super) fn opening(ctx: &Context, env: &SealedEnv) -> Result<Release, (Reason, String)> {
    let namespace = env.metadata.namespace.as_deref().unwrap_or_default();
    let name = env.metadata.name.as_deref().unwrap_or_default();
    let ring = ctx.keys.ring();
    if let Some(problem) = plan::problem(&env.spec) {
        return Err((Reason::NotOpened, problem));
    }
    let mut opened = open_all(namespace, name, &env.spec, &ring.keyring, OpenPolicy::default());
    ctx.metrics.opened(&opened);
    files::add(&env.spec, &mut opened);
    rendered(ctx, &env.spec, opened)
}

fn rendered(ctx: &Context, spec: &SealedEnvSpec, opened: Opened) -> Result<Release, (Reason, String)> {
    let policy = spec.on_key_error;
    let modes = files::modes(spec);
    let mut recipients: Vec<String> =
        opened.0.values().flat_map(|key| key.sealed_to.iter().cloned()).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let content = memory::fold(opened, policy).map_err(|refusal| {
        let reason = match refusal.reason {
            crate::reason::Reason::TooLarge => Reason::TooLarge,
            _ => Reason::NotOpened,
        };
        (reason, refusal.message)
    })?;
    let keep = memory::kept_by_pods(&content.states, policy);
    let digest = ctx.digests.of_files(&content.values, &modes, &keep);
    let path = |key: &str| {
        FilePath::parse(key).map_err(|_| (Reason::NotOpened, format!("{key} cannot be the name of a file")))
    };
    let keep = keep.into_iter().map(path).collect::<Result<_, _>>()?;
    let keys = content.values.keys().cloned().collect();
    let files = (content.values.iter())
        .map(|(key, value)| {
            let content = Content::new(value.expose().to_vec());
            Ok(File { path: path(key)?, content, mode: modes.get(key).copied() })
        })
        .collect::<Result<_, _>>()?;
    Ok(Release { files: Files { digest, files, keep, refresh_after: REFRESH }, keys, recipients })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn few_and_small_values_are_opened_on_the_spot() {
        let env = |values: usize, bytes: usize, files: bool| -> SealedEnv {
            let data: serde_json::Map<_, _> =
                (0..values).map(|n| (format!("K{n}"), "x".repeat(bytes).into())).collect();
            let files = if files { json!({"a": {"format": "JSON"}}) } else { json!({}) };
            serde_json::from_value(json!({
                "apiVersion": "sealedenv.dev/v1alpha1", "kind": "SealedEnv", "metadata": {"name": "a"},
                "spec": {"data": data, "files": files},
            }))
            .unwrap()
        };
        assert!(is_quick(&env(QUICK_VALUES, 600, false)));
        assert!(!is_quick(&env(QUICK_VALUES + 1, 600, false)));
        assert!(is_quick(&env(1, QUICK_BYTES, false)));
        assert!(!is_quick(&env(1, QUICK_BYTES + 1, false)));
        assert!(!is_quick(&env(1, 600, true)));
    }
}
