//! `cargo xtask demo`: the main job end to end in a real cluster, shown as a session in a shell.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    Checkout, chart, cluster, exec, image,
    install::{self, Release, Target},
};

/// Starts the embedded cluster, installs the chart with the image built here, and shows the main job step by step.
/// Everything that is shown is run. Cleans up after itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave the cluster up. Without this it goes down again, unless it was up before.
    #[arg(long)]
    keep: bool,
    /// Write the session to this file too.
    #[arg(long, value_name = "FILE")]
    transcript: Option<PathBuf>,
}

/// The namespace that the session works in.
const NAMESPACE: &str = "shop";

/// No single command may take longer than this, in seconds. Waits have shorter deadlines of their own.
const PATIENCE: &str = "120";

const DOTENV: &str = "GREETING=hello from git\nPAYMENT_TOKEN='not a real token'\n";

const WORKLOAD: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}
      annotations:
        sealedenv.dev/inject: checkout
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: web
          image: BUSYBOX
          command: [sleep, "3600"]
"#;

/// One command of the session.
struct Step {
    /// What it shows, printed above it.
    remark: &'static str,
    line: &'static str,
    /// What the output must contain.
    wants: &'static [&'static str],
    /// What the output must not contain.
    never: &'static [&'static str],
    fails: bool,
}

impl Step {
    const fn new(line: &'static str) -> Self {
        Self { remark: "", line, wants: &[], never: &[], fails: false }
    }

    const fn remark(mut self, remark: &'static str) -> Self {
        self.remark = remark;
        self
    }

    const fn wants(mut self, wants: &'static [&'static str]) -> Self {
        self.wants = wants;
        self
    }

    const fn never(mut self, never: &'static [&'static str]) -> Self {
        self.never = never;
        self
    }

    /// It must not succeed.
    const fn fails(mut self) -> Self {
        self.fails = true;
        self
    }
}

const VALUES: &[&str] = &["hello from git", "not a real token"];

const SESSION: &[Step] = &[
    Step::new("kubectl create namespace shop"),
    Step::new("sealedenv recipients fetch > recipients.txt")
        .remark("What to seal to is public: every user of the cluster may read it."),
    Step::new("cat recipients.txt").wants(&["age1"]),
    Step::new("cat .env"),
    Step::new(
        "unshare --net env -u KUBECONFIG sealedenv manifest --namespace shop --name checkout --env-file .env -R recipients.txt > checkout.yaml",
    )
    .remark("Sealing needs no cluster: here the command has neither a kubeconfig nor a network."),
    Step::new("cut -c 1-90 checkout.yaml")
        .remark("This goes into git.")
        .wants(&["kind: SealedEnv", "GREETING: ", "sealed:v1:"])
        .never(VALUES),
    Step::new("kubectl apply -f checkout.yaml"),
    Step::new("kubectl -n shop wait --for=condition=Ready sealedenv/checkout --timeout=30s"),
    Step::new("cat web.yaml").remark("A workload asks for it with one annotation."),
    Step::new("kubectl -n shop apply -f web.yaml"),
    Step::new("kubectl -n shop rollout status deployment/web --timeout=60s"),
    Step::new("kubectl -n shop exec deploy/web -- ls /run/secrets/checkout").wants(&["GREETING", "PAYMENT_TOKEN"]),
    Step::new("kubectl -n shop exec deploy/web -- cat /run/secrets/checkout/GREETING; echo").wants(&["hello from git"]),
    Step::new("kubectl -n shop exec deploy/web -- mount | grep ' /run/secrets/checkout '")
        .remark("The files are in memory, and nobody in the pod can change them.")
        .wants(&["type tmpfs (ro"]),
    Step::new("kubectl -n shop get senv").wants(&["checkout", "True"]).never(VALUES),
    Step::new("kubectl -n shop describe senv checkout | sed -n '/^Status:/,$p'")
        .wants(&["Conditions:", "Ready", "Events:"])
        .never(VALUES),
    Step::new("sed 's/name: checkout/name: stolen/' checkout.yaml | kubectl apply -f -")
        .remark("Values open only where they were sealed for. Under another name they are refused.")
        .wants(&["denied the request"])
        .fails(),
    Step::new(
        "kubectl -n sealedenv-system get lease sealedenv-operator -o jsonpath={.spec.holderIdentity} | cut -d_ -f1 | tee leader",
    )
    .remark("Every release of a value is on the audit trail of the replica that leads.")
    .wants(&["sealedenv-operator-"]),
    Step::new("kubectl -n sealedenv-system exec $(cat leader) -- /sealedenv audit tail -n 5")
        .wants(&["checkout"])
        .never(VALUES),
    Step::new("kubectl -n sealedenv-system exec $(cat leader) -- /sealedenv audit verify").wants(&["ok"]),
];

/// Runs the command.
///
/// # Errors
/// When the cluster or the release cannot be had, or a step does not show what it should.
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<()> {
    let _reserved = install::reserve()?;
    let was_up = cluster::info()?.is_some();
    let shown = show(checkout, args);
    if shown.is_err() && !args.keep && !was_up {
        exec::say("the cluster is left up to look into; `cargo xtask cluster down` ends it");
    }
    shown?;
    if args.keep || was_up {
        exec::say("the cluster is still up; `cargo xtask cluster down` ends it");
    } else {
        exec::say("taking the cluster down");
        cluster::down()?;
    }
    Ok(())
}

