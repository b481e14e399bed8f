//! No record, no release (I5), whatever becomes of the disk; and work goes on by itself once it is well again.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use sealedenv_e2e::cluster::{Namespace, run, wait};
use sealedenv_e2e::seal::{Manifest, sealedenv};

use crate::operator::{Operator, SmallDisk};

fn apply(ns: &Namespace, name: &str, value: &str) -> Result<()> {
    ns.apply(&Manifest::new(ns.name(), name)?.value("TOKEN", value)?.yaml()).map(drop)
}

fn delivered(ns: &Namespace, name: &str, value: &str) -> Result<()> {
    ns.wait_condition("sealedenv", name, "Ready", "True", "Delivered")?;
    wait("the value", || Ok((ns.secret_value(name, "TOKEN")? == value).then_some(())))
}

/// With the trail broken: a new object and a changed one are held up and say why; no Secret of theirs appears or
/// changes.
fn nothing_is_released(ns: &Namespace, operator: &mut Operator) -> Result<()> {
    let held = ns.find("secret", "checkout")?;
    apply(ns, "held", "new")?;
    apply(ns, "checkout", "changed")?;
    for name in ["held", "checkout"] {
        let env = ns.wait_condition("sealedenv", name, "Reconciling", "True", "AuditUnavailable")?;
        ensure!(
            !env.to_string().contains("audit.jsonl"),
            "paths of the operator's pod are nobody's business"
        );
    }
    ensure!(ns.find("secret", "held")?.is_none(), "a Secret without a record");
    ensure!(ns.find("secret", "checkout")? == held, "a Secret changed without a record");
    operator.runs()
}

/// With the trail well again, and nobody doing anything about it.
fn all_is_released(ns: &Namespace) -> Result<()> {
    delivered(ns, "held", "new")?;
    delivered(ns, "checkout", "changed")
}

fn verifies(trail: &Path) -> Result<String> {
    Ok(String::from_utf8(sealedenv(&["audit", "verify", &trail.display().to_string()], b"")?)?)
}

fn start(folder: &Path, trail: &Path) -> Result<Operator> {
    Operator::start(folder, &["--audit-file", &trail.display().to_string()], Stdio::null())
}

#[test]
fn a_full_audit_disk_releases_nothing_and_work_resumes_when_there_is_space() -> Result<()> {
    let (folder, ns) = (tempfile::tempdir()?, Namespace::new("audit_full")?);
    let disk = SmallDisk::mount(folder.path().join("disk"))?;
    let trail = disk.path("audit.jsonl");
    let mut operator = start(folder.path(), &trail)?;
    apply(&ns, "checkout", "first")?;
    delivered(&ns, "checkout", "first")?;

    disk.fill()?;
    use_up_the_last_page(&ns)?;
    nothing_is_released(&ns, &mut operator)?;
    disk.empty()?;
    all_is_released(&ns)?;
    operator.stop()?;
    verifies(&trail)?;
    let text = fs::read_to_string(&trail)?;
    ensure!(text.contains(r#""action":"resumed""#), "the trail tells that it missed something: {text}");
    Ok(())
}

/// The page that the trail ends in has room for a few more records. Each of these is on record, or not released.
fn use_up_the_last_page(ns: &Namespace) -> Result<()> {
    for number in 0..40 {
        apply(ns, "last-page", &number.to_string())?;
        let env = wait("an answer", || {
            let env = ns.get("sealedenv", "last-page")?;
            let text = env["status"]["conditions"].to_string();
            let answered = env["status"]["observedGeneration"] == env["metadata"]["generation"];
            Ok(((answered && text.contains("Delivered")) || text.contains("AuditUnavailable"))
                .then_some(text))
        })?;
        if env.contains("AuditUnavailable") {
            return Ok(());
        }
    }
    anyhow::bail!("the trail still takes records")
}

#[test]
fn a_deleted_audit_file_is_noticed_and_the_new_one_says_so() -> Result<()> {
    let (folder, ns) = (tempfile::tempdir()?, Namespace::new("audit_deleted")?);
    let trail = folder.path().join("audit.jsonl");
    let mut operator = start(folder.path(), &trail)?;
    apply(&ns, "checkout", "first")?;
    delivered(&ns, "checkout", "first")?;

    fs::remove_file(&trail)?;
    apply(&ns, "held", "new")?;
    apply(&ns, "checkout", "changed")?;
    all_is_released(&ns)?;
    operator.stop()?;
    let text = fs::read_to_string(&trail)?;
    ensure!(text.contains("Rewound"), "the trail tells that lines are missing: {text}");
    let released =
        text.lines().filter(|l| l.contains(r#""action":"reconcile""#) && l.contains(ns.name())).count();
    ensure!(released >= 2, "both releases are on the new file: {text}");
    Ok(())
}

#[test]
fn an_audit_path_that_cannot_be_written_releases_nothing_until_it_can() -> Result<()> {
    let (folder, ns) = (tempfile::tempdir()?, Namespace::new("audit_unwritable")?);
    let disk = SmallDisk::mount(folder.path().join("disk"))?;
    let trail = disk.path("audit.jsonl");
    let mut mkfifo = Command::new("mkfifo");
    mkfifo.arg(&trail);
    ensure!(run(mkfifo, b"")?.status.success(), "mkfifo");
    let mut operator = start(folder.path(), &trail)?;
    // A pipe without a reader: opening it must neither wait for ever nor count as a trail.
    nothing_is_released(&ns, &mut operator)?;
    fs::remove_file(&trail)?;
    disk.read_only(true)?;
    ns.kubectl(&["annotate", "sealedenv", "held", "sealedenv.dev/requestedAt=read-only"])?;
    nothing_is_released(&ns, &mut operator)?;
    disk.read_only(false)?;
    all_is_released(&ns)?;
    operator.stop()?;
    verifies(&trail).map(drop)
}

#[test]
fn an_audit_reader_that_stops_reading_releases_nothing_until_it_reads() -> Result<()> {
    let (folder, ns) = (tempfile::tempdir()?, Namespace::new("audit_blocked")?);
    let (mut reader, writer) = std::io::pipe()?;
    let mut full = writer.try_clone()?;
    let mut operator = Operator::start(folder.path(), &["--audit-stdout"], Stdio::from(writer))?;
    apply(&ns, "checkout", "first")?;
    delivered(&ns, "checkout", "first")?;

    // Somebody else's bytes fill the pipe; whoever should read it hangs.
    let stuffing = std::thread::spawn(move || full.write_all(&vec![STUFFING; 1 << 17]));
    wait("the pipe to be full", || Ok((rustix::io::ioctl_fionread(&reader)? >= 60_000).then_some(())))?;
    nothing_is_released(&ns, &mut operator)?;
    let drain = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).map(|_| text)
    });
    all_is_released(&ns)?;
    operator.stop()?;
    drop(operator);
    stuffing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let text = drain.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
    let trail = folder.path().join("stdout.jsonl");
    fs::write(&trail, text.into_iter().filter(|byte| *byte != STUFFING).collect::<Vec<_>>())?;
    verifies(&trail).map(drop)
}

/// No record has it.
const STUFFING: u8 = 0;
