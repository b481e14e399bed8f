//! The gRPC contract of Memory delivery, `sealedenv.delivery.v1`: what the node plugin and the agent ask the operator,
//! and the bounds of it. docs/src/delivery.md tells who may ask for what.
//!
//! - [`client::Client`] is the asking side, [`server::service`] the answering one. Both speak in the types of this
//!   crate; those of the wire stay inside, because theirs can be cloned and come unchecked.
//! - What came over the wire was checked against the bounds here by the time anybody sees it, on both sides.
//! - [`Content`] holds an opened value on its way, [`Token`] a credential. Neither can be printed or cloned, and both
//!   are wiped.
//!
//! It decides nothing, and reads no file, clock or environment.

pub mod client;
pub mod server;

mod answer;
mod authorities;
mod content;
mod path;
mod token;
mod wanted;
mod wire;

pub use answer::{Answer, Fetched, File, Files, Outcome, Reason, Refused};
pub use authorities::{Authorities, AuthoritiesError};
pub use content::Content;
pub use path::{FilePath, PathError};
pub use token::{Token, TokenError};
pub use wanted::{Wanted, WantedError, check};

/// The audience that tokens for this API carry.
pub const AUDIENCE: &str = "sealedenv.dev";

/// Metadata with the pod's token, as `Bearer TOKEN`.
pub const POD_TOKEN: &str = "authorization";

/// Metadata with the node plugin's own token, as `Bearer TOKEN`. Who sends it is a node plugin; who does not is an agent.
pub const NODE_TOKEN: &str = "sealedenv-node-authorization";

/// The most SealedEnvs in one call.
pub const MAX_WANTED: usize = 8;

/// The most files of one SealedEnv, kept ones included: the most keys and files that one can have.
pub const MAX_FILES: usize = 4096;

/// The most bytes of all contents of one SealedEnv: what a Secret holds.
pub const MAX_CONTENT: usize = 1 << 20;

/// The longest name of a SealedEnv, in bytes.
pub const MAX_NAME: usize = 253;

/// The longest digest, in bytes.
pub const MAX_DIGEST: usize = 128;

/// The longest path of a file, in bytes.
pub const MAX_PATH: usize = 512;

/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 6 << 10;

/// The longest text for people, in bytes.
pub const MAX_MESSAGE: usize = 512;

/// The longest bundle of authorities, in bytes, and the most certificates in it.
pub const MAX_AUTHORITIES: (usize, usize) = (32 << 10, 16);

/// The largest request message, in bytes: [`MAX_WANTED`] names and digests.
pub const MAX_REQUEST: usize = 8 << 10;

/// The largest answer message, in bytes: for each SealedEnv its content, and its paths; and the authorities.
pub const MAX_RESPONSE: usize =
    MAX_WANTED * (MAX_CONTENT + MAX_FILES * (MAX_PATH + 16)) + MAX_AUTHORITIES.0 + 16;
