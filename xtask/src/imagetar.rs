//! Container images without a container tool: a `docker save` archive, byte for byte the same for the same input.
//!
//! `docker load` and `ctr images import` read it. One layer, every entry owned by root unless said otherwise, times at
//! the epoch, entries in the order of their names.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of this machine, read when the image is written.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

impl From<&PathBuf> for Source {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl From<&[u8]> for Source {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_owned())
    }
}

impl Source {
    fn read(&self) -> anyhow::Result<Cow<'_, [u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => {
                fs::read(path).map(Cow::Owned).with_context(|| format!("reading {}", path.display()))
            }
        }
    }
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Debug)]
enum Kind {
    Dir,
    File(Source),
    Link(String),
}

/// An image in the making.
#[derive(Debug)]
pub struct Image {
    reference: String,
    entries: BTreeMap<String, Entry>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    user: String,
    workdir: String,
}

impl Image {
    /// An empty image that will be called `reference`, such as `localhost/sealedenv/operator:dev`.
    ///
    /// # Errors
    /// When it has no tag or letters that a reference cannot have.
    pub fn new(reference: &str) -> anyhow::Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
        let tagged = reference.rsplit('/').next().and_then(|last| last.split_once(':'));
        if !reference.chars().all(plain)
            || !tagged.is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty())
        {
            bail!("{reference:?} is no image reference with a tag, such as localhost/name:tag");
        }
        Ok(Self {
            reference: reference.to_owned(),
            entries: BTreeMap::new(),
            entrypoint: vec![],
            cmd: vec![],
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            user: String::new(),
            workdir: "/".to_owned(),
        })
    }

    /// Adds a file. Folders above it are made with mode 0755.
    ///
    /// # Errors
    /// When the path is not absolute and plain, or is taken already.
    pub fn add_file(
        &mut self,
        path: &str,
        mode: u32,
        source: impl Into<Source>,
    ) -> anyhow::Result<&mut Self> {
        self.add(path, mode, Kind::File(source.into()))
    }

    /// Adds an empty folder.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_dir(&mut self, path: &str, mode: u32) -> anyhow::Result<&mut Self> {
        self.add(path, mode, Kind::Dir)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_symlink(&mut self, path: &str, target: &str) -> anyhow::Result<&mut Self> {
        self.add(path, 0o777, Kind::Link(target.to_owned()))
    }

    /// Gives an entry to a user and a group other than root.
    ///
    /// # Errors
    /// When there is no such entry.
    pub fn own(&mut self, path: &str, user: u32, group: u32) -> anyhow::Result<&mut Self> {
        let name = entry_name(path)?;
        let entry = self.entries.get_mut(&name).with_context(|| format!("{path} is not in the image"))?;
        entry.owner = (user, group);
        Ok(self)
    }

    fn add(&mut self, path: &str, mode: u32, kind: Kind) -> anyhow::Result<&mut Self> {
        let name = entry_name(path)?;
        for (end, _) in name.match_indices('/') {
            let above = self.entries.entry(name[..end].to_owned()).or_insert(Entry {
                kind: Kind::Dir,
                mode: 0o755,
                owner: (0, 0),
            });
            if !matches!(above.kind, Kind::Dir) {
                bail!("{path} lies below {}, which is no folder", &name[..end]);
            }
        }
        let entry = Entry { kind, mode, owner: (0, 0) };
        match (self.entries.get(&name).map(|old| &old.kind), &entry.kind) {
            (Some(Kind::Dir), Kind::Dir) | (None, _) => {}
            (Some(_), _) => bail!("{path} is in the image already"),
        }
        self.entries.insert(name, entry);
        Ok(self)
    }

    /// What a container runs, whatever its arguments.
    pub fn entrypoint<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) -> &mut Self {
        self.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Default arguments, or the default command without an entry point.
    pub fn cmd<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) -> &mut Self {
        self.cmd = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets a label.
    pub fn label(&mut self, name: &str, value: &str) -> &mut Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// User, or user and group as `65532:65532`. Numbers, so that the kubelet can check `runAsNonRoot`.
    pub fn user(&mut self, user: &str) -> &mut Self {
        user.clone_into(&mut self.user);
        self
    }

    /// The folder that a container starts in; `/` unless set.
    pub fn workdir(&mut self, path: &str) -> &mut Self {
        path.clone_into(&mut self.workdir);
        self
    }

    /// Writes the archive, whole or not at all, and returns the image's id: `sha256:` and the digest of its
    /// configuration, which covers its content too.
    ///
    /// # Errors
    /// When a source cannot be read or the archive cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<String> {
        let layer = self.layer()?;
        let layer_digest = hex::encode(Sha256::digest(&layer));
        let config = serde_json::to_vec(&self.config(&layer_digest))?;
        let config_digest = hex::encode(Sha256::digest(&config));
        let (config_name, layer_name) = (format!("{config_digest}.json"), format!("{layer_digest}.tar"));
        let manifest = json!([{"Config": config_name, "RepoTags": [self.reference], "Layers": [layer_name]}]);

        let new = path.with_extension("tar.new");
        let doing = || format!("writing {}", path.display());
        let file = File::create(&new).with_context(doing)?;
        let mut archive = Builder::new(BufWriter::new(file));
        for (name, content) in [
            (&*config_name, &config),
            (&*layer_name, &layer),
            ("manifest.json", &serde_json::to_vec(&manifest)?),
        ] {
            append(&mut archive, name, EntryType::Regular, 0o644, (0, 0), content).with_context(doing)?;
        }
        archive.into_inner().and_then(|mut file| file.flush()).with_context(doing)?;
        fs::rename(&new, path).with_context(doing)?;
        Ok(format!("sha256:{config_digest}"))
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut layer = Builder::new(Vec::new());
        for (name, entry) in &self.entries {
            let doing = || format!("adding {name} to {}", self.reference);
            match &entry.kind {
                Kind::Dir => append(
                    &mut layer,
                    &format!("{name}/"),
                    EntryType::Directory,
                    entry.mode,
                    entry.owner,
                    &[],
                ),
                Kind::File(source) => {
                    append(&mut layer, name, EntryType::Regular, entry.mode, entry.owner, &source.read()?)
                }
                Kind::Link(target) => {
                    let mut header = header(EntryType::Symlink, entry.mode, entry.owner, 0);
                    layer.append_link(&mut header, name, target)
                }
            }
            .with_context(doing)?;
        }
        layer.into_inner().with_context(|| format!("writing the layer of {}", self.reference))
    }

    fn config(&self, layer_digest: &str) -> Value {
        let mut run = json!({
            "Env": self.env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "Labels": self.labels,
            "User": self.user,
            "WorkingDir": self.workdir,
        });
        for (name, words) in [("Entrypoint", &self.entrypoint), ("Cmd", &self.cmd)] {
            if !words.is_empty() {
                run[name] = json!(words);
            }
        }
        json!({
            "architecture": match std::env::consts::ARCH { "x86_64" => "amd64", "aarch64" => "arm64", other => other },
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "sealedenv xtask"}],
        })
    }
}

