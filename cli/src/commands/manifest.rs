//! `sealedenv manifest`

use std::collections::BTreeSet;
use std::path::PathBuf;

use sealedenv_seal::dotenv::{self, DotenvError, Variables};
use sealedenv_seal::{Recipient, ScopeKind};
use thiserror::Error;

use super::Context;
use crate::console::{Console, counted, warning, write_out};
use crate::failure::{Exit, Failure, Fault};
use crate::file_edit::Edited;
use crate::input::{path_argument, shown};
use crate::manifest::plan::{self, Existing, Plan, Request, Step, Update, Why};
use crate::manifest::{merge, render};
use crate::recipients::{RecipientArgs, listed};
use crate::{names, scope, terminal};

/// The largest manifest that is merged into, in bytes.
const MAX_MANIFEST: usize = 16 << 20;

/// Make a SealedEnv of a .env file, with its values sealed
///
/// Without --merge-into, the manifest goes to standard output. With it, the file is edited: lines of changed keys
/// change, new keys get lines, and every other line stays as it is.
///
/// A sealed value that stands in the file stays, unless its key is named with --update (or --update-all), or it was
/// sealed for another scope or to other recipients than asked for now: whether its text has changed cannot be told
/// without a private key. Public values are compared. Keys that only the file has stay.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Namespace of the SealedEnv; with --merge-into, that of the file if left out
    #[arg(short, long, value_name = "NS", required_unless_present = "merge_into")]
    namespace: Option<String>,

    /// Name of the SealedEnv; with --merge-into, that of the file if left out
    #[arg(long, required_unless_present = "merge_into")]
    name: Option<String>,

    /// The .env file; standard input if left out or -
    #[arg(short, long, value_name = "FILE", default_value = "-", value_parser = path_argument)]
    env_file: PathBuf,

    /// Key whose value is not secret and stays in plain text; repeat it for several
    #[arg(short, long, value_name = "KEY")]
    public: Vec<String>,

    /// Where the values may be opened: strict (namespace, name, key), namespace (namespace, key) or cluster (key)
    #[arg(long, value_name = "KIND", value_parser = scope::kind, default_value = "strict")]
    scope: ScopeKind,

    #[command(flatten)]
    recipients: RecipientArgs,

    /// Manifest to edit instead of writing one to standard output
    #[arg(short, long, value_name = "FILE", value_parser = path_argument)]
    merge_into: Option<PathBuf>,

    /// With --merge-into: key whose sealed value is replaced; repeat it for several
    #[arg(short, long, value_name = "KEY", requires = "merge_into")]
    update: Vec<String>,

    /// With --merge-into: replace every sealed value that the .env file has
    #[arg(long, requires = "merge_into", conflicts_with = "update")]
    update_all: bool,
}

/// Why no manifest was made.
#[derive(Debug, Error)]
enum ManifestError {
    #[error("the .env file is asked for on standard input, which is a terminal")]
    Terminal,
    #[error("cannot read {file} as a .env file")]
    Dotenv { file: String, source: DotenvError },
    #[error("{file} names no namespace for its SealedEnv")]
    NoNamespace { file: String },
    #[error("{what} is not a name that Kubernetes allows for a {of}")]
    Name { what: &'static str, of: &'static str },
}

impl Fault for ManifestError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Terminal => Some("give --env-file FILE, or pipe one in".to_owned()),
            Self::Dotenv { .. } => Some("the page about sealing describes the dialect".to_owned()),
            Self::NoNamespace { .. } => Some("say where it will stand with --namespace".to_owned()),
            Self::Name { .. } => {
                Some("lower-case letters, digits and '-'; names may have '.' as well".to_owned())
            }
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Dotenv { .. } => Exit::Failure,
            _ => Exit::Usage,
        }
    }
}

pub(super) fn run(args: &Args, mut context: Context) -> Result<Exit, Failure> {
    check_names(args.namespace.as_deref(), args.name.as_deref())?;
    if args.env_file.as_os_str() == "-" && terminal::is_stdin() {
        return Err(ManifestError::Terminal.into());
    }
    let env_file = context.stdin.open(&args.env_file, "--env-file")?;
    let to = args.recipients.read(&mut context.stdin)?;
    let target = args.merge_into.as_ref().map(|path| Edited::read(path, MAX_MANIFEST)).transpose()?;

    let bytes = env_file.read(dotenv::MAX_FILE)?;
    let file = shown(&args.env_file);
    let variables = dotenv::read(bytes.expose()).map_err(|source| ManifestError::Dotenv { file, source })?;
    warn_of_repeated(&variables);
    match target {
        None => create(args, to, variables, context.console),
        Some(target) => merge_into(args, to, variables, target, context.console),
    }
}

