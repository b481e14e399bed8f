//! A strict reader of plain `.env` files: the input of sealing, never its output.
//!
//! # Dialect
//!
//! - UTF-8, with or without a byte-order mark. Lines end with LF or CRLF; the last one may lack its end.
//! - Blank lines, and lines whose first character other than a blank is `#`, are skipped. A blank is a space or a tab.
//! - `KEY=value`, `export KEY=value`. Blanks before the key and on both sides of `=` are skipped. A key has letters and
//!   digits of ASCII, `-`, `_` and `.`, as in a [`Scope`](crate::Scope).
//! - An unquoted value ends at the end of its line, or at a `#` that follows a blank. Blanks at its end are dropped.
//!   Everything else in it stands for itself: quotes inside it, `\`, `$`.
//! - A value that starts with `'` ends at the next `'`. Everything in it stands for itself.
//! - A value that starts with `"` ends at the next `"` that has no `\` before it. In it, `\n`, `\r`, `\t`, `\\`, `\"`,
//!   `\'`, `\$` and `` \` `` are escapes; any other `\` is an error.
//! - Quoted values may span lines. A line end in them is read as LF, so that a checkout with CRLF means the same.
//!   After the closing quote only blanks may follow, and after a blank a comment.
//! - `$` never expands anything, here or in double quotes.
//! - A key that is set again: the last setting wins, and the earlier ones are reported.
//! - Errors: a line that is none of these, NUL, a CR that is not followed by LF, a value that starts with a backtick,
//!   a value longer than [`MAX_VALUE`], a file longer than [`MAX_FILE`].

use std::collections::HashMap;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::scope::ScopeField;
use crate::{MAX_VALUE, Plain};

/// The longest file that is read, in bytes.
pub const MAX_FILE: usize = 8 << 20;

/// What a `.env` file holds.
pub struct Variables {
    /// Each key once with its value, in the order in which the keys first appear.
    pub entries: Vec<(String, Plain)>,
    /// Settings that have no effect, because their key is set again further down; in the order of the file.
    pub repeated: Vec<Repeated>,
}

/// A setting that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// The key.
    pub key: String,
    /// The line of the setting, counted from 1.
    pub line: usize,
    /// The line of the next setting of the same key.
    pub replaced_by: usize,
}

/// Why a file was not read. Never repeats any of its text, which may be secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DotenvError {
    /// The file is longer than [`MAX_FILE`].
    #[error("the file has more than {MAX_FILE} bytes")]
    TooLarge,
    /// A line breaks the dialect.
    #[error("line {line}: {flaw}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        flaw: &'static str,
    },
}

/// What may stand around keys and values.
const BLANKS: [char; 2] = [' ', '\t'];

