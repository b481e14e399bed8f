//! `sealedenv audit show`

use std::path::PathBuf;

use sealedenv_audit::read_all;

use super::trail::{self, TrailError};
use crate::console::{Format, OutputArgs, write_lines};
use crate::failure::{Exit, Failure};
use crate::input::path_argument;

/// Show one record of an audit trail
///
/// With --output json, the line as it stands in the trail. The chain is not checked: see verify.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of the record, its seq
    #[arg(value_name = "SEQ")]
    seq: u64,

    /// The trail; the chart's place for it if left out
    #[arg(value_name = "FILE", default_value = trail::DEFAULT, value_parser = path_argument)]
    file: PathBuf,

    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut unread = None;
    for item in read_all(&args.file).map_err(TrailError::read(&args.file))? {
        match item {
            Ok(located) if located.entry.seq == args.seq => {
                match args.output.output {
                    Format::Text => write_lines(trail::lines(&located.entry))?,
                    Format::Json => write_lines([located.text])?,
                }
                return Ok(Exit::Ok);
            }
            Ok(_) => {}
            // It may have been the one.
            Err(broken) => unread = unread.or(Some(broken)),
        }
    }
    Err(unread.map_or_else(
        || TrailError::NoSuchRecord { file: args.file.clone(), seq: args.seq },
        TrailError::Broken,
    ))?
}
