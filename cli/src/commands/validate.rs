//! `sealedenv validate`

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Serialize;

use super::Context;
use crate::console::{
    Format, JSON_VERSION, OutputArgs, OutputError, counted, failure, warning, write_json, write_lines,
};
use crate::failure::{Exit, Failure, Fault as _};
use crate::input::{path_argument, shown};
use crate::names;
use crate::recipients::RecipientArgs;
use crate::validation::{Checked, Checker, Finding, Options, Severity};

/// The largest file that is checked, in bytes.
const MAX_FILE: usize = 64 << 20;

/// Check manifests with no cluster and no private key
///
/// For every SealedEnv: the CRD's schema and rules as the API server applies them, the structure of each sealed value,
/// its scope against where it stands, values that are not sealed, and with recipients given, who each value is sealed
/// to. Objects of other kinds are passed over. Checks kustomize's output too: kustomize build | sealedenv validate -
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files of manifests; - is standard input
    #[arg(value_name = "FILE", required = true, value_parser = path_argument)]
    files: Vec<PathBuf>,

    /// Namespace of manifests that name none
    #[arg(short, long, value_name = "NS")]
    namespace: Option<String>,

    #[command(flatten)]
    recipients: RecipientArgs,

    /// Take a plain Secret for an error, not for a warning
    #[arg(long)]
    strict_secrets: bool,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    api_version: &'static str,
    kind: &'static str,
    ok: bool,
    sealed_envs: usize,
    other_objects: usize,
    unreadable: Vec<String>,
    findings: Vec<Located>,
}

#[derive(Serialize)]
struct Located {
    file: String,
    #[serde(flatten)]
    finding: Finding,
}

#[derive(Debug, thiserror::Error)]
#[error("--namespace is not a name that Kubernetes allows for a namespace")]
struct BadNamespace;

impl crate::failure::Fault for BadNamespace {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

pub(super) fn run(args: &Args, mut context: Context) -> Result<Exit, Failure> {
    if args.namespace.as_deref().is_some_and(|namespace| !names::is_label(namespace)) {
        return Err(BadNamespace.into());
    }
    // Not to know the recipients is not a finding.
    let unread = |error| Failure::from(error).with_exit(Exit::Usage);
    let recipients = if args.recipients.is_empty() {
        None
    } else {
        Some(args.recipients.read(&mut context.stdin).map_err(unread)?)
    };
    let options =
        Options { recipients, namespace: args.namespace.clone(), strict_secrets: args.strict_secrets };

    let mut report = Report {
        api_version: JSON_VERSION,
        kind: "Validation",
        ok: true,
        sealed_envs: 0,
        other_objects: 0,
        unreadable: Vec::new(),
        findings: Vec::new(),
    };
    let checker = Checker::new();
    for path in &args.files {
        let read = context.stdin.open(path, "FILE").and_then(|source| source.read(MAX_FILE));
        match read {
            Ok(bytes) => report.take(&shown(path), checker.check(bytes.expose(), &options)),
            Err(error) if error.exit() == Exit::Usage => return Err(error.into()),
            Err(error) => {
                failure(&Failure::from(error));
                report.unreadable.push(shown(path));
            }
        }
    }
    let exit = report.exit();
    match show(&report, args.output.output) {
        // `… | head` got what it wanted; the verdict is the same.
        Err(error) if error.is_silent() => return Ok(exit),
        shown => shown?,
    }
    context.console.receipt(&report.summary());
    if report.sealed_envs == 0 && report.unreadable.is_empty() && report.ok {
        warning("no SealedEnv was found, so none was checked");
    }
    Ok(exit)
}

impl Report {
    fn take(&mut self, file: &str, checked: Checked) {
        self.sealed_envs += checked.sealed_envs;
        self.other_objects += checked.others;
        self.ok &= checked.findings.iter().all(|finding| finding.severity != Severity::Error);
        let located = checked.findings.into_iter().map(|finding| Located { file: file.to_owned(), finding });
        self.findings.extend(located);
    }

    fn exit(&self) -> Exit {
        match (self.unreadable.is_empty(), self.ok) {
            (false, _) => Exit::Usage,
            (true, false) => Exit::Failure,
            (true, true) => Exit::Ok,
        }
    }

    fn summary(&self) -> String {
        let count = |severity| self.findings.iter().filter(|of| of.finding.severity == severity).count();
        format!(
            "{} checked, {} passed over: {}, {}",
            counted(self.sealed_envs, "SealedEnv"),
            counted(self.other_objects, "other object"),
            counted(count(Severity::Error), "error"),
            counted(count(Severity::Warning), "warning")
        )
    }
}

fn show(report: &Report, format: Format) -> Result<(), OutputError> {
    if format == Format::Json {
        return write_json(report);
    }
    let mut hints = HashSet::new();
    let mut lines = Vec::new();
    for Located { file, finding } in &report.findings {
        let subject: Vec<&str> =
            [&finding.object, &finding.key].into_iter().flatten().map(String::as_str).collect();
        let subject = if subject.is_empty() { String::new() } else { format!("{}: ", subject.join(" ")) };
        lines.push(format!(
            "{file}:{}: {}: {subject}{}",
            finding.line,
            finding.severity.as_str(),
            finding.message
        ));
        // The same advice once is enough.
        lines.extend(finding.hint.filter(|hint| hints.insert(*hint)).map(|hint| format!("  hint: {hint}")));
    }
    write_lines(lines)
}
