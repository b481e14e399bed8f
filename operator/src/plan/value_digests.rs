//! Digests of single values in the status: one short text for all keys, since the API server encodes a status for
//! everybody who watches it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use sealedenv_crds::SealedEnvStatus;

use crate::digest::{Mark, ValueDigest};

/// Stands in the text for a key that has none. It is no base64.
const NONE: &str = "....";

/// The digests of the values that were good when they were written last, all made with one key.
#[derive(Default)]
pub(crate) struct ValueDigests<'a> {
    mark: Mark,
    by_key: BTreeMap<&'a str, ValueDigest>,
}

impl<'a> ValueDigests<'a> {
    /// What a status tells. Nothing of what is not as an operator writes it.
    pub(crate) fn read(status: &'a SealedEnvStatus) -> Self {
        Self::parse(status).unwrap_or_default()
    }

    fn parse(status: &'a SealedEnvStatus) -> Option<Self> {
        let (mark, digests) = status.value_digests.as_deref()?.split_once(':')?;
        let mark = hex::decode(mark).ok()?.try_into().ok()?;
        let digests = digests.as_bytes().chunks(NONE.len());
        if digests.len() != status.keys.len() {
            return None;
        }
        let by_key = status.keys.iter().zip(digests).filter_map(|(key, digest)| {
            let digest = BASE64.decode(digest).ok()?.try_into().ok()?;
            Some((key.name.as_str(), digest))
        });
        Some(Self { mark, by_key: by_key.collect() })
    }

    /// Digests that were just made.
    pub(crate) fn made(mark: Mark, by_key: impl Iterator<Item = (&'a str, ValueDigest)>) -> Self {
        Self { mark, by_key: by_key.collect() }
    }

    /// Adds what was known before of keys that have no newer digest. What another key made is let go, once there is
    /// anything newer.
    pub(crate) fn or(mut self, before: Self) -> Self {
        if self.by_key.is_empty() {
            return before;
        }
        if before.mark == self.mark {
            for (name, digest) in before.by_key {
                self.by_key.entry(name).or_insert(digest);
            }
        }
        self
    }

    /// Whether the key of that mark made them. Otherwise they say nothing about any value.
    pub(crate) fn are_of(&self, mark: Mark) -> bool {
        self.mark == mark
    }

    pub(crate) fn get(&self, key: &str) -> Option<ValueDigest> {
        self.by_key.get(key).copied()
    }

    /// The text for a status with these keys; none where there is nothing to tell.
    pub(crate) fn write<'k>(&self, keys: impl Iterator<Item = &'k str>) -> Option<String> {
        let digests: Vec<_> = keys.map(|key| self.get(key)).collect();
        digests.iter().any(Option::is_some).then(|| {
            let each =
                digests.iter().map(|digest| digest.map_or_else(|| NONE.to_owned(), |d| BASE64.encode(d)));
            format!("{}:{}", hex::encode(self.mark), each.collect::<String>())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealedenv_crds::{Class, KeyState, KeyStatus, Source};

    use super::*;

    fn status(names: &[String], digests: Option<String>) -> SealedEnvStatus {
        let key = |name: &String| KeyStatus {
            name: name.clone(),
            class: Class::Secret,
            source: Source::Sealed,
            state: KeyState::Ready,
            reason: None,
            sealed_to: Vec::new(),
            last_good_at: None,
            altered: false,
        };
        SealedEnvStatus {
            keys: names.iter().map(key).collect(),
            value_digests: digests,
            ..Default::default()
        }
    }

    #[test]
    fn the_text_is_short_and_says_which_key_has_none() {
        let digests = ValueDigests::made([0xab; 4], [("A", [0; 3]), ("C", [255; 3])].into_iter());
        assert_eq!(digests.write(["A", "B", "C"].into_iter()).as_deref(), Some("abababab:AAAA....____"));
        assert_eq!(digests.write(["B"].into_iter()), None);
    }

    #[test]
    fn what_another_key_made_is_not_mixed_in() {
        let new = || ValueDigests::made([1; 4], [("A", [1; 3])].into_iter());
        let before = |mark| ValueDigests::made(mark, [("A", [2; 3]), ("B", [2; 3])].into_iter());
        let same = new().or(before([1; 4]));
        assert_eq!((same.get("A"), same.get("B")), (Some([1; 3]), Some([2; 3])));
        let other = new().or(before([2; 4]));
        assert_eq!((other.get("A"), other.get("B")), (Some([1; 3]), None));
        let nothing_new = ValueDigests::made([1; 4], std::iter::empty()).or(before([2; 4]));
        assert!(nothing_new.are_of([2; 4]) && nothing_new.get("B").is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(mark: Mark, of in prop::collection::btree_map("[A-Z]{1,3}", any::<Option<ValueDigest>>(), 1..9)) {
            let made = of.iter().filter_map(|(name, digest)| Some((name.as_str(), (*digest)?)));
            let names: Vec<String> = of.keys().cloned().collect();
            let text = ValueDigests::made(mark, made).write(names.iter().map(String::as_str));
            let status = status(&names, text);
            let read = ValueDigests::read(&status);
            prop_assert!(read.are_of(mark) || of.values().all(Option::is_none));
            for (name, digest) in &of {
                prop_assert_eq!(read.get(name), *digest);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String, keys in 0usize..4) {
            let names: Vec<String> = (0..keys).map(|n| n.to_string()).collect();
            let status = status(&names, Some(text));
            let read = ValueDigests::read(&status);
            prop_assert!(names.iter().filter(|name| read.get(name).is_some()).count() <= keys);
        }
    }
}
