//! What is done to a volume on this machine. Waits for the kernel, and for nothing else.

use std::os::fd::AsFd as _;

use jiff::Timestamp;
use rustix::fs::{StatVfs, fstatvfs};
use sealedenv_delivery::Files;
use sealedenv_volume::{Version, Volume, WriteError, stamp};

use super::NodeError;
use crate::mount::{MountError, Mounts, Size, Stage as _};
use crate::place::{Place, PlaceError};
use crate::publish::{self, Found, Removal};
use crate::request::Publish;
use crate::target::{Layout, Target};

/// The volumes of this machine.
pub(super) struct Disk<M> {
    pub(super) layout: Layout,
    pub(super) mounts: M,
}

/// What a volume is to hold.
pub(super) struct Wanted<'a> {
    pub(super) asked: &'a Publish,
    pub(super) files: &'a Files,
}

impl Wanted<'_> {
    fn version<'a>(&'a self, stamp: &'a str) -> Version<'a> {
        Version {
            environment: &self.asked.environment,
            digest: &self.files.digest,
            files: &self.files.files,
            keep: &self.files.keep,
            ownership: self.asked.ownership,
            service_account_directory: self.asked.service_account_directory,
            stamp,
        }
    }
}

fn size(version: &Version<'_>) -> Size {
    Size::of(version.lengths(), version.names(), rustix::param::page_size())
}

impl<M: Mounts> Disk<M> {
    /// What stands at a target.
    pub(super) fn look(&self, target: &Target) -> Result<Found, NodeError> {
        match self.place(target) {
            Ok(place) => Ok(place.look(&self.mounts)?),
            Err(NodeError::Gone) => Ok(Found::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Whether a volume's files are there, where no more than that can be told.
    pub(super) fn has_files(&self, target: &Target) -> bool {
        self.place(target).is_ok_and(|place| place.has_files())
    }

    /// Makes a volume with all its files, and shows it at the target. On failure the target is as before.
    pub(super) fn make(&self, target: &Target, wanted: &Wanted<'_>) -> Result<(), NodeError> {
        let place = self.place(target)?;
        let stamp = stamp(Timestamp::now());
        let version = wanted.version(&stamp);
        let stage = self.mounts.make(size(&version))?;
        Volume::new(stage.root()).swap(&version)?;
        let directory = place.make()?;
        if let Err(error) = self.mounts.attach(&stage, directory.as_fd()) {
            drop(directory);
            // Empty; the kubelet removes it as well.
            let _said_by_the_error = place.remove();
            return Err(error.into());
        }
        Ok(())
    }

    /// Swaps other files into a volume. On failure it is as before.
    pub(super) fn refresh(&self, target: &Target, wanted: &Wanted<'_>) -> Result<(), NodeError> {
        let stamp = stamp(Timestamp::now());
        let version = wanted.version(&stamp);
        let stage = self.reopen(target)?;
        let volume = Volume::new(stage.root());
        volume.tidy().map_err(WriteError::from)?;
        let used = fstatvfs(stage.root())
            .map_err(|error| MountError { doing: "looking how full the tmpfs is", source: error.into() })?;
        let used = Size {
            bytes: (used.f_blocks - used.f_bfree) * used.f_frsize,
            inodes: used.f_files - used.f_ffree,
        };
        self.mounts.resize(&stage, used.and(size(&version)))?;
        Ok(volume.swap(&version)?)
    }

    /// Removes the versions that do not count any more.
    pub(super) fn tidy(&self, target: &Target) -> Result<(), NodeError> {
        let stage = self.reopen(target)?;
        Ok(Volume::new(stage.root()).tidy().map_err(WriteError::from)?)
    }

    /// Takes a volume away, whatever state it is in.
    pub(super) fn remove(&self, target: &Target) -> Result<(), NodeError> {
        let place = match self.place(target) {
            Err(NodeError::Gone) => return Ok(()),
            place => place?,
        };
        // Each turn takes one thing away; more than these were never ours.
        for _ in 0..16 {
            match publish::remove(&place.look(&self.mounts)?) {
                Removal::Done => return Ok(()),
                Removal::Directory => place.remove()?,
                Removal::Mount => self.mounts.detach(place.parent(), place.name())?,
                Removal::Refuse(foreign) => return Err(foreign.into()),
            }
        }
        Err(publish::Foreign::Mount.into())
    }

    /// How full a volume is. None where there is none.
    pub(super) fn stats(&self, target: &Target) -> Result<Option<StatVfs>, NodeError> {
        let place = match self.place(target) {
            Err(NodeError::Gone) => return Ok(None),
            place => place?,
        };
        if !matches!(place.look(&self.mounts)?, Found::Ours(_)) {
            return Ok(None);
        }
        let look = |error: rustix::io::Errno| PlaceError::Look(error.into());
        let root = place.root().map_err(look)?;
        Ok(Some(fstatvfs(&root).map_err(look)?))
    }

    fn place(&self, target: &Target) -> Result<Place, NodeError> {
        Place::open(&self.layout, target)?.ok_or(NodeError::Gone)
    }

    /// A volume, so that it can be written.
    fn reopen(&self, target: &Target) -> Result<M::Stage, NodeError> {
        let root = self.place(target)?.root().map_err(|error| PlaceError::Look(error.into()))?;
        Ok(self.mounts.reopen(root.as_fd())?)
    }
}
