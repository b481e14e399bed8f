//! How much a volume may hold. Pure.

/// Limits of a tmpfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Pages of content, in bytes.
    pub bytes: u64,
    /// Files, directories and links.
    pub inodes: u64,
}

/// What a file system needs besides its files: directories and links that are made on the way.
const SLACK: u64 = 8;

impl Size {
    /// What files of these lengths need, `names` directories and links included, on pages of this many bytes.
    pub fn of(lengths: impl IntoIterator<Item = usize>, names: usize, page: usize) -> Self {
        let page = u64::try_from(page.max(1)).unwrap_or(4096);
        let (mut pages, mut inodes) = (0, 0);
        for length in lengths {
            pages += u64::try_from(length).unwrap_or(u64::MAX).div_ceil(page);
            inodes += 1;
        }
        let names = u64::try_from(names).unwrap_or(u64::MAX);
        // A link whose text is long takes a page.
        Self { bytes: (pages + names + SLACK) * page, inodes: inodes + names + SLACK }
    }

    /// Both, one beside the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_take_whole_pages() {
        let size = Size::of([0, 1, 4096, 4097], 3, 4096);
        assert_eq!(size, Size { bytes: (4 + 3 + 8) * 4096, inodes: 4 + 3 + 8 });
        assert_eq!(Size::of([], 0, 4096).and(size).inodes, 8 + 15);
    }
}
