//! Reading a plain `.env` file.

use sealedenv_seal::dotenv::{DotenvError, Variables, read};
use sealedenv_seal::{MAX_VALUE, Scope};

use crate::Seed;

/// # Panics
/// Unless every file is read or refused, keys are names of keys and stand there once, and what was read, written in the
/// plainest form and read again, is the same.
pub fn run(data: &[u8]) {
    let found = match read(data) {
        Ok(found) => found,
        Err(DotenvError::TooLarge) => panic!("too large: {} bytes", data.len()),
        Err(error @ DotenvError::Line { line, .. }) => {
            let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
            assert!(error.to_string().len() < 120);
            return;
        }
    };
    let mut keys: Vec<&str> = found.entries.iter().map(|(key, _)| key.as_str()).collect();
    assert!(keys.iter().all(|key| Scope::cluster(key).is_ok()), "a key that is no key");
    let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
    for repeated in &found.repeated {
        assert!(keys.contains(&repeated.key.as_str()));
        assert!(1 <= repeated.line && repeated.line < repeated.replaced_by && repeated.replaced_by <= lines);
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), found.entries.len(), "a key stands there twice");
    assert!(found.entries.iter().all(|(_, value)| value.len() <= data.len().min(MAX_VALUE)));

    let written = write(&found);
    let again = read(written.as_bytes()).unwrap_or_else(|error| panic!("{error} in {written:?}"));
    assert!(again.repeated.is_empty());
    assert_eq!(again.entries.len(), found.entries.len());
    for ((key, value), (same_key, same)) in found.entries.iter().zip(&again.entries) {
        assert_eq!(key, same_key);
        assert!(value.same_as(same), "another value of {key} in {written:?}");
    }
    // Nothing is expanded and nothing is evaluated: what has no quote, escape or comment stands for itself.
    if let Some((key, value)) = literal(data) {
        let (found_key, found_value) = &found.entries[0];
        assert_eq!((found_key.as_bytes(), found_value.expose()), (key, value));
    }
}

/// Each value in double quotes, with what needs it escaped.
fn write(found: &Variables) -> String {
    let mut text = String::new();
    for (key, value) in &found.entries {
        text.push_str(key);
        text.push_str("=\"");
        for c in str::from_utf8(value.expose()).expect("text of a text").chars() {
            match c {
                '"' | '\\' | '$' | '`' => text.extend(['\\', c]),
                '\r' => text.push_str("\\r"),
                c => text.push(c),
            }
        }
        text.push_str("\"\n");
    }
    text
}

/// Key and value of a file of one line that is nothing but letters around a `=`.
fn literal(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = data.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&data[..at], &data[at + 1..]);
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"#'\"`".contains(byte);
    let is_key = key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') && !key.is_empty();
    (is_key && value.iter().all(plain)).then_some((key, value))
}

/// One file for each rule of the dialect.
pub fn seeds() -> Vec<Seed> {
    let texts: [&str; 16] = [
        "KEY=value\n",
        "export KEY = value # comment\r\nB=2",
        "# comment\n\n  A='single # $HOME'\nB=\"double\\n\\t\\\"\\$ \"  # c\n",
        "MULTI=\"one\ntwo\nthree\"\nS='a\nb'\n",
        "A=1\nA=2\nB=$(touch x)\nC=${A:-$(id)}\n",
        "\u{feff}A=ü\nB=a#b\nC=a #b\n",
        "A=`id`\n",
        "A='open",
        "A=\"bad \\q\"\n",
        "A='x'y\n",
        "no equals sign\n",
        "..A=1\n",
        "A=1\r\rB=2\n",
        "A=a\0b\n",
        "-=\n_=''\n.a=\"\"\n",
        "export\tK\t=\t'v'\t#\n",
    ];
    texts.iter().enumerate().map(|(n, text)| (format!("text-{n:02}"), text.as_bytes().to_vec())).collect()
}
