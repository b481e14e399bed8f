//! The operator: opens sealed values and reconciles Secrets.