/// Reads a plain `.env` file in the dialect that this module describes.
pub fn read(file: &[u8]) -> Result<Variables, DotenvError> {
    if file.len() > MAX_FILE {
        return Err(DotenvError::TooLarge);
    }
    let text = check_text(file)?;
    let mut rest = Rest { text: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut found = Variables { entries: Vec::new(), repeated: Vec::new() };
    let mut places: HashMap<String, (usize, usize)> = HashMap::new();
    while !rest.text.is_empty() {
        let line = rest.line;
        let Some((key, value)) = read_setting(&mut rest)? else { continue };
        if let Some((at, earlier)) = places.get_mut(&key) {
            found.entries[*at].1 = value;
            found.repeated.push(Repeated { key, line: *earlier, replaced_by: line });
            *earlier = line;
        } else {
            places.insert(key.clone(), (found.entries.len(), line));
            found.entries.push((key, value));
        }
    }
    found.repeated.sort_by_key(|repeated| repeated.line);
    Ok(found)
}

/// Refuses what no line may have, before lines are told apart.
fn check_text(file: &[u8]) -> Result<&str, DotenvError> {
    let refuse = |at: usize, flaw| {
        let line = file[..at].split(|byte| *byte == b'\n').count();
        DotenvError::Line { line, flaw }
    };
    let text = str::from_utf8(file).map_err(|error| refuse(error.valid_up_to(), "not UTF-8"))?;
    if let Some(at) = file.iter().position(|byte| *byte == 0) {
        return Err(refuse(at, "a NUL byte"));
    }
    let lone = |at: &usize| file[*at] == b'\r' && file.get(at + 1) != Some(&b'\n');
    match (0..file.len()).find(lone) {
        Some(at) => Err(refuse(at, "a carriage return that is not followed by a line feed")),
        None => Ok(text),
    }
}

/// Reads one line, or several if its value is quoted; `None` if the line sets nothing.
fn read_setting(rest: &mut Rest<'_>) -> Result<Option<(String, Plain)>, DotenvError> {
    let start = *rest;
    let line = start.this_line();
    let content = line.trim_start_matches(BLANKS);
    if content.is_empty() || content.starts_with('#') {
        rest.skip_line();
        return Ok(None);
    }
    let (name, after) = content.split_once('=').ok_or(start.flaw("neither KEY=value nor a comment"))?;
    let key = read_key(name).ok_or(start.flaw("what stands before '=' cannot be a key"))?;
    let value = after.trim_start_matches(BLANKS);
    let value = match value.chars().next() {
        Some('`') => return Err(start.flaw("a value cannot start with a backtick: quote it with ' or \"")),
        Some(quote @ ('\'' | '"')) => {
            rest.skip(line.len() - value.len() + 1);
            read_quoted(rest, quote, start)?
        }
        _ => read_unquoted(after),
    };
    if value.len() > MAX_VALUE {
        return Err(start.flaw("the value is too large to be sealed"));
    }
    rest.skip_line();
    Ok(Some((key, value)))
}

fn read_key(name: &str) -> Option<String> {
    let name = name.trim_end_matches(BLANKS);
    let exported = name.strip_prefix("export").filter(|key| key.starts_with(BLANKS));
    ScopeField::Key.check(exported.unwrap_or(name).trim_start_matches(BLANKS)).ok()
}

/// `after` is all that follows `=` on the line.
fn read_unquoted(after: &str) -> Plain {
    let comment = after.match_indices('#').map(|(at, _)| at).find(|at| after[..*at].ends_with(BLANKS));
    let value = after[..comment.unwrap_or(after.len())].trim_matches(BLANKS);
    Plain::from(value.as_bytes().to_vec())
}

/// Reads from behind the opening quote to behind the closing one, and checks what follows it.
fn read_quoted(rest: &mut Rest<'_>, quote: char, start: Rest<'_>) -> Result<Plain, DotenvError> {
    let end = closing(rest.text, quote).ok_or(start.flaw("a quote is opened here and never closed"))?;
    let value = unquote(rest.text, end, quote == '"').ok_or(
        start.flaw("a backslash in double quotes must be \\n, \\r, \\t, \\\\, \\\", \\', \\$ or \\`"),
    )?;
    rest.skip(end + 1);
    let tail = rest.this_line();
    let comment = tail.trim_start_matches(BLANKS);
    if comment.is_empty() || (comment.starts_with('#') && tail.starts_with(BLANKS)) {
        Ok(value)
    } else {
        Err(rest.flaw("text after the closing quote"))
    }
}

/// Where the closing quote is.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        closes.then_some(at)
    })
}

/// What `text[..end]` stands for; `None` if an escape is not known.
fn unquote(text: &str, end: usize, escapes: bool) -> Option<Plain> {
    // Never longer than its source, so that it is never moved and leaves no copy behind.
    let mut value = Zeroizing::new(Vec::with_capacity(end));
    let mut bytes = text[..end].bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' if bytes.peek() == Some(&b'\n') => {}
            b'\\' if escapes => value.push(match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                same @ (b'\\' | b'"' | b'\'' | b'$' | b'`') => same,
                _ => return None,
            }),
            _ => value.push(byte),
        }
    }
    Some(Plain::new(std::mem::take(&mut value)))
}

// === Rest ===

/// What is still to be read, and the line it starts in.
#[derive(Clone, Copy)]
struct Rest<'a> {
    text: &'a str,
    line: usize,
}

