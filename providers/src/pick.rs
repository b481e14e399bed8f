//! The value that one key takes out of an answer.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sealedenv_seal::Plain;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Most levels of JSON that are looked into.
pub const MAX_DEPTH: usize = 16;

/// The largest answer, in bytes: what a Secret holds.
pub const MAX_ANSWER: usize = 1 << 20;

/// Why there is no value. Says nothing of what the answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickError {
    /// The answer has no such property.
    #[error("the answer has no such property")]
    NotThere,
    /// The property, or the whole answer, is empty or null: a store that lost a value says this.
    #[error("the value is empty")]
    Empty,
    /// A property is asked for, and the answer is no JSON.
    #[error("the answer is no JSON")]
    NotJson,
    /// It is larger than a Secret can hold, or nested deeper than is looked into.
    #[error("the answer is larger than is taken")]
    TooLarge,
}

/// A property by its JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(String);

/// A property that cannot be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a property begins with /, as in /data/password; ~ and / in names are written ~0 and ~1")]
pub struct PointerError;

impl Pointer {
    /// Reads one. A name without `/` is a property of the top level, as users of other operators write it.
    ///
    /// # Errors
    /// [`PointerError`], where a `~` is no escape.
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let mut escapes = text.split('~').skip(1);
        if text.is_empty() || !escapes.all(|rest| rest.starts_with(['0', '1'])) {
            return Err(PointerError);
        }
        Ok(Self(if text.starts_with('/') { text.to_owned() } else { format!("/{text}") }))
    }
}

/// Takes a value out of an answer: all of it, or one property. A text gives its characters, a number or a truth value its
/// JSON to the last digit, an object or a list compact JSON.
///
/// # Errors
/// [`PickError`].
pub fn pick(answer: &Plain, property: Option<&Pointer>) -> Result<Plain, PickError> {
    if answer.len() > MAX_ANSWER {
        return Err(PickError::TooLarge);
    }
    let Some(Pointer(property)) = property else { return some(answer.expose().to_vec()) };
    if depth(answer.expose()) > MAX_DEPTH {
        return Err(PickError::TooLarge);
    }
    let mut at: &RawValue = serde_json::from_slice(answer.expose()).map_err(|_| PickError::NotJson)?;
    for name in property.split('/').skip(1) {
        at = below(at, &name.replace("~1", "/").replace("~0", "~"))?;
    }
    match at.get() {
        "null" => Err(PickError::Empty),
        text if text.starts_with('"') => some(read::<String>(at)?.into_bytes()),
        text => some(compact(text)),
    }
}

/// One level down. What is there stays as it was written: a number that is read and written again loses digits.
fn below<'a>(at: &'a RawValue, name: &str) -> Result<&'a RawValue, PickError> {
    let found = match at.get().as_bytes().first() {
        Some(b'{') => read::<BTreeMap<Key<'a>, &RawValue>>(at)?.remove(name),
        Some(b'[') => {
            let is_index = name == "0" || !name.starts_with(['0', '+']);
            let index = name.parse::<usize>().ok().filter(|_| is_index);
            index.and_then(|index| read::<Vec<&RawValue>>(at).ok()?.get(index).copied())
        }
        _ => None,
    };
    found.ok_or(PickError::NotThere)
}

/// A name, of which nothing is copied unless it holds an escape.
#[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::borrow::Borrow<str> for Key<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Result<T, PickError> {
    serde_json::from_str(json.get()).map_err(|_| PickError::NotJson)
}

/// Without the white space between its parts.
fn compact(json: &str) -> Vec<u8> {
    let (mut quoted, mut escaped) = (false, false);
    let is_kept = |byte: &u8| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
        quoted || !byte.is_ascii_whitespace()
    };
    json.bytes().filter(is_kept).collect()
}

fn some(bytes: Vec<u8>) -> Result<Plain, PickError> {
    if bytes.is_empty() { Err(PickError::Empty) } else { Ok(Plain::from(bytes)) }
}

