//! The first publish.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use sealedenv_delivery::Reason;
use sealedenv_node::wire::csi::volume_capability::{AccessType, MountVolume};
use tonic::Code;

use crate::bench::{Bench, Says, TOKENS};

#[tokio::test]
async fn a_pod_finds_its_files_on_a_read_only_tmpfs_out_of_swap() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "value"), ("conf/app.yaml", "a: 1")]);
    bench.publish().await.unwrap();
    assert_eq!(bench.read("KEY").unwrap(), "value");
    assert_eq!(bench.read("conf/app.yaml").unwrap(), "a: 1");
    let mounts = bench.mounts();
    assert_eq!(mounts.len(), 1, "{mounts:?}");
    let mount = &mounts[0];
    assert!(mount.is_ours());
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount.has(option), "{option}: {mount:?}");
    }
    assert!(mount.options.contains("size=") && mount.options.contains("nr_inodes="), "{mount:?}");
    // Linux 6.4 and later have it.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut version = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    if (version.next(), version.next()) >= (Some(6), Some(4)) {
        assert!(mount.has("noswap"), "{mount:?}");
    }
    let written = fs::write(bench.target().join("..data/KEY"), "changed").unwrap_err();
    assert_eq!(written.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(bench.count_mounts(), 1, "the stage is gone");
}

#[tokio::test]
async fn files_belong_to_the_owner_and_the_group_and_have_the_mode() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "value"), ("sub/KEY", "value")]);
    let mut request = bench.request();
    request.volume_context.insert("owner".to_owned(), "1000".to_owned());
    request.volume_context.insert("mode".to_owned(), "0400".to_owned());
    let group = MountVolume { volume_mount_group: "2000".to_owned(), ..MountVolume::default() };
    request.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Mount(group));
    bench.publish_as(request.clone()).await.unwrap();
    for path in ["KEY", "sub/KEY"] {
        let file = fs::metadata(bench.target().join(path)).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (1000, 2000, 0o400), "{path}");
    }
    for path in ["", "..data/", "sub"] {
        let folder = fs::metadata(bench.target().join(path)).unwrap();
        assert_eq!((folder.uid(), folder.gid(), folder.mode() & 0o7777), (0, 2000, 0o755), "{path}");
    }
    bench.unpublish().await.unwrap();
    request.volume_context.remove("mode");
    bench.publish_as(request).await.unwrap();
    let file = fs::metadata(bench.target().join("KEY")).unwrap();
    assert_eq!(file.permissions().mode() & 0o7777, 0o440, "the group reads, and nobody else");
}

#[tokio::test]
async fn a_volume_for_run_secrets_has_a_place_for_the_token() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "value")]);
    let mut request = bench.request();
    request.volume_context.insert("serviceAccountDirectory".to_owned(), "true".to_owned());
    bench.publish_as(request.clone()).await.unwrap();
    let place = bench.target().join("kubernetes.io/serviceaccount");
    assert!(fs::symlink_metadata(&place).unwrap().is_dir());
    // As a container's runtime does, in the mount that is read-only.
    rustix::mount::mount("none", &place, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    bench.operator.gives("d2", &[("KEY", "other")]);
    bench.publish_as(request).await.unwrap();
    assert_eq!(bench.read("KEY").unwrap(), "other", "a mount on the place is in no refresh's way");
    rustix::mount::unmount(&place, rustix::mount::UnmountFlags::empty()).unwrap();
}

#[tokio::test]
async fn a_publish_that_fails_says_why_and_leaves_nothing() {
    let bench = Bench::new();
    for (says, code, word) in [
        (Says::Away, Code::Unavailable, "the operator is not available"),
        (Says::Refused(Reason::NotFound), Code::NotFound, "NotFound"),
        (Says::Refused(Reason::NotNamed), Code::PermissionDenied, "ask its owner"),
        (Says::Refused(Reason::NotAllowed), Code::PermissionDenied, "NotAllowed"),
        (Says::Refused(Reason::NotMemory), Code::FailedPrecondition, "NotMemory"),
        (Says::Refused(Reason::NotRecorded), Code::Unavailable, "NotRecorded"),
    ] {
        bench.operator.says(says);
        let status = bench.publish().await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(word), "{status:?}");
        assert!(!status.message().contains("no route"), "how it is reached is for the log: {status:?}");
        bench.assert_nothing_left();
    }
    bench.operator.gives("d1", &[("a", "file"), ("a/b", "and a folder")]);
    assert_eq!(bench.publish().await.unwrap_err().code(), Code::FailedPrecondition);
    bench.assert_nothing_left();
    let asked = bench.operator.asked().len();
    let mut request = bench.request();
    request.volume_context.remove(TOKENS);
    assert_eq!(bench.publish_as(request).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(bench.operator.asked().len(), asked, "nobody was asked without a token");
    bench.assert_nothing_left();
    bench.operator.gives("d1", &[("KEY", "value")]);
    bench.publish().await.unwrap();
    assert_eq!(bench.read("KEY").unwrap(), "value");
}

#[tokio::test]
async fn the_kubelet_may_have_made_the_directory() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "value")]);
    fs::create_dir(bench.target()).unwrap();
    bench.publish().await.unwrap();
    assert_eq!((bench.read("KEY").as_deref(), bench.mounts().len()), (Some("value"), 1));
    bench.unpublish().await.unwrap();
    fs::remove_dir(bench.target().parent().unwrap()).unwrap();
    let gone = publish_without_a_directory(&bench).await;
    assert_eq!(gone.code(), Code::FailedPrecondition, "the pod's directory is not made for it");
}

async fn publish_without_a_directory(bench: &Bench) -> tonic::Status {
    // Not through `target()`, which makes the directory.
    let request = bench.request();
    fs::remove_dir(bench.folder.join("kubelet/pods/uid-1/volumes/kubernetes.io~csi/checkout")).unwrap();
    bench.publish_as(request).await.unwrap_err()
}

#[tokio::test]
async fn a_version_as_large_as_any_fits() {
    let bench = Bench::new();
    let many: Vec<(String, String)> =
        (0..4000).map(|n| (format!("{}{n}", "k".repeat(200)), "x".repeat(200))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let large = "y".repeat(1 << 20);
    bench.operator.gives("d1", &many);
    bench.publish().await.unwrap();
    bench.operator.gives("d2", &[("LARGE", &large)]);
    bench.publish().await.unwrap();
    assert_eq!(bench.stats().await.unwrap().volume_condition.unwrap().message, "up to date");
    assert_eq!(bench.read("LARGE").unwrap().len(), 1 << 20);
    bench.operator.gives("d3", &many);
    bench.publish().await.unwrap();
    assert_eq!(bench.stats().await.unwrap().volume_condition.unwrap().message, "up to date");
    assert_eq!(bench.read(many[3999].0).unwrap().len(), 200);
}
