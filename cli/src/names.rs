//! Names as Kubernetes allows them.

/// Whether this can be a namespace: a DNS label of RFC 1123.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

/// Whether this can be the name of a `SealedEnv`: a DNS subdomain of RFC 1123.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_rfc_1123() {
        for name in ["a", "shop", "a-1", "1a", &"a".repeat(63)] {
            assert!(is_label(name) && is_subdomain(name), "{name}");
        }
        for name in ["a.b", "checkout.v2", &"a".repeat(253)] {
            assert!(!is_label(name) && is_subdomain(name), "{name}");
        }
        for name in ["", "-", "-a", "a-", "A", "a_b", "a..b", ".a", "a b", "ä", "a\n", &"a".repeat(254)] {
            assert!(!is_label(name) && !is_subdomain(name), "{name:?}");
        }
    }
}
