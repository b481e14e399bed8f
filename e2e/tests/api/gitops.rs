//! What docs/src/gitops.md says of kustomize and Argo CD, done with the real kubectl.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sealedenv_e2e::cluster::{Namespace, run};
use sealedenv_e2e::seal::{self, stranger};
use sealedenv_e2e::{page, setting};
use serde_json::Value;

const WORKLOADS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
      annotations: {sealedenv.dev/inject: checkout}
    spec:
      imagePullSecrets: [{name: checkout}]
      initContainers: [{name: first, image: x, envFrom: [{secretRef: {name: checkout}}]}]
      containers:
        - name: web
          image: x
          envFrom: [{secretRef: {name: other}}]
          env: [{name: TOKEN, valueFrom: {secretKeyRef: {name: checkout, key: TOKEN}}}]
      volumes:
        - {name: values, secret: {secretName: checkout}}
        - {name: all, projected: {sources: [{secret: {name: checkout}}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: shop}
spec:
  schedule: "@daily"
  jobTemplate:
    spec:
      template:
        metadata: {annotations: {sealedenv.dev/inject: checkout}}
        spec: {restartPolicy: Never, containers: [{name: job, image: x}]}
"#;

/// A repository with a base, the page's overlay and the project's component. The base has these manifests.
fn repository(manifests: &[(&str, &str)]) -> Result<tempfile::TempDir> {
    let root = tempfile::tempdir()?;
    let write = |file: &str, text: &str| -> Result<()> {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(fs::write(path, text)?)
    };
    let mut resources = "resources:\n".to_owned();
    for (name, text) in manifests {
        write(&format!("base/{name}"), text)?;
        writeln!(resources, "  - {name}")?;
    }
    write("base/kustomization.yaml", &resources)?;
    write("overlays/dev/kustomization.yaml", &page::yaml("gitops.md", "overlays/dev/kustomization.yaml")?)?;
    for file in ["kustomization.yaml", "names.yaml"] {
        let file = format!("gitops/kustomize/{file}");
        write(&file, &fs::read_to_string(page::checkout().join(&file))?)?;
    }
    Ok(root)
}

fn build(root: &Path) -> Result<String> {
    let mut kubectl = Command::new(setting::get("SEALEDENV_E2E_KUBECTL")?);
    kubectl.current_dir(root).args(["kustomize", "overlays/dev"]);
    let output = run(kubectl, b"")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn names_follow_a_prefix_with_the_component() -> Result<()> {
    let env = "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata: {name: checkout, namespace: shop}\nspec: {public: {MODE: live}}\n";
    let built = build(repository(&[("env.yaml", env), ("workloads.yaml", WORKLOADS)])?.path())?;
    // By its own name, in the annotations of both, and in five places of the Deployment's pod.
    assert_eq!(built.matches("dev-checkout").count(), 1 + 2 + 5, "{built}");
    assert_eq!(built.replace("dev-checkout", "").matches("checkout").count(), 0, "{built}");
    assert!(built.contains("name: other") && !built.contains("dev-other"), "{built}");
    Ok(())
}

#[test]
fn a_prefix_that_breaks_values_is_found_before_anything_is_applied() -> Result<()> {
    let recipient = stranger()?;
    let env = |scope: &str, name: &[&str]| -> Result<String> {
        let place = [&["value", "seal", "--scope", scope, "--namespace", "shop"], name].concat();
        let args = [&place[..], &["--key", "TOKEN", "-r", &recipient]].concat();
        let sealed = String::from_utf8(seal::sealedenv(&args, b"hunter2")?)?;
        Ok(format!(
            "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata:\n  name: checkout\n  namespace: shop\nspec:\n  data:\n    TOKEN: {}\n",
            sealed.trim()
        ))
    };
    let built = build(repository(&[("env.yaml", &env("strict", &["--name", "checkout"])?)])?.path())?;
    let mut validate = Command::new(setting::binary("sealedenv")?);
    validate.args(["validate", "-"]).env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    let output = run(validate, built.as_bytes())?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("shop/checkout/TOKEN") && said.contains("shop/dev-checkout/TOKEN"), "{said}");

    let built = build(repository(&[("env.yaml", &env("namespace", &[])?)])?.path())?;
    seal::sealedenv(&["validate", "-"], built.as_bytes())?;
    Ok(())
}

#[test]
fn the_patch_for_argo_cd_fits_its_config_map() -> Result<()> {
    let ns = Namespace::new("argocd")?;
    ns.kubectl(&["create", "configmap", "argocd-cm", "--from-literal=url=https://argocd.example.com"])?;
    let patch = page::checkout().join("gitops/argocd/argocd-cm.yaml");
    let patch = patch.to_str().context("a path")?;
    ns.kubectl(&["patch", "configmap", "argocd-cm", "--patch-file", patch])?;
    let data: Value = ns.get("configmap", "argocd-cm")?["data"].clone();
    let names: Vec<&String> = data.as_object().context("data")?.keys().collect();
    assert_eq!(
        names,
        [
            "resource.customizations.actions.sealedenv.dev_SealedEnv",
            "resource.customizations.actions.sealedenv.dev_SealingKey",
            "resource.customizations.health.sealedenv.dev_SealedEnv",
            "resource.customizations.health.sealedenv.dev_SealingKey",
            "url",
        ]
    );
    let script =
        fs::read_to_string(page::checkout().join("gitops/argocd/sealedenv.dev/SealedEnv/health.lua"))?;
    assert_eq!(data["resource.customizations.health.sealedenv.dev_SealedEnv"], script);
    Ok(())
}
