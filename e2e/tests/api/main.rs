//! A real API server and no pods: what the CRDs say by themselves, and programs started by the tests.

mod crd;
mod delivery;
mod files;
mod format;
mod gitops;
mod gone;
mod leader;
mod start;
mod supply;
