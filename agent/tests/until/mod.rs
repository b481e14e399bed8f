//! Waiting in tests.

use std::time::Duration;

/// Waits until something holds, for a minute at most.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let waited = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waited)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}
