//! The admission webhook: gives annotated pods their files, and validates SealedEnvs.

pub mod bundle;
pub mod cache;
pub mod decision;
pub mod inject;
pub mod metrics;
pub mod registration;
pub mod review;
pub mod rotation;
pub mod router;
mod text;
pub mod trail;
pub mod validate;
pub mod waiting;
