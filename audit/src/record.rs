//! What happened: the part of an audit line that its author decides.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::KeyedDigest;

/// The longest `reason`, `detail`, name or other single text of a line, in bytes. Longer text is cut on a character
/// boundary and ends in `…`.
pub const MAX_TEXT: usize = 256;

/// One thing that happened, or that was refused.
///
/// Build it with [`Record::new`] and the methods named after the fields. It holds names and digests only. Texts
/// longer than [`MAX_TEXT`] and lists too long for a line are cut when the line is made, visibly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    pub action: Action,
    /// On which object, where there is one.
    pub object: Option<ObjectRef>,
    /// Names of the keys concerned, never their values.
    pub keys: Vec<String>,
    /// How many key names were left out because the line would have been too long.
    pub keys_omitted: u64,
    /// Digest of the content before, keyed.
    pub before: Option<KeyedDigest>,
    /// Digest of the content after, keyed.
    pub after: Option<KeyedDigest>,
    /// Fingerprints of the recipients concerned.
    pub recipients: Vec<String>,
    /// How many recipients were left out because the line would have been too long.
    pub recipients_omitted: u64,
    /// The git revision the object came from, where Argo CD or Flux noted it.
    pub git_revision: Option<String>,
    /// For [`Action::Resumed`]: records that this sink did not get.
    pub gap: Option<Gap>,
    /// For [`Action::Resumed`]: where the chain had been before this sink's file lost its end.
    pub rewound: Option<Rewound>,
    /// How it ended.
    pub outcome: Outcome,
    /// A stable `PascalCase` word that says why, e.g. `ScopeMismatch`.
    pub reason: Option<String>,
    /// One sentence for people. Never a value, never a provider's unfiltered text.
    pub detail: Option<String>,
}

/// Who acted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Actor {
    /// What kind of caller or component it is.
    pub kind: ActorKind,
    /// Its name: the component's, or the user name that the API server authenticated.
    pub name: String,
}

/// Kinds of [`Actor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum ActorKind {
    /// The operator, of its own accord.
    Operator,
    /// The webhook, of its own accord.
    Webhook,
    /// A person at the command line.
    Cli,
    /// A user that the API server authenticated.
    User,
    /// A Kubernetes `ServiceAccount`.
    ServiceAccount,
    /// The audit log itself, about one of its sinks.
    Audit,
}

/// The object acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectRef {
    /// Kubernetes kind, e.g. `SealedEnv`.
    pub kind: String,
    /// Namespace; none for cluster-scoped objects.
    #[serde(rename = "ns", default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name; empty (and left out of the line) for a pod that has only a `generateName` yet.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// UID, where the object has one yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// `metadata.generation` that was acted upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

/// What was done. The words are part of the format: they are added to, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum Action {
    /// A `SealedEnv` was reconciled and something was written or refused.
    Reconcile,
    /// A Secret that was edited or deleted by hand was put back.
    Repair,
    /// A Secret or other product was deleted, or its deletion refused.
    Delete,
    /// An admission request was answered.
    Admission,
    /// A sealing key was generated.
    KeyCreate,
    /// A new sealing key became the current one.
    KeyRotate,
    /// A sealing key was found and is accepted from now on.
    KeyAccept,
    /// A sealing key is no longer accepted.
    KeyRetire,
    /// Values were given to a pod that holds them in memory, or refused to it.
    Deliver,
    /// A value was opened by hand.
    Open,
    /// A process began to write.
    Start,
    /// A process ended in order. A writer without this line was killed, or ended while this sink was down.
    Stop,
    /// This sink takes lines again after it had failed, or its file had been changed. Written by [`crate::Log`].
    Resumed,
    /// This sink set a torn last line aside. Written by [`crate::Log`].
    Recovered,
    /// Reserved for signed checkpoints. Nothing writes it yet.
    Checkpoint,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Done.
    Ok,
    /// Not done, because a rule forbids it.
    Refused,
    /// Not done, because something broke.
    Failed,
}

/// Records that a sink did not get while it was failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gap {
    /// Time of the first record missed.
    #[serde(with = "crate::line::millis")]
    pub since: Timestamp,
    /// How many of them another sink took.
    pub elsewhere: u64,
    /// How many no sink took: refused to their author under [`crate::FailurePolicy::Closed`], lost under `Open`.
    /// A refused record that was tried again counts once a try.
    pub nowhere: u64,
}

