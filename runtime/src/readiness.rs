//! What must be true before this process is ready, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A set of named gates; ready when there is at least one and all are open. Clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    gates: BTreeMap<&'static str, bool>,
    ending: bool,
}

/// A handle to one gate of a [`Readiness`]. Clones share the gate.
#[derive(Clone, Debug)]
pub struct Gate {
    of: Readiness,
    name: &'static str,
}

impl Readiness {
    /// A set without gates: not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a closed gate. Asking for a name again gives a handle to the same gate and leaves it as it is.
    pub fn gate(&self, name: &'static str) -> Gate {
        self.lock().gates.entry(name).or_insert(false);
        Gate { of: self.clone(), name }
    }

    /// Not ready from now on, whatever the gates say: for a process that is ending but still serves.
    pub fn end(&self) {
        self.lock().ending = true;
    }

    /// The names of what is missing, sorted; empty when ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let state = self.lock();
        if state.ending {
            return vec!["shutting down"];
        }
        if state.gates.is_empty() {
            return vec!["starting"];
        }
        state.gates.iter().filter(|(_, open)| !**open).map(|(name, _)| *name).collect()
    }

    /// Whether nothing is missing.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Opens or closes the gate.
    pub fn set(&self, open: bool) {
        self.of.lock().gates.insert(self.name, open);
    }

    /// Whether the gate is open.
    pub fn is_open(&self) -> bool {
        self.of.lock().gates.get(self.name).copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_with_every_gate_open() {
        let readiness = Readiness::new();
        assert_eq!(readiness.missing(), ["starting"]);
        let (cache, keys) = (readiness.gate("cache"), readiness.gate("keys"));
        assert_eq!(readiness.missing(), ["cache", "keys"]);
        cache.set(true);
        assert!(readiness.gate("cache").is_open(), "asking again must not close a gate");
        assert_eq!(readiness.missing(), ["keys"]);
        keys.clone().set(true);
        assert!(readiness.is_ready());
        keys.set(false);
        assert!(!readiness.is_ready());
        keys.set(true);
        readiness.end();
        assert_eq!(readiness.missing(), ["shutting down"]);
    }
}
