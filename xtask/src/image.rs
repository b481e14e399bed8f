//! `cargo xtask image`: the one image of all components, made without a container tool.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    Checkout, exec, imagetar, reproduce,
    sbom::{self, Linked},
};

/// Builds the image: static release binaries in an archive that `docker load` and `ctr images import` read, and beside it
/// a CycloneDX list of what is linked into them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Build it a second time from another folder, with another target folder and another CARGO_HOME, and fail when a
    /// byte differs. Takes as long as a build from nothing.
    #[arg(long)]
    verify_reproducible: bool,
}

/// The package of the one program that is all components.
pub const PROGRAM: &str = "sealedenv-image";

/// The names that the program of all components is called by: a file, and links to it.
const NAMES: [&str; 5] =
    ["sealedenv", "sealedenv-agent", "sealedenv-node", "sealedenv-operator", "sealedenv-webhook"];

/// The package, and the file, of the program that runs in pods' own containers: small, because it is copied there.
pub const EXEC: &str = "sealedenv-exec";

/// How large that program may be, in bytes. It is in the memory of each pod that has it.
const MAX_EXEC: u64 = 2 << 20;

/// The package that measures, built beside the others.
const BENCH: &str = "sealedenv-bench";

/// Where a local image is looked for. Not the published name: what stands there was pulled, not built here.
pub const REPOSITORY: &str = "localhost/sealedenv/sealedenv";

/// Changes when the image changes though its binaries do not.
const LAYOUT: &str = "3";

/// An image that was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// `repository:tag`. The tag names the content, so that a Deployment rolls exactly when that changes.
    pub reference: String,
    /// Digest of the image's configuration, which covers its content: what `docker images --digests` calls the id.
    pub id: String,
    /// The archive.
    pub archive: PathBuf,
    /// Folder of its names as links to the program. It is static, so it runs on this machine too.
    pub binaries: PathBuf,
    /// What is linked into it, as CycloneDX.
    pub sbom: PathBuf,
}

impl Image {
    /// The part of the reference after the repository.
    pub fn tag(&self) -> &str {
        self.reference.rsplit(':').next().unwrap_or_default()
    }
}

/// Runs the command.
///
/// # Errors
/// As [`build`].
pub fn run(checkout: &Checkout, args: &Args) -> anyhow::Result<()> {
    let image = build(checkout)?;
    if args.verify_reproducible {
        reproduce::verify(checkout, &image)?;
    }
    let size =
        fs::metadata(&image.archive).with_context(|| format!("reading {}", image.archive.display()))?.len();
    println!("image   {}", image.reference);
    println!("digest  {}", image.id);
    println!("archive {}", image.archive.display());
    println!("sbom    {}", image.sbom.display());
    #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mebibytes = size as f64 / f64::from(1 << 20);
    println!("size    {mebibytes:.1} MiB");
    Ok(())
}

