//! How a scalar is read and written.

use std::fmt::Write as _;

/// What Kubernetes' YAML reader makes of a scalar. It follows YAML 1.1, where a plain `yes` is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Text.
    Text,
    /// `null`, `~` or nothing at all.
    Null,
    /// A truth value.
    Bool,
    /// A number.
    Number,
}

/// How a plain (unquoted) scalar is read. Where readers differ (`y`, `0o17`), the one that is not text.
pub(crate) fn read_plain(text: &str) -> Reading {
    match text.to_ascii_lowercase().as_str() {
        "" | "~" | "null" => Reading::Null,
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n" => Reading::Bool,
        _ if is_number(text) => Reading::Number,
        _ => Reading::Text,
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = unsigned.to_ascii_lowercase();
    if matches!(lower.as_str(), ".inf" | ".nan") {
        return true;
    }
    let of = |digits: &str, radix: u32| {
        !digits.is_empty() && digits.chars().all(|c| c == '_' || c.is_digit(radix)) && digits != "_"
    };
    if let Some(digits) = lower.strip_prefix("0x") {
        return of(digits, 16);
    }
    if let Some(digits) = lower.strip_prefix("0o") {
        return of(digits, 8);
    }
    if let Some(digits) = lower.strip_prefix("0b") {
        return of(digits, 2);
    }
    if !lower.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    lower.replace('_', "").parse::<f64>().is_ok()
}

impl Reading {
    /// The JSON of a scalar of this reading. A number that JSON does not know becomes text: no field of ours that
    /// a rule looks at is a number.
    pub(crate) fn to_json(self, text: &str) -> serde_json::Value {
        match self {
            Self::Text => text.into(),
            Self::Null => serde_json::Value::Null,
            Self::Bool => matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "y").into(),
            Self::Number => text
                .parse::<i64>()
                .map(Into::into)
                .or_else(|_| text.parse::<f64>().map(Into::into))
                .unwrap_or_else(|_| text.into()),
        }
    }
}

/// A text as a YAML scalar that every reader takes as that text: plain where that is beyond doubt, else quoted.
pub(crate) fn written(text: &str) -> String {
    let mut bytes = text.bytes();
    let plain = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
        && read_plain(text) == Reading::Text;
    if plain { text.to_owned() } else { quoted(text) }
}

/// A text as a double-quoted YAML scalar on one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Not printable in YAML, or able to hide from or mislead whoever reads the file.
            c if sealedenv_audit::needs_escape(c) || matches!(c, '\u{fffe}'..='\u{ffff}') => {
                let _ = match u32::from(c) {
                    code @ 0..=0xff => write!(out, "\\x{code:02x}"),
                    code @ 0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_scalars_are_read_as_kubernetes_does() {
        for text in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(read_plain(text), Reading::Null, "{text:?}");
        }
        for text in ["true", "False", "YES", "no", "on", "Off", "y", "N"] {
            assert_eq!(read_plain(text), Reading::Bool, "{text:?}");
        }
        for text in
            ["0", "-1", "+12", "1_000", "0x1F", "0o17", "0b11", "1.5", ".5", "1e3", "-.inf", ".NaN", "6E-2"]
        {
            assert_eq!(read_plain(text), Reading::Number, "{text:?}");
        }
        for text in [
            "a",
            "sealed:v1:AAA=",
            "1.2.3",
            "0x",
            "0xg",
            "infinity",
            "nan",
            "-",
            ".",
            "1a",
            "2026-01-01",
            "_1",
        ] {
            assert_eq!(read_plain(text), Reading::Text, "{text:?}");
        }
    }

    #[test]
    fn only_what_no_reader_takes_for_something_else_is_written_plain() {
        for text in ["live", "a.b-c_d/e", "_x", "eu-west-1"] {
            assert_eq!(written(text), text);
        }
        assert_eq!(written(""), "\"\"");
        assert_eq!(written("yes"), "\"yes\"");
        assert_eq!(written("12"), "\"12\"");
        assert_eq!(written("a: b # c"), "\"a: b # c\"");
        assert_eq!(written("a\n\"\\\u{1b}\u{202e}\u{e0041}"), r#""a\n\"\\\x1b\u202e\U000e0041""#);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in any::<String>()) {
            for scalar in [written(&text), quoted(&text)] {
                let line = format!("k: {scalar}\n");
                let read = super::super::parse(&line).expect("YAML");
                prop_assert_eq!(read[0].get("k").and_then(|node| node.text()), Some(text.as_str()));
                // A second implementation's reading.
                let again: std::collections::BTreeMap<String, String> = serde_saphyr::from_str(&line).expect("YAML");
                prop_assert_eq!(&again["k"], &text);
            }
        }
    }
}
