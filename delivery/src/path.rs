//! Where a file goes, below the folder of its SealedEnv.

use std::fmt;

use crate::MAX_PATH;

const MAX_SEGMENT: usize = 255;
const MAX_DEPTH: usize = 8;

/// A relative path that cannot lead out of its folder, nor meet what an atomic swap keeps there (`..data`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

/// Why text is no [`FilePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It, or a segment, is empty: also a path that begins or ends with `/`.
    #[error("the path or a part of it is empty")]
    Empty,
    /// It is longer than [`MAX_PATH`], a segment than 255 bytes, or it has more than 8 segments.
    #[error("the path is too long")]
    TooLong,
    /// A segment is `.`, or begins with `..`.
    #[error("a part of the path is a dot or begins with two dots")]
    Dots,
    /// Something beyond `[-._A-Za-z0-9]` in a segment.
    #[error("the path has characters that are not allowed")]
    Characters,
}

impl FilePath {
    /// Checks a path.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > MAX_PATH || text.split('/').count() > MAX_DEPTH {
            return Err(PathError::TooLong);
        }
        for segment in text.split('/') {
            if segment.is_empty() {
                return Err(PathError::Empty);
            }
            if segment.len() > MAX_SEGMENT {
                return Err(PathError::TooLong);
            }
            if segment == "." || segment.starts_with("..") {
                return Err(PathError::Dots);
            }
            if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
                return Err(PathError::Characters);
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, at least one.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_paths_are_refused() {
        let long = "a".repeat(256);
        for (text, why) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Empty),
            ("a//b", PathError::Empty),
            ("a/", PathError::Empty),
            (".", PathError::Dots),
            ("..", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("a/./b", PathError::Dots),
            ("..data", PathError::Dots),
            ("..2026_01_01/KEY", PathError::Dots),
            ("a\\b", PathError::Characters),
            ("a\0b", PathError::Characters),
            ("a\nb", PathError::Characters),
            ("КEY", PathError::Characters),
            (long.as_str(), PathError::TooLong),
            ("1/2/3/4/5/6/7/8/9", PathError::TooLong),
        ] {
            assert_eq!(FilePath::parse(text), Err(why), "{text:?}");
        }
        for text in ["KEY", ".env", "a.b/c-d_E", "1/2/3/4/5/6/7/8", "a..b", "a."] {
            assert_eq!(FilePath::parse(text).unwrap().as_str(), text);
        }
        assert_eq!(
            FilePath::parse(&["a".repeat(200), "b".repeat(200), "c".repeat(200)].join("/")),
            Err(PathError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn what_is_taken_stays_below_its_folder(text in "[-._A-Za-z0-9/\\\\\0 ]{0,24}") {
            if let Ok(path) = FilePath::parse(&text) {
                let folder = std::path::Path::new("/folder");
                let joined = folder.join(path.as_str());
                prop_assert!(joined.starts_with(folder));
                let plain = |part| !matches!(part, Component::ParentDir | Component::CurDir);
                prop_assert!(joined.components().all(plain));
                prop_assert_eq!(joined.components().count(), 2 + path.segments().count());
            }
        }
    }
}
