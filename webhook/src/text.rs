//! Text from outside: how it is shown, and what may be a name.

/// Fit for a message: quoted, on one line, at most 64 characters of it.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text.chars().take(64).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

/// An RFC 1123 subdomain of at most 253 characters: what the API server accepts as the name of most objects.
pub(crate) fn is_object_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_subdomain_part)
}

fn is_subdomain_part(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !part.starts_with('-')
        && !part.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_text_is_short_and_on_one_line() {
        assert_eq!(quoted("a\"b\n\u{1b}\u{202e}ä"), r#""a\"b\n\u{1b}\u{202e}ä""#);
        assert_eq!(quoted(&"ä".repeat(64)).chars().count(), 66);
        assert_eq!(quoted(&"ä".repeat(65)), format!("\"{}…\"", "ä".repeat(64)));
    }

    #[test]
    fn names_are_what_the_api_server_takes() {
        for name in ["a", "0", "a-b.c", &"a".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in
            ["", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "A", "a_b", "a/b", "ä", &"a".repeat(254)]
        {
            assert!(!is_object_name(name), "{name:?}");
        }
    }
}
