use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File as StdFile};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// A volume in a folder, with a neighbour that nothing may touch.
struct Sandbox {
    folder: tempfile::TempDir,
    root: StdFile,
    stamp: AtomicUsize,
}

#[derive(Default, Clone, Copy)]
struct Extra<'a> {
    keep: &'a [&'a str],
    mode: Option<u32>,
    token: bool,
    digest: &'a str,
}

impl Sandbox {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("volume")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/shadow"), "untouched").unwrap();
        let root = StdFile::open(folder.path().join("volume")).unwrap();
        Self { folder, root, stamp: AtomicUsize::new(0) }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("volume").join(below)
    }

    fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    fn is_outside_untouched(&self) -> bool {
        fs::read(self.outside().join("shadow")).unwrap() == b"untouched"
            && fs::read_dir(self.outside()).unwrap().count() == 1
    }

    fn volume(&self) -> Volume<'_> {
        Volume::new(self.root.as_fd())
    }

    fn write(&self, files: &[(&str, &str)], extra: Extra<'_>) -> Result<(), WriteError> {
        let files: Vec<File> = files
            .iter()
            .map(|(path, content)| File {
                path: FilePath::parse(path).unwrap(),
                content: Content::new(content.as_bytes().to_vec()),
                mode: extra.mode,
            })
            .collect();
        let keep: Vec<FilePath> = extra.keep.iter().map(|path| FilePath::parse(path).unwrap()).collect();
        let stamp = format!("v{}", self.stamp.fetch_add(1, Ordering::Relaxed));
        self.volume().swap(&Version {
            environment: "checkout",
            digest: if extra.digest.is_empty() { "d" } else { extra.digest },
            files: &files,
            keep: &keep,
            ownership: Ownership { uid: None, gid: None, mode: 0o444 },
            service_account_directory: extra.token,
            stamp: &stamp,
        })
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    fn names(&self) -> BTreeSet<String> {
        tree::names(self.root.as_fd()).unwrap().into_iter().collect()
    }
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

const PLAIN: Extra<'static> = Extra { keep: &[], mode: None, token: false, digest: "" };

#[test]
fn a_version_is_there_with_links_modes_and_label() {
    let volume = Sandbox::new();
    assert_eq!(volume.volume().held().unwrap(), None);
    volume.write(&[("KEY", "value"), ("conf/a/b.yaml", "b"), ("EMPTY", "")], PLAIN).unwrap();
    assert_eq!(volume.read("KEY").unwrap(), "value");
    assert_eq!(volume.read("conf/a/b.yaml").unwrap(), "b");
    assert_eq!(volume.read("EMPTY").unwrap(), "");
    assert_eq!(volume.names(), names(["..data", "..v0", "KEY", "EMPTY", "conf"]));
    let mode = |path: &str| fs::metadata(volume.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("KEY"), mode("conf"), mode("..data/")), (0o444, 0o755, 0o755));
    assert_eq!(mode("..data/..sealedenv"), 0o600, "who it is of is nobody's business in the pod");
    let held = volume.volume().held().unwrap().unwrap();
    assert_eq!((held.environment.as_str(), held.digest.as_str(), held.stale), ("checkout", "d", false));
}

#[test]
fn a_later_version_replaces_adds_and_removes_and_leaves_the_one_before_for_now() {
    let volume = Sandbox::new();
    volume.write(&[("A", "1"), ("GONE", "1"), ("d/x", "1")], PLAIN).unwrap();
    let reader = StdFile::open(volume.path("..data")).unwrap();
    volume.write(&[("A", "2"), ("NEW", "2"), ("d/y", "2")], Extra { mode: Some(0o400), ..PLAIN }).unwrap();
    assert_eq!(volume.names(), names(["..data", "..v0", "..v1", "A", "NEW", "d"]));
    assert_eq!(volume.read("A").unwrap(), "2");
    assert_eq!((volume.read("d/x"), volume.read("d/y").unwrap().as_str()), (None, "2"));
    let old = tree::read(reader.as_fd(), "GONE", 10).unwrap();
    assert_eq!(old, b"1", "who was reading the version before finds it whole");
    assert!(volume.volume().held().unwrap().unwrap().stale);
    volume.volume().tidy().unwrap();
    assert_eq!(volume.names(), names(["..data", "..v1", "A", "NEW", "d"]));
    assert!(!volume.volume().held().unwrap().unwrap().stale);
}

#[test]
fn what_is_to_be_kept_stays_as_it_is() {
    let volume = Sandbox::new();
    volume.write(&[("A", "1"), ("d/x", "1")], PLAIN).unwrap();
    let inode = |path: &str| fs::metadata(volume.path(path)).unwrap().ino();
    let before = inode("d/x");
    volume.write(&[("A", "2")], Extra { keep: &["d/x", "NEVER", "d/x2"], ..PLAIN }).unwrap();
    assert_eq!((volume.read("A").unwrap(), volume.read("d/x").unwrap()), ("2".to_owned(), "1".to_owned()));
    assert_eq!(inode("d/x"), before);
    volume.volume().tidy().unwrap();
    assert_eq!(volume.read("d/x").unwrap(), "1", "also when the version it came from is gone");
    assert_eq!(volume.read("NEVER"), None);
}

