//! Neither a value nor a token comes to be where it does not belong.

use std::fs;

use sealedenv_delivery::Reason;

use crate::bench::{Bench, LOG, Says, TOKEN_CANARY, TOKENS, tokens};

const VALUE: &str = "canary-value-91bd";

#[tokio::test]
async fn no_log_line_and_no_message_holds_a_token_or_a_value() {
    let bench = Bench::new();
    let mut messages = Vec::new();
    let mut tell = |result: Result<(), tonic::Status>| {
        if let Err(status) = result {
            messages.push(format!("{status:?}"));
        }
    };
    let secret = bench.request().volume_context[TOKENS].clone();
    for broken in [secret.replace("sealedenv.dev", "other"), secret.replace("e30.", "e30 "), tokens("uid-2")]
    {
        let mut request = bench.request();
        request.volume_context.insert(TOKENS.to_owned(), broken);
        tell(bench.publish_as(request).await);
    }
    // A token where none belongs is repeated no more than any other attribute's value.
    for (key, value) in
        [("sealedenv", TOKEN_CANARY), ("mode", TOKEN_CANARY), ("owner", VALUE), ("typo", VALUE)]
    {
        let mut request = bench.request();
        request.volume_context.insert(key.to_owned(), format!("{value}\n"));
        tell(bench.publish_as(request).await);
    }
    bench.operator.says(Says::Refused(Reason::NotNamed));
    tell(bench.publish().await);
    bench.operator.gives("d1", &[("a", VALUE), ("a/b", VALUE)]);
    tell(bench.publish().await);
    assert!(messages.len() >= 9, "{messages:?}");
    bench.operator.gives("d1", &[("KEY", VALUE)]);
    bench.publish().await.unwrap();
    bench.operator.gives("d2", &[("KEY", &VALUE.repeat(2)), ("KEY/b", VALUE)]);
    bench.publish().await.unwrap();
    messages.push(bench.stats().await.unwrap().volume_condition.unwrap().message);
    bench.unpublish().await.unwrap();
    let log = String::from_utf8(LOG.lock().unwrap().clone()).unwrap();
    assert!(log.contains("not refreshed") && log.contains("not published"), "nothing was logged");
    for text in messages.iter().chain([&log]) {
        let leaks = text.lines().find(|line| line.contains(TOKEN_CANARY) || line.contains(VALUE));
        assert_eq!(leaks, None);
    }
}

#[tokio::test]
async fn no_value_is_on_disk() {
    let bench = Bench::new();
    bench.operator.gives("d1", &[("KEY", VALUE)]);
    bench.publish().await.unwrap();
    bench.operator.gives("d2", &[("KEY", &VALUE.repeat(2))]);
    bench.publish().await.unwrap();
    // Out of sight, so that only what is below the mounts is looked at.
    let hidden = bench.target();
    rustix::mount::unmount(&hidden, rustix::mount::UnmountFlags::empty()).unwrap();
    let mut folders = vec![bench.folder.clone()];
    let mut looked_at = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap();
            assert!(kind.is_dir(), "{} is no directory", path.display());
            looked_at += 1;
            folders.push(path);
        }
    }
    assert!(looked_at >= 7);
}
