//! What happens to each key of a `.env` file.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sealedenv_seal::{Fingerprint, MAX_VALUE, Plain, Recipient, Scope, ScopeKind, SealError, Sealed, seal};
use thiserror::Error;

use super::{Block, Change};
use crate::failure::{Exit, Fault};
use crate::scope::{self, ScopeArgsError};

/// What the user asked for.
pub(crate) struct Request {
    /// Namespace of the `SealedEnv`.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// How its values are bound.
    pub(crate) scope: ScopeKind,
    /// Who they are sealed to.
    pub(crate) to: Vec<Recipient>,
    /// The keys that are not secret.
    pub(crate) public: BTreeSet<String>,
    /// The keys to seal anew although they are sealed already.
    pub(crate) update: Update,
}

/// Which sealed values are replaced although nothing says that they must be.
pub(crate) enum Update {
    /// These.
    Keys(BTreeSet<String>),
    /// All that the `.env` file has.
    All,
}

/// What stands in the `SealedEnv` now. All empty for a new one.
#[derive(Default)]
pub(crate) struct Existing {
    /// `spec.data`; `None` for what is not text.
    pub(crate) data: BTreeMap<String, Option<String>>,
    /// `spec.public`; `None` for what is not text.
    pub(crate) public: BTreeMap<String, Option<String>>,
    /// The keys that `spec.meta` gives the class `secret`.
    pub(crate) secret_class: BTreeSet<String>,
}

/// What happens to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A new sealed value.
    AddSealed,
    /// The sealed value is replaced.
    Reseal(Why),
    /// The sealed value stays. Whether the `.env` file says the same cannot be known without a private key.
    KeepSealed,
    /// A new public value.
    AddPublic,
    /// The public value differs and is replaced.
    ChangePublic,
    /// The public value is the same.
    KeepPublic,
}

/// Why a sealed value is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The user asked for it.
    Asked,
    /// What stood there is not a sealed value that can be read.
    NotSealed,
    /// It was sealed for another scope.
    OtherScope {
        /// The scope, if it had one.
        was: Option<Scope>,
    },
    /// It was sealed to others.
    OtherRecipients,
}

/// A decision for every key of the `.env` file, in its order.
pub(crate) struct Plan {
    steps: Vec<(String, Plain, Step)>,
}

/// Why there is no plan. Names keys, never values.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PlanError {
    /// Nothing to do.
    #[error("the .env file sets no key")]
    Empty,
    /// A flag names keys that are not there.
    #[error("{flag} names keys that the .env file does not set: {}", .keys.join(", "))]
    NotInFile {
        /// The flag.
        flag: &'static str,
        /// The keys.
        keys: Vec<String>,
    },
    /// Keys would silently be written in plain text.
    #[error("these keys stand in spec.public and are not named with --public: {}", .keys.join(", "))]
    StandsInPublic {
        /// The keys.
        keys: Vec<String>,
    },
    /// Keys that were secret would be written in plain text.
    #[error("--public names keys that stand sealed in spec.data: {}", .keys.join(", "))]
    StandsInData {
        /// The keys.
        keys: Vec<String>,
    },
    /// The `SealedEnv` says that they are secret.
    #[error("--public names keys that spec.meta gives the class secret: {}", .keys.join(", "))]
    ClassSecret {
        /// The keys.
        keys: Vec<String>,
    },
    /// Values are sealed values already.
    #[error("these values are sealed already: {}", .keys.join(", "))]
    AlreadySealed {
        /// The keys.
        keys: Vec<String>,
    },
    /// The Secret would be too large.
    #[error("the values have {bytes} bytes together, more than the {MAX_VALUE} that a Secret holds")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// Namespace, name or a key cannot be in a scope.
    #[error(transparent)]
    Scope(#[from] ScopeArgsError),
}

impl Fault for PlanError {
    fn hint(&self) -> Option<String> {
        let flags =
            |keys: &[String]| keys.iter().map(|key| format!("--public {key}")).collect::<Vec<_>>().join(" ");
        match self {
            Self::Empty => Some("write lines like KEY=value".to_owned()),
            Self::StandsInPublic { keys } => Some(format!(
                "to keep them public: {}; to seal them, take their lines out of spec.public",
                flags(keys)
            )),
            Self::StandsInData { .. } => {
                Some("if they are not secret any more, take their lines out of spec.data first".to_owned())
            }
            Self::ClassSecret { .. } => Some("seal them, or change their class".to_owned()),
            Self::AlreadySealed { .. } => Some(
                "this command seals plain .env files; sealed values go into spec.data as they are".to_owned(),
            ),
            Self::Scope(error) => error.hint(),
            Self::NotInFile { .. } | Self::TooLarge { .. } => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NotInFile { .. } | Self::StandsInPublic { .. } | Self::StandsInData { .. } => Exit::Usage,
            Self::Scope(error) => error.exit(),
            _ => Exit::Failure,
        }
    }
}

/// A value could not be sealed.
#[derive(Debug, Error)]
#[error("cannot seal {key}")]
pub(crate) struct PlanSealError {
    key: String,
    source: SealError,
}

impl Fault for PlanSealError {}

