//! The log of a service, as its flags say.

use std::path::Path;

use crate::{AuditError, FailurePolicy, FileSink, Log, Rotation, Sink, StdoutSink};

impl Log {
    /// The log of one start of a service: in a file, with the usual rotation, on standard output, or both. `writer` is as in
    /// [`Log::open`]: a former start that wrote to the same file is another one.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn of_service(
        file: Option<&Path>,
        stdout: bool,
        writer: impl Into<String>,
        policy: FailurePolicy,
    ) -> Result<Self, AuditError> {
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if let Some(path) = file {
            sinks.push(Box::new(FileSink::new(path, Rotation::default())));
        }
        if stdout {
            sinks.push(Box::new(StdoutSink::new()));
        }
        Self::open(sinks, writer, policy)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{Action, Actor, Outcome, Record, Start, verify_files, writer};

    #[test]
    fn a_restart_that_was_no_end_shows_on_the_trail() {
        let folder = tempfile::tempdir().unwrap();
        let trail = folder.path().join("audit.jsonl");
        for random in [[1; 8], [2; 8]] {
            let writer = writer("op-0", random);
            let log = Log::of_service(Some(&trail), false, writer, FailurePolicy::Closed).unwrap();
            let start = Record::new(Action::Start, Actor::operator("op-0"), Outcome::Ok);
            log.record(Timestamp::UNIX_EPOCH, start).unwrap();
        }
        let report = verify_files(&trail, Start::Genesis).unwrap();
        assert_eq!(
            (report.lines, report.unclean_ends),
            (2, 1),
            "one chain, and the first start did not stop"
        );
        // What a collector has of a stream is told apart by the writer alone.
        assert_eq!(report.head.writer, "op-0_0202020202020202");
    }

    #[test]
    fn without_a_place_there_is_a_log_only_where_loss_is_accepted() {
        let open = |policy| Log::of_service(None, false, "op-0", policy);
        assert!(matches!(open(FailurePolicy::Closed), Err(AuditError::NoSink)));
        assert!(open(FailurePolicy::Open).is_ok());
        assert!(Log::of_service(None, true, "op-0", FailurePolicy::Closed).is_ok());
    }
}
