//! The project's own commands. `main.rs` parses, each module does one job.
