//! What is answered.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::wire::{self, answer::Outcome as WireOutcome};
use crate::{Authorities, Content, FilePath, MAX_CONTENT, MAX_FILES, MAX_MESSAGE, Wanted, wanted};

/// All that is answered to one call.
pub struct Fetched {
    /// One for each SealedEnv that is wanted, in the same order.
    pub answers: Vec<Answer>,
    /// The authorities that the operator's certificate may come from. None: they are not known, or the operator is of a
    /// release that does not say.
    pub authorities: Option<Authorities>,
}

/// The answer about one SealedEnv.
pub struct Answer {
    /// Its name.
    pub name: String,
    /// What is said of it.
    pub outcome: Outcome,
}

/// What is said of one SealedEnv.
pub enum Outcome {
    /// Its files.
    Files(Files),
    /// The caller holds what it would get.
    Unchanged {
        /// When to ask again.
        refresh_after: Duration,
    },
    /// It is not delivered, or not now. A caller that holds files of it keeps them.
    Refused(Refused),
}

/// Everything that one SealedEnv holds now. Other files that a caller has of it go, except those in `keep`.
pub struct Files {
    /// Names this content, for [`Wanted::held`]. Nothing else can be learned from it.
    pub digest: String,
    /// The files, no path twice.
    pub files: Vec<File>,
    /// Paths whose value cannot be had at the moment. The caller keeps its last good file where it has one.
    pub keep: Vec<FilePath>,
    /// When to ask again.
    pub refresh_after: Duration,
}

/// One file.
pub struct File {
    /// Where it goes, below the folder of the SealedEnv.
    pub path: FilePath,
    /// What stands in it.
    pub content: Content,
    /// Permission bits, at most 0o777. None leaves them to the caller.
    pub mode: Option<u32>,
}

/// Why a SealedEnv is not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason, for programs.
    pub reason: Reason,
    /// One sentence for people. Holds no value.
    pub message: String,
}

/// Why a SealedEnv is not delivered, for programs. New ones may come; treat one that is not known as
/// [`Reason::Unavailable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The pod's spec does not name it for this kind of caller.
    NotNamed,
    /// There is none.
    NotFound,
    /// Its delivery is not Memory.
    NotMemory,
    /// Its `allow` does not have the pod's ServiceAccount.
    NotAllowed,
    /// It is suspended or being deleted.
    Suspended,
    /// Values do not open, and its policy wants none of the others then.
    NotOpened,
    /// It holds more than is delivered.
    TooLarge,
    /// No audit sink took the record.
    NotRecorded,
    /// Something broke. Trying again is right.
    Unavailable,
}