/// Decides.
pub(crate) fn plan(
    request: &Request,
    existing: &Existing,
    variables: Vec<(String, Plain)>,
) -> Result<Plan, PlanError> {
    check(request, existing, &variables)?;
    let to: HashSet<Fingerprint> = request.to.iter().map(Recipient::fingerprint).collect();
    let mut steps = Vec::with_capacity(variables.len());
    for (key, value) in variables {
        let step = if request.public.contains(&key) {
            match existing.public.get(&key) {
                None => Step::AddPublic,
                Some(Some(text)) if text.as_bytes() == value.expose() => Step::KeepPublic,
                Some(_) => Step::ChangePublic,
            }
        } else {
            let scope = request.scope_of(&key)?;
            match existing.data.get(&key) {
                None => Step::AddSealed,
                Some(text) => match must_reseal(text.as_deref(), &scope, &to) {
                    Some(why) => Step::Reseal(why),
                    None if request.update.contains(&key) => Step::Reseal(Why::Asked),
                    None => Step::KeepSealed,
                },
            }
        };
        steps.push((key, value, step));
    }
    Ok(Plan { steps })
}

/// Refuses what is asked for and cannot be meant.
fn check(request: &Request, existing: &Existing, variables: &[(String, Plain)]) -> Result<(), PlanError> {
    if variables.is_empty() {
        return Err(PlanError::Empty);
    }
    let set: BTreeSet<&str> = variables.iter().map(|(key, _)| key.as_str()).collect();
    let of = |keys: &mut dyn Iterator<Item = &str>| keys.map(str::to_owned).collect::<Vec<_>>();
    let refuse = |keys: Vec<String>, error: fn(Vec<String>) -> PlanError| {
        if keys.is_empty() { Ok(()) } else { Err(error(keys)) }
    };
    let public = || request.public.iter().map(String::as_str);

    refuse(of(&mut public().filter(|key| !set.contains(key))), |keys| PlanError::NotInFile {
        flag: "--public",
        keys,
    })?;
    if let Update::Keys(update) = &request.update {
        let missing = of(&mut update.iter().map(String::as_str).filter(|key| !set.contains(key)));
        refuse(missing, |keys| PlanError::NotInFile { flag: "--update", keys })?;
    }
    let unnamed = |key: &&str| existing.public.contains_key(*key) && !request.public.contains(*key);
    refuse(of(&mut set.iter().copied().filter(unnamed)), |keys| PlanError::StandsInPublic { keys })?;
    refuse(of(&mut public().filter(|key| existing.data.contains_key(*key))), |keys| {
        PlanError::StandsInData { keys }
    })?;
    refuse(of(&mut public().filter(|key| existing.secret_class.contains(*key))), |keys| {
        PlanError::ClassSecret { keys }
    })?;
    let is_sealed = |value: &Plain| value.expose().starts_with(sealedenv_seal::PREFIX.as_bytes());
    let sealed = &mut variables.iter().filter(|(_, value)| is_sealed(value)).map(|(key, _)| key.as_str());
    refuse(of(sealed), |keys| PlanError::AlreadySealed { keys })?;
    let bytes = variables.iter().map(|(_, value)| value.len()).sum();
    if bytes > MAX_VALUE { Err(PlanError::TooLarge { bytes }) } else { Ok(()) }
}

/// Why a value that stands there cannot stay, if it cannot.
fn must_reseal(text: Option<&str>, scope: &Scope, to: &HashSet<Fingerprint>) -> Option<Why> {
    let Some(Ok(sealed)) = text.map(Sealed::parse) else { return Some(Why::NotSealed) };
    if sealed.scope() != Some(scope) {
        return Some(Why::OtherScope { was: sealed.scope().cloned() });
    }
    let named: HashSet<Fingerprint> = sealed.recipients().iter().copied().collect();
    (named != *to || sealed.recipient_stanzas() != to.len()).then_some(Why::OtherRecipients)
}

impl Request {
    fn scope_of(&self, key: &str) -> Result<Scope, ScopeArgsError> {
        scope::of_place(self.scope, &self.namespace, &self.name, key)
    }
}

impl Update {
    fn contains(&self, key: &str) -> bool {
        match self {
            Self::Keys(keys) => keys.contains(key),
            Self::All => true,
        }
    }
}

impl Plan {
    /// The decisions, without the values.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&str, &Step)> {
        self.steps.iter().map(|(key, _, step)| (key.as_str(), step))
    }

    /// Seals what is to be sealed, and gives every text that changes.
    pub(crate) fn seal(self, request: &Request) -> Result<Vec<Change>, crate::failure::Failure> {
        let mut changes = Vec::new();
        for (key, value, step) in self.steps {
            let (block, replaces) = match step {
                Step::KeepSealed | Step::KeepPublic => continue,
                Step::AddSealed => (Block::Data, false),
                Step::Reseal(_) => (Block::Data, true),
                Step::AddPublic => (Block::Public, false),
                Step::ChangePublic => (Block::Public, true),
            };
            let text = match block {
                Block::Data => {
                    let scope = request.scope_of(&key)?;
                    let sealed = seal(&scope, &request.to, &value)
                        .map_err(|source| PlanSealError { key: key.clone(), source })?;
                    sealed.to_string()
                }
                // A .env file is UTF-8 throughout.
                Block::Public => String::from_utf8_lossy(value.expose()).into_owned(),
            };
            changes.push(Change { block, key, replaces, text });
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests;
