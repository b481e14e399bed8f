//! What libFuzzer says, read back.

use std::path::Path;

/// The figures and findings in a log of libFuzzer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) executions: u64,
    /// Edges of the program that some input went over.
    pub(super) coverage: u64,
    /// The file with the input that broke a promise.
    artifact: Option<String>,
    /// The panic's lines, or libFuzzer's own summary.
    about: Vec<String>,
}

impl Said {
    pub(super) fn read(log: &str) -> Self {
        let mut said = Self::default();
        let mut lines = log.lines();
        while let Some(line) = lines.next() {
            if let Some(number) = line.strip_prefix("stat::number_of_executed_units:") {
                said.executions = number.trim().parse().unwrap_or_default();
            } else if let Some((_, rest)) = line.split_once("cov: ") {
                let number = rest.split(' ').next().and_then(|number| number.parse().ok());
                said.coverage = number.unwrap_or(said.coverage);
            } else if let Some((_, file)) = line.split_once("Test unit written to ") {
                said.artifact = Some(file.to_owned());
            } else if line.contains("panicked at") {
                said.about.extend([line.to_owned()].into_iter().chain(lines.next().map(str::to_owned)));
            } else if line.starts_with("SUMMARY: ") || line.contains("ERROR: libFuzzer") {
                said.about.push(line.to_owned());
            }
        }
        said
    }

    /// The failure for people, with the command that shows it again.
    pub(super) fn failure(&self, target: &str, log: &Path) -> String {
        let about = if self.about.is_empty() { "it ended early".to_owned() } else { self.about.join("\n  ") };
        let again = match &self.artifact {
            Some(file) => format!(
                "\nhint: the input is {file}; when it is mended, keep it under a name that tells what it was in \
                 fuzz/regressions/{target}/"
            ),
            None => String::new(),
        };
        format!("{about}\n  log: {}{again}", log.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_end_of_a_log() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 10 ft: 12 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #1000\tDONE   cov: 345 ft: 900 corp: 80/2Kb exec/s: 500 rss: 40Mb\n\
                   Done 1000 runs in 2 second(s)\nstat::number_of_executed_units: 1000\n\
                   stat::average_exec_per_sec:     500\n";
        let said = Said::read(log);
        assert_eq!((said.executions, said.coverage, &said.artifact), (1000, 345, &None));
    }

    #[test]
    fn a_crash_is_told_with_its_panic_and_its_input() {
        let log = "#7\tNEW    cov: 5 ft: 5\nthread '<unnamed>' panicked at src/dotenv.rs:1:2:\nanother value\n\
                   ==1== ERROR: libFuzzer: deadly signal\nSUMMARY: libFuzzer: deadly signal\n\
                   artifact_prefix='x/'; Test unit written to x/crash-12\nstat::number_of_executed_units: 7\n";
        let said = Said::read(log);
        assert_eq!((said.executions, said.artifact.as_deref()), (7, Some("x/crash-12")));
        let failure = said.failure("dotenv", Path::new("the/log"));
        for part in [
            "panicked at src/dotenv.rs:1:2:\n  another value",
            "x/crash-12",
            "fuzz/regressions/dotenv/",
            "the/log",
        ] {
            assert!(failure.contains(part), "{part:?} in {failure}");
        }
    }
}