/// An answer that does not keep to the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer does not keep to the contract: {0}")]
pub struct Malformed(pub &'static str);

impl Outcome {
    /// About how many bytes it holds: contents and paths.
    pub fn size(&self) -> usize {
        let Self::Files(files) = self else { return 0 };
        let contents = files.files.iter().map(|file| file.content.len() + file.path.as_str().len());
        contents.chain(files.keep.iter().map(|path| path.as_str().len())).sum()
    }
}

impl Reason {
    /// The word for logs, metrics and audit records, e.g. `NotNamed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotNamed => "NotNamed",
            Self::NotFound => "NotFound",
            Self::NotMemory => "NotMemory",
            Self::NotAllowed => "NotAllowed",
            Self::Suspended => "Suspended",
            Self::NotOpened => "NotOpened",
            Self::TooLarge => "TooLarge",
            Self::NotRecorded => "NotRecorded",
            Self::Unavailable => "Unavailable",
        }
    }

    fn to_wire(self) -> wire::Reason {
        match self {
            Self::NotNamed => wire::Reason::NotNamed,
            Self::NotFound => wire::Reason::NotFound,
            Self::NotMemory => wire::Reason::NotMemory,
            Self::NotAllowed => wire::Reason::NotAllowed,
            Self::Suspended => wire::Reason::Suspended,
            Self::NotOpened => wire::Reason::NotOpened,
            Self::TooLarge => wire::Reason::TooLarge,
            Self::NotRecorded => wire::Reason::NotRecorded,
            Self::Unavailable => wire::Reason::Unavailable,
        }
    }

    fn from_wire(number: i32) -> Self {
        match wire::Reason::try_from(number).unwrap_or_default() {
            wire::Reason::NotNamed => Self::NotNamed,
            wire::Reason::NotFound => Self::NotFound,
            wire::Reason::NotMemory => Self::NotMemory,
            wire::Reason::NotAllowed => Self::NotAllowed,
            wire::Reason::Suspended => Self::Suspended,
            wire::Reason::NotOpened => Self::NotOpened,
            wire::Reason::TooLarge => Self::TooLarge,
            wire::Reason::NotRecorded => Self::NotRecorded,
            wire::Reason::Unspecified | wire::Reason::Unavailable => Self::Unavailable,
        }
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn after(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

pub(crate) fn to_wire(fetched: Fetched) -> wire::FetchResponse {
    let answers = (fetched.answers.into_iter())
        .map(|answer| {
            let outcome = match answer.outcome {
                Outcome::Files(files) => WireOutcome::Files(wire::Files {
                    digest: files.digest,
                    files: (files.files.into_iter())
                        .map(|file| wire::File {
                            path: file.path.to_string(),
                            content: file.content.into_message(),
                            mode: file.mode.unwrap_or(0),
                        })
                        .collect(),
                    keep: files.keep.iter().map(ToString::to_string).collect(),
                    refresh_after_seconds: seconds(files.refresh_after),
                }),
                Outcome::Unchanged { refresh_after } => {
                    WireOutcome::Unchanged(wire::Unchanged { refresh_after_seconds: seconds(refresh_after) })
                }
                Outcome::Refused(refused) => WireOutcome::Refused(wire::Refused {
                    reason: refused.reason.to_wire().into(),
                    message: shortened(&refused.message),
                }),
            };
            wire::Answer { name: answer.name, outcome: Some(outcome) }
        })
        .collect();
    let authorities = fetched.authorities.map(|authorities| authorities.to_string()).unwrap_or_default();
    wire::FetchResponse { answers, authorities }
}

/// Checks what came, on the caller's side: an operator that was taken over must not write outside a volume either.
pub(crate) fn from_wire(wanted: &[Wanted], response: wire::FetchResponse) -> Result<Fetched, Malformed> {
    if response.answers.len() != wanted.len() {
        return Err(Malformed("not one answer for each SealedEnv"));
    }
    let authorities = match response.authorities.as_str() {
        "" => None,
        pem => Some(Authorities::parse(pem).map_err(|_| Malformed("authorities that are none"))?),
    };
    let answers = (wanted.iter().zip(response.answers))
        .map(|(wanted, answer)| {
            if wanted.name != answer.name {
                return Err(Malformed("an answer is about another SealedEnv"));
            }
            let outcome = match answer.outcome {
                None => return Err(Malformed("an answer without an outcome")),
                Some(WireOutcome::Files(files)) => Outcome::Files(files_from(files)?),
                // Only who holds something can be told that it is the same.
                Some(WireOutcome::Unchanged(_)) if wanted.held.is_none() => {
                    return Err(Malformed("unchanged, of nothing"));
                }
                Some(WireOutcome::Unchanged(unchanged)) => {
                    Outcome::Unchanged { refresh_after: after(unchanged.refresh_after_seconds) }
                }
                Some(WireOutcome::Refused(refused)) => Outcome::Refused(Refused {
                    reason: Reason::from_wire(refused.reason),
                    message: shortened(&refused.message),
                }),
            };
            Ok(Answer { name: answer.name, outcome })
        })
        .collect::<Result<_, Malformed>>()?;
    Ok(Fetched { answers, authorities })
}

fn files_from(files: wire::Files) -> Result<Files, Malformed> {
    if !wanted::is_digest(&files.digest) {
        return Err(Malformed("a digest that is none"));
    }
    if files.files.len() + files.keep.len() > MAX_FILES {
        return Err(Malformed("too many files"));
    }
    let (mut size, mut taken) = (0, Vec::with_capacity(files.files.len()));
    for mut file in files.files {
        size += file.content.len();
        if size > MAX_CONTENT {
            return Err(Malformed("too much content"));
        }
        if file.mode > 0o777 {
            return Err(Malformed("a mode beyond permission bits"));
        }
        taken.push(File {
            path: path_from(&file.path)?,
            content: Content::new(std::mem::take(&mut file.content)),
            mode: Some(file.mode).filter(|mode| *mode != 0),
        });
    }
    let keep = files.keep.iter().map(|path| path_from(path)).collect::<Result<Vec<_>, _>>()?;
    let mut paths = BTreeSet::new();
    if !taken.iter().map(|file| &file.path).chain(&keep).all(|path| paths.insert(path)) {
        return Err(Malformed("a path twice"));
    }
    // A folder's files may sort away from it (`a`, `a.b`, `a/b`), so neighbours do not tell.
    if paths.iter().any(|path| above(path).any(|folder| paths.contains(&folder))) {
        return Err(Malformed("a file that is a folder as well"));
    }
    Ok(Files { digest: files.digest, files: taken, keep, refresh_after: after(files.refresh_after_seconds) })
}

/// The folders on the way to a file.
fn above(path: &FilePath) -> impl Iterator<Item = FilePath> {
    let text = path.as_str();
    text.match_indices('/').filter_map(|(end, _)| FilePath::parse(&text[..end]).ok())
}

fn path_from(text: &str) -> Result<FilePath, Malformed> {
    FilePath::parse(text).map_err(|_| Malformed("a path that leads elsewhere"))
}

/// Cut on a character boundary, without control characters: it goes to Events and logs.
fn shortened(message: &str) -> String {
    let mut text: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() > MAX_MESSAGE {
        let end = text.floor_char_boundary(MAX_MESSAGE - '…'.len_utf8());
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests;
