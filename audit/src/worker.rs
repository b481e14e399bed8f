//! One sink on a thread of its own, so that a sink that hangs holds up nobody for long.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
};

use jiff::Timestamp;

use crate::{
    chain::{Head, append},
    record::{Action, Actor, ActorKind, Gap, Outcome, Record, Rewound},
    sink::{Notice, Sink, SinkError},
};

/// Records to be taken as one durable write.
pub(crate) struct Job {
    /// The records with their times.
    pub(crate) records: Arc<Vec<(Timestamp, Record)>>,
    /// What this sink missed before them.
    pub(crate) gap: Option<Gap>,
}

/// A sink's answer to a job: which sink, and how it went.
pub(crate) type Answer = (usize, Result<(), SinkError>);

/// Starts a thread that hands jobs to a sink and answers each. It ends when the job channel is closed, drops the
/// sink, and only then its answer channel.
pub(crate) fn start(
    index: usize,
    sink: Box<dyn Sink>,
    writer: Arc<str>,
    answers: mpsc::Sender<Answer>,
) -> std::io::Result<mpsc::Sender<Job>> {
    let (jobs, inbox) = mpsc::channel();
    let name = sink.name().to_owned();
    let mut worker = Worker { sink, writer, head: None, notices: Vec::new() };
    thread::Builder::new().name("audit-sink".to_owned()).spawn(move || {
        for job in inbox {
            let result = catch_unwind(AssertUnwindSafe(|| worker.take(&job))).unwrap_or_else(|_| {
                worker.head = None;
                Err(SinkError::Panicked { sink: name.clone() })
            });
            if answers.send((index, result)).is_err() {
                break;
            }
        }
        drop(worker);
        drop(answers);
    })?;
    Ok(jobs)
}

struct Worker {
    sink: Box<dyn Sink>,
    writer: Arc<str>,
    /// Where the sink's chain stands; none before the first line and after a failure.
    head: Option<Head>,
    /// What the sink found out and its trail does not say yet.
    notices: Vec<Notice>,
}

impl Worker {
    fn take(&mut self, job: &Job) -> Result<(), SinkError> {
        let Some((first, _)) = job.records.first() else { return Ok(()) };
        let mut head = if let Some(head) = self.head.take() {
            head
        } else {
            let resumed = self.sink.resume()?;
            self.notices.extend(resumed.notices);
            Head::at(resumed.position, &*self.writer)
        };
        let name = self.sink.name();
        let own = self.notices.iter().map(|notice| notice_record(name, notice));
        let own = own.chain(job.gap.map(|gap| gap_record(name, gap)));
        let own = own.map(|record| (*first, record)).collect::<Vec<_>>();
        let mut lines = Vec::with_capacity(own.len() + job.records.len());
        for (time, record) in own.iter().chain(job.records.iter()) {
            let (line, next) = append(&head, *time, record);
            lines.push(line);
            head = next;
        }
        self.sink.append(&lines)?;
        self.notices.clear();
        self.head = Some(head);
        Ok(())
    }
}

/// What the trail says about its own sink.
fn own_record(sink: &str, action: Action, reason: &str) -> Record {
    Record::new(action, Actor::new(ActorKind::Audit, sink), Outcome::Ok).reason(reason)
}

fn gap_record(sink: &str, gap: Gap) -> Record {
    Record { gap: Some(gap), ..own_record(sink, Action::Resumed, "Missed") }
}

fn notice_record(sink: &str, notice: &Notice) -> Record {
    match notice {
        Notice::TornTail { bytes, file, hash } => own_record(sink, Action::Recovered, "TornTail")
            .detail(format!("{bytes} bytes set aside in {file}, sha256 {}", hex::encode(hash))),
        Notice::Replaced => own_record(sink, Action::Resumed, "Replaced")
            .detail("another file stands at the path; no line is missing"),
        Notice::Rewound { was } => Record {
            rewound: Some(Rewound { seq: was.seq, hash: was.hash }),
            ..own_record(sink, Action::Resumed, "Rewound")
                .detail("the file was cut, deleted or replaced; lines that stood in it are missing")
        },
        Notice::Advanced { was } => own_record(sink, Action::Resumed, "Advanced").detail(format!(
            "lines after seq {} were left by a write that failed, or by somebody else",
            was.seq
        )),
    }
}
