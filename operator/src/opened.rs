//! Opens the values of one SealedEnv. Pure: a spec and a keyring in, an outcome for each key out.

use std::collections::BTreeMap;

use sealedenv_crds::{Class, SealedEnvSpec, Source, names};
use sealedenv_seal::{Keyring, OpenPolicy, Place, Plain, Sealed, open};

/// What came of each key of a SealedEnv.
#[derive(Default)]
pub struct Opened(pub BTreeMap<String, OpenedKey>);

/// What came of one key.
pub struct OpenedKey {
    /// Where its value comes from.
    pub source: Source,
    /// How well it must be kept.
    pub class: Class,
    /// Fingerprints of the recipients the sealed value names.
    pub sealed_to: Vec<String>,
    /// The value, or why there is none.
    pub value: Result<Plain, KeyFault>,
}

/// Why a value could not be opened. Holds names only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFault {
    /// Stable `PascalCase` reason.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// The most values that are opened on the spot.
const QUICK_VALUES: usize = 32;

/// The most bytes of sealed text that are.
const QUICK_BYTES: usize = 128 << 10;

/// Whether opening takes about a millisecond, so that handing it to another thread would be a third of that; some
/// milliseconds where hints are false. What takes longer must not hold up others on the same thread.
pub fn is_quick(spec: &SealedEnvSpec) -> bool {
    let texts = spec.data.values().map(String::len).sum::<usize>();
    spec.files.is_empty() && spec.data.len() <= QUICK_VALUES && texts <= QUICK_BYTES
}

/// Opens every value of a spec. Where a key stands in `data` and in `public`, `data` wins.
pub fn open_all(
    namespace: &str,
    name: &str,
    spec: &SealedEnvSpec,
    ring: &Keyring,
    policy: OpenPolicy,
) -> Opened {
    let class_of = |key: &str, default: Class| spec.meta.get(key).and_then(|m| m.class).unwrap_or(default);
    let public = spec.public.iter().filter(|(key, _)| !spec.data.contains_key(*key)).map(|(key, value)| {
        let value = valid_name(key).map(|()| Plain::from(value.clone().into_bytes()));
        let class = class_of(key, Class::Public);
        (key.clone(), OpenedKey { source: Source::Public, class, sealed_to: Vec::new(), value })
    });
    let sealed = spec.data.iter().map(|(key, text)| {
        let class = class_of(key, Class::Secret);
        let (sealed_to, value) = match valid_name(key).and_then(|()| parse(text)) {
            Err(fault) => (Vec::new(), Err(fault)),
            Ok(sealed) => {
                let to = sealed.recipients().iter().map(ToString::to_string).collect();
                let place = Place { namespace, name, key };
                let value = open(&place, ring, &sealed, policy)
                    .map_err(|e| KeyFault { reason: e.reason(), message: e.to_string() });
                (to, value)
            }
        };
        (key.clone(), OpenedKey { source: Source::Sealed, class, sealed_to, value })
    });
    Opened(public.chain(sealed).collect())
}

fn parse(text: &str) -> Result<Sealed, KeyFault> {
    Sealed::parse(text).map_err(|e| KeyFault { reason: e.reason(), message: e.to_string() })
}

fn valid_name(key: &str) -> Result<(), KeyFault> {
    if names::is_valid_key(key) {
        return Ok(());
    }
    Err(KeyFault {
        reason: "InvalidKeyName",
        message:
            "a key name may have letters, digits, '-', '_' and '.', at most 253, and not start with '..'"
                .into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealedenv_crds::{KeyMeta, RenderedFile};
    use sealedenv_seal::{Identity, Scope, seal};

    #[test]
    fn each_key_has_its_own_outcome() {
        let identity = Identity::generate();
        let to = [identity.recipient()];
        let text = |ns: &str, name: &str, key: &str| {
            let scope = Scope::strict(ns, name, key).unwrap();
            seal(&scope, &to, &Plain::from(b"v".to_vec())).unwrap().to_string()
        };
        let mut spec = SealedEnvSpec::default();
        spec.data.insert("GOOD".into(), text("shop", "checkout", "GOOD"));
        spec.data.insert("MOVED".into(), text("shop", "billing", "MOVED"));
        spec.data.insert("PLAIN".into(), "hunter2".into());
        spec.data.insert("BOTH".into(), text("shop", "checkout", "BOTH"));
        spec.data.insert("..data".into(), text("shop", "checkout", "GOOD"));
        spec.public.insert("BOTH".into(), "loses".into());
        spec.public.insert("MODE".into(), "live".into());
        spec.meta.insert("MODE".into(), KeyMeta { class: Some(Class::Sensitive), ..KeyMeta::default() });

        let opened =
            open_all("shop", "checkout", &spec, &Keyring::new(vec![identity]), OpenPolicy::default());
        let value =
            |key: &str| opened.0[key].value.as_ref().map(|p| p.expose().to_vec()).map_err(|f| f.reason);
        assert_eq!(value("GOOD"), Ok(b"v".to_vec()));
        assert_eq!(value("BOTH"), Ok(b"v".to_vec()));
        assert_eq!(value("MODE"), Ok(b"live".to_vec()));
        assert_eq!(value("MOVED"), Err("ScopeMismatch"));
        assert_eq!(value("PLAIN"), Err("NotSealed"));
        assert_eq!(value("..data"), Err("InvalidKeyName"));
        assert_eq!(opened.0["MODE"].class, Class::Sensitive);
        assert_eq!(opened.0["GOOD"].class, Class::Secret);
        assert_eq!(opened.0["GOOD"].sealed_to.len(), 1);
        for key in opened.0.values() {
            if let Err(fault) = &key.value {
                assert!(!fault.message.contains("hunter2"), "{fault:?}");
            }
        }
    }

    #[test]
    fn few_and_small_values_are_opened_on_the_spot() {
        let spec = |values: usize, bytes: usize, files: bool| SealedEnvSpec {
            data: (0..values).map(|n| (format!("K{n}"), "x".repeat(bytes))).collect(),
            files: files.then(|| ("a".to_owned(), RenderedFile::default())).into_iter().collect(),
            ..SealedEnvSpec::default()
        };
        assert!(is_quick(&spec(QUICK_VALUES, 600, false)));
        assert!(!is_quick(&spec(QUICK_VALUES + 1, 600, false)));
        assert!(is_quick(&spec(1, QUICK_BYTES, false)));
        assert!(!is_quick(&spec(1, QUICK_BYTES + 1, false)));
        assert!(!is_quick(&spec(1, 600, true)));
    }
}
