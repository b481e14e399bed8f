//! Checks a SealedEnv before it is stored: what can be known without any key.
//!
//! The CRD's own rules hold even with every webhook down. This adds what they cannot say: whether each sealed value
//! has the structure of one, by the same parser that the operator uses, whether it was sealed for the place where it
//! stands, and whether each file can be made at all. Nothing here proves that a value opens; that takes a key.
//!
//! Messages name keys and scopes, never any part of a value: a value that is refused may be a secret that was never
//! sealed.

use std::collections::BTreeMap;
use std::fmt;

use sealedenv_crds::{Class, SealedEnvSpec, names};
use sealedenv_render::Problem;
use sealedenv_seal::{MAX_VALUE, Place, Sealed};

use crate::text::quoted;

/// One thing that is wrong with a SealedEnv.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A stable word for metrics and the audit trail.
    pub reason: &'static str,
    /// The field, for example `spec.data.STRIPE_KEY`.
    pub field: String,
    /// The key it is about, if it is about one.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Everything that is wrong with a SealedEnv that stands, or is to stand, at `namespace`/`name`; empty if nothing is.
///
/// `name` is empty for an object that gets a generated name: no strict scope can admit it.
pub fn faults(namespace: &str, name: &str, spec: &SealedEnvSpec) -> Vec<Fault> {
    let mut faults = Vec::new();
    if spec.data.is_empty() && spec.public.is_empty() {
        faults.push(Fault::of("Empty", "spec", "needs at least one key in data or public"));
    }
    let mut sizes = BTreeMap::new();
    for (key, text) in &spec.data {
        match data(namespace, name, key, text) {
            Ok(size) => _ = sizes.insert(key, size),
            Err(fault) => faults.push(fault),
        }
    }
    for (key, text) in &spec.public {
        if !names::is_valid_key(key) {
            faults.push(Fault::key("InvalidKey", "public", key, NOT_A_KEY));
        } else if spec.meta.get(key).is_some_and(|meta| meta.class == Some(Class::Secret)) {
            let message = "is of class secret and stands in public: seal it and put it in data";
            faults.push(Fault::key("SecretInPublic", "public", key, message));
        }
        if !spec.data.contains_key(key) {
            sizes.insert(key, text.len());
        }
    }
    let copies = spec.files.values().filter_map(|file| sizes.get(file.key.as_ref()?));
    let size: usize = sizes.values().chain(copies).sum();
    if size > MAX_VALUE {
        let message =
            format!("all values together have {size} bytes, and a Secret holds at most {MAX_VALUE}");
        faults.push(Fault::of("TooLarge", "spec", message));
    }
    shape(spec, &mut faults);
    let files = sealedenv_render::shape(spec).into_iter().chain(sealedenv_render::check(spec));
    faults.extend(files.map(|problem| Fault::file(&problem)));
    faults
}

/// What is legal and probably not meant.
pub fn warnings(spec: &SealedEnvSpec) -> Vec<String> {
    spec.public
        .keys()
        .filter(|key| spec.data.contains_key(*key))
        .take(4)
        .map(|key| format!("{} stands in data and in public: the sealed one is taken", quoted(key)))
        .collect()
}

const NOT_A_KEY: &str = "cannot be a key of a Secret: letters, digits, '-', '_' and '.', at most 253, not '.', not starting with '..'";

/// The length of the value that one key of `data` holds.
fn data(namespace: &str, name: &str, key: &str, text: &str) -> Result<usize, Fault> {
    if !names::is_valid_key(key) {
        return Err(Fault::key("InvalidKey", "data", key, NOT_A_KEY));
    }
    let sealed = Sealed::parse(text)
        .map_err(|error| Fault::key(error.reason(), "data", key, format!("{error}; seal the value again")))?;
    let Some(scope) = sealed.scope() else {
        let message = "is not sealed for any scope, so it could be copied anywhere: seal it with sealedenv";
        return Err(Fault::key("Unscoped", "data", key, message));
    };
    if !scope.admits(&Place { namespace, name, key }) {
        let name = if name.is_empty() { "(generated name)" } else { name };
        let message = format!(
            "is sealed for {scope} and stands at {namespace}/{name}/{key}: seal it for here, it does not open anywhere else"
        );
        return Err(Fault::key("ScopeMismatch", "data", key, message));
    }
    if sealed.recipient_stanzas() == 0 {
        let message = "is sealed only to recipients of a type that this version does not open";
        return Err(Fault::key("UnknownRecipientType", "data", key, message));
    }
    Ok(sealed.value_len())
}

