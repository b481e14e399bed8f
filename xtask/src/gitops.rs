//! What the tests of GitOps tools need: the tools' own code, and the ConfigMap patch for Argo CD.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    Checkout,
    gomodule::{self, Program},
};

const MODULE: &str = "e2e/gitops";

const JUDGE: Program =
    Program { module: MODULE, sources: Some("judge"), tags: "", package: "./judge", name: "gitops-judge" };

const CONTROLLER: Program = Program {
    module: MODULE,
    sources: None,
    tags: "",
    package: "github.com/fluxcd/kustomize-controller",
    name: "kustomize-controller",
};

/// The kinds that Argo CD gets health and actions of.
pub const KINDS: [&str; 2] = ["SealedEnv", "SealingKey"];

/// The program that asks Flux's kstatus library and Argo CD's Lua machine about objects: see `e2e/gitops/judge`.
///
/// # Errors
/// When it does not build.
pub fn judge(checkout: &Checkout) -> anyhow::Result<PathBuf> {
    Ok(JUDGE.ensure(checkout, |_| Ok(()))?.join(JUDGE.name))
}

/// Flux's kustomize-controller, and the folder of its CRDs.
///
/// # Errors
/// When it does not build.
pub fn kustomize_controller(checkout: &Checkout) -> anyhow::Result<(PathBuf, PathBuf)> {
    let dir = CONTROLLER.ensure(checkout, |new| {
        let module = gomodule::folder_of(checkout, MODULE, CONTROLLER.package)?;
        gomodule::copy_files(&module.join("config/crd/bases"), &new.join("crds"))
    })?;
    Ok((dir.join(CONTROLLER.name), dir.join("crds")))
}

/// The folder of Argo CD's customisations, laid out as Argo CD's own repository lays out its built-in ones.
pub fn argocd(checkout: &Checkout) -> PathBuf {
    checkout.root().join("gitops/argocd/sealedenv.dev")
}

/// One kind's scripts for Argo CD.
#[derive(Debug)]
pub struct Scripts {
    /// Gives the health of an object.
    pub health: String,
    /// Says which actions an object has.
    pub discovery: String,
    /// What each action does, by name.
    pub actions: BTreeMap<String, String>,
}

impl Scripts {
    /// Reads them.
    ///
    /// # Errors
    /// When one is missing or cannot be read.
    pub fn read(checkout: &Checkout, kind: &str) -> anyhow::Result<Self> {
        let folder = argocd(checkout).join(kind);
        let actions_folder = folder.join("actions");
        let mut actions = BTreeMap::new();
        for entry in
            fs::read_dir(&actions_folder).with_context(|| format!("listing {}", actions_folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "testdata") {
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                actions.insert(name.unwrap_or_default(), text(&path.join("action.lua"))?);
            }
        }
        Ok(Self {
            health: text(&folder.join("health.lua"))?,
            discovery: text(&actions_folder.join("discovery.lua"))?,
            actions,
        })
    }
}

/// The patch for the ConfigMap `argocd-cm` that brings all scripts into an Argo CD.
///
/// # Errors
/// When a script cannot be read, or has a line that would end its block of YAML.
pub fn argocd_cm(checkout: &Checkout) -> anyhow::Result<String> {
    let mut patch = "\
# Health and actions of SealedEnv's kinds for Argo CD. Made from the scripts beside it by `cargo xtask gen`.
# kubectl -n argocd patch configmap argocd-cm --patch-file argocd-cm.yaml
data:
"
    .to_owned();
    for kind in KINDS {
        let Scripts { health, discovery, actions } = Scripts::read(checkout, kind)?;
        writeln!(patch, "  resource.customizations.health.sealedenv.dev_{kind}: |")?;
        block(&mut patch, 4, &health)?;
        writeln!(patch, "  resource.customizations.actions.sealedenv.dev_{kind}: |")?;
        writeln!(patch, "    discovery.lua: |")?;
        block(&mut patch, 6, &discovery)?;
        writeln!(patch, "    definitions:")?;
        for (name, script) in actions {
            writeln!(patch, "      - name: {name}\n        action.lua: |")?;
            block(&mut patch, 10, &script)?;
        }
    }
    Ok(patch)
}

/// A script as the lines of a literal block.
fn block(into: &mut String, indent: usize, script: &str) -> anyhow::Result<()> {
    if script.starts_with([' ', '\n', '\t']) || script.contains('\t') || !script.ends_with('\n') {
        bail!("a script must start at a line's start, have no tab, and end with a line break:\n{script}");
    }
    for line in script.lines() {
        let pad = if line.is_empty() { 0 } else { indent };
        writeln!(into, "{:pad$}{line}", "")?;
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
