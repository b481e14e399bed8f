//! `cargo xtask gen`: writes every file that is made from another, or checks that none has drifted.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{Checkout, chart, dependencies, exec, gitops};

/// Writes what is made from something else: CRDs, their copies in the chart, the chart's goldens, the CLI's page, what
/// GitOps tools are tested with.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write nothing; fail when a file is not what it would be.
    #[arg(long)]
    pub check: bool,
}

/// Runs the command.
///
/// # Errors
/// When something cannot be generated or written, or, with `--check`, has drifted.
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<()> {
    let mut drifted = Vec::new();
    // In this order: a later step reads what an earlier one wrote.
    for step in [
        protos,
        csi_proto,
        registration_proto,
        crds,
        chart_crds,
        goldens,
        cli_pages,
        dependencies_page,
        env_statuses,
        key_statuses,
        argocd_cm,
    ] {
        let made = step(checkout)?;
        for (path, why) in made.differences()? {
            let shown = path.strip_prefix(checkout.root()).unwrap_or(&path).display().to_string();
            if args.check {
                drifted.push(format!("{shown} ({why})"));
            } else {
                made.settle(&path)?;
                println!("{shown}: {why}");
            }
        }
    }
    if drifted.is_empty() {
        return Ok(());
    }
    bail!("not up to date: {}\nhint: run `cargo xtask gen` and commit the result", drifted.join(", "))
}

/// A folder's generated files. Any other file with the same ending is left over from something that is gone.
#[derive(Debug)]
struct Made {
    folder: PathBuf,
    ending: &'static str,
    files: BTreeMap<PathBuf, String>,
    owns_folder: bool,
}

impl Made {
    fn differences(&self) -> anyhow::Result<Vec<(PathBuf, &'static str)>> {
        let mut differences = Vec::new();
        for (path, text) in &self.files {
            match std::fs::read(path) {
                Ok(found) if found == text.as_bytes() => {}
                Ok(_) => differences.push((path.clone(), "changed")),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    differences.push((path.clone(), "new"));
                }
                Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
            }
        }
        if self.owns_folder && self.folder.exists() {
            for entry in std::fs::read_dir(&self.folder)
                .with_context(|| format!("listing {}", self.folder.display()))?
            {
                let path = entry?.path();
                if path.extension().is_some_and(|found| found == self.ending)
                    && !self.files.contains_key(&path)
                {
                    differences.push((path, "no longer made"));
                }
            }
        }
        Ok(differences)
    }

    fn settle(&self, path: &Path) -> anyhow::Result<()> {
        match self.files.get(path) {
            Some(text) => {
                std::fs::create_dir_all(&self.folder)
                    .with_context(|| format!("making {}", self.folder.display()))?;
                std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
            }
            None => std::fs::remove_file(path).with_context(|| format!("removing {}", path.display())),
        }
    }
}

/// `delivery/src/wire`, from the .proto.
fn protos(checkout: &Checkout) -> anyhow::Result<Made> {
    proto(checkout, "delivery/proto", "sealedenv/delivery/v1/delivery.proto", "delivery/src/wire")
}

/// CSI, for the node plugin.
fn csi_proto(checkout: &Checkout) -> anyhow::Result<Made> {
    proto(checkout, "node/proto", "csi.proto", "node/src/wire/csi")
}

/// The kubelet's plugin registration, for the node plugin.
fn registration_proto(checkout: &Checkout) -> anyhow::Result<Made> {
    proto(checkout, "node/proto", "pluginregistration.proto", "node/src/wire/registration")
}

/// The Rust of a .proto file below `include`, in `folder`. Written by an example of `delivery`, so that this program
/// needs no reader of .proto files to be built.
fn proto(checkout: &Checkout, include: &str, file: &str, folder: &str) -> anyhow::Result<Made> {
    let written = checkout.target().join("xtask").join(folder);
    if written.exists() {
        std::fs::remove_dir_all(&written).with_context(|| format!("emptying {}", written.display()))?;
    }
    std::fs::create_dir_all(&written).with_context(|| format!("making {}", written.display()))?;
    let mut protogen = exec::cargo(checkout.root());
    protogen.args(["run", "--quiet", "--package", "sealedenv-delivery", "--example", "protogen", "--"]);
    exec::run(protogen.arg(checkout.root().join(include)).arg(file).arg(&written))?;
    let folder = checkout.root().join(folder);
    let files = files(&written, "rs")?.into_iter().map(|(name, text)| (folder.join(name), text)).collect();
    Ok(Made { folder, ending: "rs", files, owns_folder: true })
}

/// `crds/generated`, from the types.
fn crds(checkout: &Checkout) -> anyhow::Result<Made> {
    let written = checkout.target().join("xtask/crds");
    if written.exists() {
        std::fs::remove_dir_all(&written).with_context(|| format!("emptying {}", written.display()))?;
    }
    std::fs::create_dir_all(&written).with_context(|| format!("making {}", written.display()))?;
    let mut crdgen = exec::cargo(checkout.root());
    exec::run(
        crdgen.args(["run", "--quiet", "--package", "sealedenv-crds", "--bin", "crdgen", "--"]).arg(&written),
    )?;
    let folder = checkout.root().join("crds/generated");
    let files = yaml_files(&written)?
        .into_iter()
        .map(|(name, text)| (folder.join(name), text))
        .collect::<BTreeMap<_, _>>();
    if files.is_empty() {
        bail!("crdgen wrote no CRD");
    }
    Ok(Made { folder, ending: "yaml", files, owns_folder: true })
}