/// How deep the brackets of a JSON text go: seen before a tree is made of it.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' if !quoted => now = now.saturating_sub(1),
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picked(answer: &str, property: Option<&str>) -> Result<String, PickError> {
        let pointer = property.map(|text| Pointer::parse(text).unwrap());
        let picked = pick(&Plain::from(answer.as_bytes().to_vec()), pointer.as_ref())?;
        Ok(String::from_utf8(picked.expose().to_vec()).unwrap())
    }

    #[test]
    fn a_value_is_all_of_an_answer_or_one_property() {
        let json = r#"{"password":"hunter2","port":5432,"tls":true,"hosts":["a","b"],"a/b":"1","m~n":"2",
            "nested":{"deep":{"er":"x"}},"nothing":null,"empty":"","zero":0,"quote":"\"{[" }"#;
        for (property, expected) in [
            ("/password", Ok("hunter2")),
            ("password", Ok("hunter2")),
            ("/port", Ok("5432")),
            ("/tls", Ok("true")),
            ("/hosts", Ok(r#"["a","b"]"#)),
            ("/hosts/1", Ok("b")),
            ("/a~1b", Ok("1")),
            ("/m~0n", Ok("2")),
            ("/nested/deep", Ok(r#"{"er":"x"}"#)),
            ("/zero", Ok("0")),
            ("/quote", Ok("\"{[")),
            ("/nothing", Err(PickError::Empty)),
            ("/empty", Err(PickError::Empty)),
            ("/absent", Err(PickError::NotThere)),
            ("/password/more", Err(PickError::NotThere)),
            ("/hosts/2", Err(PickError::NotThere)),
        ] {
            assert_eq!(picked(json, Some(property)), expected.map(str::to_owned), "{property}");
        }
        assert_eq!(picked("not json", None), Ok("not json".to_owned()));
        assert_eq!(picked("", None), Err(PickError::Empty));
        assert_eq!(picked("not json", Some("/a")), Err(PickError::NotJson));
        assert_eq!(picked(r#"{"a":"b"} trailing"#, Some("/a")), Err(PickError::NotJson));
        assert_eq!(picked("null", None), Ok("null".to_owned()), "a text of four letters");
    }

    #[test]
    fn a_number_keeps_its_digits_and_a_list_only_its_white_space_is_lost() {
        let json = r#"{"a": 1.10, "b": 12345678901234567890123, "c": [ 1.0, "a \" b" ], "d\u0065": 1e400}"#;
        for (property, expected) in
            [("/a", "1.10"), ("/b", "12345678901234567890123"), ("/c", r#"[1.0,"a \" b"]"#), ("/de", "1e400")]
        {
            assert_eq!(picked(json, Some(property)), Ok(expected.to_owned()));
        }
        assert_eq!(picked(r#"["a"]"#, Some("/00")), Err(PickError::NotThere));
    }

    #[test]
    fn an_answer_without_bounds_is_not_read() {
        let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        let path = "/a".repeat(MAX_DEPTH);
        assert_eq!(picked(&deep(MAX_DEPTH), Some(&path)), Ok("1".to_owned()));
        assert_eq!(picked(&deep(MAX_DEPTH + 1), Some("/a")), Err(PickError::TooLarge));
        assert_eq!(picked(&"[".repeat(MAX_ANSWER), Some("/a")), Err(PickError::TooLarge));
        assert_eq!(picked(&"x".repeat(MAX_ANSWER), None).map(|text| text.len()), Ok(MAX_ANSWER));
        assert_eq!(picked(&"x".repeat(MAX_ANSWER + 1), None), Err(PickError::TooLarge));
    }

    #[test]
    fn a_pointer_that_means_nothing_is_refused() {
        for text in ["", "~", "/a~", "/a~2b", "a~x"] {
            assert_eq!(Pointer::parse(text), Err(PointerError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes: Vec<u8>, property in "(/[a-z~01]{0,3}){0,3}") {
            let pointer = Pointer::parse(&property).ok();
            if let Ok(value) = pick(&Plain::from(bytes), pointer.as_ref()) {
                prop_assert!(!value.is_empty());
            }
        }

        #[test]
        fn what_is_under_a_name_is_found(name in "[a-z/~]{1,8}", value in "\\PC{1,20}") {
            let json = serde_json::json!({ &name: &value, "other": { "x": 1 } }).to_string();
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            prop_assert_eq!(picked(&json, Some(&pointer)), Ok(value));
        }
    }
}
