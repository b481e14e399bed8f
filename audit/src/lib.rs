//! The audit trail: records, hash chain, verification and sinks.
