//! The life of a release, by the real helm on a real cluster: nothing that helm does may cost a key, a SealedEnv or a
//! Secret in use. `cargo xtask test helm` provides cluster, image and helm.
//!
//! The tests install the release of the other tiers anew, so they run after them and one at a time.

mod certificate;
mod life;
mod release;
