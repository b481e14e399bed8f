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

/// Values that wait for their record.
pub(super) struct Release {
    pub(super) files: Files,
    pub(super) keys: Vec<String>,
    pub(super) recipients: Vec<String>,
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
