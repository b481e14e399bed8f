//! Each call that changes the file is made to fail, at each byte.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{
    chain::{Head, append},
    record::{Action, Actor, Outcome, Record},
    verify::{Start, verify_files},
};

/// What the disk does next.
#[derive(Debug, Clone, Copy, Default)]
struct Plan {
    /// Bytes that still fit; then writing fails as on a full disk.
    room: Option<usize>,
    sync_fails: bool,
    truncate_fails: bool,
}

#[derive(Clone, Default)]
struct FaultyDisk(Arc<Mutex<Plan>>);

impl FaultyDisk {
    fn plan(&self, plan: Plan) {
        *self.0.lock().unwrap() = plan;
    }
}

impl Disk for FaultyDisk {
    fn write(&mut self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        let mut plan = self.0.lock().unwrap();
        let Some(room) = plan.room else { return Kernel.write(file, bytes) };
        if room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = Kernel.write(file, &bytes[..bytes.len().min(room)])?;
        plan.room = Some(room - written);
        Ok(written)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        if self.0.lock().unwrap().sync_fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        Kernel.sync(file)
    }

    fn truncate(&mut self, file: &File, len: u64) -> io::Result<()> {
        if self.0.lock().unwrap().truncate_fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        Kernel.truncate(file, len)
    }
}

struct Bench {
    dir: tempfile::TempDir,
    disk: FaultyDisk,
    sink: FileSink,
    /// Lines whose append succeeded.
    acknowledged: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::default();
        let path = dir.path().join("audit.jsonl");
        let sink = FileSink::with_disk(path, Rotation { max_bytes: 0 }, Box::new(disk.clone()));
        Self { dir, disk, sink, acknowledged: Vec::new() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.jsonl")
    }

    /// Does what the log does: asks where the chain stands, and appends there.
    fn append(&mut self, count: u64) -> Result<Vec<Notice>, SinkError> {
        let resumed = self.sink.resume()?;
        let mut head = Head::at(resumed.position, "op-0");
        let record = Record::new(Action::Reconcile, Actor::operator("o"), Outcome::Ok).keys(["KEY"]);
        let lines: Vec<String> = (0..count)
            .map(|_| {
                let (line, next) = append(&head, jiff::Timestamp::UNIX_EPOCH, &record);
                head = next;
                line
            })
            .collect();
        self.sink.append(&lines)?;
        self.acknowledged.extend(lines);
        Ok(resumed.notices)
    }

    /// Everything acknowledged is in the file, in order, and the chain is whole.
    fn check(&self) {
        let text = fs::read_to_string(self.path()).unwrap();
        let mut lines = text.lines();
        for line in &self.acknowledged {
            assert!(
                lines.any(|other| other == line),
                "an acknowledged line is missing or out of order: {line}"
            );
        }
        verify_files(self.path(), Start::Genesis).unwrap();
    }
}

fn is_full(error: &SinkError) -> bool {
    matches!(error, SinkError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull)
}

#[test]
fn a_full_disk_leaves_nothing_behind_at_any_byte() {
    let mut bench = Bench::new();
    bench.append(2).unwrap();
    let before = fs::read(bench.path()).unwrap();
    let two_lines = before.len();
    for room in 0..two_lines {
        bench.disk.plan(Plan { room: Some(room), ..Plan::default() });
        assert!(is_full(&bench.append(2).unwrap_err()), "room {room}");
        assert_eq!(fs::read(bench.path()).unwrap(), before, "room {room}");
    }
    bench.disk.plan(Plan::default());
    assert_eq!(bench.append(1).unwrap(), []);
    bench.check();
}

#[test]
fn what_cannot_be_cut_off_is_set_aside_at_any_byte() {
    for room in 0..200 {
        let mut bench = Bench::new();
        bench.append(1).unwrap();
        let good = fs::read(bench.path()).unwrap();
        bench.disk.plan(Plan { room: Some(room), truncate_fails: true, ..Plan::default() });
        assert!(is_full(&bench.append(1).unwrap_err()));
        assert_eq!(fs::metadata(bench.path()).unwrap().len(), (good.len() + room) as u64);
        // Still broken: setting aside needs to cut the file as well. The tries leave no copies behind.
        if room > 0 {
            for _ in 0..3 {
                assert!(matches!(bench.append(1).unwrap_err(), SinkError::SetAside { .. }));
            }
            assert_eq!(fs::read_dir(bench.dir.path()).unwrap().count(), 1);
        }
        bench.disk.plan(Plan::default());
        let notices = bench.append(1).unwrap();
        if room == 0 {
            assert_eq!(notices, []);
        } else {
            let [Notice::TornTail { bytes, file, .. }] = &notices[..] else { panic!("{notices:?}") };
            assert_eq!(*bytes, room as u64);
            let aside = fs::read(bench.dir.path().join(file)).unwrap();
            assert_eq!(aside.len(), room);
            assert!(aside.starts_with(b"{\"seq\":2"[..room.min(8)].as_ref()));
        }
        bench.check();
    }
}

#[test]
fn an_input_output_error_at_sync_takes_the_lines_back() {
    let mut bench = Bench::new();
    bench.append(1).unwrap();
    let before = fs::read(bench.path()).unwrap();
    bench.disk.plan(Plan { sync_fails: true, ..Plan::default() });
    for _ in 0..3 {
        let error = bench.append(2).unwrap_err();
        assert!(
            matches!(&error, SinkError::Write { source, .. } if source.raw_os_error() == Some(5)),
            "{error:?}"
        );
        assert_eq!(fs::read(bench.path()).unwrap(), before);
    }
    bench.disk.plan(Plan::default());
    bench.append(2).unwrap();
    bench.check();
}

/// The lines are whole in the file, but nobody was told so. They stay, and the trail says that they were found.
#[test]
fn whole_lines_left_by_a_failure_are_kept_and_declared() {
    let mut bench = Bench::new();
    bench.append(1).unwrap();
    bench.disk.plan(Plan { sync_fails: true, truncate_fails: true, ..Plan::default() });
    bench.append(2).unwrap_err();
    bench.disk.plan(Plan::default());
    let notices = bench.append(1).unwrap();
    assert!(matches!(&notices[..], [Notice::Advanced { was }] if was.seq == 1), "{notices:?}");
    bench.check();
    assert_eq!(verify_files(bench.path(), Start::Genesis).unwrap().lines, 4);
}

proptest::proptest! {
    /// Any sequence of faults: nothing acknowledged is lost, and the chain is whole whenever the disk works again.
    #[test]
    fn no_sequence_of_faults_loses_an_acknowledged_line(
        steps in proptest::collection::vec((1_u64..4, proptest::option::of(0_usize..700), 0_u8..4), 1..12),
    ) {
        let mut bench = Bench::new();
        for (count, room, faults) in steps {
            let plan = Plan { room, sync_fails: faults & 1 != 0, truncate_fails: faults & 2 != 0 };
            bench.disk.plan(plan);
            let _ = bench.append(count);
            bench.disk.plan(Plan::default());
        }
        bench.append(1).unwrap();
        bench.check();
    }
}