impl<'a> Rest<'a> {
    /// The text up to the end of the line.
    fn this_line(&self) -> &'a str {
        let line = self.text.split_once('\n').map_or(self.text, |(line, _)| line);
        line.strip_suffix('\r').unwrap_or(line)
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.text.split_at(bytes);
        self.line += skipped.bytes().filter(|byte| *byte == b'\n').count();
        self.text = rest;
    }

    fn skip_line(&mut self) {
        self.skip(self.text.find('\n').map_or(self.text.len(), |at| at + 1));
    }

    fn flaw(&self, flaw: &'static str) -> DotenvError {
        DotenvError::Line { line: self.line, flaw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(file: &str) -> Vec<(String, String)> {
        let shown = |value: &Plain| String::from_utf8(value.expose().to_vec()).unwrap();
        let found = read(file.as_bytes()).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        found.entries.iter().map(|(key, value)| (key.clone(), shown(value))).collect()
    }

    /// The value of the only key, `K`.
    #[track_caller]
    fn value(file: &str) -> String {
        let mut found = pairs(file);
        assert_eq!(found.len(), 1, "{file:?}");
        let (key, value) = found.remove(0);
        assert_eq!(key, "K");
        value
    }

    #[track_caller]
    fn refused_at(line: usize, file: &[u8]) {
        match read(file).err() {
            Some(DotenvError::Line { line: at, .. }) => assert_eq!(at, line, "{file:?}"),
            other => panic!("{file:?}: {other:?}"),
        }
    }

    #[test]
    fn unquoted_values() {
        for (file, expected) in [
            ("K=v", "v"),
            ("K=", ""),
            ("K", "neither"),
            ("K=  v  ", "v"),
            (" \tK\t =\tv", "v"),
            ("K=a b", "a b"),
            ("K=a=b==", "a=b=="),
            ("K=v # why", "v"),
            ("K=v\t#why", "v"),
            ("K=v#w", "v#w"),
            ("K=#v", "#v"),
            ("K= # why", ""),
            ("K=a#b # c # d", "a#b"),
            ("K={\"a\": 'b'}", "{\"a\": 'b'}"),
            ("K=it's", "it's"),
            ("K=C:\\new\\$HOME", "C:\\new\\$HOME"),
            ("K=${X}$(touch /tmp/x)`id`", "${X}$(touch /tmp/x)`id`"),
            ("K=grün", "grün"),
            ("export K=v", "v"),
            ("  export\t K = v", "v"),
        ] {
            if expected == "neither" {
                refused_at(1, file.as_bytes());
            } else {
                assert_eq!(value(file), expected, "{file:?}");
            }
        }
    }

    #[test]
    fn quoted_values() {
        for (file, expected) in [
            (r"K='v'", "v"),
            (r"K=''", ""),
            (r#"K="""#, ""),
            (r"K='  v  '", "  v  "),
            (r"K='a # b' # c", "a # b"),
            (r"K='a\n$X\'", r"a\n$X\"),
            (r#"K='"'"#, "\""),
            (r#"K="a\n\r\t\\\"\'\$\`b""#, "a\n\r\t\\\"'$`b"),
            (r#"K="\\" # c"#, "\\"),
            (r#"K="${X} $(id)""#, "${X} $(id)"),
            (r#"K = "v""#, "v"),
            ("K='a\nb\n'", "a\nb\n"),
            (
                "K=\"-----BEGIN\nabc=\n# no comment\n-----END\n\"  # c\n",
                "-----BEGIN\nabc=\n# no comment\n-----END\n",
            ),
            ("K='a\r\nb'\r\n", "a\nb"),
            ("K=\"a\\r\r\nb\"", "a\r\nb"),
        ] {
            assert_eq!(value(file), expected, "{file:?}");
        }
    }

    #[test]
    fn lines_of_every_kind() {
        let file = "\u{feff}# top\r\n\r\n  # more\nA=1\r\n\t\nexport B='2\r\n2'\r\nexport=3\nexport_x=4\nC=5";
        let expected = [("A", "1"), ("B", "2\n2"), ("export", "3"), ("export_x", "4"), ("C", "5")];
        assert_eq!(pairs(file), expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for empty in ["", "\n", "\r\n", "# only", "\u{feff}", "  \t "] {
            assert_eq!(pairs(empty), [], "{empty:?}");
        }
    }

    #[test]
    fn the_last_setting_wins_and_the_others_are_reported() {
        let file = "A=1\nB='x\ny'\nA=2\nB=z\nA=3\n";
        assert_eq!(pairs(file), [("A".to_owned(), "3".to_owned()), ("B".to_owned(), "z".to_owned())]);
        let found = read(file.as_bytes()).unwrap();
        let repeated: Vec<_> =
            found.repeated.iter().map(|r| (r.key.as_str(), r.line, r.replaced_by)).collect();
        assert_eq!(repeated, [("A", 1, 4), ("B", 2, 5), ("A", 4, 6)]);
    }

    #[test]
    fn what_is_refused_and_where() {
        refused_at(2, b"A=1\nno assignment");
        refused_at(1, b"=v");
        refused_at(1, b"export =v\xff");
        refused_at(1, b"export a b=v");
        refused_at(1, b"A B=v");
        refused_at(1, b"A:B=v");
        refused_at(1, "schlüssel=v".as_bytes());
        refused_at(1, b"..=v");
        refused_at(2, b"A=1\nB='open\nC=2\n");
        refused_at(1, b"A=\"open\\\"\n");
        refused_at(1, b"A=\"ends with \\");
        refused_at(1, b"A=\"C:\\path\"");
        refused_at(1, b"A='v'w");
        refused_at(1, b"A='v'#c");
        refused_at(3, b"A='v\n\n'w");
        refused_at(1, b"A='v' w");
        refused_at(1, b"A=`v`");
        refused_at(2, b"A=1\nB=\0");
        refused_at(1, b"A=1\rB=2");
        refused_at(2, b"# c\n# d\r# e");
        refused_at(1, b"A='x\ry'");
        refused_at(2, b"A=1\nB=\xff\n");
        refused_at(1, b"\xff\xfeA\0=\0v\0");
    }

    #[test]
    fn sizes_are_bounded() {
        let fits = format!("K={}", "v".repeat(MAX_VALUE));
        assert_eq!(value(&fits).len(), MAX_VALUE);
        refused_at(1, format!("{fits}v").as_bytes());
        refused_at(1, format!("K='{}v'", "v".repeat(MAX_VALUE)).as_bytes());
        assert_eq!(read(&vec![b'\n'; MAX_FILE + 1]).err(), Some(DotenvError::TooLarge));
        assert!(read(&vec![b'\n'; MAX_FILE]).is_ok());
    }

    #[test]
    fn errors_repeat_nothing_of_the_file() {
        for file in
            ["canary", "canary canary=1", "K='canary", "K=\"canary\\q\"", "K='a' canary", "K=`canary`"]
        {
            let error = read(file.as_bytes()).err().unwrap();
            assert!(!format!("{error} {error:?}").contains("canary"), "{file}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(2000))]

        #[test]
        fn any_bytes_are_read_or_refused(file: Vec<u8>) {
            let _ = read(&file);
        }

        #[test]
        fn any_text_of_the_dialects_letters_is_read_or_refused(file in "[K=\"'`\\\\n$# \t\r\n.x\u{feff}]{0,40}") {
            let _ = read(file.as_bytes());
        }

        #[test]
        fn every_value_can_be_written_in_double_quotes(text in "[^\\x00]{0,40}") {
            let escaped: String = text.chars().map(|c| match c {
                '"' | '\\' | '$' | '`' => format!("\\{c}"),
                '\r' => "\\r".to_owned(),
                c => c.to_string(),
            }).collect();
            proptest::prop_assert_eq!(value(&format!("K=\"{escaped}\"")), text);
        }

        #[test]
        fn every_value_without_its_quote_can_be_written_in_single_quotes(text in "[^\\x00\r']{0,40}") {
            proptest::prop_assert_eq!(value(&format!("K='{text}'")), text);
        }
    }
}
