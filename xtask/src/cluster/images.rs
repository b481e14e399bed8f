//! Images that every cluster has: no registry is reachable, so they are built from what the machine has.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{exec, host, imagetar::Image};

use super::{build::Binaries, config, layout::Layout};

/// A busybox with a shell.
pub const BUSYBOX: &str = "localhost/sealedenv/busybox:test";
/// The same, with `/var/run` linked to `/run` as in Debian's images.
pub const BUSYBOX_VARRUN: &str = "localhost/sealedenv/busybox-varrun:test";

/// Builds them and imports them into the running containerd.
pub(crate) fn import_all(layout: &Layout, binaries: &Binaries) -> anyhow::Result<()> {
    let folder = layout.path("images");
    let busybox = host::find_program("busybox").context("busybox is missing")?;
    let mut files = Vec::new();
    for (file, image) in [
        ("pause.tar", pause(&binaries.program("pause"))?),
        ("busybox.tar", shell(BUSYBOX, &busybox, false)?),
        ("busybox-varrun.tar", shell(BUSYBOX_VARRUN, &busybox, true)?),
    ] {
        let path = folder.join(file);
        image.write(&path)?;
        files.push(path);
    }
    import(layout, &files)
}

/// Imports image tars for the kubelet's use.
pub(crate) fn import(layout: &Layout, files: &[PathBuf]) -> anyhow::Result<()> {
    for file in files {
        exec::read(ctr(layout).args(["images", "import"]).arg(file))
            .with_context(|| format!("importing {}", file.display()))?;
    }
    Ok(())
}

/// containerd's own client, on the images and containers that the kubelet sees.
pub(crate) fn ctr(layout: &Layout) -> Command {
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(layout.containerd_socket()).args(["--namespace", "k8s.io"]);
    ctr
}

fn pause(program: &Path) -> anyhow::Result<Image> {
    let mut image = Image::new(config::PAUSE)?;
    image.add_file("/pause", 0o755, program)?;
    image.entrypoint(["/pause"]).user("65535:65535");
    Ok(image)
}

fn shell(reference: &str, busybox: &Path, linked: bool) -> anyhow::Result<Image> {
    let mut image = Image::new(reference)?;
    image.add_file("/bin/busybox", 0o755, busybox)?;
    for applet in exec::read(Command::new(busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            image.add_symlink(&format!("/bin/{applet}"), "busybox")?;
        }
    }
    image.add_dir("/tmp", 0o1777)?;
    image.add_dir("/root", 0o700)?;
    image.add_file(
        "/etc/passwd",
        0o644,
        &b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"[..],
    )?;
    image.add_file("/etc/group", 0o644, &b"root:x:0:\nnogroup:x:65534:\n"[..])?;
    if linked {
        image.add_dir("/run", 0o755)?;
        image.add_symlink("/var/run", "/run")?;
    } else {
        image.add_dir("/var/run", 0o755)?;
    }
    image.env("PATH", "/bin").cmd(["sh"]);
    Ok(image)
}
