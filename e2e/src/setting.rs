//! Where everything is, from the environment that `cargo xtask test` sets.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// A variable of the environment.
///
/// # Errors
/// When it is not set: the tests never skip themselves.
pub fn get(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| {
        format!("{name} is not set; run these tests by `cargo xtask test api` or `cargo xtask test e2e`")
    })
}

/// A built binary of the project.
///
/// # Errors
/// When the environment does not say where they are.
pub fn binary(name: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(get("SEALEDENV_E2E_BIN_DIR")?).join(name))
}

/// Kubeconfig of the cluster under test.
///
/// # Errors
/// As [`get`].
pub fn kubeconfig() -> Result<String> {
    get("SEALEDENV_E2E_KUBECONFIG")
}

/// Namespace the chart is installed in.
///
/// # Errors
/// As [`get`].
pub fn system_namespace() -> Result<String> {
    get("SEALEDENV_E2E_NAMESPACE")
}
