//! The admission webhook: gives annotated pods their files, and checks SealedEnvs before they are stored.
//!
//! | question | where |
//! |---|---|
//! | what does an annotated pod get, and what is refused? | [`inject`](mod@inject), pure |
//! | what is wrong with a SealedEnv? | [`validate`], pure |
//! | how does a request become an answer and a record? | [`decision`], pure |
//! | what does the API server send and read? | [`review`] |
//! | how is it served, and how is memory bounded? | [`router`](mod@router) |
//! | what is known of SealedEnvs without asking? | [`cache`] |
//! | how do API servers come to trust us? | [`rotation`] and [`bundle`], pure; [`registration`] writes; or `mounted`, where somebody else sees to it |
//! | by whom do agents in pods recognise the operator? | [`authorities`] |
//! | who learns that a pod waits? | [`waiting`] |
//! | what goes on the audit trail? | [`trail`] |
//! | how is it put together? | [`run`](mod@run), [`args`] |
//!
//! # Promises
//!
//! * It holds no sealing key, has no access to any Secret, and makes no network call to answer a request.
//! * Every question gets an answer with the same uid; in doubt the answer is no. Nothing in a question can make it
//!   panic or use unbounded memory.
//! * A message never repeats a value, nor a part of an object that could hold one.
//!
//! # What is recorded, and what happens when it cannot be
//!
//! Every admission that gives a pod something, and every refusal by a rule, is a record. Dry runs are not, nor are
//! answers that change nothing, nor questions that cannot be understood.
//!
//! No value is released here: the operator writes the Secret, on a record of its own, and a pod could mount that
//! Secret without us. Strictly, "no record, no release" asks nothing of the webhook. Yet for Secret delivery this is
//! the one place where the trail can say *which pod* was given *which* SealedEnv. So with the failure policy
//! `Closed` an injection that no sink takes is refused (503), and the pod's controller tries again; a cluster that
//! would rather have its pods sets `Open`, and the loss is counted. A refusal stands with or without its record.
//!
//! # Caution
//!
//! API servers show webhooks no client certificate unless they are configured to. Whoever reaches the port can ask
//! questions, and a well-formed one leaves a record that names the user it claims to come from. It learns and changes
//! nothing by that: an answer has an effect only for the API server that asked. The chart's NetworkPolicy leaves this
//! port open, because where API servers stand is not known to it.

pub mod args;
pub mod authorities;
pub mod bundle;
pub mod cache;
pub mod decision;
pub mod inject;
pub mod metrics;
mod mounted;
pub mod registration;
pub mod review;
pub mod rotation;
pub mod router;
pub mod run;
mod text;
pub mod trail;
pub mod validate;
pub mod waiting;

/// Runs the webhook until a signal or a failure to start.
///
/// Requests are decided on these threads, so their number bounds how many objects are taken apart at one time.
///
/// # Panics
/// When the system gives no threads or no event queue to run on.
#[tokio::main(worker_threads = 2)]
pub async fn main() -> std::process::ExitCode {
    run::main().await
}
