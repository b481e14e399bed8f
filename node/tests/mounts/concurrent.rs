//! Calls for one volume that overlap, and calls that are given up.

use std::sync::Arc;

use crate::bench::{Bench, request};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_and_unpublishes_of_one_volume_take_turns() {
    let bench = Arc::new(Bench::new());
    bench.operator.gives("d1", &[("KEY", "1"), ("OTHER", "1")]);
    let mut calls = Vec::new();
    for n in 0..200 {
        let bench = Arc::clone(&bench);
        calls.push(tokio::spawn(async move {
            if n % 3 == 2 { bench.unpublish().await } else { bench.publish().await }
        }));
    }
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert!(bench.mounts().len() <= 1, "{:?}", bench.mounts());
    assert_eq!(bench.count_mounts(), bench.mounts().len(), "no stage is left");
    if bench.mounts().len() == 1 {
        assert_eq!((bench.read("KEY").as_deref(), bench.read("OTHER").as_deref()), (Some("1"), Some("1")));
    }
    bench.unpublish().await.unwrap();
    bench.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_the_kubelet_gives_up_is_finished_or_not_begun() {
    for n in 0..100_u32 {
        let bench = Arc::new(Bench::new());
        bench.operator.gives("d1", &[("KEY", "1")]);
        let call = tokio::spawn({
            let bench = Arc::clone(&bench);
            async move { bench.publish().await }
        });
        for _ in 0..n {
            tokio::task::yield_now().await;
        }
        call.abort();
        let _aborted_or_done = call.await;
        // Waits for what was begun.
        bench.unpublish().await.unwrap();
        bench.assert_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_at_once_get_their_files() {
    let bench = Arc::new(Bench::new());
    bench.operator.gives("d1", &[("KEY", "1")]);
    let targets: Vec<_> = (0..100).map(|n| bench.volume(&format!("v{n}")).join("mount")).collect();
    let calls: Vec<_> = targets
        .iter()
        .map(|target| {
            let (bench, request) = (Arc::clone(&bench), request(target));
            tokio::spawn(async move { bench.publish_as(request).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    for target in targets {
        assert_eq!(std::fs::read(target.join("KEY")).unwrap(), b"1");
    }
    assert_eq!(bench.count_mounts(), 100);
}
