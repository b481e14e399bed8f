//! The one kind of path that is ever mounted on, unmounted or removed.

use std::path::{Path, PathBuf};

/// Where a kubelet keeps its pods' volumes.
#[derive(Clone, Debug)]
pub struct Layout {
    pods: PathBuf,
    leaf: &'static str,
}

/// A target path that fits the layout. It was taken apart, so nothing in it leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    pod_uid: String,
    volume: String,
}

/// A path that is not one of a volume of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target path is not that of a CSI volume of a pod of this kubelet")]
pub struct NoTarget;

impl Layout {
    /// The layout below a kubelet's root directory, such as `/var/lib/kubelet`.
    pub fn new(kubelet_root: &Path) -> Self {
        Self { pods: kubelet_root.join("pods"), leaf: "mount" }
    }

    /// The same with another last component than the kubelet's, for a caller that is not one: csi-sanity.
    #[must_use]
    pub fn with_leaf(self, leaf: &'static str) -> Self {
        Self { leaf, ..self }
    }

    /// The directory that all targets are below.
    pub fn pods(&self) -> &Path {
        &self.pods
    }

    /// The last component of every target.
    pub fn leaf(&self) -> &'static str {
        self.leaf
    }

    /// Takes a target path apart: `PODS/UID/volumes/kubernetes.io~csi/VOLUME/mount` and nothing else.
    ///
    /// # Errors
    /// The path is any other.
    pub fn target(&self, path: &str) -> Result<Target, NoTarget> {
        let below = self
            .pods
            .to_str()
            .and_then(|pods| path.strip_prefix(pods))
            .and_then(|path| path.strip_prefix('/'))
            .ok_or(NoTarget)?;
        let parts: Vec<&str> = below.split('/').collect();
        let &[pod_uid, VOLUMES, CSI, volume, leaf] = parts.as_slice() else { return Err(NoTarget) };
        if leaf != self.leaf || !is_name(pod_uid) || !is_name(volume) {
            return Err(NoTarget);
        }
        Ok(Target { pod_uid: pod_uid.to_owned(), volume: volume.to_owned() })
    }
}

const VOLUMES: &str = "volumes";
/// The kubelet's directory for CSI, its plugin name with the slash escaped.
const CSI: &str = "kubernetes.io~csi";

impl Target {
    /// The pod that the volume is of.
    pub fn pod_uid(&self) -> &str {
        &self.pod_uid
    }

    /// The components between the pods' directory and the last one.
    pub fn folders(&self) -> [&str; 4] {
        [&self.pod_uid, VOLUMES, CSI, &self.volume]
    }
}

/// What the kubelet makes of a UID or a volume's name: never `.`, `..` or a separator.
fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout::new(Path::new("/var/lib/kubelet"))
    }

    #[test]
    fn the_kubelets_path_is_taken_apart() {
        let target =
            layout().target("/var/lib/kubelet/pods/0f-1/volumes/kubernetes.io~csi/checkout/mount").unwrap();
        assert_eq!(target.pod_uid(), "0f-1");
        assert_eq!(target.folders(), ["0f-1", "volumes", "kubernetes.io~csi", "checkout"]);
    }

    #[test]
    fn any_other_path_is_refused() {
        for path in [
            "",
            "/",
            "/etc",
            "some/path",
            "/var/lib/kubelet/pods",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount/",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/other",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount/x",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/../mount",
            "/var/lib/kubelet/pods/../volumes/kubernetes.io~csi/v/mount",
            "/var/lib/kubelet/pods/u/../u/volumes/kubernetes.io~csi/v/mount",
            "/var/lib/kubelet/pods//volumes/kubernetes.io~csi/v/mount",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/v/mount",
            "/var/lib/kubelet/podsX/u/volumes/kubernetes.io~csi/v/mount",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/a\\b/mount",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/a\0/mount",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/а/mount",
            "/var/lib/../lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount",
        ] {
            assert_eq!(layout().target(path), Err(NoTarget), "{path:?}");
        }
        let long = format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~csi/v/mount", "u".repeat(254));
        assert_eq!(layout().target(&long), Err(NoTarget));
    }
}
