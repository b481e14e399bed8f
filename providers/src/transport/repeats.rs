//! Whether an answer repeats what it was asked with.

use sealedenv_seal::Plain;

use super::Reply;

impl Reply {
    /// Whether it holds a credential that it was asked with, as it is or as a reader of JSON would see it. One that is short
    /// is a word that stands in many answers, so that has to be a whole text of it.
    pub(crate) fn repeats(&self, token: &[u8]) -> bool {
        const SHORT: usize = 16;
        let holds = |body: &[u8]| {
            let is_at = |at: usize| {
                let around =
                    (at.checked_sub(1).and_then(|before| body.get(before)), body.get(at + token.len()));
                token.len() >= SHORT || around == (Some(&b'"'), Some(&b'"'))
            };
            body.windows(token.len()).enumerate().any(|(at, part)| part == token && is_at(at))
        };
        let body = self.body.expose();
        !token.is_empty() && (holds(body) || body.contains(&b'\\') && holds(unescaped(body).expose()))
    }
}

/// With the escapes of its texts (RFC 8259, 7) read, of those characters that a token may be of. Never longer than before,
/// so no copy of it is left behind.
fn unescaped(json: &[u8]) -> Plain {
    let mut bytes = Vec::with_capacity(json.len());
    let mut rest = json;
    while let [first, tail @ ..] = rest {
        let (byte, after) = match (first, tail) {
            (b'\\', [b'u', a, b, c, d, after @ ..]) => match ascii([*a, *b, *c, *d]) {
                Some(byte) => (byte, after),
                None => (*first, tail),
            },
            (b'\\', [byte, after @ ..]) => (*byte, after),
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    Plain::from(bytes)
}

/// The character of four digits.
fn ascii(digits: [u8; 4]) -> Option<u8> {
    let digits = std::str::from_utf8(&digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_answer_that_repeats_the_token_is_told() {
        let repeats = |body: &str, token: &str| {
            let body = Plain::from(body.to_owned());
            Reply { status: StatusCode::OK, retry_after: None, body }.repeats(token.as_bytes())
        };
        let long = "hvs.CAESIJ0123456789";
        assert!(repeats(&format!(r#"{{"data":{{"id":"{long}"}}}}"#), long));
        assert!(repeats(&format!(r#"{{"data":{{"a":"Bearer {long}"}}}}"#), long));
        assert!(repeats(r#"{"data":{"id":"root"}}"#, "root"));
        assert!(!repeats(r#"{"data":{"a":"rooted"}}"#, "root"));
        assert!(!repeats(r#"{"data":{}}"#, long));
        assert!(!repeats("", ""));
        // As whoever reads JSON sees it.
        for written in [
            r"\u0068vs.CAESIJ0123456789",
            r"hvs\u002eCAESI\u004a0123456789",
            r"\u0068\u0076\u0073.CAESIJ0123456789",
        ] {
            assert!(repeats(&format!(r#"{{"data":{{"id":"{written}"}}}}"#), long), "{written}");
        }
        assert!(repeats(r#"{"data":{"id":"r\u006F\u006ft"}}"#, "root"));
        assert!(repeats(r#"{"data":{"id":"a\/b"}}"#, "a/b"));
        assert!(!repeats(r#"{"data":{"id":"\\u0068vs.CAESIJ0123456789"}}"#, long), "a backslash and a u");
        for broken in
            [r#""\"#, r#""\u"#, r#""\u00"#, r#""\u+068vs.CAESIJ0123456789"#, r#""\u0168vs.CAESIJ0123456789"#]
        {
            assert!(!repeats(broken, long), "{broken}");
        }
    }
}
