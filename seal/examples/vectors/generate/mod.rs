//! The cases, and how they are written down.

// A case that cannot be built is a defect of the case: the generator, and the test that runs it, should stop there.
#![allow(clippy::expect_used)]

mod accepted;
pub(crate) mod forge;
mod refused_header;
mod refused_opening;
mod refused_text;

use std::fmt::Write;

use self::forge::Built;

/// Keys that are used in vectors only. Everybody knows them.
pub(crate) struct Key {
    pub(crate) identity: &'static str,
    pub(crate) recipient: &'static str,
    pub(crate) fingerprint: &'static str,
}

pub(crate) const ALICE: Key = Key {
    identity: "AGE-SECRET-KEY-1GW3M22CDFA3XHHPQ4GUT2HHCW7E6K95NZRPT6Z2YANGWC8NN79USYH75M9",
    recipient: "age1xwjhnh2hrjdhc5ejd47q7lztx7cx38wx2ra437vng2fx67psfe2s949tmt",
    fingerprint: "c9c95a863d23c001",
};
pub(crate) const BOB: Key = Key {
    identity: "AGE-SECRET-KEY-1N2HHPSK3GJGNQWLA6DKQJTFP8FCYY924UEX2WEWDGFPKL8LQL7DQLKFQAV",
    recipient: "age1tr4f9rwhu55txdkh0eg243pn865an6vtrk2ckuct4u9lpp00walq5pqf6z",
    fingerprint: "205f28614412c5aa",
};
pub(crate) const CAROL: Key = Key {
    identity: "AGE-SECRET-KEY-1UUJGYRUVX35D00848WRNXM06NMXLRFNFVP604NPJH6KKTD22T5XS0AFKUJ",
    recipient: "age163hel4447qkuduznm7ccua4n4qrlvskpaplg69da000jsmjt49qsf98x67",
    fingerprint: "c149d077425a39cc",
};

/// One vector.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    about: &'static str,
    expect: &'static str,
    place: [&'static str; 3],
    identities: Vec<&'static Key>,
    allow_unscoped: bool,
    value: Option<Vec<u8>>,
    facts: Option<Facts>,
    text: String,
}

/// What can be told without a key.
struct Facts {
    scope: String,
    to: Vec<&'static str>,
    header_len: usize,
    payload_len: usize,
}

/// Every case, in the order of the files here.
pub(crate) fn all() -> Vec<Case> {
    [accepted::cases(), refused_text::cases(), refused_header::cases(), refused_opening::cases()]
        .into_iter()
        .flatten()
        .collect()
}

impl Case {
    /// A case whose text is refused before any key is used.
    fn refused(name: &'static str, expect: &'static str, about: &'static str, text: String) -> Self {
        Self {
            name,
            about,
            expect,
            place: ["shop", "checkout", "API_KEY"],
            identities: vec![&ALICE],
            allow_unscoped: false,
            value: None,
            facts: None,
            text,
        }
    }

    /// A case whose text is well-formed. `scope` and `to` are what it says of itself.
    fn formed(
        name: &'static str,
        expect: &'static str,
        about: &'static str,
        (scope, to): (&str, &[&Key]),
        file: &Built,
    ) -> Self {
        let facts = Facts {
            scope: scope.to_owned(),
            to: to.iter().map(|key| key.fingerprint).collect(),
            header_len: file.header_len,
            payload_len: file.bytes.len() - file.header_len,
        };
        Self { facts: Some(facts), ..Self::refused(name, expect, about, file.text()) }
    }

    /// A case that opens.
    fn opens(name: &'static str, about: &'static str, says: (&str, &[&Key]), file: &Built) -> Self {
        Self { value: Some(file.value.clone()), ..Self::formed(name, "ok", about, says, file) }
    }

    fn at(self, namespace: &'static str, name: &'static str, key: &'static str) -> Self {
        Self { place: [namespace, name, key], ..self }
    }

    fn with(self, identities: &[&'static Key]) -> Self {
        Self { identities: identities.to_vec(), ..self }
    }

    fn allowing_unscoped(self) -> Self {
        Self { allow_unscoped: true, ..self }
    }

    /// The vector's file: a header of `key: value` lines, an empty line, and the text up to the end of the file.
    pub(crate) fn file(&self) -> String {
        let mut file = String::new();
        let mut line = |key: &str, value: &str| writeln!(file, "{key}: {value}").expect("writing to memory");
        let [namespace, name, key] = self.place;
        line("about", self.about);
        line("expect", self.expect);
        line("namespace", namespace);
        line("name", name);
        line("key", key);
        for identity in &self.identities {
            line("identity", identity.identity);
        }
        if self.allow_unscoped {
            line("allow-unscoped", "true");
        }
        if let Some(facts) = &self.facts {
            line("scope", &facts.scope);
            for to in &facts.to {
                line("to", to);
            }
            line("header-length", &facts.header_len.to_string());
            line("payload-length", &facts.payload_len.to_string());
        }
        if let Some(value) = &self.value {
            if value.len() <= 64 {
                line("value-hex", &hex::encode(value));
            } else {
                line("value-sha256", &forge::sha256_hex(value));
            }
        }
        file.push('\n');
        file.push_str(&self.text);
        file
    }
}
