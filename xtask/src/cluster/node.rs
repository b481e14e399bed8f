//! The node: a network and a mount namespace of its own, so that bridges, packet filter rules, mounts and settings of
//! the cluster are not the machine's, and go when its last process does.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::fs::statfs;

use crate::exec;

use super::{
    config::{self, BRIDGE, HOLDER},
    layout::{Addresses, Layout},
    process::{self, Identity},
};

/// Words before a command that make it run on the node.
pub(crate) fn enter(holder: &Identity) -> Vec<String> {
    vec![
        "nsenter".into(),
        format!("--net=/proc/{}/ns/net", holder.pid),
        format!("--mount=/proc/{}/ns/mnt", holder.pid),
        "--".into(),
    ]
}

/// Makes the node. Whatever fails, `leftovers` can undo what was made.
pub(crate) fn create(layout: &Layout, addresses: Addresses) -> anyhow::Result<Identity> {
    let unshare = ["unshare", "--net", "--mount", "--propagation", "slave", "--"].map(str::to_owned);
    let holder = process::start(layout, HOLDER, &unshare, Path::new("sleep"), &["infinity".into()])?;
    wait_for_namespaces(layout, &holder)?;
    cable(layout, addresses, &holder).context("connecting the node")?;
    mounts(layout, &holder).context("preparing the node's mounts")?;
    control_groups(&layout.group()).context("making the control groups")?;
    Ok(holder)
}

/// The namespaces are ready once the holder has become `sleep`: `unshare` runs it last.
fn wait_for_namespaces(layout: &Layout, holder: &Identity) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        let name = fs::read_to_string(format!("/proc/{}/comm", holder.pid)).unwrap_or_default();
        if name.trim() == "sleep" {
            return Ok(());
        }
        if !holder.is_alive() || start.elapsed() > Duration::from_secs(10) {
            bail!("making the node's namespaces failed\n{}", crate::host::tail(&layout.log(HOLDER), 5));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn cable(layout: &Layout, addresses: Addresses, holder: &Identity) -> anyhow::Result<()> {
    let (node, link) = (enter(holder), layout.link());
    let ip = |args: &str| run(&[], "ip", args);
    let inside = |args: &str| run(&node, "ip", args);
    ip(&format!("link add {link} type veth peer name uplink netns {}", holder.pid))?;
    ip(&format!("link set {link} alias {}", layout.root().display()))?;
    ip(&format!("address add {}/30 dev {link}", addresses.host()))?;
    ip(&format!("link set {link} up"))?;
    inside("link set lo up")?;
    inside(&format!("address add {}/30 dev uplink", addresses.uplink()))?;
    inside("link set uplink up")?;
    inside(&format!("link add {BRIDGE} type bridge"))?;
    inside(&format!("address add {}/18 dev {BRIDGE}", addresses.node()))?;
    inside(&format!("link set {BRIDGE} up"))?;
    // The API server connects to Services from the node itself, which needs a route before the address is translated.
    // A Service that does not exist ends on the bridge. There is no other way out.
    inside(&format!("route add {} dev {BRIDGE}", addresses.services()))?;
    switch_on(&node, "/proc/sys/net/ipv4/ip_forward")?;
    ip(&format!("route add {} via {}", addresses.all(), addresses.uplink()))
}

fn mounts(layout: &Layout, holder: &Identity) -> anyhow::Result<()> {
    let node = enter(holder);
    let mount = |args: &str| run(&node, "mount", args);
    // Shim sockets, network namespaces, the packet filter's lock: nothing of it belongs to the machine.
    mount("-t tmpfs -o mode=755,nosuid,nodev tmpfs /run")?;
    for (at, folder) in config::binds() {
        mount(&format!("--bind {} {}", layout.text(folder), at.display()))?;
    }
    // Mounts that a CSI driver makes in its pod must be seen by the kubelet and in other pods.
    mount(&format!("--make-rshared {}", config::KUBELET_ROOT))?;
    for setting in config::SYSCTLS {
        let copy = layout.path("sysctl").join(setting.trim_start_matches("/proc/sys/").replace('/', "."));
        let value = fs::read(setting).with_context(|| format!("reading {setting}"))?;
        fs::write(&copy, value).with_context(|| format!("writing {}", copy.display()))?;
        mount(&format!("--bind {} {setting}", copy.display()))?;
    }
    Ok(())
}

/// Writes 1 to a setting of the node's network namespace.
fn switch_on(enter: &[String], setting: &str) -> anyhow::Result<()> {
    let mut words = enter.iter().map(String::as_str).chain(["sh", "-c", "echo 1 > \"$0\"", setting]);
    let first = words.next().context("an empty command")?;
    exec::read(Command::new(first).args(words)).map(drop)
}

/// Runs a command, on the node when `enter` says so. Arguments hold no blanks: `Layout` sees to its paths.
fn run(enter: &[String], program: &str, args: &str) -> anyhow::Result<()> {
    let mut words = enter.iter().map(String::as_str).chain([program]).chain(args.split_whitespace());
    let first = words.next().context("an empty command")?;
    exec::read(Command::new(first).args(words)).map(drop)
}

/// Mount points of the control group hierarchies: every one of version 1 and, where there is one, that of version 2.
pub(crate) fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    mount_table(mountinfo)
        .filter(|(_, kind)| matches!(*kind, "cgroup" | "cgroup2"))
        .map(|(at, _)| at)
        .collect()
}