/// The path as tar has it, without the first slash. Nothing that could point outside the image.
fn entry_name(path: &str) -> anyhow::Result<String> {
    let name = path.strip_prefix('/').with_context(|| format!("{path:?} must be absolute"))?;
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        bail!("{path:?} must be a plain path, without empty parts, `.` and `..`");
    }
    Ok(name.to_owned())
}

fn header(kind: EntryType, mode: u32, (user, group): (u32, u32), size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(user.into());
    header.set_gid(group.into());
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn append<W: std::io::Write>(
    archive: &mut Builder<W>,
    name: &str,
    kind: EntryType,
    mode: u32,
    owner: (u32, u32),
    content: &[u8],
) -> std::io::Result<()> {
    archive.append_data(&mut header(kind, mode, owner, content.len() as u64), name, content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    /// Each step by number, so that they can be taken in any order.
    fn step(image: &mut Image, number: u8) -> anyhow::Result<&mut Image> {
        match number {
            0 => image.add_file("/bin/app", 0o755, &b"\x7fELF"[..]),
            1 => image.add_dir("/data", 0o750)?.own("/data", 65532, 65532),
            2 => image.add_symlink("/var/run", "/run"),
            3 => image.add_file(&format!("/opt/{}/file", "d".repeat(150)), 0o644, &b"deep"[..]),
            _ => Ok(image.env("B", "2").env("A", "1")),
        }
    }

    fn sample(reverse: bool) -> Image {
        let mut image = Image::new("localhost/test/image:v1").unwrap();
        for number in 0..5 {
            step(&mut image, if reverse { 4 - number } else { number }).unwrap();
        }
        image.entrypoint(["/bin/app"]).user("65532:65532").label("k", "v");
        image
    }

    fn written(image: &Image) -> (String, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        let id = image.write(&file).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file was left");
        (id, fs::read(file).unwrap())
    }

    fn contents(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut content = vec![];
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_string_lossy().into_owned(), content)
        };
        archive.entries().unwrap().map(read).collect()
    }

    #[test]
    fn the_same_image_is_the_same_bytes_in_whatever_order_it_was_described() {
        assert_eq!(written(&sample(false)), written(&sample(true)));
    }

    #[test]
    fn a_change_of_content_changes_the_id() {
        let mut changed = sample(false);
        changed.add_file("/more", 0o644, &b""[..]).unwrap();
        assert_ne!(written(&sample(false)).0, written(&changed).0);
    }

    #[test]
    fn the_archive_is_what_docker_and_containerd_read() {
        let (id, archive) = written(&sample(false));
        let files = contents(&archive);
        let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["localhost/test/image:v1"]));
        let config_bytes = &files[manifest[0]["Config"].as_str().unwrap()];
        assert_eq!(id, format!("sha256:{}", hex::encode(Sha256::digest(config_bytes))));
        let config: Value = serde_json::from_slice(config_bytes).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/bin/app"]));
        assert_eq!(config["config"]["Env"], json!(["A=1", "B=2"]));
        assert_eq!(config["config"]["User"], "65532:65532");
        assert!(config["config"].get("Cmd").is_none());
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", hex::encode(Sha256::digest(layer))).as_str()
        );

        let names: Vec<_> = contents(layer).into_keys().collect();
        assert!(names.contains(&format!("opt/{}/file", "d".repeat(150))), "{names:?}");
        let mut layer = tar::Archive::new(layer.as_slice());
        for entry in layer.entries().unwrap() {
            let entry = entry.unwrap();
            let (header, path) = (entry.header(), entry.path().unwrap());
            assert_eq!(header.mtime().unwrap(), 0);
            let owner = if path == Path::new("data/") { 65532 } else { 0 };
            assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (owner, owner), "{path:?}");
            match path.to_str().unwrap() {
                "bin/app" => assert_eq!(header.mode().unwrap(), 0o755),
                "data/" => assert_eq!(header.mode().unwrap(), 0o750),
                "var/run" => assert_eq!(entry.link_name().unwrap().unwrap(), Path::new("/run")),
                _ => {}
            }
        }
    }

    #[test]
    fn paths_that_leave_the_image_or_collide_are_refused() {
        let mut image = sample(false);
        for bad in
            ["bin/x", "/", "", "/a//b", "/a/../b", "/a/./b", "/a/", "/bin/app", "/bin/app/x", "/var/run/x"]
        {
            assert!(image.add_file(bad, 0o644, &b""[..]).is_err(), "{bad:?}");
        }
        assert!(image.own("/nothing", 1, 1).is_err());
    }

    #[test]
    fn a_reference_needs_a_tag() {
        for bad in ["", "x", "localhost:5000/x", "a b:c", "x:", ":y", "X:y"] {
            assert!(Image::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_source_is_named_and_leaves_no_archive() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = Image::new("x:y").unwrap();
        image.add_file("/a", 0o644, Path::new("/no/such/file")).unwrap();
        let error = image.write(&dir.path().join("i.tar")).unwrap_err();
        assert!(format!("{error:#}").contains("/no/such/file"), "{error:#}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
