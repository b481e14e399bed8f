//! AWS Secrets Manager, by its HTTP API (<https://docs.aws.amazon.com/secretsmanager/latest/apireference/>).
//!
//! A path is a secret's name or its ARN. A version is its id, a UUID, or a label such as `AWSPREVIOUS`; without one it is
//! what `AWSCURRENT` stands for. Many newest versions cost one call, where the role may do `BatchGetSecretValue`; where it
//! may not, they cost one each.

mod login;
mod reply;
mod sign;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, Uri, header};
use jiff::Timestamp;
use sealedenv_seal::Plain;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::credential::{header, text};
use crate::provider::{AWAY, Answering, Provider};
use crate::session::Sessions;
use crate::transport::{ANSWER, Question, Reply, Transport, base};
use crate::{Answer, Ask, Outcome};
use sign::{Headers, Keys, Scope, signed};

pub use login::Login;

/// The most secrets of one call.
const BATCH: usize = 20;

/// How long it is remembered that many may not be asked for in one.
const ONE_BY_ONE: Duration = Duration::from_hours(1);

/// The longest name of a secret, or of a version, in bytes.
const MAX_NAME: usize = 2048;

/// Secrets Manager in one region, as one identity.
pub struct Aws {
    transport: Transport,
    region: String,
    /// Without a slash at their ends.
    secrets: String,
    sts: String,
    login: Login,
    session: Sessions<Keys>,
    /// Until then nothing is asked for at once: whoever it asks as may not.
    one_by_one: Mutex<Option<Instant>>,
}

/// Where AWS is asked, if not where it usually is: an endpoint of a VPC, another cloud with its API.
#[derive(Clone, Default)]
pub struct Endpoints {
    /// Of Secrets Manager.
    pub secrets: Option<Uri>,
    /// Of STS, which roles come from.
    pub sts: Option<Uri>,
}

/// Secrets Manager that cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AwsError {
    /// The region would lead to another host.
    #[error("a region of AWS is lower-case letters, digits and -")]
    Region,
    /// An endpoint has a path or a query.
    #[error("an endpoint of AWS is https://HOST[:PORT]")]
    Endpoint,
}

/// What came instead of a secret for each.
enum Missing {
    /// This, for all of them.
    All(Answer),
    /// Nothing for some: they are asked for one by one.
    Some,
}

impl Aws {
    /// In that region. Asks nothing yet.
    ///
    /// # Errors
    /// [`AwsError`].
    pub fn new(
        transport: Transport,
        region: &str,
        endpoints: &Endpoints,
        login: Login,
    ) -> Result<Self, AwsError> {
        let of_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if region.is_empty() || region.len() > 32 || !region.bytes().all(of_region) {
            return Err(AwsError::Region);
        }
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let endpoint = |given: &Option<Uri>, service| match given {
            Some(address) => base(address).ok_or(AwsError::Endpoint),
            None => Ok(format!("https://{service}.{region}.{domain}")),
        };
        Ok(Self {
            transport,
            region: region.to_owned(),
            secrets: endpoint(&endpoints.secrets, "secretsmanager")?,
            sts: endpoint(&endpoints.sts, "sts")?,
            login,
            session: Sessions::default(),
            one_by_one: Mutex::default(),
        })
    }

    async fn all(&self, asks: &[Ask], answers: &mut [Option<Answer>]) {
        let is_name = |name: &str| !name.is_empty() && name.len() <= MAX_NAME;
        let mut newest = Vec::new();
        for (at, (ask, answer)) in asks.iter().zip(&mut *answers).enumerate() {
            if !is_name(&ask.path) || !ask.version.as_deref().is_none_or(is_name) {
                *answer = Some(Answer::here(Outcome::Malformed));
            } else if ask.version.is_none() {
                newest.push(at);
            }
        }
        for some in newest.chunks(BATCH).filter(|some| some.len() > 1) {
            if self.is_one_by_one() {
                break;
            }
            if let Err(Missing::All(answer)) = self.many(asks, some, answers).await {
                for at in some {
                    answers[*at] = Some(same(&answer));
                }
            }
        }
        for (ask, answer) in asks.iter().zip(answers) {
            if answer.is_none() {
                *answer = Some(self.one(ask).await);
            }
        }
    }

    /// Asks for some at once.
    async fn many(
        &self,
        asks: &[Ask],
        some: &[usize],
        answers: &mut [Option<Answer>],
    ) -> Result<(), Missing> {
        let paths: Vec<&str> = some.iter().map(|at| asks[*at].path.as_str()).collect();
        let body = json!({ "SecretIdList": paths }).to_string();
        // Once for all of them, also where there are none.
        self.keys().await.map_err(Missing::All)?;
        let reply = match self.call("BatchGetSecretValue", &body).await {
            Ok(reply) => reply,
            // All of them are too large; each of them is not.
            Err(Answer { outcome: Outcome::Malformed, .. }) => return Err(Missing::Some),
            Err(answer) => return Err(Missing::All(answer)),
        };
        let mut batch = reply::batch(&reply).map_err(|outcome| match outcome {
            Outcome::Denied if reply::is_about_rights(&reply) => {
                if let Ok(mut until) = self.one_by_one.lock() {
                    *until = Some(Instant::now() + ONE_BY_ONE);
                }
                Missing::Some
            }
            Outcome::Denied | Outcome::Unavailable { .. } => Missing::All(outcome.into()),
            _ => Missing::Some,
        })?;
        for at in some {
            answers[*at] = batch.take(&asks[*at].path).map(Answer::from);
        }
        Ok(())
    }

