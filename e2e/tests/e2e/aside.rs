//! Past the validating webhook.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use sealedenv_e2e::cluster::{Namespace, kubectl, kubectl_output, wait};
use sealedenv_e2e::setting;
use serde_json::Value;

const KIND: &str = "validatingwebhookconfiguration";

/// The validating webhook says no, in words. Past it (it was down and told to let pass, say) the operator decides:
/// so its configuration is taken away for a moment.
pub(crate) fn past_the_webhook(ns: &Namespace, manifest: &str, words: &str) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let release = setting::get("SEALEDENV_E2E_RELEASE")?;
    let tried = || {
        kubectl_output(&["-n", ns.name(), "apply", "--server-side", "--dry-run=server", "-f", "-"], manifest)
    };
    wait("the webhook to refuse it", || {
        let output = tried()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let refused = said.contains("validate.sealedenv.dev") && said.contains(words);
        if refused { Ok(Some(())) } else { bail!("{said}") }
    })?;
    let mut saved: Value = serde_json::from_str(&kubectl(&["get", KIND, &release, "-o", "json"])?)?;
    for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"] {
        saved["metadata"].as_object_mut().context("metadata")?.remove(field);
    }
    kubectl(&["delete", KIND, &release])?;
    let applied =
        wait("the API server to stop asking the webhook", || Ok(tried()?.status.success().then_some(())))
            .and_then(|()| ns.apply(manifest));
    let restored = kubectl_output(&["create", "-f", "-"], &saved.to_string())?;
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    applied.map(drop)
}
