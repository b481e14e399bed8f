//! What the costliest files cost to read and open, beside ordinary ones of the same length.
//!
//! `cargo run --release -p sealedenv-seal --example cost` prints a table. Work is counted in tests; this is the clock.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people who measure")]

#[path = "vectors/generate/mod.rs"]
#[allow(dead_code)]
mod generate;

use std::time::{Duration, Instant};

use generate::forge::{Built, Forge};
use generate::{ALICE, BOB, CAROL};
use sealedenv_seal::{Identity, Keyring, MAX_HEADER, OpenPolicy, Place, Sealed, open};

const HERE: Place<'_> = Place { namespace: "shop", name: "checkout", key: "API_KEY" };

fn main() {
    let mut keys: Vec<Identity> = (0..19).map(|_| Identity::generate()).collect();
    keys.push(Identity::parse(ALICE.identity).unwrap());
    let ring = Keyring::new(keys);
    let usual = || Forge::usual("cost", &[&ALICE]);
    let scoped = || Forge::new("cost").scope("v1 strict shop checkout API_KEY");
    let grease = |forge: Forge, bytes: usize| {
        let lines = bytes / 65;
        forge.raw("-> x-grease\n").raw(&("A".repeat(64) + "\n").repeat(lines)).raw("\n")
    };
    let small = usual().build();
    let room = MAX_HEADER - small.header_len - 64;
    let full = grease(usual(), room).build();
    let strangers = |number: usize, forge: Forge| (0..number).fold(forge, |forge, _| forge.x25519(&BOB));
    // Everything at once: as many words, stanzas, bytes and trials as a header may have.
    let mut all = strangers(2, scoped()).x25519(&ALICE).stanza(&format!("x-grease{}", " y".repeat(300)), b"");
    for n in 0..94 {
        all = all.stanza(&format!("{n}-grease"), &vec![0; if n < 21 { 1900 } else { 20 }]);
    }
    let of: Vec<String> =
        (0..49).map(|n| format!("{n:016x}")).chain([ALICE.fingerprint.to_owned()]).collect();
    let hinted = strangers(49, scoped().stanza(&format!("sealedenv.dev/to {}", of.join(" ")), b""));
    let hinted = hinted.x25519(&ALICE).build();
    let cases: [(&str, Built, usize); 7] = [
        ("ordinary: 7 bytes for one", small, 1),
        ("49 strangers, then ours, true hint", hinted, 1),
        ("98 strangers, no hint: refused", strangers(98, scoped()).build(), 3),
        ("2 strangers, then ours, no hint", strangers(2, scoped()).x25519(&ALICE).build(), 3),
        ("false hint", scoped().to(&[&ALICE, &CAROL]).x25519_all(&[&BOB, &ALICE]).build(), 2),
        ("64 KiB header of one body", full, 1),
        ("64 KiB header, all at its bound", all.build(), 3),
    ];
    println!("{:<40}{:>10}{:>12}{:>26}{:>8}", "file", "bytes", "µs", "ordinary of that length", "ratio");
    for (what, file, trials) in cases {
        let length = file.bytes.len();
        let overhead = usual().value(b"").build().bytes.len();
        let ordinary = usual().value(&vec![b'v'; length.saturating_sub(overhead)]).build();
        let (cost, like) = (measure(&file, &ring), measure(&ordinary, &ring));
        let ratio = cost.as_secs_f64() / like.as_secs_f64();
        println!(
            "{what:<40}{length:>10}{:>12.1}{:>26.1}{ratio:>8.2}   ({trials} trials)",
            cost.as_secs_f64() * 1e6,
            like.as_secs_f64() * 1e6
        );
    }
}

/// The least of many runs: what the machine does beside this does not count.
fn measure(file: &Built, ring: &Keyring) -> Duration {
    let text = file.text();
    (0..400)
        .map(|_| {
            let start = Instant::now();
            let sealed = Sealed::parse(&text).unwrap();
            let _ = std::hint::black_box(open(&HERE, ring, &sealed, OpenPolicy::default()));
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}
