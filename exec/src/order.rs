//! The command line, by hand: it is short, and a parser would be most of the program.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Copy this program into a folder.
    Install(PathBuf),
    /// Start a program.
    Run(Run),
}

/// A program to be started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Folders with files, a later one wins.
    pub(crate) from: Vec<PathBuf>,
    /// Variables that stay as they are, whatever the files say.
    pub(crate) keep: BTreeSet<OsString>,
    pub(crate) program: OsString,
    pub(crate) arguments: Vec<OsString>,
}

/// Arguments that cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OrderError {
    Unknown(OsString),
    NoValue(&'static str),
    NoFolder,
    NoProgram,
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(argument) => write!(f, "argument {} is not known", argument.display())?,
            Self::NoValue(flag) => write!(f, "{flag} needs a value")?,
            Self::NoFolder => f.write_str("no folder is given")?,
            Self::NoProgram => f.write_str("no program is given")?,
        }
        f.write_str("; usage: sealedenv-exec --from FOLDER [--from FOLDER…] [--keep NAME…] -- PROGRAM [ARGUMENT…], or sealedenv-exec --install FOLDER")
    }
}

impl Order {
    /// Reads the arguments, without the program's own name.
    pub(crate) fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, OrderError> {
        let mut arguments = arguments.into_iter();
        let (mut from, mut keep) = (Vec::new(), BTreeSet::new());
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--") => {
                    let program = arguments.next().ok_or(OrderError::NoProgram)?;
                    if from.is_empty() {
                        return Err(OrderError::NoFolder);
                    }
                    return Ok(Self::Run(Run { from, keep, program, arguments: arguments.collect() }));
                }
                Some("--from") => from.push(arguments.next().ok_or(OrderError::NoValue("--from"))?.into()),
                Some("--keep") => {
                    keep.insert(arguments.next().ok_or(OrderError::NoValue("--keep"))?);
                }
                Some("--install") if from.is_empty() && keep.is_empty() => {
                    let folder = arguments.next().ok_or(OrderError::NoValue("--install"))?;
                    return match arguments.next() {
                        None => Ok(Self::Install(folder.into())),
                        Some(more) => Err(OrderError::Unknown(more)),
                    };
                }
                _ => return Err(OrderError::Unknown(argument)),
            }
        }
        Err(OrderError::NoProgram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Order, OrderError> {
        Order::read(arguments.iter().map(OsString::from))
    }

    #[test]
    fn what_is_behind_the_dashes_is_the_programs_own() {
        let order = read(&[
            "--from", "/a", "--keep", "X", "--from", "/b", "--keep", "--", "--", "sh", "--", "--from",
        ]);
        let run = Run {
            from: vec!["/a".into(), "/b".into()],
            keep: ["X".into(), "--".into()].into(),
            program: "sh".into(),
            arguments: vec!["--".into(), "--from".into()],
        };
        assert_eq!(order, Ok(Order::Run(run)));
        assert_eq!(read(&["--install", "/bin"]), Ok(Order::Install("/bin".into())));
    }

    #[test]
    fn what_is_in_doubt_is_refused() {
        for (arguments, error) in [
            (&[][..], OrderError::NoProgram),
            (&["--from", "/a"], OrderError::NoProgram),
            (&["--from", "/a", "--"], OrderError::NoProgram),
            (&["--", "sh"], OrderError::NoFolder),
            (&["--from"], OrderError::NoValue("--from")),
            (&["--keep"], OrderError::NoValue("--keep")),
            (&["--install"], OrderError::NoValue("--install")),
            (&["--install", "/a", "b"], OrderError::Unknown("b".into())),
            (&["--from", "/a", "--install", "/b"], OrderError::Unknown("--install".into())),
            (&["--from", "/a", "sh"], OrderError::Unknown("sh".into())),
            (&["-h"], OrderError::Unknown("-h".into())),
        ] {
            assert_eq!(read(arguments), Err(error), "{arguments:?}");
        }
    }
}
