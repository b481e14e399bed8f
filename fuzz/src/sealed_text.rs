//! Reading a sealed value: the text, base64, the scan of the header. No key is at hand.
//!
//! Input that starts with `sealed` is the text; any other is the age file in it, so that mutations reach the header
//! without passing through base64.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sealedenv_seal::{
    Keyring, MAX_HEADER, MAX_STANZAS, MAX_VALUE, OpenError, OpenPolicy, PREFIX, Place, Scope, Sealed, open,
};

use crate::{Seed, files};

/// # Panics
/// Unless every text is read or refused for a reason that is known, what is read is written back byte for byte, the
/// facts it tells add up, and the age crate can read every header that the scan lets pass.
pub fn run(data: &[u8]) {
    if data.starts_with(b"sealed") {
        if let Ok(text) = str::from_utf8(data) {
            check(text);
        }
    } else {
        check(&format!("{PREFIX}{}", BASE64_STANDARD.encode(data)));
    }
}

fn check(text: &str) {
    let sealed = match Sealed::parse(text) {
        Ok(sealed) => sealed,
        Err(error) => {
            let message = error.to_string();
            assert!(
                !error.reason().is_empty() && message.len() < 200 && !message.contains('\n'),
                "{message}"
            );
            return;
        }
    };
    assert_eq!(sealed.to_string(), text, "written back as another text");
    assert!(sealed.header_len() <= MAX_HEADER && sealed.value_len() <= MAX_VALUE);
    assert!(sealed.recipient_stanzas() <= MAX_STANZAS && sealed.unknown_types().len() <= 8);
    assert!(sealed.payload_len() >= sealed.value_len() + 32, "a payload without nonce and tag");
    let encoded = text.len() - PREFIX.len();
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    assert_eq!(sealed.header_len() + sealed.payload_len(), encoded / 4 * 3 - padding);
    let mut to = sealed.recipients().to_vec();
    to.sort();
    to.dedup();
    assert_eq!(to.len(), sealed.recipients().len(), "a recipient is named twice");
    if let Some(scope) = sealed.scope() {
        let place = inside(scope);
        assert!(scope.admits(&place));
        assert_eq!(again(scope).as_ref(), Some(scope), "a scope that cannot be made");
    }
    // A short value is opened without the age crate, which has to read what the scan lets pass all the same.
    let file = BASE64_STANDARD.decode(&text[PREFIX.len()..]).expect("base64");
    if let Err(error) = age::Decryptor::new_buffered(&file[..]) {
        panic!("the age crate refuses what the scan let pass: {error}");
    }
    let place = sealed.scope().map_or(Place { namespace: "n", name: "n", key: "k" }, inside);
    match open(&place, &Keyring::new(Vec::new()), &sealed, OpenPolicy { allow_unscoped: true }) {
        Err(OpenError::NoIdentity { untried: 0, .. } | OpenError::UnknownRecipientType { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened without a key"),
    }
}

/// A place that a scope admits.
fn inside(scope: &Scope) -> Place<'_> {
    Place {
        namespace: scope.bound_namespace().unwrap_or("any"),
        name: scope.bound_name().unwrap_or("any"),
        key: scope.key(),
    }
}

/// The same scope, made anew from its parts.
fn again(scope: &Scope) -> Option<Scope> {
    match (scope.bound_namespace(), scope.bound_name()) {
        (Some(namespace), Some(name)) => Scope::strict(namespace, name, scope.key()).ok(),
        (Some(namespace), None) => Scope::namespace(namespace, scope.key()).ok(),
        (None, _) => Scope::cluster(scope.key()).ok(),
    }
}

/// Our vectors as texts and as files, and the files of CCTV.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, vector) in files("seal/vectors", "") {
        let Some(text) = vector.windows(2).position(|pair| pair == b"\n\n").map(|at| &vector[at + 2..])
        else {
            continue;
        };
        if text.len() > 16 << 10 {
            continue;
        }
        if let Some(Ok(file)) = text.strip_prefix(PREFIX.as_bytes()).map(|text| BASE64_STANDARD.decode(text))
        {
            seeds.push((format!("file-{name}"), file));
        } else {
            seeds.push((format!("text-{name}"), text.to_vec()));
        }
    }
    seeds.extend(of_cctv());
    seeds
}

fn of_cctv() -> impl Iterator<Item = Seed> {
    files("seal/vectors-cctv/testdata", "").into_iter().filter_map(|(name, vector)| {
        let head = vector.windows(2).position(|pair| pair == b"\n\n")?;
        Some((format!("cctv-{name}"), vector[head + 2..].to_vec())).filter(|(_, file)| file.len() < 4 << 10)
    })
}