#[test]
fn the_token_gets_a_real_directory_that_no_file_may_take() {
    let volume = Sandbox::new();
    volume.write(&[("KEY", "1")], Extra { token: true, ..PLAIN }).unwrap();
    volume.write(&[("OTHER", "1")], Extra { token: true, ..PLAIN }).unwrap();
    let folder = fs::symlink_metadata(volume.path("kubernetes.io/serviceaccount")).unwrap();
    assert!(folder.is_dir() && fs::symlink_metadata(volume.path("kubernetes.io")).unwrap().is_dir());
    for path in ["kubernetes.io", "kubernetes.io/serviceaccount/token"] {
        let refused = volume.write(&[(path, "x")], Extra { token: true, ..PLAIN });
        assert!(matches!(refused, Err(WriteError::Conflict(_))), "{path}");
    }
    assert_eq!(volume.read("OTHER").unwrap(), "1");
}

#[test]
fn a_version_that_cannot_be_written_leaves_the_one_before() {
    let volume = Sandbox::new();
    volume.write(&[("A", "1")], PLAIN).unwrap();
    for files in [
        [("B", "2"), ("B/c", "2")].as_slice(),
        &[("B/c", "2"), ("B", "2")],
        &[("B", "2"), ("B", "3")],
        &[("A", "2"), ("B", "2"), ("A/x", "2")],
    ] {
        assert!(matches!(volume.write(files, PLAIN), Err(WriteError::Conflict(_))), "{files:?}");
        assert_eq!(volume.names(), names(["..data", "..v0", "A"]), "{files:?}");
        assert_eq!(volume.read("A").unwrap(), "1");
    }
    volume.write(&[("A", "2")], PLAIN).unwrap();
    assert_eq!(volume.read("A").unwrap(), "2");
}

#[test]
fn a_planted_link_is_replaced_and_never_followed() {
    let volume = Sandbox::new();
    let outside = volume.outside();
    volume.write(&[("A", "1"), ("d/x", "1")], PLAIN).unwrap();
    // In the place of a file's link, of the next version, of what is renamed, of a directory whose file is to be kept.
    fs::remove_file(volume.path("A")).unwrap();
    symlink(outside.join("shadow"), volume.path("A")).unwrap();
    symlink(&outside, volume.path("..v1")).unwrap();
    symlink(&outside, volume.path("..data_next")).unwrap();
    symlink(outside.join("shadow"), volume.path("NEW")).unwrap();
    symlink(&outside, volume.path("..evil")).unwrap();
    fs::remove_dir_all(volume.path("..v0/d")).unwrap();
    symlink(&outside, volume.path("..v0/d")).unwrap();
    assert_eq!(volume.volume().held().unwrap(), None, "it does not pass for whole");
    volume.write(&[("A", "2"), ("NEW", "2")], Extra { keep: &["d/shadow"], ..PLAIN }).unwrap();
    assert!(volume.is_outside_untouched());
    assert_eq!((volume.read("A").unwrap(), volume.read("NEW").unwrap()), ("2".to_owned(), "2".to_owned()));
    assert_eq!(volume.read("d/shadow"), None, "nothing comes in from outside either");
    volume.volume().tidy().unwrap();
    assert!(volume.is_outside_untouched());
    assert_eq!(volume.names(), names(["..data", "..v1", "A", "NEW"]));
}

#[test]
fn data_that_leads_elsewhere_counts_as_nothing() {
    for target in ["/etc", "../outside", ".", "..", "..data", "..v0/..", "no-dots"] {
        let volume = Sandbox::new();
        volume.write(&[("A", "1")], PLAIN).unwrap();
        fs::remove_file(volume.path("..data")).unwrap();
        symlink(target, volume.path("..data")).unwrap();
        assert_eq!(volume.volume().held().unwrap(), None, "{target}");
        volume.write(&[("A", "2")], Extra { keep: &["shadow", "passwd"], ..PLAIN }).unwrap();
        assert!(volume.is_outside_untouched());
        assert_eq!(volume.names(), names(["..data", "..v1", "A"]), "{target}");
        assert_eq!(volume.read("A").unwrap(), "2");
    }
}

