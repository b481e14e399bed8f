//! `sealedenv audit verify`

use std::collections::HashSet;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sealedenv_audit::{Broken, Report, Start, Why, verify_files, verify_stream};
use serde::Serialize;

use super::{Context, trail};
use crate::console::{Console, Format, JSON_VERSION, OutputArgs, error, warning, write_json, write_lines};
use crate::failure::{Exit, Failure};
use crate::input::{Stdin, path_argument};

/// How often a trail is read again whose last line is being written right now, and how long apart.
const RETRIES: usize = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// Check that audit trails are unbroken
///
/// Each file is read with those that were rotated away from it (FILE.1, FILE.2, …), as one chain. With -, standard
/// input is read as the log of one or more processes: other lines are passed over, and each writer has its chain.
///
/// A chain shows that a line in it was changed, taken out or put in. It does not show that lines at its end were cut
/// off, nor that the whole of it was written anew.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The trails; the chart's place for them if left out
    #[arg(value_name = "FILE", default_value = trail::DEFAULT, value_parser = path_argument)]
    files: Vec<PathBuf>,

    /// Let a trail begin anywhere, as in the part of it that a log collector still has
    #[arg(long)]
    partial: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// What was found out about one chain.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writer: Option<String>,
    ok: bool,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Facts {
    Whole {
        lines: u64,
        files: u64,
        first_seq: u64,
        last_seq: u64,
        head: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        resumed: u64,
        missed_elsewhere: u64,
        missed_nowhere: u64,
        recovered: u64,
        unclean_ends: u64,
    },
    Broken {
        #[serde(skip_serializing_if = "Option::is_none")]
        broken_file: Option<String>,
        line: u64,
        last_good_seq: u64,
        reason: &'static str,
        message: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdicts {
    api_version: &'static str,
    kind: &'static str,
    ok: bool,
    trails: Vec<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign_lines: Option<u64>,
}

pub(super) fn run(args: &Args, mut context: Context) -> Result<Exit, Failure> {
    let start = if args.partial { Start::Anywhere } else { Start::Genesis };
    let mut verdicts = Verdicts {
        api_version: JSON_VERSION,
        kind: "AuditVerification",
        ok: true,
        trails: Vec::new(),
        foreign_lines: None,
    };
    let mut unreadable = false;
    for file in trails(&args.files) {
        if file.as_os_str() == "-" {
            stream(&mut context.stdin, start, &mut verdicts)?;
            continue;
        }
        let verified = verify_settled(file, start);
        unreadable |= matches!(&verified, Err(Broken { why: Why::Unreadable(_), .. }));
        verdicts.trails.push(Verdict {
            file: Some(file.display().to_string()),
            writer: None,
            ok: verified.is_ok(),
            facts: Facts::of(verified),
        });
    }
    verdicts.ok = verdicts.trails.iter().all(|verdict| verdict.ok);
    show(&verdicts, args.output.output, context.console)?;
    Ok(match (verdicts.ok, unreadable) {
        (true, _) => Exit::Ok,
        (false, true) => Exit::Usage,
        (false, false) => Exit::Failure,
    })
}

/// The trails named, without the rotated files of a trail that is named too: `audit.jsonl*` means one trail.
fn trails(files: &[PathBuf]) -> Vec<&Path> {
    let named: HashSet<&Path> = files.iter().map(PathBuf::as_path).collect();
    let is_part = |file: &Path| {
        let number = file.extension().and_then(|number| number.to_str());
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
            && named.contains(file.with_extension("").as_path())
    };
    let mut seen = HashSet::new();
    files.iter().map(PathBuf::as_path).filter(|file| !is_part(file) && seen.insert(*file)).collect()
}

/// Verifies; a last line that is incomplete may be one that is being written, so that is looked at again.
fn verify_settled(file: &Path, start: Start) -> Result<Report, Broken> {
    let mut verified = verify_files(file, start);
    for _ in 0..RETRIES {
        if !matches!(&verified, Err(broken) if broken.is_torn_tail()) {
            break;
        }
        std::thread::sleep(PAUSE);
        verified = verify_files(file, start);
    }
    verified
}

fn stream(stdin: &mut Stdin, start: Start, verdicts: &mut Verdicts) -> Result<(), Failure> {
    let source = stdin.take("FILE")?;
    match verify_stream(BufReader::new(source.file()), start) {
        Ok(report) => {
            verdicts.foreign_lines = Some(report.foreign);
            verdicts.trails.extend(report.chains.into_iter().map(|(writer, report)| Verdict {
                file: None,
                writer: Some(writer),
                ok: true,
                facts: Facts::of(Ok(report)),
            }));
        }
        Err(broken) => verdicts.trails.push(Verdict {
            file: Some(source.name().to_owned()),
            writer: None,
            ok: false,
            facts: Facts::of(Err(broken)),
        }),
    }
    Ok(())
}

impl Facts {
    fn of(verified: Result<Report, Broken>) -> Self {
        match verified {
            Ok(report) => {
                let position = report.head.position();
                Self::Whole {
                    lines: report.lines,
                    files: report.files,
                    first_seq: report.first,
                    last_seq: position.seq,
                    head: position.hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")),
                    from: report.times.map(|(first, _)| format!("{first:.3}")),
                    to: report.times.map(|(_, last)| format!("{last:.3}")),
                    resumed: report.resumed,
                    missed_elsewhere: report.missed_elsewhere,
                    missed_nowhere: report.missed_nowhere,
                    recovered: report.recovered,
                    unclean_ends: report.unclean_ends,
                }
            }
            Err(broken) => Self::Broken {
                line: broken.line,
                last_good_seq: broken.good,
                reason: reason(&broken.why),
                message: broken.why.to_string(),
                broken_file: broken.file.map(|file| file.display().to_string()),
            },
        }
    }
}

/// A stable name for programs.
fn reason(why: &Why) -> &'static str {
    match why {
        Why::TornTail => "TornTail",
        Why::Unterminated => "Unterminated",
        Why::Unparsable(_) => "Unparsable",
        Why::Sequence { .. } => "Sequence",
        Why::Link => "Link",
        Why::NotTheBeginning { .. } => "NotTheBeginning",
        Why::Unreadable(_) => "Unreadable",
        _ => "Other",
    }
}

fn show(verdicts: &Verdicts, format: Format, console: Console) -> Result<(), Failure> {
    if format == Format::Json {
        write_json(verdicts)?;
    } else {
        for verdict in verdicts.trails.iter().filter(|verdict| verdict.ok) {
            write_lines(said(verdict))?;
        }
        if let Some(foreign @ 1..) = verdicts.foreign_lines {
            console.receipt(&format!("{foreign} other lines were passed over"));
        }
        if verdicts.trails.is_empty() {
            warning("there is no audit line on standard input");
        }
    }
    for verdict in &verdicts.trails {
        if let Facts::Broken { broken_file, line, last_good_seq, reason, message } = &verdict.facts {
            let file = broken_file.as_ref().or(verdict.file.as_ref()).map_or("", String::as_str);
            error(&broken_at(file, *line, message), hint(reason, *last_good_seq).as_deref());
        }
    }
    Ok(())
}

fn broken_at(file: &str, line: u64, message: &str) -> String {
    if line == 0 { format!("{file}: {message}") } else { format!("{file}:{line}: {message}") }
}

fn hint(reason: &str, last_good_seq: u64) -> Option<String> {
    match reason {
        "TornTail" => Some(format!(
            "records up to {last_good_seq} are whole; the writer sets the torn line aside when it starts"
        )),
        "NotTheBeginning" => Some("verify a part of a trail with --partial".to_owned()),
        "Unreadable" => None,
        _ => Some(format!(
            "records up to {last_good_seq} are whole: compare with another sink, or with a backup"
        )),
    }
}

fn said(verdict: &Verdict) -> Vec<String> {
    let Facts::Whole {
        lines,
        files,
        first_seq,
        last_seq,
        head,
        from,
        to,
        resumed,
        missed_elsewhere,
        missed_nowhere,
        recovered,
        unclean_ends,
    } = &verdict.facts
    else {
        return Vec::new();
    };
    let name = verdict.file.as_deref().or(verdict.writer.as_deref()).unwrap_or_default();
    let (Some(from), Some(to)) = (from, to) else { return vec![format!("{name}: ok, and empty")] };
    let mut said = vec![
        format!("{name}: ok, {lines} records in {files} files, seq {first_seq} to {last_seq}"),
        format!("  from {from} to {to}"),
        format!("  head {head}"),
    ];
    for (count, what) in [
        (resumed, "times this sink had failed or was replaced, and took records again"),
        (missed_elsewhere, "records went to another sink only"),
        (missed_nowhere, "records were taken by no sink: refused, or lost"),
        (recovered, "torn lines were set aside"),
        (unclean_ends, "writers ended without a stop record: killed, or cut off"),
    ] {
        if *count > 0 {
            said.push(format!("  {count} {what}"));
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_belong_to_their_trail() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let given = paths(&[
            "a/x.jsonl",
            "a/x.jsonl.1",
            "a/x.jsonl.12",
            "b/x.jsonl.1",
            "a/x.jsonl",
            "-",
            "a/x.jsonl.old",
        ]);
        let kept: Vec<&str> = trails(&given).iter().filter_map(|path| path.to_str()).collect();
        assert_eq!(kept, ["a/x.jsonl", "b/x.jsonl.1", "-", "a/x.jsonl.old"]);
    }
}
