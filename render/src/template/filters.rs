//! What a template can do with a value.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::error;
use crate::fault::At;
use crate::format::{self, Nul, Side};
use crate::{Fault, MAX_FILE, values};

/// The filters: their names, and whether they take arguments.
pub(super) const ALL: [(&str, bool); 9] = [
    ("append", true),
    ("b64encode", false),
    ("dotenv", false),
    ("json", false),
    ("properties", false),
    ("shell", false),
    ("trim", false),
    ("urlencode", false),
    ("yaml", false),
];

pub(super) fn add(env: &mut Environment<'_>) {
    env.add_filter("append", |value: Value, Rest(rest): Rest<Value>| {
        let mut out = text(&value)?.into_owned();
        for value in &rest {
            out.push_str(&text(value)?);
        }
        bounded(out)
    });
    env.add_filter("b64encode", |value: Value| match values::binary(&value) {
        Some(bytes) => bounded(STANDARD.encode(bytes)),
        None => bounded(STANDARD.encode(text(&value)?.as_bytes())),
    });
    env.add_filter("trim", |value: Value| bounded(text(&value)?.trim().to_owned()));
    env.add_filter("json", quoting(format::json));
    env.add_filter("yaml", quoting(format::yaml));
    env.add_filter("urlencode", quoting(format::urlencode));
    env.add_filter("properties", quoting(|out, text| format::properties(out, text, Side::Value)));
    env.add_filter("dotenv", quoting_without_nul(format::dotenv));
    env.add_filter("shell", quoting_without_nul(format::shell));
}

fn quoting(quote: fn(&mut String, &str)) -> impl Fn(Value) -> Result<String, Error> {
    move |value| {
        let mut out = String::new();
        quote(&mut out, &text(&value)?);
        bounded(out)
    }
}

fn quoting_without_nul(
    quote: fn(&mut String, &str) -> Result<(), Nul>,
) -> impl Fn(Value) -> Result<String, Error> {
    move |value| {
        let mut out = String::new();
        quote(&mut out, &text(&value)?).map_err(|Nul| error(Fault::NotTextHere(At(None))))?;
        bounded(out)
    }
}

/// A value as it is written.
pub(super) fn text(value: &Value) -> Result<Cow<'_, str>, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => Ok(Cow::Borrowed(text)),
        (None, ValueKind::Number | ValueKind::Bool) => Ok(Cow::Owned(value.to_string())),
        (None, ValueKind::Undefined) => Err(ErrorKind::UndefinedError.into()),
        _ => Err(error(Fault::NotTextHere(At(None)))),
    }
}

/// The engine counts what a filter gives back only when it is there, so a filter bounds itself.
fn bounded(text: String) -> Result<String, Error> {
    if text.len() > MAX_FILE { Err(error(Fault::TooLarge)) } else { Ok(text) }
}
