//! Taking a cluster away, whatever state it is in: running, half started, crashed, or from before a reboot.
//! Needs none of the cluster's own programs.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::Signal,
};

use crate::exec;

use super::{
    layout::{LINK_PREFIX, Layout, Record},
    node::{hierarchies, mount_table},
    process::{self, Identity},
};

/// How long processes may take to die and control groups to empty. They take milliseconds; this is for a stuck disk.
const PATIENCE: Duration = Duration::from_secs(30);

const LINKS: &str = "/sys/class/net";

/// What is there of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    record: Option<Record>,
    processes: Vec<Identity>,
    groups: Vec<PathBuf>,
    mounts: Vec<PathBuf>,
    link: bool,
}

impl Leftovers {
    /// Looks for everything that a cluster with this state folder may have left.
    pub(crate) fn find(layout: &Layout) -> anyhow::Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("reading the mount table")?;
        let groups = existing_groups(&mountinfo, &layout.group());
        let mut processes = process::marked(layout.root());
        for group in &groups {
            processes.extend(members(group).into_iter().filter_map(|pid| Identity::of(pid).ok()));
        }
        processes.retain(Identity::is_alive);
        Ok(Self {
            record: layout.record()?,
            processes,
            groups,
            mounts: mounts_below(&mountinfo, layout.root()),
            link: link_path(layout).exists(),
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.record.is_none()
            && self.processes.is_empty()
            && self.groups.is_empty()
            && self.mounts.is_empty()
            && !self.link
    }
}

/// Removes all of it; returns whether there was anything. The state folder goes last, so that an interrupted removal
/// is found and finished by the next one.
pub(crate) fn remove(layout: &Layout) -> anyhow::Result<bool> {
    let found = Leftovers::find(layout)?;
    if found.is_empty() {
        return Ok(false);
    }
    kill_all(layout)?;
    if found.link {
        remove_link(layout)?;
    }
    // Found anew: what the processes had mounted and grouped may have changed while they ended.
    let now = Leftovers::find(layout)?;
    for mount in &now.mounts {
        unmount(mount.as_path(), UnmountFlags::DETACH)
            .with_context(|| format!("unmounting {}", mount.display()))?;
    }
    for group in &now.groups {
        remove_group(group)?;
    }
    if let Some(record) = &now.record {
        // Another cluster may have mounted on them in its node; removing them here would tear its mounts away.
        if !other_links() {
            for made in &record.made {
                fs::remove_dir(made).ok(); // empty, or somebody uses it by now and it stays
            }
        }
        remove_folder(layout)?;
    }
    Ok(true)
}

/// Everything of the cluster's data is thrown away, so nothing is asked to stop politely. Repeated, because a runtime
/// may have been starting a container while it was killed.
fn kill_all(layout: &Layout) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut all = Vec::new();
    loop {
        let processes = Leftovers::find(layout)?.processes;
        if processes.is_empty() {
            process::wait_collected(&all);
            return Ok(());
        }
        for process in &processes {
            process.signal(Signal::KILL)?;
        }
        all.extend(processes.iter().cloned());
        let remaining = process::wait_gone(processes, Duration::from_secs(5));
        if start.elapsed() > PATIENCE && !remaining.is_empty() {
            let pids: Vec<_> = remaining.iter().map(|process| process.pid.to_string()).collect();
            bail!("these processes of the cluster do not end: {}", pids.join(", "));
        }
    }
}

fn link_path(layout: &Layout) -> PathBuf {
    Path::new(LINKS).join(layout.link())
}

fn remove_link(layout: &Layout) -> anyhow::Result<()> {
    let outcome = exec::read(Command::new("ip").args(["link", "delete", &layout.link()]));
    // The kernel removes it by itself with the node's network namespace, perhaps just now.
    if link_path(layout).exists() { outcome.map(drop) } else { Ok(()) }
}

/// Whether another cluster's node is connected; ours is gone by now.
fn other_links() -> bool {
    let Ok(links) = fs::read_dir(LINKS) else { return true };
    links.flatten().any(|link| link.file_name().to_string_lossy().starts_with(LINK_PREFIX))
}

/// Mount points below a folder, or on it, the deepest and latest first.
fn mounts_below(mountinfo: &str, folder: &Path) -> Vec<PathBuf> {
    let mut mounts: Vec<_> =
        mount_table(mountinfo).map(|(at, _)| at).filter(|at| at.starts_with(folder)).collect();
    mounts.reverse();
    mounts
}

fn existing_groups(mountinfo: &str, name: &str) -> Vec<PathBuf> {
    hierarchies(mountinfo).into_iter().map(|at| at.join(name)).filter(|group| group.exists()).collect()
}

/// Numbers of the processes in a control group and those below it.
fn members(group: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for below in folders_in(group) {
        pids.extend(members(&below));
    }
    pids
}

fn folders_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// Removes a control group and those below it. The kernel lets go of ended processes a moment after they end.
fn remove_group(group: &Path) -> anyhow::Result<()> {
    for below in folders_in(group) {
        remove_group(&below)?;
    }
    let start = Instant::now();
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() != ErrorKind::ResourceBusy || start.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("removing the control group {}", group.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Deletes the state folder, its record last: while that is there, the folder is known to be ours.
fn remove_folder(layout: &Layout) -> anyhow::Result<()> {
    let root = layout.root();
    let doing = || format!("deleting {}", root.display());
    for entry in fs::read_dir(root).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        if path == layout.record_file() {
            continue;
        }
        let is_folder = fs::symlink_metadata(&path).with_context(doing)?.is_dir();
        if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }
            .with_context(|| format!("deleting {}", path.display()))?;
    }
    fs::remove_file(layout.record_file()).with_context(doing)?;
    fs::remove_dir(root).with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_undone_from_the_deepest_and_only_below_the_folder() {
        let mountinfo = "\
24 1 254:0 / / rw - ext4 /dev/vda rw
40 24 254:0 /c /var/lib/c rw - ext4 /dev/vda rw
41 40 0:40 / /var/lib/c/kubelet/pods/1/volumes/x rw - tmpfs tmpfs rw
42 24 0:41 / /var/lib/c2/kubelet rw - tmpfs tmpfs rw
";
        assert_eq!(
            mounts_below(mountinfo, Path::new("/var/lib/c")),
            [Path::new("/var/lib/c/kubelet/pods/1/volumes/x"), Path::new("/var/lib/c")]
        );
        assert!(mounts_below(mountinfo, Path::new("/srv")).is_empty());
    }

    #[test]
    fn members_of_groups_below_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("kubepods/pod1");
        fs::create_dir_all(&below).unwrap();
        fs::write(dir.path().join("cgroup.procs"), "").unwrap();
        fs::write(below.join("cgroup.procs"), "12\n34\n").unwrap();
        assert_eq!(members(dir.path()), [12, 34]);
    }
}
