//! `sealedenv-exec --from FOLDER -- PROGRAM ARGUMENT…` starts a program with an environment variable for each file of a
//! SealedEnv, and is gone: the program has its process, so process id, signals and exit code are as without it.
//!
//! The webhook writes it in front of a container's command where values are delivered in memory: a variable that stands in
//! the pod's spec would stand in etcd. It runs in images of all kinds and as any user, so it is one static file that
//! depends on nothing, opens nothing but the files, and keeps nothing.
//!
//! | exit code | |
//! |---|---|
//! | 125 | the program was not started: wrong arguments, or the files cannot become variables |
//! | 126 | it was found and cannot be run |
//! | 127 | it was not found |
//! | other | the program's own |

mod files;
mod order;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use self::order::{Order, Run};

/// The name that it copies itself to.
const NAME: &str = "sealedenv-exec";

const NOT_STARTED: u8 = 125;
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Does what the arguments say. Comes back only when that was not to start a program, or failed.
pub fn main() -> ExitCode {
    let done = match Order::read(std::env::args_os().skip(1)) {
        Ok(Order::Install(folder)) => install(Path::new("/proc/self/exe"), &folder)
            .map_err(|error| (NOT_STARTED, format!("copying {NAME} to {}: {error}", folder.display()))),
        Ok(Order::Run(run)) => Err(start(run)),
        Err(error) => Err((NOT_STARTED, error.to_string())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("{NAME}: error: {message}");
            ExitCode::from(code)
        }
    }
}

/// Gives the process to the program. What comes back is why it did not take it.
fn start(run: Run) -> (u8, String) {
    let variables = match files::variables(&run.from) {
        Ok(variables) => variables,
        Err(error) => return (NOT_STARTED, error.to_string()),
    };
    let wanted = |(name, _): &(OsString, OsString)| !run.keep.contains(name);
    // PATH is searched as execvp(3) does, in the environment that the program gets.
    let error =
        Command::new(&run.program).args(run.arguments).envs(variables.into_iter().filter(wanted)).exec();
    let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN };
    (code, format!("starting {}: {error}", run.program.display()))
}

/// Copies this program into a folder. One that is there already is replaced in one step.
fn install(program: &Path, folder: &Path) -> io::Result<()> {
    let next = folder.join(".next");
    fs::copy(program, &next)?;
    // Whatever user a container runs as.
    fs::set_permissions(&next, Permissions::from_mode(0o555))?;
    fs::rename(next, folder.join(NAME))
}