fn create(args: &Args, to: Vec<Recipient>, variables: Variables, console: Console) -> Result<Exit, Failure> {
    // clap asks for both where no file is merged into.
    let (namespace, name) =
        (args.namespace.clone().unwrap_or_default(), args.name.clone().unwrap_or_default());
    let request = request(args, namespace, name, to);
    let plan = plan::plan(&request, &Existing::default(), variables.entries)?;
    let public = plan.steps().filter(|(_, step)| **step == Step::AddPublic).count();
    let sealed = plan.steps().count() - public;
    let manifest = render::render(&request, plan.seal(&request)?);
    write_out(manifest.as_bytes())?;
    console.receipt(&format!(
        "{}/{}: sealed {}, to {}{}",
        request.namespace,
        request.name,
        counted(sealed, "key"),
        listed(request.to.iter().map(Recipient::fingerprint)),
        if public == 0 { String::new() } else { format!("; left {} in plain text", counted(public, "key")) }
    ));
    Ok(Exit::Ok)
}

fn merge_into(
    args: &Args,
    to: Vec<Recipient>,
    variables: Variables,
    file: Edited,
    console: Console,
) -> Result<Exit, Failure> {
    let target = merge::find(file.text(), file.name(), args.namespace.as_deref(), args.name.as_deref())?;
    let namespace = args.namespace.clone().or_else(|| target.namespace.clone());
    let namespace = namespace.ok_or_else(|| ManifestError::NoNamespace { file: file.name().to_owned() })?;
    let request = request(args, namespace, target.name.clone(), to);
    let plan = plan::plan(&request, &target.existing, variables.entries)?;
    let receipt = receipt(&plan, &target.existing);
    let changes = plan.seal(&request)?;
    let merged = merge::merge(file.text(), file.name(), &target, &changes)?;
    let name = file.name().to_owned();
    if merged == file.text() {
        console.receipt(&format!("{name}: no change"));
    } else {
        file.replace(&merged)?;
        console.receipt(&format!("{name}: {}/{} changed", request.namespace, request.name));
    }
    for line in receipt.lines {
        console.receipt(&line);
    }
    if receipt.kept_sealed > 0 && args.update.is_empty() {
        console.hint("sealed values that were kept are not compared with the .env file: use --update KEY for a new one");
    }
    Ok(Exit::Ok)
}

fn request(args: &Args, namespace: String, name: String, to: Vec<Recipient>) -> Request {
    let set = |keys: &[String]| keys.iter().cloned().collect::<BTreeSet<String>>();
    let update = if args.update_all { Update::All } else { Update::Keys(set(&args.update)) };
    Request { namespace, name, scope: args.scope, to, public: set(&args.public), update }
}

fn check_names(namespace: Option<&str>, name: Option<&str>) -> Result<(), ManifestError> {
    if namespace.is_some_and(|namespace| !names::is_label(namespace)) {
        return Err(ManifestError::Name { what: "--namespace", of: "namespace" });
    }
    if name.is_some_and(|name| !names::is_subdomain(name)) {
        return Err(ManifestError::Name { what: "--name", of: "SealedEnv" });
    }
    Ok(())
}

fn warn_of_repeated(variables: &Variables) {
    for repeated in &variables.repeated {
        warning(&format!(
            "{} is set on line {} and again on line {}: the last one counts",
            repeated.key, repeated.line, repeated.replaced_by
        ));
    }
}

/// What is said about a merge.
struct Receipt {
    lines: Vec<String>,
    kept_sealed: usize,
}

fn receipt(plan: &Plan, existing: &Existing) -> Receipt {
    let mut lines = Vec::new();
    let (mut kept_sealed, mut kept_public) = (0, 0);
    let mut named = BTreeSet::new();
    for (key, step) in plan.steps() {
        named.insert(key.to_owned());
        lines.push(match step {
            Step::KeepSealed => {
                kept_sealed += 1;
                continue;
            }
            Step::KeepPublic => {
                kept_public += 1;
                continue;
            }
            Step::AddSealed => format!("  added {key}, sealed"),
            Step::AddPublic => format!("  added {key}, in plain text"),
            Step::ChangePublic => format!("  replaced {key}, in plain text"),
            Step::Reseal(why) => format!("  replaced {key}: {}", because(why)),
        });
    }
    let others =
        existing.data.keys().chain(existing.public.keys()).filter(|key| !named.contains(*key)).count();
    for (count, what) in [
        (kept_sealed, "kept, sealed as before"),
        (kept_public, "kept, in plain text"),
        (others, "not in the .env file, left alone"),
    ] {
        if count > 0 {
            lines.push(format!("  {} {what}", counted(count, "key")));
        }
    }
    Receipt { lines, kept_sealed }
}

fn because(why: &Why) -> String {
    match why {
        Why::Asked => "asked for".to_owned(),
        Why::NotSealed => "what stood there was not a sealed value".to_owned(),
        Why::OtherScope { was: Some(scope) } => format!("it was sealed for {scope}"),
        Why::OtherScope { was: None } => "it was not sealed for any scope".to_owned(),
        Why::OtherRecipients => "it was sealed to other recipients".to_owned(),
    }
}