fn shape(spec: &SealedEnvSpec, faults: &mut Vec<Fault>) {
    let Some(shape) = &spec.secret else { return };
    if shape.name.as_deref().is_some_and(|name| !crate::text::is_object_name(name)) {
        faults.push(Fault::of("InvalidName", "spec.secret.name", "cannot be the name of a Secret"));
    }
    if shape.type_.as_deref().is_some_and(|type_| !names::SECRET_TYPES.contains(&type_)) {
        let message = format!("is not allowed; use one of {}", names::SECRET_TYPES.join(", "));
        faults.push(Fault::of("SecretType", "spec.secret.type", message));
    }
    for (field, metadata) in [("labels", &shape.labels), ("annotations", &shape.annotations)] {
        if let Some(key) = metadata.keys().find(|key| names::is_reserved_metadata_key(key)) {
            let message = format!("{} is reserved and cannot be put on the Secret", quoted(key));
            faults.push(Fault::of("ReservedMetadata", format!("spec.secret.{field}"), message));
        }
    }
}

impl Fault {
    fn of(reason: &'static str, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), key: None, message: message.into() }
    }

    fn file(problem: &Problem) -> Self {
        let path = &problem.path;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let shown = if path.bytes().all(plain) { path.clone() } else { quoted(path) };
        Self::of(problem.fault.reason(), format!("spec.files.{shown}"), problem.fault.to_string())
    }