/// Mount point and file system type of each line of `/proc/self/mountinfo`.
pub(crate) fn mount_table(mountinfo: &str) -> impl Iterator<Item = (PathBuf, &str)> {
    mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let at = left.split(' ').nth(4)?;
        Some((PathBuf::from(unescape(at)), right.split(' ').next()?))
    })
}

/// The kernel writes blanks and backslashes in paths as octal.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012"]
        .iter()
        .zip([" ", "\t", "\n"])
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
        .replace("\\134", "\\")
}

fn control_groups(name: &str) -> anyhow::Result<()> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("reading the mount table")?;
    let hierarchies = hierarchies(&mountinfo);
    if hierarchies.is_empty() {
        bail!("no control groups are mounted\nhint: mount cgroup2 on /sys/fs/cgroup");
    }
    for hierarchy in hierarchies {
        let group = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| format!("making {}", group.display()))?;
        if hierarchy.join("cgroup.controllers").exists() {
            for level in [&hierarchy, &group] {
                for controller in ["cpuset", "cpu", "io", "memory", "hugetlb", "pids"] {
                    // One that the kernel lacks or that version 1 has taken is missed by the kubelet, which says so.
                    fs::write(level.join("cgroup.subtree_control"), format!("+{controller}")).ok();
                }
            }
        }
        // A new cpuset of version 1 is empty and takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (hierarchy.join(file), group.join(file));
            if fs::read_to_string(&to).is_ok_and(|text| text.trim().is_empty()) {
                let value = fs::read(&from).unwrap_or_default();
                if !value.is_empty() {
                    fs::write(&to, value).with_context(|| format!("writing {}", to.display()))?;
                }
            }
        }
    }
    Ok(())
}

/// Makes the mount points that the machine lacks; returns those made.
pub(crate) fn missing_mount_points() -> Vec<PathBuf> {
    config::binds().into_iter().map(|(at, _)| at).filter(|at| !at.exists()).collect()
}

/// The snapshotter for a folder: overlays cannot be stacked on an overlay, as in a container.
pub(crate) fn snapshotter(dir: &Path) -> anyhow::Result<&'static str> {
    const OVERLAY: u64 = 0x794c_7630;
    let kind = statfs(dir).with_context(|| format!("looking at {}", dir.display()))?.f_type;
    Ok(if u64::try_from(kind).is_ok_and(|kind| kind == OVERLAY) { "native" } else { "overlayfs" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
24 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 24 0:28 / /sys/fs/cgroup rw shared:5 - tmpfs tmpfs rw,mode=755
31 30 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
32 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
33 24 0:31 / /mnt/a\\040b\\134c rw master:1 - ext4 /dev/vdb rw
";

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        assert_eq!(
            hierarchies(MOUNTINFO),
            [Path::new("/sys/fs/cgroup/cpu"), Path::new("/sys/fs/cgroup/unified")]
        );
    }

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let table: Vec<_> = mount_table(MOUNTINFO).collect();
        assert_eq!(table.len(), 5);
        assert_eq!(table[4], (PathBuf::from("/mnt/a b\\c"), "ext4"));
    }
}
