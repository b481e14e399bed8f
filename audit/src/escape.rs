//! Characters that must not reach a terminal or break a line, and how they are written.
//!
//! The same rule serves the JSON lines (where `\u001b` is read back as the character) and text for people (where it
//! stays visible).

use std::fmt::Write as _;

/// Whether a character is written as `\uXXXX`: controls (C0, DEL, C1), and the format and separator characters that
/// reorder, hide or break text (bidirectional controls, zero-width characters, line and paragraph separators, tags).
#[must_use]
pub fn needs_escape(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'                                  // soft hyphen
            | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}'                              // Mongolian vowel separator
            | '\u{200b}'..='\u{200f}'                 // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}'                 // line and paragraph separators, embeddings and overrides
            | '\u{2060}'..='\u{206f}'                 // word joiner, isolates, deprecated format characters
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'    // byte-order mark, interlinear annotation
            | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'               // musical format characters
            | '\u{e0000}'..='\u{e0fff}') // tags and variation selectors
}

/// Text made safe to print on a terminal: every character for which [`needs_escape`] holds becomes `\uXXXX`.
///
/// A backslash stays as it is, so this is for showing, not for reading back.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if needs_escape(c) { push_escaped(&mut out, c) } else { out.push(c) }
    }
    out
}

/// Appends `\uXXXX`, or a surrogate pair of them outside the basic plane, in lower-case hex, as JSON has it.
pub(crate) fn push_escaped(out: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        let _ = write!(out, "\\u{unit:04x}"); // writing to a String cannot fail
    }
}

/// Cuts text to at most `max` bytes on a character boundary; text that was cut ends in `…` (inside the limit).
///
/// Text that fits is returned as it is, so cutting twice is cutting once.
pub(crate) fn cut(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max.saturating_sub(MARK.len()));
    format!("{}{MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_shown_as_escapes() {
        assert_eq!(
            escape("a\u{1b}[31m\r\n\0\u{202e}b\u{85}\u{7f}"),
            r"a\u001b[31m\u000d\u000a\u0000\u202eb\u0085\u007f"
        );
        assert_eq!(escape("\u{e0041}"), r"\udb40\udc41");
        assert_eq!(escape("plain, ünïcödé ☂ \\ \"x\""), "plain, ünïcödé ☂ \\ \"x\"");
    }

    #[test]
    fn cutting_keeps_characters_whole_and_is_idempotent() {
        for max in 3..20 {
            let once = cut("aé☂😀aé☂😀aé☂😀", max);
            assert!(once.len() <= max, "{max}: {once:?}");
            assert!(once.ends_with('…'));
            assert_eq!(cut(&once, max), once);
        }
        assert_eq!(cut("short", 5), "short");
    }
}
