//! `sealedenv audit tail`

use std::path::PathBuf;
use std::time::Duration;

use sealedenv_audit::{Broken, Follow, Located, tail};

use super::trail::{self, TrailError};
use crate::console::{Format, OutputArgs, warning, write_lines};
use crate::failure::{Exit, Failure};
use crate::input::path_argument;

/// How often a followed trail is looked at.
const PAUSE: Duration = Duration::from_millis(250);

/// Show the last records of an audit trail
///
/// With --output json, the lines as they stand in the trail. The chain is not checked: see verify.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The trail; the chart's place for it if left out
    #[arg(value_name = "FILE", default_value = trail::DEFAULT, value_parser = path_argument)]
    file: PathBuf,

    /// How many records to show
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    lines: usize,

    /// Go on showing records as they are written, over rotation
    #[arg(short, long)]
    follow: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// Shows each record once.
struct Shown {
    format: Format,
    last: u64,
    bad: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit, Failure> {
    let mut shown = Shown { format: args.output.output, last: 0, bad: false };
    // Before the tail is read, so that no record falls between the two.
    let follow =
        args.follow.then(|| Follow::new(&args.file).map_err(TrailError::read(&args.file))).transpose()?;
    match tail(&args.file, args.lines) {
        Ok(found) => shown.show(found)?,
        // Nothing was written yet: that is what following is for.
        Err(error) if args.follow && error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(TrailError::read(&args.file)(error).into()),
    }
    if let Some(mut follow) = follow {
        loop {
            std::thread::sleep(PAUSE);
            shown.show(follow.poll().map_err(TrailError::read(&args.file))?)?;
        }
    }
    Ok(if shown.bad { Exit::Failure } else { Exit::Ok })
}

impl Shown {
    fn show(&mut self, found: Vec<Result<Located, Broken>>) -> Result<(), Failure> {
        let mut lines = Vec::new();
        for item in found {
            match item {
                Ok(located) if located.entry.seq > self.last => {
                    self.last = located.entry.seq;
                    lines.push(match self.format {
                        Format::Text => trail::line(&located.entry),
                        Format::Json => located.text,
                    });
                }
                Ok(_) => {}
                Err(broken) => {
                    self.bad |= !broken.is_torn_tail();
                    warning(&broken.to_string());
                }
            }
        }
        Ok(write_lines(lines)?)
    }
}
