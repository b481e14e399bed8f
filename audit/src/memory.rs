//! A sink in memory, for the tests of programs that write a trail.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    chain::Position,
    line::Entry,
    sink::{Resumed, Sink, SinkError},
};

/// Keeps lines in memory, and fails when told to.
pub struct MemorySink {
    name: String,
    state: Memory,
}

/// The other end of a [`MemorySink`]: what it took, and the switch that makes it fail.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lines: Vec<String>,
    failing: bool,
}

impl MemorySink {
    /// A sink and its other end.
    #[must_use]
    pub fn new(name: impl Into<String>) -> (Self, Memory) {
        let state = Memory::default();
        (Self { name: name.into(), state: state.clone() }, state)
    }
}

impl Memory {
    /// The lines taken so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.state().lines.clone()
    }

    /// The lines taken so far as they would stand in a file.
    #[must_use]
    pub fn text(&self) -> String {
        self.state().lines.iter().flat_map(|line| [line, "\n"]).collect()
    }

    /// The entries taken so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.state().lines.iter().filter_map(|line| Entry::parse(line.as_bytes()).ok()).collect()
    }

    /// From now on every append fails as on a full disk, or none does.
    pub fn fail(&self, failing: bool) {
        self.state().failing = failing;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for MemorySink {
    fn name(&self) -> &str {
        &self.name
    }

    fn resume(&mut self) -> Result<Resumed, SinkError> {
        let state = self.state.state();
        let position = state.lines.iter().fold(Position::GENESIS, |at, line| at.after(line));
        Ok(Resumed { position, notices: Vec::new() })
    }

    fn append(&mut self, lines: &[String]) -> Result<(), SinkError> {
        let mut state = self.state.state();
        if state.failing {
            return Err(SinkError::Write {
                sink: self.name.clone(),
                source: io::ErrorKind::StorageFull.into(),
            });
        }
        state.lines.extend_from_slice(lines);
        Ok(())
    }
}
