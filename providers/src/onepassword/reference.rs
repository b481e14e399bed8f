//! References to what 1Password holds. Pure.

use crate::Ask;
use crate::pick::Pointer;

/// The longest reference, in bytes.
const MAX_REFERENCE: usize = 1024;

const SCHEME: &str = "op://";

/// What a reference names: an item, which is asked for once, and a field of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The item.
    pub ask: Ask,
    /// The field, in what [`super::OnePassword`] answers.
    pub property: Pointer,
}

/// A reference that means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is none, or has a part that is none.
    #[error("a reference of 1Password is op://vault/item/field or op://vault/item/section/field")]
    Form,
    /// A name has a character that cannot be asked for.
    #[error("a name has a character that a reference cannot have; use the id instead")]
    Character,
    /// It asks for more than a field, e.g. `?attribute=otp`.
    #[error("attributes of a field are not read: a one-time password changes by itself")]
    Attribute,
    /// The field is named in the reference and beside it, or in none of them.
    #[error("the field is named once: at the end of the reference, or as the property")]
    Field,
}

/// Reads `op://vault/item/[section/]field`, or `op://vault/item` with the field as a property beside it.
/// See <https://developer.1password.com/docs/cli/secret-reference-syntax>: case makes no difference, and a name that has
/// other characters is replaced by the id.
///
/// # Errors
/// [`ReferenceError`].
pub fn reference(text: &str, property: Option<&str>) -> Result<Reference, ReferenceError> {
    let rest = text.strip_prefix(SCHEME).ok_or(ReferenceError::Form)?;
    if text.len() > MAX_REFERENCE || property.is_some_and(|property| property.len() > MAX_REFERENCE) {
        return Err(ReferenceError::Form);
    }
    let parts: Vec<&str> = rest.split('/').collect();
    let (item, field) = parts.split_at_checked(2).ok_or(ReferenceError::Form)?;
    let field: Vec<&str> = match (field, property) {
        ([], None) | ([_, ..], Some(_)) => return Err(ReferenceError::Field),
        ([], Some(beside)) => beside.strip_prefix('/').unwrap_or(beside).split('/').collect(),
        (field, None) => field.to_vec(),
    };
    if field.len() > 2 {
        return Err(ReferenceError::Form);
    }
    for name in item.iter().chain(&field) {
        may_stand(name)?;
    }
    let property = field.join("/").to_lowercase().replace('~', "~0").replace('/', "~1");
    let property = Pointer::parse(&format!("/{property}")).map_err(|_| ReferenceError::Form)?;
    let ask = Ask { path: format!("{SCHEME}{}", item.join("/")), version: None };
    Ok(Reference { ask, property })
}

/// The names of a vault and of an item in it.
pub(super) fn names(path: &str) -> Option<(&str, &str)> {
    let (vault, item) = path.strip_prefix(SCHEME)?.split_once('/')?;
    let is_name = |name: &str| may_stand(name).is_ok() && !name.contains('/');
    (path.len() <= MAX_REFERENCE && is_name(vault) && is_name(item)).then_some((vault, item))
}

/// Whether it is an id and no title. Ids stand in paths of the API, so they are nothing else.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 26 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// A quotation mark would end the name in the filter that it is asked for with, and the rest would be a filter.
fn may_stand(name: &str) -> Result<(), ReferenceError> {
    match name {
        "" => Err(ReferenceError::Form),
        name if name.contains('?') => Err(ReferenceError::Attribute),
        name if name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) => {
            Err(ReferenceError::Character)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_reference_names_an_item_and_a_field_of_it() {
        let of = |text, property| {
            let read = reference(text, property)?;
            Ok((read.ask.path, read.property))
        };
        let found = |path: &str, property: &str| Ok((path.to_owned(), Pointer::parse(property).unwrap()));
        for (text, property, expected) in [
            ("op://dev/Stripe/publishable-key", None, found("op://dev/Stripe", "/publishable-key")),
            (
                "op://Management/PagerDuty/Admin/email",
                None,
                found("op://Management/PagerDuty", "/admin~1email"),
            ),
            ("op://dev/Stripe", Some("Secret Key"), found("op://dev/Stripe", "/secret key")),
            ("op://dev/Stripe", Some("/Admin/Key"), found("op://dev/Stripe", "/admin~1key")),
            ("op://dev/Stripe/a~b", None, found("op://dev/Stripe", "/a~0b")),
            ("op://dev/Stripe", None, Err(ReferenceError::Field)),
            ("op://dev/Stripe/key", Some("key"), Err(ReferenceError::Field)),
            ("op://dev/Stripe/one-time password?attribute=otp", None, Err(ReferenceError::Attribute)),
            ("op://dev/Str\"ipe/key", None, Err(ReferenceError::Character)),
            ("op://dev/Str\\ipe/key", None, Err(ReferenceError::Character)),
            ("op://dev/Str\nipe/key", None, Err(ReferenceError::Character)),
            ("dev/Stripe/key", None, Err(ReferenceError::Form)),
            ("op://dev", None, Err(ReferenceError::Form)),
            ("op://dev//key", None, Err(ReferenceError::Form)),
            ("op://dev/Stripe/", None, Err(ReferenceError::Form)),
            ("op://dev/Stripe", Some(""), Err(ReferenceError::Form)),
            ("op://a/b/c/d/e", None, Err(ReferenceError::Form)),
        ] {
            assert_eq!(of(text, property), expected, "{text} {property:?}");
        }
        assert_eq!(of(&format!("op://a/b/{}", "c".repeat(1024)), None), Err(ReferenceError::Form));
    }

    #[test]
    fn keys_of_one_item_are_one_ask() {
        let ask = |text| reference(text, None).unwrap().ask;
        assert_eq!(ask("op://dev/Stripe/a"), ask("op://dev/Stripe/section/b"));
        assert_ne!(ask("op://dev/Stripe/a"), ask("op://prod/Stripe/a"));
    }

    #[test]
    fn an_id_is_nothing_that_leads_elsewhere() {
        assert!(is_id("ftz4pm2xxwmwrsd7rjqn7grzfz"));
        for text in
            ["", "ftz4pm2xxwmwrsd7rjqn7grzf", "FTZ4PM2XXWMWRSD7RJQN7GRZFZ", "../../../../v1/heartbeat..."]
        {
            assert!(!is_id(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_a_reference_asks_for_has_two_names(text in "(op://)?[a-z\"/?~\\PC]{0,30}", property: Option<String>) {
            if let Ok(read) = reference(&text, property.as_deref()) {
                let (vault, item) = names(&read.ask.path).unwrap();
                let begin = format!("op://{vault}/{item}");
                prop_assert!(text.starts_with(&begin));
            }
        }
    }
}
