//! Paths of Vault's API.

/// The longest path, in bytes.
pub(super) const MAX_PATH: usize = 1024;

/// What Vault keeps for itself in each namespace: tokens, policies and leases, that of whoever asks among them. It mounts
/// nothing else there, and lets no namespace have such a name.
pub(super) const RESERVED: [&str; 4] = ["auth", "sys", "identity", "cubbyhole"];

/// Whose a path is, as far as it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// An engine's that somebody mounted.
    Engine,
    /// Vault's own.
    Vault,
    /// One or the other: `kv/auth/x` is a secret where `kv` is an engine, and Vault's own where it is a namespace. The
    /// answer says which.
    Either,
}

/// A path of the API, made safe for an address: no way out of it, no query.
pub(super) fn path(text: &str) -> Option<String> {
    let leads_out = |segment: &str| matches!(segment, "" | "." | "..");
    if text.len() > MAX_PATH || text.split('/').any(leads_out) {
        return None;
    }
    let of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~@:+=,".contains(&byte);
    let safe = |byte: u8| if of_path(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Some(text.bytes().map(safe).collect())
}

/// Whether a path leads to what Vault keeps for itself, where the token of the store itself could be read. However often
/// it is encoded: a proxy on the way may decode it.
pub(super) fn whose(text: &str) -> Whose {
    let (mut text, mut whose) = (text.to_owned(), Whose::Engine);
    loop {
        let mut segments = text.split('/').filter(|segment| !matches!(*segment, "" | "."));
        let is_reserved = |segment: &str| RESERVED.contains(&segment);
        if segments.clone().next().is_some_and(is_reserved) || segments.clone().any(|segment| segment == "..")
        {
            return Whose::Vault;
        }
        if segments.any(is_reserved) {
            whose = Whose::Either;
        }
        let decoded = decoded(&text);
        if decoded == text {
            return whose;
        }
        text = decoded;
    }
}

/// Decoded once. Shorter than before, or the same.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    while let [first, tail @ ..] = rest {
        let (mut byte, mut after) = (*first, tail);
        if let (b'%', [high, low, behind @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            (byte, after) = (high << 4 | low, behind);
        }
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use http::Uri;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_leads_nowhere_else() {
        for (text, expected) in [
            ("secret/data/checkout", Some("secret/data/checkout")),
            ("kv/a b/c?version=1#x", Some("kv/a%20b/c%3Fversion=1%23x")),
            ("kv/%2e%2e", Some("kv/%252e%252e")),
            ("kv/é", Some("kv/%C3%A9")),
            ("../sys/seal", None),
            ("kv/../../sys", None),
            ("kv/./a", None),
            ("/kv/a", None),
            ("kv//a", None),
            ("kv/", None),
            ("", None),
        ] {
            assert_eq!(path(text).as_deref(), expected, "{text}");
        }
        assert!(path(&"a".repeat(MAX_PATH)).is_some());
        assert!(path(&"a".repeat(MAX_PATH + 1)).is_none());
    }

    #[test]
    fn what_vault_keeps_for_itself_is_told_however_it_is_written() {
        for text in [
            "auth/token/lookup-self",
            "sys/mounts",
            "identity/oidc/token/app",
            "cubbyhole/a",
            "auth",
            "//auth/token/lookup-self",
            "./auth/token/lookup-self",
            "kv/../auth/token/lookup-self",
            "kv/%2e%2e/auth/token",
            "%61uth/token/lookup-self",
            "%2561uth/token/lookup-self",
            "%252561uth/token/lookup-self",
            "%2fauth/token/lookup-self",
            "%2e/auth/token/lookup-self",
            "secret/data/%2e%2e/%2e%2e/auth/token",
        ] {
            assert_eq!(whose(text), Whose::Vault, "{text}");
        }
        for text in [
            "team/auth/token/lookup-self",
            "team/a/cubbyhole/x",
            "team%2fauth/token/lookup-self",
            "team/%61uth/token/lookup-self",
            "data/auth/token/lookup-self",
            "kv/auth",
            "secret/data/auth",
            "secret/data/sys/db",
        ] {
            assert_eq!(whose(text), Whose::Either, "{text}");
        }
        for text in ["database/creds/app", "secret/data/app", "kv/authors", "kv/100%", "kv/%ff"] {
            assert_eq!(whose(text), Whose::Engine, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_one_of_the_api(text in "\\PC{0,40}") {
            let _ends = whose(&text);
            if let Some(path) = path(&text) {
                let whole: Uri = format!("https://vault.test/v1/{path}").parse().unwrap();
                prop_assert_eq!(whole.path(), format!("/v1/{path}"));
                prop_assert!(whole.query().is_none());
            }
        }
    }
}
