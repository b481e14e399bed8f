//! Common formats, and how each quotes a text. The rules stand in docs/src/files.md as well.

use std::fmt::Write as _;

use sealedenv_crds::FileFormat;
use sealedenv_seal::Plain;
use zeroize::Zeroizing;

use crate::Fault;

/// All keys with their values in a format.
pub(crate) fn write(format: FileFormat, entries: &[(&str, &str)]) -> Result<Plain, Fault> {
    let mut out = Zeroizing::new(String::new());
    match format {
        FileFormat::Dotenv => {
            for (key, value) in entries {
                if !is_variable(key) {
                    return Err(Fault::NotAVariable((*key).into()));
                }
                out.push_str(key);
                out.push('=');
                dotenv(&mut out, value).map_err(|Nul| Fault::Nul((*key).into()))?;
                out.push('\n');
            }
        }
        FileFormat::Json => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "\n  " } else { ",\n  " });
                json(&mut out, key);
                out.push_str(": ");
                json(&mut out, value);
            }
            out.push_str("\n}\n");
        }
        FileFormat::Yaml => {
            for (key, value) in entries {
                yaml(&mut out, key);
                out.push_str(": ");
                yaml(&mut out, value);
                out.push('\n');
            }
        }
        FileFormat::Properties => {
            for (key, value) in entries {
                properties(&mut out, key, Side::Key);
                out.push('=');
                properties(&mut out, value, Side::Value);
                out.push('\n');
            }
        }
    }
    Ok(Plain::from(std::mem::take(&mut *out)))
}

/// Whether every reader of dotenv files, and every shell, takes it for a variable.
pub(crate) fn is_variable(key: &str) -> bool {
    !key.starts_with(|c: char| c.is_ascii_digit())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A NUL, where a format has no way to write one.
pub(crate) struct Nul;

/// The value of a line of a dotenv file: as it is where nothing in it could mean anything, otherwise in single quotes,
/// and in double quotes with escapes where those would not do. Readers differ about a backslash in single quotes only
/// before another one, or before the quote.
pub(crate) fn dotenv(out: &mut String, value: &str) -> Result<(), Nul> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,=".contains(c);
    if value.contains('\0') {
        return Err(Nul);
    }
    if value.chars().all(plain) {
        out.push_str(value);
    } else if !value.contains(['\'', '\n', '\r']) && !value.contains("\\\\") && !value.ends_with('\\') {
        out.push('\'');
        out.push_str(value);
        out.push('\'');
    } else {
        out.push('"');
        for c in value.chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\\' | '"' | '$' => out.extend(['\\', c]),
                _ => out.push(c),
            }
        }
        out.push('"');
    }
    Ok(())
}

/// One word of a POSIX shell.
pub(crate) fn shell(out: &mut String, value: &str) -> Result<(), Nul> {
    if value.contains('\0') {
        return Err(Nul);
    }
    out.push('\'');
    out.extend(value.split_inclusive('\'').flat_map(|part| match part.strip_suffix('\'') {
        Some(before) => [before, "'\\''"],
        None => [part, ""],
    }));
    out.push('\'');
    Ok(())
}

/// A string of JSON.
pub(crate) fn json(out: &mut String, text: &str) {
    quoted(out, text, |c| c < ' ');
}

/// A double-quoted scalar of YAML: never a number, a date, true or null. It is JSON too, unless the text has characters
/// that YAML does not print.
pub(crate) fn yaml(out: &mut String, text: &str) {
    let unprintable = |c| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    quoted(out, text, unprintable);
}

/// In double quotes, with JSON's escapes. What `escaped` picks is below U+10000.
fn quoted(out: &mut String, text: &str, escaped: impl Fn(char) -> bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if escaped(c) => unicode(out, c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Which side of `=` a text of a properties file stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Key,
    Value,
}

/// As `java.util.Properties.store` writes it: ASCII, so that no reader's encoding matters.
pub(crate) fn properties(out: &mut String, text: &str, side: Side) {
    let mut units = [0; 2];
    for (index, c) in text.chars().enumerate() {
        match c {
            ' ' if side == Side::Key || index == 0 => out.push_str("\\ "),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\x0c' => out.push_str("\\f"),
            '\\' | '=' | ':' | '#' | '!' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => c.encode_utf16(&mut units).iter().for_each(|unit| unicode(out, u32::from(*unit))),
        }
    }
}

fn unicode(out: &mut String, unit: u32) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\u{unit:04x}");
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
pub(crate) fn urlencode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}
