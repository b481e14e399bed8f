//! One reconcile in the logs: every line that it causes names the object and carries the same id.

use tracing::Span;

use crate::known::Known;

/// The span of one reconcile of an object.
///
/// At level ERROR, so that a filter for warnings only keeps it: it is what tells them apart.
pub fn span(known: &Known) -> Span {
    let trace_id = trace_id();
    tracing::error_span!(
        "reconcile",
        namespace = known.namespace(),
        sealedenv = known.name(),
        trace_id = trace_id.as_deref()
    )
}

/// 16 random bytes in hex, as W3C's trace context has them. None where the system gives no random bytes: that must not
/// stop the work.
fn trace_id() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use sealedenv_crds::{SealedEnv, SealedEnvSpec};
    use serde_json::Value;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_of_one_reconcile_names_the_object_and_has_its_id() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = sealedenv_runtime::log::subscriber(
            sealedenv_runtime::log::Format::Json,
            "warn,sealedenv_operator=debug",
            move || writer.clone(),
        )
        .unwrap();
        tracing::subscriber::with_default(subscriber, || {
            for name in ["checkout", "billing"] {
                let mut env = SealedEnv::new(name, SealedEnvSpec::default());
                env.metadata.namespace = Some("shop".into());
                let span = span(&Known::strip(env).0);
                span.in_scope(|| {
                    tracing::warn!("first");
                    tracing::debug_span!("inner").in_scope(|| tracing::error!(name = "x", "second"));
                });
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4, "{text}");
        let mut ids = BTreeSet::new();
        for (line, name) in lines.iter().zip(["checkout", "checkout", "billing", "billing"]) {
            let span = &line["spans"][0];
            assert_eq!((&span["namespace"], &span["sealedenv"]), (&"shop".into(), &name.into()), "{line}");
            let id = span["trace_id"].as_str().unwrap();
            assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
            ids.insert((name, id.to_owned()));
        }
        assert_eq!(ids.len(), 2, "one id for each reconcile: {ids:?}");
    }
}
