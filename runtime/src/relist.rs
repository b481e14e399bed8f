//! A watch that lists again after every interruption.
//!
//! A watch may be resumed from the last resourceVersion that was seen, and `kube`'s is. That is only right while the API
//! server's data goes on from there. After etcd was put back to an older state, versions are counted from that state
//! again: a resumed watch then waits, without any error, for versions to come that it has already seen, and misses what
//! happens until they do. Such a restore breaks all connections, so an interruption is a reason to look at everything.

use futures::stream::{self, BoxStream, Stream, StreamExt as _};

/// The items of a stream that is made anew after each error. For a watcher, without a pause of its own: the caller adds
/// one.
pub fn anew_after_errors<T: Send, E: Send>(
    make: impl FnMut() -> BoxStream<'static, Result<T, E>> + Send,
) -> impl Stream<Item = Result<T, E>> + Send {
    stream::unfold((None, make), |(current, mut make)| async move {
        let mut current = current.unwrap_or_else(&mut make);
        let item = current.next().await?;
        let current = item.is_ok().then_some(current);
        Some((item, (current, make)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_begins_anew_and_loses_nothing() {
        let mut runs = vec![vec![Ok(1), Ok(2)], vec![Ok(1), Err("reset"), Ok(9)], vec![Err("refused")]];
        let made = move || stream::iter(runs.pop().unwrap_or_default()).boxed();
        let seen: Vec<Result<i32, &str>> = anew_after_errors(made).collect().await;
        assert_eq!(seen, [Err("refused"), Ok(1), Err("reset"), Ok(1), Ok(2)]);
    }
}