/// The last line that a process wrote and that is no longer where it wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rewound {
    /// Its `seq`.
    pub seq: u64,
    /// Its SHA-256, by which a copy of the lost lines can be recognised.
    #[serde(with = "crate::line::hash_hex")]
    pub hash: [u8; 32],
}

// === impl Record ===

impl Record {
    /// A record with the three things each has; the rest is empty.
    #[must_use]
    pub fn new(action: Action, actor: Actor, outcome: Outcome) -> Self {
        Self {
            actor,
            action,
            object: None,
            keys: Vec::new(),
            keys_omitted: 0,
            before: None,
            after: None,
            recipients: Vec::new(),
            recipients_omitted: 0,
            git_revision: None,
            gap: None,
            rewound: None,
            outcome,
            reason: None,
            detail: None,
        }
    }

    /// Sets [`Record::object`].
    #[must_use]
    pub fn object(mut self, object: ObjectRef) -> Self {
        self.object = Some(object);
        self
    }

    /// Sets [`Record::keys`].
    #[must_use]
    pub fn keys<K: Into<String>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.keys = keys.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`Record::before`] and [`Record::after`].
    #[must_use]
    pub fn digests(mut self, before: Option<KeyedDigest>, after: Option<KeyedDigest>) -> Self {
        self.before = before;
        self.after = after;
        self
    }

    /// Sets [`Record::recipients`].
    #[must_use]
    pub fn recipients<R: Into<String>>(mut self, recipients: impl IntoIterator<Item = R>) -> Self {
        self.recipients = recipients.into_iter().map(Into::into).collect();
        self
    }

    /// Sets [`Record::git_revision`].
    #[must_use]
    pub fn git_revision(mut self, revision: Option<String>) -> Self {
        self.git_revision = revision;
        self
    }

    /// Sets [`Record::reason`].
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Sets [`Record::detail`].
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

// === impl Actor ===

impl Actor {
    /// An actor of any kind.
    #[must_use]
    pub fn new(kind: ActorKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The operator, under the name of its process.
    #[must_use]
    pub fn operator(name: impl Into<String>) -> Self {
        Self::new(ActorKind::Operator, name)
    }

    /// The webhook, under the name of its process.
    #[must_use]
    pub fn webhook(name: impl Into<String>) -> Self {
        Self::new(ActorKind::Webhook, name)
    }

    /// Who made an API request: a `ServiceAccount` where the name has that form, else a user.
    #[must_use]
    pub fn authenticated(user_name: impl Into<String>) -> Self {
        let name = user_name.into();
        let kind = if name.starts_with("system:serviceaccount:") {
            ActorKind::ServiceAccount
        } else {
            ActorKind::User
        };
        Self { kind, name }
    }
}

// === impl ObjectRef ===

impl ObjectRef {
    /// An object by kind and name.
    #[must_use]
    pub fn new(kind: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), namespace: None, name: name.into(), uid: None, generation: None }
    }

    /// Sets the namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Sets the UID.
    #[must_use]
    pub fn uid(mut self, uid: Option<String>) -> Self {
        self.uid = uid;
        self
    }

    /// Sets the generation.
    #[must_use]
    pub fn generation(mut self, generation: Option<i64>) -> Self {
        self.generation = generation;
        self
    }
}

// === impl Action ===

impl Action {
    /// The word in the line, e.g. `keyRotate`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reconcile => "reconcile",
            Self::Repair => "repair",
            Self::Delete => "delete",
            Self::Admission => "admission",
            Self::KeyCreate => "keyCreate",
            Self::KeyRotate => "keyRotate",
            Self::KeyAccept => "keyAccept",
            Self::KeyRetire => "keyRetire",
            Self::Deliver => "deliver",
            Self::Open => "open",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Resumed => "resumed",
            Self::Recovered => "recovered",
            Self::Checkpoint => "checkpoint",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// The word in the line, e.g. `refused`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

// === impl ActorKind ===

impl ActorKind {
    /// The word in the line, e.g. `serviceAccount`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Webhook => "webhook",
            Self::Cli => "cli",
            Self::User => "user",
            Self::ServiceAccount => "serviceAccount",
            Self::Audit => "audit",
        }
    }
}
