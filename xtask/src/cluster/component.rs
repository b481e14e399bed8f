//! Single components, stopped and started again, and etcd's data set aside and put back: for tests of what others do
//! meanwhile.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::builder::PossibleValuesParser;
use rustix::process::Signal;

use super::{
    NOT_UP,
    config::{self, API, HOLDER, Plan},
    layout::{Layout, Mode, Record},
    node,
    process::{self, Identity},
    status, up,
};

/// How long a component may take to end or to come up.
const PATIENCE: Duration = Duration::from_mins(1);
const ETCD: &str = "etcd";
const SNAPSHOTS: &str = "snapshots";

/// What can be stopped and started: all but the node itself and its containers.
pub(super) fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(config::own(Mode::Full))
}

/// A snapshot's name becomes the name of a folder.
pub(super) fn snapshot_name(text: &str) -> Result<String, String> {
    let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good { Ok(text.to_owned()) } else { Err("use letters, digits and dashes".to_owned()) }
}

/// Ends components.
pub(super) fn stop(layout: &Layout, components: &[String], kill: bool) -> anyhow::Result<()> {
    let _lock = up::lock()?;
    let record = record(layout)?;
    stop_all(layout, &known(&record, components)?, if kill { Signal::KILL } else { Signal::TERM })
}

/// Starts components that do not run, and waits until the API server answers, if it is to run at all.
pub(super) fn start(layout: &Layout, components: &[String]) -> anyhow::Result<()> {
    let _lock = up::lock()?;
    let record = record(layout)?;
    start_all(layout, &record, &known(&record, components)?)
}

/// Copies etcd's data while etcd is stopped: a copy of a file that is written to is no snapshot.
pub(super) fn snapshot(layout: &Layout, name: &str) -> anyhow::Result<()> {
    let _lock = up::lock()?;
    let record = record(layout)?;
    let to = layout.path(SNAPSHOTS).join(name);
    stop_all(layout, &[ETCD], Signal::TERM)?;
    let copied = replace(&layout.path(ETCD), &to);
    start_all(layout, &record, &[ETCD])?;
    copied.with_context(|| format!("setting etcd's data aside in {}", to.display()))
}

/// Puts a copy of etcd's data back. The revision goes back with it, as after a restore without `--bump-revision`. What
/// is documented for such a restore is done: everything of Kubernetes is started anew, so that it forgets what it knew.
pub(super) fn restore(layout: &Layout, name: &str) -> anyhow::Result<()> {
    let _lock = up::lock()?;
    let record = record(layout)?;
    let from = layout.path(SNAPSHOTS).join(name);
    if !from.is_dir() {
        bail!("there is no snapshot {name}\nhint: cargo xtask cluster snapshot {name}");
    }
    let all = config::own(record.mode);
    stop_all(layout, &all.iter().rev().copied().collect::<Vec<_>>(), Signal::TERM)?;
    let replaced = replace(&from, &layout.path(ETCD));
    start_all(layout, &record, &API)?;
    start_all(layout, &record, &all)?;
    replaced.with_context(|| format!("putting {} back", from.display()))?;
    wait("the node", || {
        Ok(record.mode == Mode::ControlPlane || status::node_ready(layout, &record) == Some(true))
    })
}

fn record(layout: &Layout) -> anyhow::Result<Record> {
    layout.record()?.filter(|record| record.ready).context(NOT_UP)
}

/// The components by their own names, if the cluster has them.
fn known(record: &Record, components: &[String]) -> anyhow::Result<Vec<&'static str>> {
    let own = config::own(record.mode);
    let find = |name: &String| own.iter().copied().find(|own| own == name);
    components.iter().map(|name| find(name).with_context(|| format!("the cluster has no {name}"))).collect()
}

fn stop_all(layout: &Layout, names: &[&str], signal: Signal) -> anyhow::Result<()> {
    for name in names {
        let Some(process) = process::noted(layout, name).filter(Identity::is_alive) else { continue };
        process.signal(signal)?;
        if !process::wait_gone(vec![process.clone()], PATIENCE).is_empty() {
            // A component that waits for another one that is gone: nothing of it is needed any more.
            process.signal(Signal::KILL)?;
        }
        process::wait_collected(&[process]);
    }
    Ok(())
}

fn start_all(layout: &Layout, record: &Record, names: &[&'static str]) -> anyhow::Result<()> {
    let plan = Plan { layout, mode: record.mode, addresses: record.addresses };
    let enter = match record.mode {
        Mode::Full => node::enter(&process::noted(layout, HOLDER).context(NOT_UP)?),
        Mode::ControlPlane => vec![],
    };
    for name in names {
        if process::noted(layout, name).is_some_and(|process| process.is_alive()) {
            continue;
        }
        process::start(layout, name, &enter, &record.binaries.join(name), &plan.component(name).args)?;
    }
    let is_alive = |name| process::noted(layout, name).is_some_and(|process| process.is_alive());
    if API.into_iter().all(is_alive) {
        wait("the API server", || {
            if let Some(name) = names.iter().find(|name| !is_alive(name)) {
                bail!("{name} ended\n{}", crate::host::tail(&layout.log(name), 15));
            }
            Ok(status::api_version(layout, record).is_some())
        })?;
    }
    Ok(())
}

/// Makes `to` a copy of `from`, whatever was there.
fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("removing {}", to.display()))?;
    }
    copy(from, to)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("copying {}", source.display()))?;
        }
    }
    // etcd refuses data that others may read.
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}

fn wait(what: &str, mut come_true: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let start = Instant::now();
    while !come_true()? {
        if start.elapsed() > PATIENCE {
            bail!("waited {} s for {what}\nhint: cargo xtask cluster down, then up", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(150));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_copy_is_whole_private_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("etcd"), dir.path().join("snapshots/a"));
        fs::create_dir_all(from.join("member/wal")).unwrap();
        fs::write(from.join("member/wal/0"), "log").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o700)).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(to.join("stale"), "").unwrap();
        replace(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("member/wal/0")).unwrap(), "log");
        assert!(!to.join("stale").exists());
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_snapshot_stays_in_its_folder() {
        assert!(snapshot_name("before-1").is_ok());
        for bad in ["", "..", "a/b", "a b", "/etc"] {
            assert!(snapshot_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_node_and_its_containers_are_not_stopped_by_name() {
        let own = config::own(Mode::Full);
        assert!(own.contains(&"kube-apiserver") && own.contains(&"kubelet"));
        assert!(!own.contains(&HOLDER) && !own.contains(&config::CONTAINERD));
    }
}
