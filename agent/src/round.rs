//! One look at the operator: what has changed is fetched and swapped in.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sealedenv_delivery::client::{Client, FetchError, Settings, SettingsError};
use sealedenv_delivery::{
    Answer, Fetched, MAX_TOKEN, MAX_WANTED, Outcome, Refused, Token, TokenError, Wanted,
};
use sealedenv_runtime::report::chain;
use sealedenv_volume::WriteError;
use zeroize::Zeroizing;

use crate::folder::Folder;
use crate::trust::Trust;

/// Longest time for a connection, and for a call with it.
const CONNECT: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(15);

/// Where the operator is, and what is shown to it.
#[derive(Clone, Debug)]
pub struct Operator {
    /// `https://HOST:PORT`.
    pub endpoint: String,
    /// The name in the operator's certificate, where it is not HOST.
    pub server_name: Option<String>,
    /// Holds `NAME/token` for each SealedEnv. The kubelet renews them.
    pub tokens: PathBuf,
}

/// How a look went.
#[derive(Debug, Default)]
pub struct Look {
    /// SealedEnvs that have other files now.
    pub changed: Vec<String>,
    /// A sentence for each thing that went wrong. Holds no value and no part of a token.
    pub problems: Vec<String>,
    /// When the operator wants to be asked again.
    pub hint: Option<Duration>,
}

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("reading the pod's token")]
    Token(#[source] io::Error),
    #[error("reading the pod's token")]
    NoToken(#[source] TokenError),
    #[error("setting up the connection to the operator")]
    Settings(#[source] SettingsError),
    #[error("asking the operator")]
    Fetch(#[source] FetchError),
}

/// Asks for all of them, and writes what came. One that fails does not keep the others from their files.
pub async fn look(
    operator: &Operator,
    trust: &mut Trust,
    folders: &[Folder],
    now: fn() -> Timestamp,
) -> Look {
    let mut look = Look::default();
    for folders in folders.chunks(MAX_WANTED) {
        match ask(operator, trust, folders).await {
            Ok(fetched) => {
                if let Some(authorities) = fetched.authorities {
                    trust.learn(authorities);
                }
                // The contract's client gives one answer for each, in the same order.
                for (folder, answer) in folders.iter().zip(fetched.answers) {
                    look.take(folder, answer, now());
                }
            }
            Err(error) => look.problems.push(chain(&error)),
        }
    }
    look
}

impl Look {
    fn take(&mut self, folder: &Folder, answer: Answer, now: Timestamp) {
        let name = folder.name();
        match answer.outcome {
            Outcome::Files(files) => match folder.swap(&files, now) {
                Ok(()) => {
                    self.changed.push(name.to_owned());
                    self.next(files.refresh_after);
                }
                Err(error) => self.not_written(name, &error),
            },
            Outcome::Unchanged { refresh_after } => {
                self.next(refresh_after);
                if let Err(error) = folder.tidy() {
                    self.not_written(name, &error.into());
                }
            }
            Outcome::Refused(Refused { reason, message }) => {
                self.problems.push(format!("SealedEnv {name}: {message} ({})", reason.as_str()));
            }
        }
    }

    fn not_written(&mut self, name: &str, error: &WriteError) {
        self.problems.push(format!("SealedEnv {name}: {}", chain(error)));
    }

    fn next(&mut self, hint: Duration) {
        self.hint = Some(self.hint.map_or(hint, |earlier| earlier.min(hint)));
    }
}

/// A connection for each call: a pod asks once a minute, and the operator has room for other pods meanwhile.
async fn ask(operator: &Operator, trust: &Trust, folders: &[Folder]) -> Result<Fetched, LookError> {
    let wanted: Vec<Wanted> = (folders.iter())
        .map(|folder| {
            // What cannot be told is fetched anew.
            Wanted { name: folder.name().to_owned(), held: folder.held().ok().flatten() }
        })
        .collect();
    // They differ in name only: all are the pod's.
    let name = folders.first().map_or("", Folder::name);
    let token = token(&operator.tokens.join(name).join("token"))?;
    let client = Client::new(Settings {
        endpoint: operator.endpoint.clone(),
        server_name: operator.server_name.clone(),
        authorities: trust.authorities().as_str().as_bytes().to_vec(),
        connect_timeout: CONNECT,
        timeout: CALL,
    })
    .map_err(LookError::Settings)?;
    client.fetch(&token, None, &wanted).await.map_err(LookError::Fetch)
}

/// Read anew for each call: the kubelet renews it.
fn token(path: &Path) -> Result<Token, LookError> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN + 2));
    let most = u64::try_from(MAX_TOKEN).unwrap_or(u64::MAX).saturating_add(2);
    let file = std::fs::File::open(path).map_err(LookError::Token)?;
    file.take(most).read_to_string(&mut text).map_err(LookError::Token)?;
    Token::new(std::mem::take(&mut *text)).map_err(LookError::NoToken)
}
