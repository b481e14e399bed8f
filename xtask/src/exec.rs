//! Running other programs: every failure names the command line that failed.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

/// `cargo`, the one that runs this xtask, in the checkout.
pub fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Set by the outer `cargo run` for this package: a cargo started from here must not inherit them.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
        {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(root);
    cargo
}

/// What the compiler says of itself.
///
/// # Errors
/// When it cannot be run.
pub fn rustc(arguments: &[&str]) -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    read(Command::new(rustc).args(arguments))
}

/// The command as a person would type it.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    std::iter::once(name).chain(command.get_args()).map(word).collect::<Vec<_>>().join(" ")
}

fn word(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Says on stderr what is being done.
pub fn say(what: impl std::fmt::Display) {
    eprintln!("==> {what}");
}

/// Runs it with our own stdout and stderr.
///
/// # Errors
/// When it cannot be started or does not exit 0.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("starting `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// Runs it and gives what it printed on stdout; its stderr is shown when it fails.
///
/// # Errors
/// When it cannot be started, does not exit 0, or prints what is not UTF-8.
pub fn read(command: &mut Command) -> anyhow::Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting `{}`", line(command)))?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}\n{}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("reading the output of `{}`", line(command)))
}

/// Runs it, passes its stdout on line by line, and gives each line to `each`. Returns whether it exited 0.
///
/// # Errors
/// When it cannot be started or its output cannot be read.
pub fn watch(command: &mut Command, mut each: impl FnMut(&str)) -> anyhow::Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{}`", line(command)))?;
    let stdout = child.stdout.take().context("no pipe for stdout")?;
    let mut stdout = BufReader::new(stdout);
    let mut bytes = Vec::new();
    while stdout.read_until(b'\n', &mut bytes).with_context(|| format!("reading from `{}`", line(command)))?
        > 0
    {
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end_matches('\n');
        println!("{text}");
        each(text);
        bytes.clear();
    }
    Ok(child.wait().with_context(|| format!("waiting for `{}`", line(command)))?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_quoted_as_a_shell_would_need_it() {
        let mut command = Command::new("/usr/bin/printf");
        command.args(["%s", "it's", "", "a=b"]);
        assert_eq!(line(&command), r"printf %s 'it'\''s' '' a=b");
    }

    #[test]
    fn a_failure_names_the_command_and_shows_its_stderr() {
        let error = read(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'echo broken >&2; exit 3'"), "{error}");
        assert!(error.contains("exit status: 3\nbroken"), "{error}");
    }

    #[test]
    fn watch_sees_every_line_and_the_exit_code() {
        let mut seen = Vec::new();
        let ok = watch(Command::new("sh").args(["-c", "echo a; printf b; exit 1"]), |line| {
            seen.push(line.to_owned());
        });
        assert!(!ok.unwrap());
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = run(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(format!("{error:#}").contains("starting `program`"), "{error:#}");
    }
}
