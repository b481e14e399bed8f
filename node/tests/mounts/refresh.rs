//! Later publishes of the same volume.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use sealedenv_delivery::Reason;

use crate::bench::{Bench, Says, TOKENS};

fn data_inode(bench: &Bench) -> u64 {
    fs::symlink_metadata(bench.target().join("..data")).unwrap().ino()
}

#[tokio::test]
async fn a_thousand_republishes_change_nothing_but_with_the_content() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1")]);
    bench.publish().await.unwrap();
    let inode = data_inode(&bench);
    for _ in 0..1000 {
        bench.publish().await.unwrap();
    }
    assert_eq!((bench.count_mounts(), data_inode(&bench)), (1, inode));
    bench.operator.gives("d2", &[("KEY", "2")]);
    bench.publish().await.unwrap();
    assert_ne!(data_inode(&bench), inode);
    assert_eq!((bench.count_mounts(), bench.read("KEY").as_deref()), (1, Some("2")));
    let asked = bench.operator.asked();
    assert_eq!((&asked[0], &asked[1]), (&None, &Some("d1".to_owned())));
}

#[tokio::test]
async fn a_change_comes_in_one_step_and_the_version_before_goes_at_the_next_call() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1"), ("GONE", "1")]);
    bench.publish().await.unwrap();
    bench.operator.gives("d2", &[("KEY", "2"), ("NEW", "2")]);
    bench.publish().await.unwrap();
    assert_eq!((bench.read("KEY").as_deref(), bench.read("NEW").as_deref()), (Some("2"), Some("2")));
    assert_eq!(bench.read("GONE"), None);
    let versions = || {
        let names = fs::read_dir(bench.target()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("..2")).count()
    };
    assert_eq!(versions(), 2, "who was just reading finds the version before");
    bench.publish().await.unwrap();
    assert_eq!(versions(), 1);
    let mount = &bench.mounts()[0];
    assert!(mount.has("ro") && mount.has("noexec") && mount.has("nosuid") && mount.has("nodev"), "{mount:?}");
    assert_eq!(bench.count_mounts(), 1);
}

#[tokio::test]
async fn the_operator_is_not_asked_before_it_wants_to_be() {
    let bench = Bench::new();
    bench.operator.hints(Duration::from_hours(1));
    bench.operator.gives("d1", &[("KEY", "1")]);
    for _ in 0..3 {
        bench.publish().await.unwrap();
    }
    assert_eq!(bench.operator.asked().len(), 1);
}

#[tokio::test]
async fn a_refresh_that_fails_is_no_error_and_leaves_the_last_good_files() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "good")]);
    bench.publish().await.unwrap();
    let conflict = || {
        let files = [("KEY", "bad"), ("KEY/x", "bad")].map(|(path, text)| (path.to_owned(), text.to_owned()));
        Says::Files { digest: "d2".to_owned(), files: files.to_vec(), keep: vec![] }
    };
    for (says, word) in [
        (Says::Away, "the operator is not available"),
        (Says::Refused(Reason::NotFound), "NotFound"),
        (Says::Refused(Reason::NotAllowed), "NotAllowed"),
        (Says::Refused(Reason::NotRecorded), "NotRecorded"),
        (conflict(), "in the way"),
    ] {
        bench.operator.says(says);
        bench.publish().await.unwrap();
        let condition = bench.stats().await.unwrap().volume_condition.unwrap();
        assert!(condition.abnormal && condition.message.contains(word), "{}", condition.message);
        assert_eq!((bench.read("KEY").as_deref(), bench.count_mounts()), (Some("good"), 1));
    }
    // Nor is one whose request is not what it was: pods do not die of an upgrade.
    for key in [TOKENS, "csi.storage.k8s.io/pod.uid"] {
        let mut request = bench.request();
        request.volume_context.remove(key);
        bench.publish_as(request).await.unwrap();
        assert!(bench.stats().await.unwrap().volume_condition.unwrap().abnormal);
    }
    assert_eq!(bench.read("KEY").as_deref(), Some("good"));
    bench.operator.gives("d3", &[("KEY", "better")]);
    bench.publish().await.unwrap();
    assert_eq!(bench.read("KEY").as_deref(), Some("better"));
    assert!(!bench.stats().await.unwrap().volume_condition.unwrap().abnormal);
}

#[tokio::test]
async fn what_cannot_be_had_now_is_kept() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1"), ("BAD", "last good")]);
    bench.publish().await.unwrap();
    bench.operator.keeps("d2", &[("KEY", "2")], &["BAD"]);
    bench.publish().await.unwrap();
    bench.publish().await.unwrap();
    assert_eq!((bench.read("KEY").as_deref(), bench.read("BAD").as_deref()), (Some("2"), Some("last good")));
}

#[tokio::test]
async fn a_plugin_that_was_restarted_finds_the_files_and_knows_them() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1")]);
    bench.publish().await.unwrap();
    let inode = data_inode(&bench);
    let restarted = Bench::at(&bench.folder, |linux| linux);
    assert_eq!(restarted.read("KEY").as_deref(), Some("1"), "before anybody asks");
    restarted.operator.gives("d1", &[("KEY", "1")]);
    restarted.publish().await.unwrap();
    assert_eq!(restarted.operator.asked(), [Some("d1".to_owned())], "no value is asked for again");
    assert_eq!((data_inode(&bench), bench.count_mounts()), (inode, 1));
    restarted.operator.says(Says::Away);
    restarted.publish().await.unwrap();
    restarted.operator.gives("d2", &[("KEY", "2")]);
    restarted.publish().await.unwrap();
    assert_eq!(restarted.read("KEY").as_deref(), Some("2"));
    restarted.unpublish().await.unwrap();
    restarted.assert_nothing_left();
}