/// `charts/sealedenv/templates/crds`, from `crds/generated`.
fn chart_crds(checkout: &Checkout) -> anyhow::Result<Made> {
    let folder = checkout.chart().join("templates/crds");
    let mut files = BTreeMap::new();
    for (name, text) in yaml_files(&checkout.root().join("crds/generated"))? {
        let template =
            crd_template(&text).with_context(|| format!("making a template of crds/generated/{name}"))?;
        files.insert(folder.join(name), template);
    }
    Ok(Made { folder, ending: "yaml", files, owns_folder: true })
}

/// A CRD as a template of the chart: behind `crds.enabled`, with the chart's labels and annotations.
fn crd_template(crd: &str) -> anyhow::Result<String> {
    let mut template = String::from("{{- if .Values.crds.enabled }}\n");
    let mut seen = 0;
    for line in crd.lines() {
        // What stands in a description must not become a template.
        template.push_str(&line.replace("{{", "{{ \"{{\" }}"));
        template.push('\n');
        if line == "metadata:" {
            seen += 1;
            template.push_str("  {{- include \"sealedenv.crdMetadata\" . | nindent 2 }}\n");
        }
    }
    if seen != 1 || crd.contains("\n  annotations:") || crd.contains("\n  labels:") {
        bail!("it must have one `metadata:`, without annotations and labels of its own");
    }
    template.push_str("{{- end }}\n");
    Ok(template)
}

/// The chart's wanted renderings, from the chart.
fn goldens(checkout: &Checkout) -> anyhow::Result<Made> {
    let helm = chart::helm()?;
    let mut files = BTreeMap::new();
    for case in chart::cases(checkout)? {
        let text = chart::render_case(&helm, checkout, &case)?;
        files.insert(case.golden, text);
    }
    Ok(Made { folder: chart::goldens(checkout), ending: "yaml", files, owns_folder: true })
}

/// `docs/src/cli.md`, from the command line's own definition.
fn cli_pages(checkout: &Checkout) -> anyhow::Result<Made> {
    let mut help = exec::cargo(checkout.root());
    help.args(["run", "--quiet", "--package", "sealedenv-cli", "--bin", "sealedenv", "--", "help-markdown"]);
    let folder = checkout.root().join("docs/src");
    let text = exec::read(&mut help)?;
    Ok(Made {
        files: BTreeMap::from([(folder.join("cli.md"), text)]),
        folder,
        ending: "md",
        owns_folder: false,
    })
}

/// `docs/src/dependencies.md`, from what cargo and a reviewer say.
fn dependencies_page(checkout: &Checkout) -> anyhow::Result<Made> {
    let folder = checkout.root().join("docs/src");
    let files = BTreeMap::from([(folder.join("dependencies.md"), dependencies::page(checkout)?)]);
    Ok(Made { folder, ending: "md", files, owns_folder: false })
}

/// Every status of a SealedEnv that the operator can write, where Argo CD's layout wants test data.
fn env_statuses(checkout: &Checkout) -> anyhow::Result<Made> {
    statuses(checkout, "SealedEnv")
}

/// The same of the SealingKey.
fn key_statuses(checkout: &Checkout) -> anyhow::Result<Made> {
    statuses(checkout, "SealingKey")
}

fn statuses(checkout: &Checkout, kind: &str) -> anyhow::Result<Made> {
    let written = checkout.target().join("xtask/statuses");
    if written.exists() {
        std::fs::remove_dir_all(&written).with_context(|| format!("emptying {}", written.display()))?;
    }
    let mut example = exec::cargo(checkout.root());
    example.args(["run", "--quiet", "--package", "sealedenv-operator", "--example", "statuses", "--"]);
    exec::run(example.arg(&written))?;
    let folder = gitops::argocd(checkout).join(kind).join("testdata");
    let files = yaml_files(&written.join(kind))?;
    let files = files.into_iter().map(|(name, text)| (folder.join(name), text)).collect();
    Ok(Made { folder, ending: "yaml", files, owns_folder: true })
}

/// The ConfigMap patch for Argo CD, from the scripts.
fn argocd_cm(checkout: &Checkout) -> anyhow::Result<Made> {
    let folder = checkout.root().join("gitops/argocd");
    let files = BTreeMap::from([(folder.join("argocd-cm.yaml"), gitops::argocd_cm(checkout)?)]);
    Ok(Made { folder, ending: "yaml", files, owns_folder: false })
}

fn yaml_files(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    files(folder, "yaml")
}

fn files(folder: &Path, wanted: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == wanted) {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            files.push((name, text));
        }
    }
    files.sort();
    Ok(files)
}
