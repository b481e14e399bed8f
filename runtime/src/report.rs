//! How an error is told: the whole chain of causes, joined once, at the edge.

use std::error::Error;

/// The error and its causes in one line, outermost first.
pub fn chain(error: &dyn Error) -> String {
    let mut parts = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        parts.push(cause.to_string());
        source = cause.source();
    }
    parts.join(": ")
}

/// Tells a person on standard error why a program ends: `error: …`, then `hint: …` where there is one.
pub fn to_stderr(error: &dyn Error, hint: Option<&str>) {
    eprintln!("error: {}", chain(error));
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("opening the door")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_told_once() {
        assert_eq!(chain(&Outer(std::io::Error::other("no key"))), "opening the door: no key");
    }
}