fn show(checkout: &Checkout, args: &Args) -> anyhow::Result<()> {
    let cluster = cluster::ensure_up(checkout)?;
    let image = image::build(checkout)?;
    exec::say("loading the image");
    cluster::load(&image.archive)?;
    let target = Target::embedded(&cluster);
    let installed = Release::of(&image.reference)?.install(checkout, &target)?;

    let desk = Desk::new(&cluster, &image, args.transcript.as_deref())?;
    let mut session = Session { desk: &desk, copy: desk.copy.as_ref() };
    session.print("$ cargo xtask install")?;
    session.print(&installed)?;
    clean(&target)?; // of a run that was interrupted
    let shown = SESSION.iter().try_for_each(|step| session.run(step));
    if shown.is_err() {
        diagnose(&target);
    }
    let cleaned = clean(&target);
    shown?;
    cleaned
}

/// A folder to work in, with the programs that the session uses on its `PATH`.
struct Desk {
    folder: PathBuf,
    kubeconfig: PathBuf,
    path: std::ffi::OsString,
    copy: Option<File>,
}

impl Desk {
    fn new(
        cluster: &cluster::ClusterInfo,
        image: &image::Image,
        transcript: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("sealedenv-demo-{}", std::process::id()));
        let programs = folder.join("bin");
        fs::create_dir_all(&programs).with_context(|| format!("making {}", programs.display()))?;
        for (name, program) in [
            ("sealedenv", image.binaries.join("sealedenv")),
            ("kubectl", cluster.kubectl.clone()),
            ("helm", chart::helm()?),
        ] {
            symlink(&program, programs.join(name))
                .with_context(|| format!("linking {}", program.display()))?;
        }
        for (name, text) in
            [(".env", DOTENV.to_owned()), ("web.yaml", WORKLOAD.replace("BUSYBOX", cluster::BUSYBOX))]
        {
            fs::write(folder.join(name), text).with_context(|| format!("writing {name}"))?;
        }
        let old = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&old)))?;
        let copy = transcript
            .map(|path| File::create(path).with_context(|| format!("making {}", path.display())))
            .transpose()?;
        Ok(Self { folder, kubeconfig: cluster.kubeconfig.clone(), path, copy })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("warning: {} stays behind: {error}", self.folder.display());
        }
    }
}

struct Session<'d> {
    desk: &'d Desk,
    copy: Option<&'d File>,
}

impl Session<'_> {
    fn run(&mut self, step: &Step) -> anyhow::Result<()> {
        if !step.remark.is_empty() {
            self.print(&format!("\n# {}", step.remark))?;
        }
        self.print(&format!("$ {}", step.line))?;
        let output = Command::new("timeout")
            .args([PATIENCE, "bash", "-c", &format!("set -o pipefail; exec 2>&1; {}", step.line)])
            .current_dir(&self.desk.folder)
            .env("PATH", &self.desk.path)
            .env("KUBECONFIG", &self.desk.kubeconfig)
            .env("HOME", &self.desk.folder)
            .stdin(Stdio::null())
            .output()
            .context("starting bash")?;
        let text = String::from_utf8_lossy(&output.stdout);
        self.print(text.trim_end_matches('\n'))?;
        judge(step, &text, output.status.success())
    }

    fn print(&mut self, text: &str) -> anyhow::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        writeln!(io::stdout(), "{text}").context("writing to stdout")?;
        if let Some(mut copy) = self.copy {
            writeln!(copy, "{text}").context("writing the transcript")?;
        }
        Ok(())
    }
}

/// Whether the step showed what it should.
fn judge(step: &Step, output: &str, succeeded: bool) -> anyhow::Result<()> {
    if succeeded == step.fails {
        let how = if succeeded { "succeeded, which it must not" } else { "failed" };
        bail!("`{}` {how}", step.line);
    }
    for wanted in step.wants {
        if !output.contains(wanted) {
            bail!("`{}` does not show {wanted:?}", step.line);
        }
    }
    for hidden in step.never {
        if output.contains(hidden) {
            bail!("`{}` shows {hidden:?}, which it must not", step.line);
        }
    }
    Ok(())
}

fn clean(target: &Target) -> anyhow::Result<()> {
    exec::read(target.kubectl().args([
        "delete",
        "namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--timeout=60s",
    ]))
    .map(drop)
    .context("removing the session's namespace")
}

fn diagnose(target: &Target) {
    install::diagnose(target);
    for arguments in ["get sealedenvs --output yaml", "get pods --output wide", "get events", "describe pods"]
    {
        let mut kubectl = target.kubectl();
        eprintln!("--- kubectl --namespace {NAMESPACE} {arguments}");
        match exec::read(kubectl.args(["--namespace", NAMESPACE]).args(arguments.split(' '))) {
            Ok(text) => eprintln!("{}", text.trim_end()),
            Err(error) => eprintln!("{error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_held_to_what_it_says() {
        let step = Step::new("x").wants(&["yes"]).never(&["no"]);
        assert!(judge(&step, "yes", true).is_ok());
        assert!(judge(&step, "yes", false).is_err(), "failed");
        assert!(judge(&step, "", true).is_err(), "shows nothing");
        assert!(judge(&step, "yes no", true).is_err(), "leaks");
        let refused = Step::new("x").fails();
        assert!(judge(&refused, "", false).is_ok());
        assert!(judge(&refused, "", true).is_err());
    }

    #[test]
    fn the_session_shows_what_it_claims_to() {
        let lines: Vec<&str> = SESSION.iter().map(|step| step.line).collect();
        for wanted in
            ["recipients fetch", "unshare --net", "mount | grep", "get senv", "audit tail", "audit verify"]
        {
            assert!(lines.iter().any(|line| line.contains(wanted)), "{wanted}");
        }
        assert!(SESSION.iter().any(|step| step.fails), "a refusal is part of the session");
        for value in VALUES {
            assert!(DOTENV.contains(value), "{value} is looked for but never sealed");
        }
    }
}
