//! `sealedenv value inspect`

use sealedenv_seal::{MAX_TEXT, ParseError, Sealed};
use serde::Serialize;
use thiserror::Error;

use super::Context;
use crate::console::{Format, JSON_VERSION, OutputArgs, counted, write_json, write_lines};
use crate::failure::{Exit, Failure, Fault};
use crate::input::Source;
use crate::recipients::listed;

/// How many blanks and line breaks may stand around a sealed value.
const BLANKS: usize = 64;

/// Show what the sealed value on standard input says of itself
///
/// Its scope, the fingerprints of its recipients and its sizes. Needs no key, so nothing is authenticated: whoever can
/// edit the text can change what is shown here. Opening proves it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    output: OutputArgs,
}

/// It is not a sealed value.
#[derive(Debug, Error)]
#[error("cannot read the value on standard input")]
struct NotSealedError(#[source] ParseError);

impl Fault for NotSealedError {}

/// What a sealed value says of itself.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Facts {
    api_version: &'static str,
    kind: &'static str,
    authenticated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<ScopeFacts>,
    recipients: Vec<String>,
    recipient_stanzas: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_recipient_types: Vec<String>,
    value_bytes: usize,
    header_bytes: usize,
    payload_bytes: usize,
    text_bytes: usize,
}

#[derive(Serialize)]
struct ScopeFacts {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    key: String,
}

pub(super) fn run(args: &Args, mut context: Context) -> Result<Exit, Failure> {
    let sealed = read_sealed(context.stdin.take("the value")?)?;
    match args.output.output {
        Format::Json => write_json(&facts(&sealed))?,
        Format::Text => write_lines(lines(&sealed))?,
    }
    Ok(Exit::Ok)
}

/// Reads a sealed value, with whatever blanks and line breaks a shell leaves around it.
pub(super) fn read_sealed(source: Source) -> Result<Sealed, Failure> {
    let bytes = source.read(MAX_TEXT + BLANKS)?;
    let text = str::from_utf8(bytes.expose().trim_ascii()).map_err(|_| ParseError::NotSealed);
    Ok(text.and_then(Sealed::parse).map_err(NotSealedError)?)
}

fn facts(sealed: &Sealed) -> Facts {
    Facts {
        api_version: JSON_VERSION,
        kind: "SealedValue",
        authenticated: false,
        scope: sealed.scope().map(|scope| ScopeFacts {
            kind: scope.kind().as_str(),
            namespace: scope.bound_namespace().map(str::to_owned),
            name: scope.bound_name().map(str::to_owned),
            key: scope.key().to_owned(),
        }),
        recipients: sealed.recipients().iter().map(ToString::to_string).collect(),
        recipient_stanzas: sealed.recipient_stanzas(),
        unknown_recipient_types: sealed.unknown_types().to_vec(),
        value_bytes: sealed.value_len(),
        header_bytes: sealed.header_len(),
        payload_bytes: sealed.payload_len(),
        text_bytes: sealed.to_string().len(),
    }
}

fn lines(sealed: &Sealed) -> Vec<String> {
    let scope = sealed.scope().map_or_else(|| "none".to_owned(), ToString::to_string);
    let named = sealed.recipients();
    let recipients = if named.is_empty() { "none named".to_owned() } else { listed(named.iter().copied()) };
    let mut lines = vec![format!("scope:       {scope}"), format!("recipients:  {recipients}")];
    if sealed.recipient_stanzas() != named.len() {
        lines.push(format!("stanzas:     {} of X25519 recipients", sealed.recipient_stanzas()));
    }
    if !sealed.unknown_types().is_empty() {
        lines.push(format!("other types: {}", sealed.unknown_types().join(", ")));
    }
    lines.push(format!("value:       {}", counted(sealed.value_len(), "byte")));
    lines.push(format!(
        "sizes:       text {}, header {}, payload {} bytes",
        sealed.to_string().len(),
        sealed.header_len(),
        sealed.payload_len()
    ));
    lines.push("proven:      no; only opening authenticates these facts".to_owned());
    lines
}
