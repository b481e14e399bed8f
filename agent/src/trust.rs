//! Whom the agent takes for the operator.
//!
//! A pod's spec cannot change, and authorities do. So the pod brings those of the time it was made, and each answer of the
//! operator says which they are now; the newest that were heard of are kept, and only they are trusted. They are public.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sealedenv_delivery::{Authorities, AuthoritiesError, MAX_AUTHORITIES};
use sealedenv_runtime::report::chain;

const FILE: &str = ".authorities.pem";
const NEXT: &str = ".authorities.next";

/// Whom the agent trusts.
#[derive(Debug)]
pub struct Trust {
    folder: PathBuf,
    now: Authorities,
}

/// There is nobody to trust.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("reading the authorities that the operator's certificate may come from")]
pub struct NobodyToTrust(#[from] AuthoritiesError);

impl Trust {
    /// What `folder` keeps, or else what the pod brought.
    ///
    /// # Errors
    /// Neither is a bundle of authorities.
    pub fn load(folder: &Path, brought: &str) -> Result<Self, NobodyToTrust> {
        let now = match kept(folder) {
            Some(kept) => kept,
            None => Authorities::parse(brought)?,
        };
        Ok(Self { folder: folder.to_owned(), now })
    }

    /// Whom to trust now.
    pub fn authorities(&self) -> &Authorities {
        &self.now
    }

    /// What the operator said. It is trusted from now on, and kept for the next start.
    pub fn learn(&mut self, said: Authorities) {
        if said == self.now && self.folder.join(FILE).exists() {
            return;
        }
        if let Err(error) = keep(&self.folder, &said) {
            // Good for as long as this process lives.
            tracing::warn!(error = chain(&error), "the operator's authorities cannot be kept");
        }
        if said != self.now {
            tracing::info!("the operator has other certificate authorities");
            self.now = said;
        }
    }
}

fn kept(folder: &Path) -> Option<Authorities> {
    let mut pem = String::new();
    let most = u64::try_from(MAX_AUTHORITIES.0).ok()?;
    fs::File::open(folder.join(FILE)).ok()?.take(most + 1).read_to_string(&mut pem).ok()?;
    Authorities::parse(&pem).ok()
}

fn keep(folder: &Path, authorities: &Authorities) -> io::Result<()> {
    let next = folder.join(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
    file.write_all(authorities.as_str().as_bytes())?;
    // It is on the node's disk, and may be read after the node has failed.
    file.sync_all()?;
    fs::rename(next, folder.join(FILE))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn bundle() -> String {
        rcgen::generate_simple_self_signed(["operator.test".to_owned()]).unwrap().cert.pem()
    }

    fn parsed(pem: &str) -> Authorities {
        Authorities::parse(pem).unwrap()
    }

    #[test]
    fn what_the_operator_said_last_is_trusted_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (brought, said) = (bundle(), bundle());
        let mut trust = Trust::load(folder.path(), &brought).unwrap();
        assert_eq!(trust.authorities().as_str(), brought);
        trust.learn(parsed(&said));
        assert_eq!(trust.authorities().as_str(), said, "and no longer what the pod brought");
        let again = Trust::load(folder.path(), &brought).unwrap();
        assert_eq!(again.authorities().as_str(), said);
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_kept_and_is_no_bundle_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let brought = bundle();
        for bad in ["", "half a bund", &"#".repeat(MAX_AUTHORITIES.0 + 1)] {
            fs::write(folder.path().join(FILE), bad).unwrap();
            let trust = Trust::load(folder.path(), &brought).unwrap();
            assert_eq!(trust.authorities().as_str(), brought);
        }
        assert!(Trust::load(folder.path(), "nobody").is_err());
    }

    #[test]
    fn a_folder_that_takes_nothing_is_no_reason_not_to_trust() {
        let said = bundle();
        let mut trust = Trust::load(Path::new("/proc/nothing"), &bundle()).unwrap();
        trust.learn(parsed(&said));
        assert_eq!(trust.authorities().as_str(), said);
    }

    #[test]
    fn what_an_interrupted_write_left_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NEXT), "half").unwrap();
        let said = bundle();
        Trust::load(folder.path(), &bundle()).unwrap().learn(parsed(&said));
        assert_eq!(Trust::load(folder.path(), &bundle()).unwrap().authorities().as_str(), said);
    }
}
