//! Taking volumes away.

use std::fs;

use rustix::mount::mount_bind;
use tonic::Code;

use crate::bench::Bench;

#[tokio::test]
async fn an_unpublish_leaves_nothing_and_can_be_repeated() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1")]);
    bench.unpublish().await.unwrap();
    bench.publish().await.unwrap();
    bench.unpublish().await.unwrap();
    bench.assert_nothing_left();
    bench.unpublish().await.unwrap();
    fs::create_dir(bench.target()).unwrap();
    bench.unpublish().await.unwrap();
    bench.assert_nothing_left();
    fs::remove_dir_all(bench.folder.join("kubelet")).unwrap();
    bench.unpublish().await.unwrap();
}

#[tokio::test]
async fn a_volume_that_is_in_use_goes_out_of_sight_at_once() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1")]);
    bench.publish().await.unwrap();
    let open = fs::File::open(bench.target().join("KEY")).unwrap();
    bench.unpublish().await.unwrap();
    bench.assert_nothing_left();
    assert_eq!(std::io::read_to_string(open).unwrap(), "1", "who has it open is not cut off");
}

#[tokio::test]
async fn stacked_mounts_of_ours_all_go() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", "1")]);
    bench.publish().await.unwrap();
    for _ in 0..3 {
        mount_bind(bench.target(), bench.target()).unwrap();
    }
    assert_eq!(bench.mounts().len(), 4);
    bench.unpublish().await.unwrap();
    bench.assert_nothing_left();
}

#[tokio::test]
async fn there_are_no_stats_of_what_is_not_there() {
    let bench = Bench::new();
    assert_eq!(bench.stats().await.err().unwrap().code(), Code::NotFound);
    fs::create_dir(bench.target()).unwrap();
    assert_eq!(bench.stats().await.err().unwrap().code(), Code::NotFound);
    bench.operator.gives("d1", &[("KEY", "1")]);
    bench.publish().await.unwrap();
    let stats = bench.stats().await.unwrap();
    assert_eq!(stats.usage.len(), 2);
    for usage in stats.usage {
        assert!(
            usage.used > 0 && usage.available > 0 && usage.total == usage.used + usage.available,
            "{}",
            usage.unit
        );
    }
}
