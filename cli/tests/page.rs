//! The commands on the page about sealing do what the page says.

#![allow(clippy::expect_used, reason = "in tests")]

mod run;

use std::fs;
use std::path::Path;
use std::process::Command;

use run::{BIN, Run, keygen, opened};

/// The shell commands of a page, each block as it stands.
fn blocks(page: &str) -> Vec<String> {
    page.split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(block, _)| block.to_owned())
        .collect()
}

#[test]
fn the_commands_of_the_page_work_in_their_order() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/sealing.md");
    let blocks = blocks(&fs::read_to_string(page).expect("the page"));
    assert!(blocks.len() >= 7, "{} blocks", blocks.len());
    let dir = tempfile::tempdir().expect("dir");
    let recipient = keygen(dir.path(), "cluster");
    fs::write(dir.path().join("recipients.txt"), format!("{recipient}\n")).expect("write");
    // What needs a cluster or another program has its own tests.
    let (elsewhere, here): (Vec<_>, Vec<_>) =
        blocks.iter().partition(|block| block.contains("recipients fetch") || block.contains("kustomize"));
    assert_eq!(elsewhere.len(), 2);
    let mut said = String::new();
    for block in here {
        let path = format!("{}:/usr/bin:/bin", Path::new(BIN).parent().expect("a folder").display());
        let mut shell = Command::new("sh");
        shell.args(["-euc", block]).current_dir(dir.path()).env("PATH", path);
        let run = Run::from(shell.output().expect("sh"));
        assert_eq!(run.code, 0, "{block}\n{}", run.err);
        said.push_str(run.text());
        said.push_str(&run.err);
    }
    for expected in [
        "shop/checkout: sealed 2 keys",
        "replaced STRIPE_API_KEY: asked for",
        "added SMTP_PASSWORD, sealed",
        "scope:       strict shop/checkout/DB_PASSWORD",
        "hunter2",
        "1 SealedEnv checked, 0 other objects passed over: 0 errors, 0 warnings",
    ] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    let manifest = fs::read_to_string(dir.path().join("checkout.yaml")).expect("checkout.yaml");
    let value =
        manifest.lines().find_map(|line| line.trim().strip_prefix("STRIPE_API_KEY: ")).expect("a value");
    assert_eq!(opened(dir.path(), "cluster", "STRIPE_API_KEY", value).ok(), "sk_live_y");
}
