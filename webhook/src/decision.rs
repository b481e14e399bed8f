//! From a question to an answer: pure, total, and with everything that has to be recorded.
//!
//! No network, no clock, no HTTP. Whatever a question holds, there is an answer, and in doubt it is no.
//!
//! A rule that refuses answers 403 and never 409 or 422: `kubectl apply --force` and Flux's `force: true` take those
//! for an immutable field, and would delete the object to make it anew. With a SealedEnv its Secret would go too.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use sealedenv_audit::{Action, Actor, ObjectRef, Outcome, Record};
use sealedenv_crds::{SealedEnv, names};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::inject::{self, Environments, Settings, inject};
use crate::review::{self, Answer, Bounds, Operation, Request, Verdict};
use crate::validate::{self, Fault};

/// The resource that SealedEnvs are served under.
const SEALED_ENVS: &str = "sealedenvs";

/// Far beyond any pod, and at most some 26 MB once it is taken apart.
const POD: Bounds = Bounds { groups: 8 << 10, commas: 128 << 10 };

/// Beyond what the CRD admits: 1,024 values, as many public ones, 2,048 times metadata, and who set which field.
const SEALED_ENV: Bounds = Bounds { groups: 32 << 10, commas: 128 << 10 };

/// The most faults that one message names.
const SHOWN: usize = 8;

/// What was decided about one request.
#[derive(Debug)]
pub struct Decision {
    /// What is answered, if it is recorded where it must be.
    pub answer: Answer,
    /// What belongs on the audit trail: who was given something, or refused. Nothing for a dry run, and nothing for a
    /// question that could not be understood, which anybody who reaches the port can send at any rate.
    pub record: Option<Record>,
    /// How it ended, for metrics.
    pub kind: Kind,
    /// For what a pod will wait, if for anything.
    pub waiting: Option<Waiting>,
}

/// How a decision ended, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A pod got something.
    Injected,
    /// A pod has everything, or asks for nothing, or the request is none of ours.
    Unchanged,
    /// A SealedEnv may be stored.
    Valid,
    /// Refused by a rule.
    Refused,
    /// The question could not be understood.
    Malformed,
    /// Something broke on our side.
    Failed,
}

/// A pod that was let in and will wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its namespace.
    pub namespace: String,
    /// Its controller. The pod itself has no name yet that an Event could be about.
    pub owner: OwnerReference,
    /// The SealedEnvs that do not exist.
    pub absent: Vec<String>,
}

/// Decides about a pod: what it gets, or why it must not be made.
pub fn on_pod(
    request: &Request<'_>,
    settings: &Settings,
    authorities: Option<&str>,
    environments: &dyn Environments,
) -> Decision {
    if !is_resource(request, "", "v1", "pods") {
        return Decision::malformed("this path answers for pods only");
    }
    if request.operation != Operation::Create || is_sub_resource(request) {
        return Decision::allowed(Kind::Unchanged);
    }
    let Some(namespace) = request.namespace.as_deref().filter(|namespace| !namespace.is_empty()) else {
        return Decision::malformed("the request names no namespace");
    };
    let pod: Pod = match object(request.object, POD) {
        Ok(pod) => pod,
        Err(why) => return Decision::malformed(why),
    };
    let name = name(request, pod.metadata.name.as_deref());
    let record = |outcome| {
        let object = ObjectRef::new("Pod", name).namespace(namespace);
        Record::new(Action::Admission, actor(request), outcome).object(object)
    };
    let with_generated_name = |text: String| match pod.metadata.generate_name.as_deref() {
        Some(prefix) if name.is_empty() => format!("{text} ({prefix}…)"),
        _ => text,
    };
    match inject(&pod, &inject::Request { namespace, settings, authorities, environments }) {
        Ok(outcome) => {
            let (verdict, kind) = if outcome.patch.is_empty() {
                (Verdict::Allowed, Kind::Unchanged)
            } else {
                (Verdict::Changed(outcome.patch), Kind::Injected)
            };
            let detail = with_generated_name(format!("SealedEnvs {}", outcome.environments.join(", ")));
            let waiting = waiting(namespace, &pod, outcome.absent);
            Decision { answer: Answer { verdict, warnings: outcome.warnings }, record: None, kind, waiting }
                .recorded(request, || (kind == Kind::Injected).then(|| record(Outcome::Ok).detail(detail)))
        }
        Err(denied) => {
            let detail = with_generated_name(denied.to_string());
            Decision::refused(format!("{denied}\nhint: {}", denied.hint()))
                .recorded(request, || Some(record(Outcome::Refused).reason(denied.reason()).detail(detail)))
        }
    }
}