/// Builds the binaries and, when they changed, the archive.
///
/// # Errors
/// When something does not build, or a binary is not static and so could not start in the image.
pub fn build(checkout: &Checkout) -> anyhow::Result<Image> {
    let (built, linked) = release(checkout, &[PROGRAM, EXEC])?;
    let (program, small) = (built.join(PROGRAM), built.join(EXEC));
    let mut digest = Sha256::new();
    digest.update(LAYOUT);
    for file in [&program, &small] {
        let bytes = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        if wants_interpreter(&bytes).with_context(|| format!("reading {}", file.display()))? {
            bail!(
                "{} is not a static binary, so it cannot start in an image without a C library",
                file.display()
            );
        }
        digest.update(Sha256::digest(&bytes));
    }
    // A C library that does not know how relocations are written shows at once.
    exec::read(Command::new(&program).arg("--version"))
        .context("starting the program that was built\nhint: glibc 2.36 or newer is needed")?;
    let size = fs::metadata(&small).with_context(|| format!("reading {}", small.display()))?.len();
    if size > MAX_EXEC {
        bail!("{} has {size} bytes, and every pod that has it would have as many in memory", small.display());
    }
    let content = hex::encode(digest.finalize());
    let reference = format!("{REPOSITORY}:{}-{}", env!("CARGO_PKG_VERSION"), &content[..12]);

    let folder = checkout.target().join("image");
    let binaries = folder.join("bin");
    fs::create_dir_all(&binaries).with_context(|| format!("making {}", binaries.display()))?;
    for name in NAMES {
        link(&program, &binaries.join(name))?;
    }
    link(&small, &binaries.join(EXEC))?;
    let sbom = folder.join("sealedenv.cdx.json");
    let record = folder.join("sealedenv.json");
    if let Some(image) = fs::read(&record).ok().and_then(|bytes| serde_json::from_slice::<Image>(&bytes).ok())
        && image.reference == reference
        && image.binaries == binaries
        && image.archive.exists()
        && image.sbom.exists()
    {
        return Ok(image);
    }
    let archive = folder.join("sealedenv.tar");
    let id = describe(&reference, &program, &small)?.write(&archive)?;
    let [file, ..] = NAMES;
    let contents = [
        sbom::Program { file, name: PROGRAM, path: &program },
        sbom::Program { file: EXEC, name: EXEC, path: &small },
    ];
    sbom::write(checkout, &linked, &contents, &id, &sbom).context("listing what is linked into the image")?;
    let image = Image { reference, id, archive, binaries, sbom };
    fs::write(&record, serde_json::to_vec_pretty(&image)?)
        .with_context(|| format!("writing {}", record.display()))?;
    Ok(image)
}

fn describe(reference: &str, program: &Path, small: &Path) -> anyhow::Result<imagetar::Image> {
    let mut image = imagetar::Image::new(reference)?;
    let [file, links @ ..] = NAMES;
    image.add_file(&format!("/{file}"), 0o755, program)?;
    image.add_file(&format!("/{EXEC}"), 0o755, small)?;
    for link in links {
        image.add_symlink(&format!("/{link}"), file)?;
    }
    image
        .user("65532:65532")
        .entrypoint(["/sealedenv"])
        .label("org.opencontainers.image.title", "sealedenv")
        .label("org.opencontainers.image.version", env!("CARGO_PKG_VERSION"))
        .label("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE"));
    Ok(image)
}

/// Builds the image and, with the same settings, the program that measures. Gives that program.
///
/// # Errors
/// As [`build`].
pub fn build_with_bench(checkout: &Checkout) -> anyhow::Result<(Image, PathBuf)> {
    // Together first: features of dependencies are settled for all that is built at once.
    let (folder, _) = release(checkout, &[PROGRAM, EXEC, BENCH])?;
    Ok((build(checkout)?, folder.join(BENCH)))
}

/// Makes a link, in place of what may be there.
fn link(target: &Path, link: &Path) -> anyhow::Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let new = link.with_extension("new");
    let made = std::os::unix::fs::symlink(target, &new).and_then(|()| fs::rename(&new, link));
    made.with_context(|| format!("linking {} to {}", link.display(), target.display()))
}

/// Builds static release binaries of packages; gives their folder, and what is linked into them.
fn release(checkout: &Checkout, packages: &[&str]) -> anyhow::Result<(PathBuf, Linked)> {
    exec::say("building the release binaries");
    let target = host_target()?;
    let mut build = exec::cargo(checkout.root());
    build.args(["build", "--quiet", "--release", "--locked", "--target", &target]);
    for package in packages {
        build.args(["--package", package]);
    }
    build.arg("--message-format=json-render-diagnostics");
    build.env("CARGO_TARGET_DIR", checkout.target()).env("CARGO_HOME", checkout.cargo_home()?);
    // With --target, so that build scripts and macros stay dynamic and keep a folder of their own.
    let flags = format!(
        "{} -C target-feature=+crt-static {}",
        std::env::var("RUSTFLAGS").unwrap_or_default(),
        reproduce::remaps(checkout)?,
    );
    let messages = exec::read(build.env("RUSTFLAGS", flags.trim_start()))?;
    let below = checkout.target().join(&target);
    let linked = Linked::of(&messages, &target, &below)?;
    Ok((below.join("release"), linked))
}

