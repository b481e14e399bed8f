//! `sealedenv value open`

use std::path::PathBuf;

use sealedenv_seal::{OpenError, OpenPolicy, Place, open};
use thiserror::Error;

use super::Context;
use super::value_inspect::read_sealed;
use crate::console::write_out;
use crate::failure::{Exit, Failure, Fault};
use crate::identities;
use crate::input::path_argument;

/// Open the sealed value on standard input
///
/// Writes the exact bytes that were sealed. The namespace, name and key say where the value stands: one that was sealed
/// for another place is refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Namespace of the SealedEnv that the value stands in
    #[arg(short, long, value_name = "NS")]
    namespace: String,

    /// Name of that SealedEnv
    #[arg(long)]
    name: String,

    /// Key in it
    #[arg(short, long)]
    key: String,

    /// File with the private key, as keygen writes it; repeat it for several. Only its owner may have access to it
    #[arg(short, long = "identity", value_name = "FILE", value_parser = path_argument, required = true)]
    identities: Vec<PathBuf>,
}

/// Why the value was not opened.
#[derive(Debug, Error)]
#[error("cannot open the value")]
struct ValueOpenError(#[source] OpenError);

impl Fault for ValueOpenError {
    fn hint(&self) -> Option<String> {
        let hint = match &self.0 {
            OpenError::ScopeMismatch { .. } => {
                "a value opens only where it was sealed for; seal it anew for another place"
            }
            OpenError::NoIdentity { .. } => "sealedenv value inspect shows which recipients it is sealed to",
            OpenError::Unscoped => {
                "it was made by plain age: open it with age -d, and seal it with sealedenv value seal"
            }
            OpenError::BadMac | OpenError::PayloadDamaged => "restore it from git, or seal it anew",
            OpenError::UnknownRecipientType { .. } | OpenError::Malformed => return None,
        };
        Some(hint.to_owned())
    }
}

pub(super) fn run(args: &Args, mut context: Context) -> Result<Exit, Failure> {
    let sealed = read_sealed(context.stdin.take("the value")?)?;
    let ring = identities::read(&args.identities)?;
    let place = Place { namespace: &args.namespace, name: &args.name, key: &args.key };
    let value = open(&place, &ring, &sealed, OpenPolicy { allow_unscoped: false }).map_err(ValueOpenError)?;
    write_out(value.expose())?;
    Ok(Exit::Ok)
}
