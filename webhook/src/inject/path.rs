//! Paths inside a container, compared without knowing its image.
//!
//! Many images link `/var/run` to `/run`. Nobody can tell at admission, so both are taken for the same folder.

use std::fmt;

use sealedenv_crds::names;

/// Where kubelet mounts the ServiceAccount token, in the form that [`canonical`] gives.
pub(super) const TOKEN: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// The longest path that is accepted, in bytes.
const LONGEST: usize = 1024;

/// Folders that a container does not start without, or that kubelet itself mounts files into. A mount over one of
/// them, or over a folder that holds one of them, breaks every container.
const KEPT: &[&str] = &[
    "/bin",
    "/boot",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local",
    "/usr/sbin",
    "/usr/share",
    "/var",
    "/var/lib",
    "/var/lock",
    "/var/log",
    "/var/run",
    "/var/tmp",
];

/// Files that kubelet mounts into every container.
const KUBELETS: &[&str] = &["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];

/// Trees that belong to the kernel and to the container runtime.
const KERNELS: &[&str] = &["/proc", "/sys", "/dev"];

/// A folder to mount at: absolute, without `.` and `..`, without doubled or trailing slashes, and none that a
/// container needs for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MountPath(String);

/// Why a text is not a [`MountPath`]; ends the sentence "the path …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathFault {
    Relative,
    Dots,
    Character,
    TooLong,
    Kept,
}

impl MountPath {
    pub(super) fn parse(text: &str) -> Result<Self, PathFault> {
        if text.len() > LONGEST {
            return Err(PathFault::TooLong);
        }
        // A colon ends the path in the runtimes' own syntax; the others have no place in the name of a folder.
        if text.chars().any(|c| {
            c.is_control() || matches!(c, ':' | '\\' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        }) {
            return Err(PathFault::Character);
        }
        if !text.starts_with('/') {
            return Err(PathFault::Relative);
        }
        if text.split('/').any(|part| part == "..") {
            return Err(PathFault::Dots);
        }
        let path = clean(text);
        let kept = path == "/"
            || KEPT.contains(&path.as_str())
            || KUBELETS.iter().any(|file| same_or_within(&path, file))
            || KERNELS.iter().any(|tree| same_or_within(&path, tree));
        if kept { Err(PathFault::Kept) } else { Ok(Self(path)) }
    }

    /// `/run/secrets/<name>`. `name` is the name of an object and holds no slash.
    pub(super) fn under_default_root(name: &str) -> Self {
        Self(format!("{}/{name}", names::DEFAULT_MOUNT_ROOT))
    }

    /// One of ours.
    pub(super) fn fixed(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    /// The folder `name` below this one. `name` is the name of an object and holds no slash.
    pub(super) fn join(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relative => "must be absolute",
            Self::Dots => "must not hold ..",
            Self::Character => "must not hold a colon, a backslash or a control character",
            Self::TooLong => "is longer than 1024 bytes",
            Self::Kept => "is one that the container needs for itself",
        })
    }
}

/// What a runtime makes of any mount path: absolute, `.` and `..` resolved as text; and `/var/run` as `/run`.
pub(super) fn canonical(path: &str) -> String {
    let path = clean(path);
    match path.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/run{rest}"),
        _ => path,
    }
}

/// Whether `inner` is `outer` or lies below it. Both canonical.
pub(super) fn same_or_within(inner: &str, outer: &str) -> bool {
    outer == "/" || inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_normalised() {
        for (text, path) in [
            ("/app/secrets", "/app/secrets"),
            ("//app///secrets/", "/app/secrets"),
            ("/./app/./secrets/.", "/app/secrets"),
            ("/run/secrets", "/run/secrets"),
            ("/var/run/secrets", "/var/run/secrets"),
            ("/etc/app", "/etc/app"),
            ("/a b/ä", "/a b/ä"),
            ("/a..b/...", "/a..b/..."),
            ("/devices", "/devices"),
            ("/etc/hosts.d", "/etc/hosts.d"),
        ] {
            assert_eq!(MountPath::parse(text).map(|p| p.0), Ok(path.to_owned()), "{text}");
        }
    }

    #[test]
    fn paths_that_break_a_container_are_refused() {
        for (text, fault) in [
            ("", PathFault::Relative),
            ("app", PathFault::Relative),
            ("./app", PathFault::Relative),
            ("/app/../etc", PathFault::Dots),
            ("/..", PathFault::Dots),
            ("/a:b", PathFault::Character),
            ("/a\0b", PathFault::Character),
            ("/a\nb", PathFault::Character),
            ("/a\\b", PathFault::Character),
            ("/a\u{202e}b", PathFault::Character),
            ("/", PathFault::Kept),
            ("///", PathFault::Kept),
            ("/.", PathFault::Kept),
            ("/proc", PathFault::Kept),
            ("/proc/self/x", PathFault::Kept),
            ("/sys/fs", PathFault::Kept),
            ("/dev/shm", PathFault::Kept),
            ("/etc/", PathFault::Kept),
            ("/etc/resolv.conf", PathFault::Kept),
            ("/etc/hosts/x", PathFault::Kept),
            ("/run", PathFault::Kept),
            ("/var/run", PathFault::Kept),
            ("/usr//bin", PathFault::Kept),
        ] {
            assert_eq!(MountPath::parse(text).map(|p| p.0), Err(fault), "{text:?}");
        }
        assert_eq!(MountPath::parse(&format!("/{}", "a".repeat(1024))), Err(PathFault::TooLong));
    }

    #[test]
    fn canonical_paths_see_through_the_link_and_the_dots() {
        for (path, expected) in [
            ("/var/run/secrets/x", "/run/secrets/x"),
            ("/var/run", "/run"),
            ("/var/running", "/var/running"),
            ("var/run/x/", "/run/x"),
            ("/a/../var/run/x", "/run/x"),
            ("/../..", "/"),
            ("", "/"),
        ] {
            assert_eq!(canonical(path), expected, "{path}");
        }
    }

    #[test]
    fn below_means_whole_names() {
        assert!(same_or_within("/a/b", "/a") && same_or_within("/a", "/a") && same_or_within("/a", "/"));
        assert!(!same_or_within("/ab", "/a") && !same_or_within("/a", "/a/b") && !same_or_within("/", "/a"));
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_its_own_normal_form(text in "[/.a-z: \\\\]{0,24}|/(run|var|etc|proc|dev|app)(/[a-z.]{0,4}){0,3}") {
            if let Ok(path) = MountPath::parse(&text) {
                prop_assert_eq!(MountPath::parse(path.as_str()), Ok(path.clone()));
                prop_assert!(path.0.starts_with('/') && path.0.len() > 1 && !path.0.ends_with('/'));
                prop_assert!(path.0[1..].split('/').all(|part| !matches!(part, "" | "." | "..")));
                prop_assert!(KERNELS.iter().all(|tree| !same_or_within(&path.0, tree)));
            }
        }
    }
}