    fn is_one_by_one(&self) -> bool {
        self.one_by_one.lock().is_ok_and(|until| until.is_some_and(|until| Instant::now() < until))
    }

    async fn one(&self, ask: &Ask) -> Answer {
        let mut body = json!({ "SecretId": ask.path });
        if let Some(version) = &ask.version {
            let name = if reply::is_version_id(version) { "VersionId" } else { "VersionStage" };
            body[name] = json!(version);
        }
        match self.call("GetSecretValue", &body.to_string()).await {
            Ok(reply) => reply::one(&reply, ask).into(),
            Err(answer) => answer,
        }
    }

    /// Asks as whoever it is. Keys that are over are replaced once.
    async fn call(&self, what: &str, body: &str) -> Result<Reply, Answer> {
        let keys = self.keys().await?;
        let reply = self.ask_as(&keys, what, body).await?;
        let is_over = reply::is_about_keys(&reply);
        let is_ours = matches!(self.login, Login::WebIdentity { .. });
        if !is_over || !is_ours || !self.session.refused(&keys).await {
            return Ok(reply);
        }
        let keys = self.keys().await?;
        self.ask_as(&keys, what, body).await
    }

    async fn keys(&self) -> Result<Arc<Keys>, Answer> {
        match &self.login {
            Login::Keys { id, secret, session } => {
                let keys = login::keys(id, secret, session.as_ref()).await;
                keys.map(Arc::new).map_err(Answer::here)
            }
            Login::WebIdentity { role, name, token } => {
                let assume = async {
                    let token = text(token).await.map_err(Answer::here)?;
                    let form = login::assume(role, name, &token);
                    let kind = [(header::CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned())];
                    let reply = self.ask(&self.sts, kind, &form).await?;
                    Ok(login::assumed(&reply, Timestamp::now())?)
                };
                self.session.get(assume).await
            }
        }
    }

    /// Asks with those keys, and takes no answer that repeats the token of their session.
    async fn ask_as(&self, keys: &Keys, what: &str, body: &str) -> Result<Reply, Answer> {
        let host = self.secrets.split_once("://").map_or("", |(_, host)| host);
        let headers = Headers::from([
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", host.to_owned()),
            ("x-amz-target", format!("secretsmanager.{what}")),
        ]);
        let scope = Scope { region: &self.region, service: "secretsmanager" };
        let headers = signed(keys, &scope, Timestamp::now(), "POST", headers, body.as_bytes());
        let headers = headers.into_iter().map(|(name, value)| (HeaderName::from_static(name), value));
        let reply = self.ask(&self.secrets, headers, body).await?;
        let token = keys.session.as_deref().unwrap_or_default();
        if reply.repeats(token.as_bytes()) { Err(Outcome::Malformed.into()) } else { Ok(reply) }
    }

    async fn ask(
        &self,
        endpoint: &str,
        headers: impl IntoIterator<Item = (HeaderName, String)>,
        body: &str,
    ) -> Result<Reply, Answer> {
        let address = format!("{endpoint}/").parse().map_err(|_| Answer::here(Outcome::Malformed))?;
        let headers = headers.into_iter().map(|(name, value)| Ok((name, header(&value)?)));
        let headers = headers.collect::<Result<HeaderMap, Outcome>>().map_err(Answer::here)?;
        let question =
            Question { method: Method::POST, address, headers, body: Plain::from(body.to_owned()) };
        self.transport.ask(question).await.map_err(Answer::from)
    }
}

/// The same, of what is no secret.
fn same(answer: &Answer) -> Answer {
    let outcome = match &answer.outcome {
        Outcome::NotFound => Outcome::NotFound,
        Outcome::Denied => Outcome::Denied,
        Outcome::Unavailable { retry_after } => Outcome::Unavailable { retry_after: *retry_after },
        Outcome::Found(_) | Outcome::Malformed => Outcome::Malformed,
    };
    Answer { outcome, ..*answer }
}

impl Provider for Aws {
    fn batch(&self) -> usize {
        if self.is_one_by_one() { 1 } else { BATCH }
    }

    fn fetch<'a>(&'a self, asks: &'a [Ask]) -> Answering<'a, Vec<Answer>> {
        Box::pin(async move {
            let mut answers: Vec<Option<Answer>> = asks.iter().map(|_| None).collect();
            let _late = timeout_at(Instant::now() + ANSWER, self.all(asks, &mut answers)).await;
            answers.into_iter().map(|answer| answer.unwrap_or_else(|| AWAY.into())).collect()
        })
    }
}

#[cfg(test)]
mod tests;