/// Decides whether a SealedEnv may be stored as it is.
pub fn on_sealed_env(request: &Request<'_>) -> Decision {
    if !is_resource(request, names::GROUP, names::VERSION, SEALED_ENVS) {
        return Decision::malformed("this path answers for SealedEnvs of v1alpha1 only");
    }
    if !matches!(request.operation, Operation::Create | Operation::Update) || is_sub_resource(request) {
        return Decision::allowed(Kind::Valid);
    }
    let new: SealedEnv = match object(request.object, SEALED_ENV) {
        Ok(new) => new,
        Err(why) => return Decision::malformed(why),
    };
    // Whatever was stored may lose a finalizer or get a label, whether or not it would be accepted today. An object
    // that is being deleted has no other privilege: a change of its spec is checked like any other.
    let is_same_spec = |old: SealedEnv| old.spec == new.spec;
    if request.operation == Operation::Update
        && object(request.old_object, SEALED_ENV).is_ok_and(is_same_spec)
    {
        return Decision::allowed(Kind::Valid);
    }
    let name = name(request, new.metadata.name.as_deref());
    let namespace = request.namespace.as_deref().unwrap_or_default();
    let faults = validate::faults(namespace, name, &new.spec);
    let Some(first) = faults.first() else {
        let answer = Answer { warnings: validate::warnings(&new.spec), ..Answer::allowed() };
        return Decision { answer, record: None, kind: Kind::Valid, waiting: None };
    };
    Decision::refused(message(&faults)).recorded(request, || {
        let object = ObjectRef::new("SealedEnv", name)
            .namespace(namespace)
            .uid(new.metadata.uid.clone())
            .generation(new.metadata.generation);
        let record = Record::new(Action::Admission, actor(request), Outcome::Refused)
            .object(object)
            .keys(faults.iter().filter_map(|fault| fault.key.clone()))
            .reason(first.reason)
            .detail(first.to_string());
        Some(record)
    })
}

impl Decision {
    /// About a question that could not be understood.
    pub(crate) fn malformed(why: impl std::fmt::Display) -> Self {
        let answer = Answer::refused(400, why.to_string());
        Self { answer, record: None, kind: Kind::Malformed, waiting: None }
    }

    /// About something that may go on and could not be recorded.
    pub(crate) fn unrecorded() -> Self {
        let message = "the admission cannot be recorded: no audit sink takes records, and the webhook is set to refuse then\n\
                       hint: look at the webhook's log for what is wrong with its audit file or volume";
        Self { answer: Answer::refused(503, message), record: None, kind: Kind::Failed, waiting: None }
    }

    fn allowed(kind: Kind) -> Self {
        Self { answer: Answer::allowed(), record: None, kind, waiting: None }
    }

    fn refused(message: String) -> Self {
        Self { answer: Answer::refused(403, message), record: None, kind: Kind::Refused, waiting: None }
    }

    /// Adds what belongs on the trail and the Event to be made: nothing at all for a dry run.
    fn recorded(mut self, request: &Request<'_>, record: impl FnOnce() -> Option<Record>) -> Self {
        if request.dry_run == Some(true) {
            self.waiting = None;
        } else {
            self.record = record();
        }
        self
    }
}

fn is_resource(request: &Request<'_>, group: &str, version: &str, resource: &str) -> bool {
    let found = &request.resource;
    found.group == group && found.version == version && found.resource == resource
}

fn is_sub_resource(request: &Request<'_>) -> bool {
    request.sub_resource.as_deref().is_some_and(|sub_resource| !sub_resource.is_empty())
}

fn object<T: DeserializeOwned>(raw: Option<&RawValue>, bounds: Bounds) -> Result<T, String> {
    let raw = raw.ok_or("the request holds no object")?;
    if !bounds.admit(raw.get()) {
        return Err("the object has too many parts to be read".to_owned());
    }
    serde_json::from_str(raw.get()).map_err(|error| {
        let (kind, line, column) = (review::kind_of(&error), error.line(), error.column());
        format!("cannot read the object: {kind} at line {line}, column {column} of it")
    })
}

fn name<'a>(request: &'a Request<'_>, own: Option<&'a str>) -> &'a str {
    request.name.as_deref().filter(|name| !name.is_empty()).or(own).unwrap_or_default()
}

fn actor(request: &Request<'_>) -> Actor {
    Actor::authenticated(request.user_info.username.as_deref().unwrap_or("unknown"))
}

fn waiting(namespace: &str, pod: &Pod, absent: Vec<String>) -> Option<Waiting> {
    if absent.is_empty() {
        return None;
    }
    let owner =
        pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    Some(Waiting { namespace: namespace.to_owned(), owner: owner.clone(), absent })
}

fn message(faults: &[Fault]) -> String {
    let mut lines: Vec<String> = faults.iter().take(SHOWN).map(ToString::to_string).collect();
    if let Some(more @ 1..) = faults.len().checked_sub(SHOWN) {
        lines.push(format!("and {more} more"));
    }
    lines.push("hint: `sealedenv validate FILE` finds this before the file is committed".to_owned());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Volume};

    #[test]
    fn a_pod_within_bounds_is_small_once_it_is_taken_apart() {
        let largest = [size_of::<Container>(), size_of::<EphemeralContainer>(), size_of::<Volume>()];
        let largest = largest.into_iter().max().unwrap();
        assert!(largest * POD.groups < 32 << 20, "{largest} bytes each");
    }

    #[test]
    fn what_would_blow_up_is_refused_unread() {
        let many = |item: &str, count: usize| vec![item; count].join(",");
        for spec in [
            format!(r#"{{"containers":[{}]}}"#, many("{}", 1 << 20)),
            format!(r#"{{"volumes":[{}]}}"#, many("{}", POD.groups)),
            format!(r#"{{"containers":[{{"command":[{}]}}]}}"#, many("\"\"", POD.commas + 2)),
        ] {
            let body = format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","namespace":"shop",
                   "operation":"CREATE","resource":{{"group":"","version":"v1","resource":"pods"}},
                   "object":{{"metadata":{{}},"spec":{spec}}}}}}}"#
            );
            let request = review::read(body.as_bytes()).unwrap();
            let settings = Settings::secrets_only();
            let decision = on_pod(&request, &settings, None, &crate::cache::Cache::default());
            assert_eq!(decision.kind, Kind::Malformed);
            let Verdict::Refused { message, .. } = decision.answer.verdict else { panic!("not refused") };
            assert_eq!(message, "the object has too many parts to be read");
        }
    }
}
