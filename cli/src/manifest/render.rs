//! A new manifest.

use std::fmt::Write as _;

use sealedenv_crds::names;

use super::plan::Request;
use super::{Block, Change};
use crate::yaml::{NewEntry, line_of};

/// The manifest of a `SealedEnv` with these values, in their order. Fields that are not set are left out.
pub(crate) fn render(request: &Request, changes: Vec<Change>) -> String {
    let pair = |key: &str, value: &str| NewEntry { key: key.to_owned(), value: value.to_owned() };
    let (data, public): (Vec<Change>, Vec<Change>) =
        changes.into_iter().partition(|change| change.block == Block::Data);
    let mut page = String::new();
    // Writing to a String cannot fail.
    for (key, value) in [("apiVersion", names::API_VERSION), ("kind", "SealedEnv")] {
        let _ = writeln!(page, "{}", line_of("", &pair(key, value)));
    }
    page.push_str("metadata:\n");
    for (key, value) in [("name", &request.name), ("namespace", &request.namespace)] {
        let _ = writeln!(page, "{}", line_of("  ", &pair(key, value)));
    }
    page.push_str("spec:\n");
    for (block, changes) in [(Block::Data, data), (Block::Public, public)] {
        if !changes.is_empty() {
            let _ = writeln!(page, "  {}:", block.field());
        }
        for Change { key, text, .. } in changes {
            let _ = writeln!(page, "{}", line_of("    ", &NewEntry { key, value: text }));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::plan::Update;
    use sealedenv_crds::SealedEnv;
    use sealedenv_seal::ScopeKind;

    #[test]
    fn a_manifest_has_what_is_set_and_nothing_else() {
        let request = Request {
            namespace: "shop".to_owned(),
            name: "on".to_owned(),
            scope: ScopeKind::Strict,
            to: Vec::new(),
            public: std::collections::BTreeSet::new(),
            update: Update::All,
        };
        let change = |block, key: &str, text: &str| Change {
            block,
            key: key.to_owned(),
            replaces: false,
            text: text.to_owned(),
        };
        let page = render(
            &request,
            vec![
                change(Block::Data, "Z", "sealed:v1:QUJD+/=="),
                change(Block::Public, "MODE", "yes"),
                change(Block::Data, "true", "sealed:v1:QUJD"),
                change(Block::Public, "EMPTY", ""),
                change(Block::Public, "LINES", "a\n b: c\n"),
            ],
        );
        assert_eq!(
            page,
            "apiVersion: sealedenv.dev/v1alpha1\nkind: SealedEnv\nmetadata:\n  name: \"on\"\n  namespace: shop\n\
             spec:\n  data:\n    Z: sealed:v1:QUJD+/==\n    \"true\": sealed:v1:QUJD\n  public:\n    MODE: \"yes\"\n    \
             EMPTY: \"\"\n    LINES: \"a\\n b: c\\n\"\n"
        );
        let read: SealedEnv = serde_saphyr::from_str(&page).expect("a SealedEnv");
        assert_eq!(read.metadata.name.as_deref(), Some("on"));
        assert_eq!(read.spec.public["LINES"], "a\n b: c\n");
        let only = render(&request, vec![change(Block::Data, "A", "sealed:v1:QUJD")]);
        assert!(!only.contains("public"));
    }
}