/// The target that rustc builds for by itself.
fn host_target() -> anyhow::Result<String> {
    let about = exec::rustc(&["-vV"])?;
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}

/// Whether a 64-bit little-endian ELF program asks for a loader (a `PT_INTERP` header), that is, whether it is dynamic.
fn wants_interpreter(elf: &[u8]) -> anyhow::Result<bool> {
    const PT_INTERP: u32 = 3;
    let short = "not a whole ELF file";
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    let number = |at: usize, bytes: usize| -> anyhow::Result<usize> {
        let field = at.checked_add(bytes).and_then(|end| elf.get(at..end)).context(short)?;
        let value = field.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        usize::try_from(value).context(short)
    };
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        let at = size.checked_mul(header).and_then(|at| at.checked_add(start)).context(short)?;
        if number(at, 4)? == PT_INTERP as usize {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        // This test is dynamic on every target we build on.
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(wants_interpreter(&own).unwrap());
        let mut none = own.clone();
        none[56..58].copy_from_slice(&[0, 0]); // no program headers
        assert!(!wants_interpreter(&none).unwrap());
    }

    #[test]
    fn a_file_that_is_no_program_is_an_error() {
        for bad in [
            &b""[..],
            b"#!/bin/sh\n",
            b"\x7fELF\x01\x01",
            &[b"\x7fELF\x02\x01".as_slice(), &[0xff; 60]].concat(),
        ] {
            assert!(wants_interpreter(bad).is_err(), "{bad:?}");
        }
    }

    /// Nothing here can run the Dockerfile (it pulls a base image), so at least it says what this module does.
    #[test]
    fn the_dockerfile_builds_the_same_content_with_the_same_toolchain() {
        let root = Checkout::find().unwrap().root().to_owned();
        let dockerfile = fs::read_to_string(root.join("Dockerfile")).unwrap();
        assert!(dockerfile.contains(&format!("--package {PROGRAM} --package {EXEC} ")), "{PROGRAM}");
        assert!(dockerfile.contains(&format!("release/{EXEC}\" /image/{EXEC} ")), "{EXEC}");
        let [file, links @ ..] = NAMES;
        assert!(dockerfile.contains(&format!("release/{PROGRAM}\" /image/{file} ")), "{file}");
        for link in links {
            assert!(dockerfile.contains(&format!("ln -s {file} /image/{link}")), "{link}");
        }
        for line in
            ["USER 65532:65532", "ENTRYPOINT [\"/sealedenv\"]", "FROM scratch", "target-feature=+crt-static"]
        {
            assert!(dockerfile.contains(line), "{line}");
        }
        let toolchain = fs::read_to_string(root.join("rust-toolchain.toml")).unwrap();
        let channel = toolchain.lines().find_map(|line| line.strip_prefix("channel = \"")).unwrap();
        let minor = channel.trim_end_matches('"').rsplit_once('.').unwrap().0;
        assert!(dockerfile.contains(&format!("rust:{minor}-")), "the toolchain is {channel}");
        for member in fs::read_to_string(root.join("Cargo.toml"))
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("members = [")?.strip_suffix(']').map(str::to_owned))
            .unwrap()
            .split(", ")
        {
            let member = member.trim_matches('"');
            let ignore = fs::read_to_string(root.join(".dockerignore")).unwrap();
            assert!(
                ignore.lines().any(|line| line.starts_with(&format!("!{member}"))),
                "{member} is not sent to docker"
            );
        }
    }

    #[test]
    fn the_tag_is_what_follows_the_repository() {
        let image = Image {
            reference: "localhost:5000/a/b:1.0-abc".to_owned(),
            id: String::new(),
            archive: PathBuf::new(),
            binaries: PathBuf::new(),
            sbom: PathBuf::new(),
        };
        assert_eq!(image.tag(), "1.0-abc");
    }
}
