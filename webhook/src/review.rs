//! The wire format: `AdmissionReview` of `admission.k8s.io/v1`, as far as this webhook reads and writes it.
//!
//! Objects stay the bytes they came as until it is known what they are; nothing unknown is kept or sent back.

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The only version that is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// What the API server asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// Names this question; the answer must name it too.
    pub uid: String,
    /// What kind of object is concerned.
    pub resource: Resource,
    /// `ephemeralcontainers`, `status`, …; empty for the object itself.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Empty while the name is to be generated.
    #[serde(default)]
    pub name: Option<String>,
    /// Where the object is, or is to be.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What is done with it.
    pub operation: Operation,
    /// Who does it.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it is to be.
    #[serde(default, borrow)]
    pub object: Option<&'a RawValue>,
    /// The object as it was.
    #[serde(default, borrow)]
    pub old_object: Option<&'a RawValue>,
    /// Nothing will be stored.
    #[serde(default)]
    pub dry_run: Option<bool>,
}

/// `group/version/resource` of an object.
#[derive(Debug, Deserialize)]
pub struct Resource {
    /// Empty for the core group.
    #[serde(default)]
    pub group: String,
    /// For example `v1`.
    pub version: String,
    /// For example `pods`.
    pub resource: String,
}

/// Who makes a request.
#[derive(Debug, Default, Deserialize)]
pub struct UserInfo {
    /// As the API server authenticated it.
    #[serde(default)]
    pub username: Option<String>,
}

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// Something connects to it, such as `kubectl exec`.
    Connect,
}

/// Why a body is not a question that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the AdmissionReview: {why}")]
pub struct Unreadable {
    /// The question's uid, if that much could be read.
    pub uid: Option<String>,
    why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    kind: String,
    #[serde(default, borrow)]
    request: Option<&'a RawValue>,
}

/// Reads a question.
///
/// # Errors
/// The body is not one, of a version that is not spoken, or its uid cannot be sent back.
pub fn read(body: &[u8]) -> Result<Request<'_>, Unreadable> {
    let unreadable = |why: &str| Unreadable { uid: uid(body), why: why.to_owned() };
    let review: Review<'_> = object(body).map_err(|why| unreadable(&why))?;
    if review.api_version != API_VERSION || review.kind != KIND {
        return Err(unreadable("not an AdmissionReview of admission.k8s.io/v1"));
    }
    let request = review.request.ok_or_else(|| unreadable("it holds no request"))?;
    let request: Request<'_> =
        object(request.get().as_bytes()).map_err(|why| unreadable(&format!("its request is {why}")))?;
    if !is_uid(&request.uid) {
        return Err(Unreadable { uid: None, why: "its uid is not one".to_owned() });
    }
    Ok(request)
}

/// Reads a JSON object, and an object only: the derived readers would take a list of the fields in order as well.
///
/// The error tells the position only: the parser's own message may quote what it read.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, String> {
    if json.trim_ascii_start().first() != Some(&b'{') {
        return Err("not an object".to_owned());
    }
    serde_json::from_slice(json)
        .map_err(|error| format!("{} at line {}, column {}", kind_of(&error), error.line(), error.column()))
}

/// How much an object may hold before it is taken apart.
///
/// Three bytes of JSON, `{},`, become a struct of a kilobyte and more in a list of containers: without a bound a body of
/// 3 MiB would take gigabytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Lists and objects, the empty ones too.
    pub groups: usize,
    /// Commas, and so roughly fields and items.
    pub commas: usize,
}

impl Bounds {
    /// Whether a JSON text is within the bounds. One pass, nothing allocated.
    pub fn admit(self, json: &str) -> bool {
        let (mut groups, mut commas, mut in_text, mut escaped) = (0, 0, false, false);
        for byte in json.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_text => escaped = true,
                b'"' => in_text = !in_text,
                b'{' | b'[' if !in_text => groups += 1,
                b',' if !in_text => commas += 1,
                _ => {}
            }
        }
        groups <= self.groups && commas <= self.commas
    }
}

/// What kind of fault a JSON document has, without quoting from it.
pub(crate) fn kind_of(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Syntax => "not JSON",
        serde_json::error::Category::Data => "not of the expected form",
        serde_json::error::Category::Eof => "cut short",
        serde_json::error::Category::Io => "unreadable",
    }
}

/// The uid of a question that is otherwise wrong.
fn uid(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Outer<'a> {
        #[serde(borrow)]
        request: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Inner {
        uid: String,
    }
    let outer: Outer<'_> = object(body).ok()?;
    let inner: Inner = object(outer.request.get().as_bytes()).ok()?;
    Some(inner.uid).filter(|uid| is_uid(uid))
}

/// Whatever is sent back is short and harmless. API servers send UUIDs.
fn is_uid(uid: &str) -> bool {
    (1..=128).contains(&uid.len())
        && uid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Whether the request goes on.
    pub verdict: Verdict,
    /// Sentences for whoever made the request, allowed or not.
    pub warnings: Vec<String>,
}

/// Whether a request goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// As it is.
    Allowed,
    /// With this change.
    Changed(json_patch::Patch),
    /// Not.
    Refused {
        /// HTTP status that the API server hands on: 4xx or 5xx.
        code: u16,
        /// What was wrong, and what to do about it.
        message: String,
    },
}

impl Answer {
    /// Goes on as it is.
    pub fn allowed() -> Self {
        Self { verdict: Verdict::Allowed, warnings: Vec::new() }
    }