    /// About one key, which is shown as it is only if it is one.
    fn key(reason: &'static str, field: &str, key: &str, message: impl Into<String>) -> Self {
        let shown = if names::is_valid_key(key) { key.to_owned() } else { quoted(key) };
        Self { reason, field: format!("spec.{field}.{shown}"), key: Some(shown), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealedenv_crds::{KeyMeta, RenderedFile, SecretShape};
    use sealedenv_seal::{Identity, Plain, Scope, seal};

    fn sealed(scope: &Scope, value: &[u8]) -> String {
        seal(scope, &[Identity::generate().recipient()], &Plain::from(value.to_vec())).unwrap().to_string()
    }

    fn strict(key: &str) -> String {
        sealed(&Scope::strict("shop", "checkout", key).unwrap(), b"v")
    }

    fn spec(data: &[(&str, &str)]) -> SealedEnvSpec {
        SealedEnvSpec {
            data: data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect(),
            ..SealedEnvSpec::default()
        }
    }

    fn reasons(spec: &SealedEnvSpec) -> Vec<&'static str> {
        faults("shop", "checkout", spec).iter().map(|fault| fault.reason).collect()
    }

    #[test]
    fn values_sealed_for_here_are_accepted() {
        let mut good = spec(&[
            ("A", &strict("A")),
            ("B", &sealed(&Scope::namespace("shop", "B").unwrap(), b"")),
            ("tls.crt", &sealed(&Scope::cluster("tls.crt").unwrap(), &[0xff; 4096])),
        ]);
        good.public.insert("MODE".to_owned(), "live".to_owned());
        good.meta.insert("A".to_owned(), KeyMeta { class: Some(Class::Secret), ..KeyMeta::default() });
        good.meta.insert("MODE".to_owned(), KeyMeta { class: Some(Class::Public), ..KeyMeta::default() });
        good.secret = Some(SecretShape {
            name: Some("checkout.v2".to_owned()),
            type_: Some("Opaque".to_owned()),
            labels: [("team".to_owned(), "x".to_owned())].into(),
            ..SecretShape::default()
        });
        assert_eq!(faults("shop", "checkout", &good), []);
        assert!(warnings(&good).is_empty());
    }

    #[test]
    fn a_value_of_another_place_is_refused_and_both_places_are_named() {
        let value = strict("A");
        for (namespace, name, key) in
            [("other", "checkout", "A"), ("shop", "billing", "A"), ("shop", "checkout", "B")]
        {
            let faults = faults(namespace, name, &spec(&[(key, &value)]));
            assert_eq!(faults.len(), 1);
            assert_eq!((faults[0].reason, faults[0].key.as_deref()), ("ScopeMismatch", Some(key)));
            let message = faults[0].to_string();
            for part in [
                "strict shop/checkout/A",
                &format!("{namespace}/{name}/{key}"),
                &format!("spec.data.{key}: "),
            ] {
                assert!(message.contains(part), "{part} is not in {message}");
            }
        }
        assert_eq!(faults("shop", "", &spec(&[("A", &value)]))[0].reason, "ScopeMismatch");
        let wider = sealed(&Scope::namespace("shop", "A").unwrap(), b"v");
        assert!(faults("shop", "", &spec(&[("A", &wider)])).is_empty());
        assert_eq!(faults("other", "checkout", &spec(&[("A", &wider)]))[0].reason, "ScopeMismatch");
    }

    #[test]
    fn what_is_not_sealed_is_refused_and_not_repeated() {
        let good = strict("A");
        let cut = &good[..good.len() - 8];
        for (text, reason) in [
            ("hunter2-in-the-clear", "NotSealed"),
            ("sealed:v9:hunter2", "UnsupportedVersion"),
            ("sealed:v1:hunter2", "NotCanonicalBase64"),
            ("sealed:v1:aHVudGVyMg==", "Malformed"),
            (cut, "Malformed"),
            ("", "NotSealed"),
        ] {
            let faults = faults("shop", "checkout", &spec(&[("A", text)]));
            assert_eq!(faults.len(), 1, "{text}");
            assert_eq!(faults[0].reason, reason, "{text}");
            assert!(!faults[0].to_string().contains("hunter2"), "{}", faults[0]);
        }
    }

    #[test]
    fn every_fault_is_found_not_only_the_first() {
        let mut bad = spec(&[("A", "x"), ("..", "y"), ("B\nC", "z"), ("D", &strict("D"))]);
        bad.public.insert("E".to_owned(), "v".to_owned());
        bad.public.insert("F/G".to_owned(), "v".to_owned());
        bad.meta.insert("E".to_owned(), KeyMeta { class: Some(Class::Secret), ..KeyMeta::default() });
        bad.secret = Some(SecretShape {
            name: Some("Not A Name".to_owned()),
            type_: Some("kubernetes.io/service-account-token".to_owned()),
            labels: [("app.kubernetes.io/x".to_owned(), String::new())].into(),
            annotations: [("sealedenv.dev/adopt".to_owned(), String::new())].into(),
            ..SecretShape::default()
        });
        assert_eq!(
            reasons(&bad),
            [
                "InvalidKey",
                "NotSealed",
                "InvalidKey",
                "SecretInPublic",
                "InvalidKey",
                "InvalidName",
                "SecretType",
                "ReservedMetadata",
                "ReservedMetadata"
            ]
        );
        for fault in faults("shop", "checkout", &bad) {
            assert!(!fault.to_string().contains('\n'), "{fault:?}");
        }
        assert_eq!(reasons(&SealedEnvSpec::default()), ["Empty"]);
    }

    #[test]
    fn files_that_cannot_be_made_are_refused_and_their_text_is_not_repeated() {
        let mut bad = spec(&[("A", &strict("A"))]);
        let template =
            |text: &str| RenderedFile { template: Some(text.to_owned()), ..RenderedFile::default() };
        let key = |key: &str| RenderedFile { key: Some(key.to_owned()), ..RenderedFile::default() };
        bad.files = [
            ("good.txt", template("{{ A }}")),
            ("copy", key("A")),
            ("A", template("x")),
            ("gone", key("B")),
            ("syntax", template("\n{{ hunter2 hunter2 }}")),
            ("unknown", template("\n\n{{ hunter2 }}")),
            ("call", template("{{ A.hunter2() }}")),
            ("..data", template("x")),
            ("a\nb", template("x")),
            ("a/b", template("x")),
        ]
        .map(|(path, file)| (path.to_owned(), file))
        .into();
        let found = faults("shop", "checkout", &bad);
        let told: Vec<_> = found.iter().map(|f| (f.reason, f.to_string())).collect();
        for (reason, text) in [
            ("InvalidFile", "spec.files.A: the path has the name of a key"),
            ("InvalidFile", "spec.files...data: the path cannot be used"),
            ("InvalidFile", "spec.files.a/b: with delivery Secret"),
            ("UnknownKey", "spec.files.gone: there is no key B"),
            ("UnknownKey", "spec.files.unknown: line 3: there is no key of that name"),
            ("TemplateSyntax", "spec.files.syntax: line 2: the template has a syntax error"),
            ("TemplateUnsupported", "spec.files.call: line 1: calls are not available"),
        ] {
            assert!(told.iter().any(|(r, t)| *r == reason && t.starts_with(text)), "{text}: {told:?}");
        }
        assert_eq!(told.len(), 8, "{told:?}");
        assert!(told.iter().all(|(_, text)| !text.contains("hunter2") && !text.contains('\n')), "{told:?}");
    }

    #[test]
    fn a_secret_must_hold_them_all() {
        let half = vec![b'x'; MAX_VALUE / 2];
        let mut full = spec(&[("A", &sealed(&Scope::cluster("A").unwrap(), &half))]);
        full.public.insert("B".to_owned(), "x".repeat(MAX_VALUE / 2));
        full.public.insert("A".to_owned(), "not counted, for the sealed one is taken".to_owned());
        assert_eq!(reasons(&full), [""; 0]);
        assert_eq!(warnings(&full).len(), 1);
        full.public.insert("B".to_owned(), "x".repeat(MAX_VALUE / 2 + 1));
        assert_eq!(reasons(&full), ["TooLarge"]);
        full.public.remove("B");
        full.files
            .insert("copy".to_owned(), RenderedFile { key: Some("A".to_owned()), ..RenderedFile::default() });
        assert_eq!(reasons(&full), [""; 0]);
        full.files.insert(
            "copy2".to_owned(),
            RenderedFile { key: Some("A".to_owned()), ..RenderedFile::default() },
        );
        assert_eq!(reasons(&full), ["TooLarge"]);
    }
}
