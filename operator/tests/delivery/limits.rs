//! What one caller can take from others.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use sealedenv_delivery::Fetched;
use sealedenv_delivery::server::{Peer, Sending};
use tokio::time::{Instant, sleep};

use super::*;

fn call_from(address: [u8; 4]) -> Call {
    let mut call = Call::new(token("pod"), None, vec![Wanted { name: "checkout".to_owned(), held: None }]);
    call.peer = Some(Peer::new(IpAddr::from(address), || ()));
    call
}

impl Bench {
    /// Calls from there, and keeps the answer from being written.
    async fn unread(&self, address: [u8; 4]) -> Result<(Fetched, Sending), Refusal> {
        let call = call_from(address);
        let sending = call.sending.clone();
        Ok((self.desk.fetch(call).await?, sending))
    }
}

#[tokio::test(start_paused = true)]
async fn callers_of_one_address_keep_nobody_else_waiting() {
    let (log, _) = recorded();
    let bench = bench(log, Leadership::alone());
    let hung = AtomicUsize::new(0);
    bench.world.lock().unwrap().hung = true;
    let crowd = join_all((0..100).map(|_| async {
        hung.fetch_add(1, Ordering::Relaxed);
        bench.desk.fetch(call_from([10, 0, 0, 1])).await
    }));
    let other = async {
        sleep(Duration::from_millis(500)).await;
        assert_eq!(hung.load(Ordering::Relaxed), 100, "all of them wait, or hang in a review");
        bench.world.lock().unwrap().hung = false;
        let start = Instant::now();
        assert!(bench.desk.fetch(call_from([10, 0, 0, 2])).await.is_ok());
        start.elapsed()
    };
    let (_, took) = futures::join!(crowd, other);
    assert_eq!(took, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_count_until_they_are_gone() {
    let (log, memory) = recorded();
    let bench = bench(log, Leadership::alone());
    bench.env(&json!({"public": {"LARGE": "x".repeat(1_000_000)}}));
    let mut unread = Vec::new();
    // Memory for about as many; each address has places left.
    let refused = loop {
        let n = u8::try_from(unread.len()).unwrap();
        match bench.unread([10, 0, 0, n / 4]).await {
            Ok(one) => unread.push(one),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refused, unread.len()), (Refusal::Unavailable, 20));
    assert_eq!(lines(&memory).len(), 20, "what waits for memory is not opened");
    unread.pop();
    assert!(bench.unread([10, 0, 1, 1]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn small_answers_that_nobody_reads_fill_the_places_of_their_address_only() {
    let (log, _) = recorded();
    let bench = bench(log, Leadership::alone());
    let mut unread = Vec::new();
    let refused = loop {
        match bench.unread([10, 0, 0, 1]).await {
            Ok(one) => unread.push(one),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refused, unread.len()), (Refusal::Unavailable, 8));
    assert!(bench.unread([10, 0, 0, 2]).await.is_ok());
}
