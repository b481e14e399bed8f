//! `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use super::SOURCE;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The type of its file system.
    pub kind: String,
    /// What it is a mount of, as whoever mounted it said.
    pub source: OsString,
    /// Its options, those of the file system after those of the mount, with commas.
    pub options: String,
}

impl Mounted {
    /// Whether the plugin made it.
    pub fn is_ours(&self) -> bool {
        self.kind == "tmpfs" && self.source == SOURCE
    }

    /// Whether an option is set.
    pub fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|one| one == option)
    }
}

/// The mounts at a path, lowest first, from the text of `mountinfo`. A line that is not understood is passed over.
pub fn parse(text: &[u8], path: &Path) -> Vec<Mounted> {
    mounts(text).filter(|(at, _)| at == path.as_os_str()).map(|(_, mounted)| mounted).collect()
}

/// Every mount and where it is.
pub(super) fn mounts(text: &[u8]) -> impl Iterator<Item = (OsString, Mounted)> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        // 36 35 98:0 /root /mount/point rw,noatime shared:1 - tmpfs source rw,size=4k
        let mut fields = line.split(|byte| *byte == b' ');
        let (point, options) = (fields.by_ref().nth(4)?, fields.next()?);
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (kind, source, filesystem) = (rest.next()?, rest.next()?, rest.next()?);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let options = format!("{},{}", text(options), text(filesystem));
        Some((unescape(point), Mounted { kind: text(kind), source: unescape(source), options }))
    })
}

/// Space, tab, line feed and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let code = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes)
}

/// Whether a path is below another, by its components.
pub(super) fn is_below(path: &OsString, folder: &Path) -> bool {
    let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    path != folder && path.starts_with(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_their_place_lowest_first() {
        let text = b"22 1 0:5 / / rw,relatime - ext4 /dev/vda rw\n\
            40 22 0:44 / /pods/a\\040b/mount ro,nosuid shared:7 master:2 - tmpfs csi.sealedenv.dev rw,size=16k,noswap\n\
            41 40 0:45 / /pods/a\\040b/mount rw - tmpfs none rw\n\
            not a line\n\
            42 22 0:46 / /pods/a rw - tmpfs csi.sealedenv.dev";
        let found = parse(text, Path::new("/pods/a b/mount"));
        assert_eq!(found.len(), 2);
        assert!(found[0].is_ours() && !found[1].is_ours());
        assert!(found[0].has("ro") && found[0].has("noswap") && !found[0].has("noexec"));
        assert_eq!(parse(text, Path::new("/pods")), []);
        assert_eq!(parse(text, Path::new("/pods/a")), [], "a line that was cut off");
    }
}
