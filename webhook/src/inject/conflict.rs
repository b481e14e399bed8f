//! Whether a container can have a mount beside those it has.

use k8s_openapi::api::core::v1::{Container, PodSpec, VolumeMount};

use super::path::{TOKEN, canonical, same_or_within};
use super::{Denied, Wanted};
use crate::text::quoted;

/// What stands where a mount shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the mount can be added.
    Free,
    /// The very mount.
    Present,
}

/// Compares one wanted mount with everything the container mounts. `all` are the volumes that the pod has or is given:
/// what would be refused after the injection is refused before it.
///
/// A runtime mounts from the shortest path to the longest and makes the folder each mount needs. So a mount in a
/// folder that is mounted read-only never works, whichever of the two is ours.
pub(super) fn check(
    spec: &PodSpec,
    container: &Container,
    wanted: &Wanted,
    all: &[Wanted],
) -> Result<Verdict, Denied> {
    let ours = canonical(wanted.path.as_str());
    let deny = |why: String| {
        Err(Denied::PathConflict {
            container: quoted(&container.name),
            path: wanted.path.as_str().to_owned(),
            why,
        })
    };
    let mut verdict = Verdict::Free;
    for mount in container.volume_mounts.iter().flatten() {
        let theirs = canonical(&mount.mount_path);
        let volume = quoted(&mount.name);
        if theirs == ours {
            if !is_ours(mount, wanted) {
                return deny(format!("the volume {volume} is mounted there"));
            }
            verdict = Verdict::Present;
        } else if wanted.has_token_folder() && theirs == TOKEN {
            // The token is mounted on the folder that the volume has for it.
        } else if same_or_within(&theirs, &ours) {
            return deny(format!(
                "the volume {volume} is mounted below it, at {}",
                quoted(&mount.mount_path)
            ));
        } else if same_or_within(&ours, &theirs) && is_read_only(spec, mount, all) {
            let above = quoted(&mount.mount_path);
            return deny(format!("the volume {volume} is mounted read-only above it, at {above}"));
        }
    }
    for device in container.volume_devices.iter().flatten() {
        let theirs = canonical(&device.device_path);
        if same_or_within(&theirs, &ours) || same_or_within(&ours, &theirs) {
            return deny(format!("the device {} is there", quoted(&device.name)));
        }
    }
    if let Some(file) = &container.termination_message_path
        && same_or_within(&canonical(file), &ours)
    {
        return deny("the container's termination message is written below it".to_owned());
    }
    Ok(verdict)
}

/// Whether a mount is the whole of our volume, and one that nobody writes through.
fn is_ours(mount: &VolumeMount, wanted: &Wanted) -> bool {
    let whole = |sub_path: &Option<String>| sub_path.as_deref().unwrap_or_default().is_empty();
    let read_only = mount.read_only == Some(true) || !wanted.is_writable();
    mount.name == wanted.volume && read_only && whole(&mount.sub_path) && whole(&mount.sub_path_expr)
}

/// Whether nothing can be made in a mounted folder. Kubelet mounts volumes of the first four kinds read-only always, and
/// those that we add are as good as that.
fn is_read_only(spec: &PodSpec, mount: &VolumeMount, all: &[Wanted]) -> bool {
    let read_only_volume =
        spec.volumes.iter().flatten().find(|volume| volume.name == mount.name).is_some_and(|volume| {
            volume.secret.is_some()
                || volume.config_map.is_some()
                || volume.projected.is_some()
                || volume.downward_api.is_some()
                || volume.image.is_some()
                || volume.csi.as_ref().is_some_and(|csi| csi.read_only == Some(true))
                || volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only == Some(true))
        });
    let added = all.iter().any(|wanted| wanted.volume == mount.name);
    mount.read_only == Some(true) || read_only_volume || added
}