#[test]
fn what_was_interrupted_is_written_anew() {
    let volume = Sandbox::new();
    // Dead in the middle of the first write, and of a later one.
    fs::create_dir_all(volume.path("..v9/sub")).unwrap();
    fs::write(volume.path("..v9/sub/A"), "half").unwrap();
    assert_eq!(volume.volume().held().unwrap(), None);
    volume.write(&[("A", "1")], PLAIN).unwrap();
    assert_eq!(volume.names(), names(["..data", "..v0", "A"]));
    symlink("..v8", volume.path("..data_next")).unwrap();
    fs::create_dir(volume.path("..v8")).unwrap();
    assert!(volume.volume().held().unwrap().unwrap().stale);
    volume.write(&[("A", "2")], PLAIN).unwrap();
    assert_eq!(volume.read("A").unwrap(), "2");
    // Broken by hand: no label, a label that is none, a link that is missing.
    for breaking in [
        |volume: &Sandbox| fs::remove_file(volume.path("..data/..sealedenv")).unwrap(),
        |volume: &Sandbox| fs::write(volume.path("..data/..sealedenv"), "one line").unwrap(),
        |volume: &Sandbox| fs::write(volume.path("..data/..sealedenv"), [0xff; 600]).unwrap(),
        |volume: &Sandbox| fs::remove_file(volume.path("A")).unwrap(),
    ] {
        assert!(volume.volume().held().unwrap().is_some());
        breaking(&volume);
        assert_eq!(volume.volume().held().unwrap(), None);
        volume.write(&[("A", "3")], PLAIN).unwrap();
    }
}

/// Every file through the version's directory, as a reader does that wants what belongs together.
fn read_whole(root: &Path, keys: &[&str]) -> Vec<String> {
    let folder = StdFile::open(root.join("..data")).unwrap();
    let read = |key: &&str| String::from_utf8(tree::read(folder.as_fd(), key, 1 << 16).unwrap()).unwrap();
    keys.iter().map(read).collect()
}

#[test]
fn a_reader_in_a_loop_sees_neither_a_mix_nor_a_missing_file() {
    let keys = ["A", "B", "C", "D"];
    let volume = Sandbox::new();
    let write = |n: usize| {
        let text = format!("{n:06}").repeat(50);
        volume.write(&keys.map(|key| (key, text.as_str())), PLAIN).unwrap();
    };
    write(0);
    let (done, passes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !done.load(Ordering::Relaxed) {
                let whole = read_whole(&volume.path(""), &keys);
                assert!(whole.iter().all(|text| *text == whole[0]), "a mix");
                assert_eq!(whole[0].len(), 300);
                for key in keys {
                    assert_eq!(fs::read(volume.path(key)).expect("missing").len(), 300);
                }
                seen.insert(whole[0][..6].to_owned());
                passes.fetch_add(1, Ordering::Release);
            }
            seen.len()
        });
        for n in 1..=1000 {
            write(n);
            // A pass may span one update, not two: the version before is there for no longer than that.
            let before = passes.load(Ordering::Acquire);
            while passes.load(Ordering::Acquire) == before && !reader.is_finished() {
                std::thread::yield_now();
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 100, "hardly any update was seen");
    });
}

/// Paths that are often hostile, often alike.
fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        Just("a".to_owned()),
        Just("b".to_owned()),
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just("..data".to_owned()),
        Just("..sealedenv".to_owned()),
        Just("kubernetes.io".to_owned()),
        Just("\0".to_owned()),
        Just("КEY".to_owned()),
        Just("back\\slash".to_owned()),
        Just("x".repeat(256)),
        "[-._A-Za-z0-9]{0,4}",
    ];
    (any::<bool>(), proptest::collection::vec(segment, 1..4))
        .prop_map(|(absolute, segments)| format!("{}{}", if absolute { "/" } else { "" }, segments.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_the_paths_only_the_volume_changes_and_it_is_one_version_or_the_other(
        versions in proptest::collection::vec(proptest::collection::vec(path(), 0..6), 1..5),
    ) {
        let volume = Sandbox::new();
        let mut holds: BTreeMap<String, String> = BTreeMap::new();
        for (n, paths) in versions.iter().enumerate() {
            let text = n.to_string();
            let files: Vec<(&str, &str)> = paths
                .iter()
                .filter(|path| FilePath::parse(path).is_ok())
                .map(|path| (path.as_str(), text.as_str()))
                .collect();
            match volume.write(&files, PLAIN) {
                Ok(()) => holds = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
                Err(WriteError::Conflict(_)) => {}
                Err(error) => panic!("{error:?}"),
            }
            prop_assert!(volume.is_outside_untouched());
            prop_assert_eq!(fs::read_dir(volume.folder.path()).unwrap().count(), 2);
            for (path, text) in &holds {
                prop_assert_eq!(volume.read(path), Some(text.clone()), "{}", path);
            }
            let links = volume.names().into_iter().filter(|name| !name.starts_with("..")).count();
            let tops: BTreeSet<&str> = holds.keys().filter_map(|path| path.split('/').next()).collect();
            prop_assert_eq!(links, tops.len());
        }
    }
}