    /// Does not go on.
    pub fn refused(code: u16, message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Refused { code, message: message.into() }, warnings: Vec::new() }
    }

    /// The answer to the question `uid` as JSON.
    pub fn write(&self, uid: &str) -> Vec<u8> {
        let patch = match &self.verdict {
            // A list of operations on JSON values always has a JSON form.
            Verdict::Changed(patch) => serde_json::to_vec(patch).ok().map(ByteString),
            _ => None,
        };
        let status = match &self.verdict {
            Verdict::Refused { code, message } => {
                Some(Status { code: *code, message, reason: reason(*code) })
            }
            _ => None,
        };
        let review = Reply {
            api_version: API_VERSION,
            kind: KIND,
            response: Response {
                uid,
                allowed: status.is_none(),
                patch_type: patch.is_some().then_some("JSONPatch"),
                patch,
                status,
                warnings: &self.warnings,
            },
        };
        serde_json::to_vec(&review).unwrap_or_default()
    }
}

/// The word that Kubernetes clients match on.
fn reason(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        403 => "Forbidden",
        413 => "RequestEntityTooLarge",
        422 => "Invalid",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reply<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    message: &'a str,
    reason: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn question() -> Value {
        json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "request": {
                "uid": "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4",
                "kind": {"group": "", "version": "v1", "kind": "Pod"},
                "resource": {"group": "", "version": "v1", "resource": "pods"},
                "namespace": "shop",
                "operation": "CREATE",
                "userInfo": {"username": "jane", "groups": ["x"]},
                "object": {"kind": "Pod", "n": 18_446_744_073_709_551_615_u64},
                "oldObject": null,
                "dryRun": true,
                "options": {"anything": []}
            }
        })
    }

    #[test]
    fn a_question_is_read_and_its_object_is_kept_as_it_came() {
        let body = question().to_string();
        let request = read(body.as_bytes()).unwrap();
        assert_eq!(request.uid, "0c9a8d74-9cb7-44dd-b98e-09fd62def2f4");
        assert_eq!((request.operation, request.dry_run), (Operation::Create, Some(true)));
        assert_eq!(request.object.unwrap().get(), r#"{"kind":"Pod","n":18446744073709551615}"#);
        assert!(request.old_object.is_none() && request.name.is_none());
    }

    #[test]
    fn a_wrong_question_gives_its_uid_where_there_is_one_and_quotes_nothing() {
        type Change = (&'static str, Value);
        let changes: [Change; 6] = [
            ("/apiVersion", json!("admission.k8s.io/v1beta1")),
            ("/kind", json!("Hunter2")),
            ("/request/operation", json!("hunter2")),
            ("/request/resource", json!("hunter2")),
            ("/request/userInfo", json!("hunter2")),
            ("/request/dryRun", json!("hunter2")),
        ];
        for (field, value) in changes {
            let mut body = question();
            *body.pointer_mut(field).unwrap() = value;
            let error = read(body.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.uid.as_deref(), Some("0c9a8d74-9cb7-44dd-b98e-09fd62def2f4"), "{field}");
            assert!(!error.to_string().to_lowercase().contains("hunter2"), "{error}");
        }
        for uid in [json!(""), json!("a b"), json!("a\n"), json!("a".repeat(129)), json!(7), json!(null)] {
            let mut body = question();
            body["request"]["uid"] = uid;
            assert_eq!(read(body.to_string().as_bytes()).unwrap_err().uid, None);
        }
        let deep = "[".repeat(100_000);
        for body in [r#"["admission.k8s.io/v1","AdmissionReview",{"uid":"u"}]"#, r#"{"request":["u"]}"#] {
            assert_eq!(read(body.as_bytes()).unwrap_err().uid, None, "{body}");
        }
        for body in ["", "null", "{}", "[]", r#"{"request":null}"#, "hunter2", "\u{0}", &deep] {
            assert!(!read(body.as_bytes()).unwrap_err().to_string().contains("hunter2"));
        }
        let doubled = question().to_string().replacen("\"uid\"", "\"uid\":\"x\",\"uid\"", 1);
        assert!(read(doubled.as_bytes()).is_err(), "two uids are no uid");
    }

    #[test]
    fn bounds_count_what_is_outside_of_texts() {
        let json = r#"{"a,[{\"": [1, {"b": "x\\"}, [], "]}"]}"#;
        serde_json::from_str::<Value>(json).unwrap();
        let admits = |groups, commas| Bounds { groups, commas }.admit(json);
        assert!(admits(4, 3) && admits(9, 9));
        assert!(!admits(3, 3) && !admits(4, 2));
    }

    #[test]
    fn answers_have_the_form_that_the_api_server_reads() {
        let written = |answer: &Answer| serde_json::from_slice::<Value>(&answer.write("u")).unwrap();
        let answer = |response| json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        assert_eq!(written(&Answer::allowed()), answer(json!({"uid": "u", "allowed": true})));
        let refused = Answer { warnings: vec!["w".to_owned()], ..Answer::refused(403, "no") };
        assert_eq!(
            written(&refused),
            answer(json!({
                "uid": "u",
                "allowed": false,
                "status": {"code": 403, "message": "no", "reason": "Forbidden"},
                "warnings": ["w"]
            }))
        );
        let patch: json_patch::Patch =
            serde_json::from_value(json!([{"op": "add", "path": "/a", "value": 1}])).unwrap();
        let changed = Answer { verdict: Verdict::Changed(patch), warnings: Vec::new() };
        assert_eq!(
            written(&changed),
            answer(json!({
                "uid": "u",
                "allowed": true,
                "patchType": "JSONPatch",
                "patch": "W3sib3AiOiJhZGQiLCJwYXRoIjoiL2EiLCJ2YWx1ZSI6MX1d"
            }))
        );
    }
}
