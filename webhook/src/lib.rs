//! The admission webhook: gives annotated pods their files, and validates SealedEnvs.

pub mod inject;
