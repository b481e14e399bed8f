//! Opening, with keys at hand and a MAC that is valid, so that the input reaches what lies behind it.
//!
//! The input is a recipe: each byte adds a stanza to a header, which is then finished as a true writer would, and at the
//! end perhaps damaged. From the recipe it is known what must come out.

use std::io::Read as _;
use std::sync::LazyLock;

use sealedenv_seal::{Identity, Keyring, OpenError, OpenPolicy, Place, Plain, Sealed, open};

use crate::Seed;
use crate::generate::forge::{Built, Forge, text};
use crate::generate::{ALICE, BOB, CAROL, Key};

const HERE: Place<'_> = Place { namespace: "shop", name: "checkout", key: "API_KEY" };

/// The scopes that a recipe can choose from; the first three admit [`HERE`].
const SCOPES: [&str; 8] = [
    "v1 strict shop checkout API_KEY",
    "v1 namespace shop - API_KEY",
    "v1 cluster - - API_KEY",
    "v1 strict shop checkout API_KEY2",
    "v1 strict shop other API_KEY",
    "v1 namespace shops - API_KEY",
    "v1 cluster - - api_key",
    "v2 strict shop checkout API_KEY",
];

/// All files have the same file key, so a stanza is wrapped once.
const SEED: &str = "fuzz";

static RING: LazyLock<Keyring> = LazyLock::new(|| {
    let read = |key: &Key| Identity::parse(key.identity).expect("a key of the vectors");
    Keyring::new(vec![read(&ALICE), read(&BOB)])
});

/// The same keys, for the age crate.
static IDENTITIES: LazyLock<[age::x25519::Identity; 2]> =
    LazyLock::new(|| [&ALICE, &BOB].map(|key| key.identity.parse().expect("a key of the vectors")));

/// The stanza of each key as header text.
static STANZAS: LazyLock<[String; 3]> = LazyLock::new(|| {
    let empty = Forge::new(SEED).build().header_len;
    [&ALICE, &BOB, &CAROL].map(|key| {
        let file = Forge::new(SEED).x25519(key).build();
        let end = file.header_len - (empty - FIRST_LINE.len());
        file.header()[FIRST_LINE.len()..end].to_owned()
    })
});

const FIRST_LINE: &str = "age-encryption.org/v1\n";

/// What a recipe has put into the header so far.
#[derive(Default)]
struct Recipe {
    scopes: Vec<usize>,
    hints: Vec<Vec<usize>>,
    /// Which key each X25519 stanza is for.
    recipients: Vec<usize>,
    passphrase: bool,
    stanzas: usize,
    /// Text that came from the input as it is: what it does cannot be foretold.
    free: bool,
}

/// # Panics
/// Unless a file opens exactly if it has one scope, which admits the place, no passphrase, and a stanza that fits and is
/// tried; and unless no damaged file opens.
pub fn run(data: &[u8]) {
    let (recipe, forge, rest) = cook(data);
    let value = &rest[..rest.len().min(40)];
    let file = forge.value(value).build();
    let damage = rest.get(40..).unwrap_or_default();
    let damaged = damage_file(&file, damage);
    let is_damaged = damaged != file.bytes;

    let policy = OpenPolicy { allow_unscoped: damage.len() % 2 == 1 };
    let opened = match Sealed::parse(&text(&damaged)) {
        Ok(sealed) => {
            let opened = open(&HERE, &RING, &sealed, policy);
            if let Err(error @ OpenError::Malformed) = &opened {
                panic!("{error}");
            }
            compare(&opened, &damaged);
            opened.map_err(|error| error.reason())
        }
        Err(error) => Err(error.reason()),
    };
    if is_damaged {
        assert!(opened.is_err(), "a damaged file opens");
        return;
    }
    if recipe.free {
        if let Ok(opened) = opened {
            let header = file.header();
            let scopes = header.matches("\n-> sealedenv.dev/scope ").count();
            assert!(scopes == 1 || (scopes == 0 && policy.allow_unscoped), "{scopes} scopes in {header:?}");
            assert!(!header.contains("\n-> scrypt"), "a passphrase beside: {header:?}");
            assert_eq!(opened.expose(), value);
        }
        return;
    }
    match (recipe.opens(policy), opened) {
        (Some(true), Ok(opened)) => assert_eq!(opened.expose(), value),
        (Some(true), Err(reason)) => panic!("refused: {reason} for {:?}", file.header()),
        (Some(false), Ok(_)) => panic!("opened: {:?}", file.header()),
        (Some(false), Err(_)) | (None, _) => {}
    }
}

/// A short value is opened without the age crate. It has to open what is opened here, and what is wrong behind the header's
/// keys has to be wrong for it too.
fn compare(opened: &Result<Plain, OpenError>, file: &[u8]) {
    let decryptor = age::Decryptor::new_buffered(file)
        .unwrap_or_else(|error| panic!("the age crate refuses what the scan let pass: {error}"));
    // Its key agreements take some twenty times as long as all else here, so one file of sixteen has to do.
    if file.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) % 16 != 0 {
        return;
    }
    let by_age = || {
        let mut payload = decryptor.decrypt(IDENTITIES.iter().map(|identity| identity as _)).ok()?;
        let mut value = Vec::new();
        payload.read_to_end(&mut value).ok().map(|_| value)
    };
    match opened {
        Ok(opened) => assert_eq!(Some(opened.expose()), by_age().as_deref()),
        Err(error @ (OpenError::BadMac | OpenError::PayloadDamaged)) => {
            assert!(by_age().is_none(), "the age crate opens it: {error}");
        }
        Err(_) => {}
    }
}

/// Reads a recipe up to the byte that ends it.
fn cook(data: &[u8]) -> (Recipe, Forge, &[u8]) {
    let mut recipe = Recipe::default();
    let mut forge = Forge::new(SEED);
    let mut rest = data;
    while let Some((&step, after)) = rest.split_first() {
        rest = after;
        let which = usize::from(step >> 4);
        forge = match step & 0xf {
            0 | 1 => {
                recipe.scopes.push(which % SCOPES.len());
                forge.scope(SCOPES[which % SCOPES.len()])
            }
            2..=4 => {
                recipe.recipients.push(which % 3);
                forge.raw(&STANZAS[which % 3])
            }
            5 | 6 => {
                let named: Vec<usize> = (0..3).filter(|key| which >> key & 1 == 1).collect();
                if named.is_empty() {
                    continue;
                }
                let named: Vec<usize> =
                    if which & 8 == 0 { named } else { named.into_iter().rev().collect() };
                let keys: Vec<&Key> = named.iter().map(|key| [&ALICE, &BOB, &CAROL][*key]).collect();
                recipe.hints.push(named);
                forge.to(&keys)
            }
            7 => {
                let (body, after) = rest.split_at(rest.len().min(which * 9));
                rest = after;
                forge.stanza("x-grease ~ !", body)
            }
            8 => {
                recipe.passphrase = true;
                forge.stanza(&format!("scrypt AAAAAAAAAAAAAAAAAAAAAA {which}"), &[0; 32])
            }
            9 => forge.stanza("example.com/other 7", &[5; 20]),
            10 => {
                let (free, after) = rest.split_at(rest.len().min(which * 4));
                rest = after;
                recipe.free = true;
                forge.raw(&String::from_utf8_lossy(free))
            }
            _ => return (recipe, forge, rest),
        };
        recipe.stanzas += 1;
    }
    (recipe, forge, rest)
}

/// The file with a bit flipped, cut, extended, or with bytes moved.
fn damage_file(file: &Built, damage: &[u8]) -> Vec<u8> {
    let mut bytes = file.bytes.clone();
    let [kind, high, low, bit, ..] = *damage else { return bytes };
    let at = usize::from(u16::from_be_bytes([high, low])) % bytes.len();
    match kind % 8 {
        0 | 1 => bytes[at] ^= 1 << (bit % 8),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, bit),
        4 => {
            bytes.remove(at);
        }
        5 => bytes.rotate_left(at % 64),
        6 => bytes.extend_from_slice(&damage[3..]),
        _ => {}
    }
    bytes
}

impl Recipe {
    /// Whether the undamaged file opens; `None` where that depends on the order of trials, which is not retold here.
    fn opens(&self, policy: OpenPolicy) -> Option<bool> {
        let scoped = match self.scopes[..] {
            [] => policy.allow_unscoped,
            [scope] => scope < 3,
            _ => false,
        };
        let known = self.scopes.iter().all(|scope| *scope != 7);
        let fits = self.recipients.iter().any(|key| *key < 2);
        if !scoped || !known || self.hints.len() > 1 || self.passphrase || self.stanzas > 100 || !fits {
            return Some(false);
        }
        let hinted = self.hints.first().is_some_and(|hint| {
            let ours = hint.iter().enumerate().filter(|(_, key)| **key < 2);
            // The first of our keys that the hint names stands where the hint says.
            ours.take(1).any(|(place, key)| self.recipients.get(place) == Some(key))
        });
        // With two keys and one stanza, or a true hint, no order of trials can miss.
        (hinted || self.recipients.len() == 1).then_some(true)
    }
}

/// Recipes of ordinary files, of each refusal, and of each kind of damage.
pub fn seeds() -> Vec<Seed> {
    let recipes: [(&str, &[u8]); 10] = [
        ("ordinary", &[0x00, 0x15, 0x02, 0x0f]),
        ("two", &[0x01, 0x35, 0x02, 0x12, 0x0f]),
        ("no-hint", &[0x10, 0x12, 0x0f]),
        ("false-hint", &[0x20, 0x15, 0x12, 0x0f]),
        ("strangers", &[0x00, 0x22, 0x22, 0x22, 0x22, 0x02, 0x0f]),
        ("two-scopes", &[0x00, 0x10, 0x15, 0x02, 0x0f]),
        ("unscoped", &[0x15, 0x02, 0x0f]),
        ("passphrase", &[0x00, 0x15, 0x02, 0x18, 0x0f]),
        (
            "grease",
            &[0x00, 0x15, 0x27, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 0x02, 0x0f],
        ),
        (
            "free",
            &[
                0x00, 0x15, 0x02, 0x3a, b'-', b'>', b' ', b'a', b'\n', b'\n', b'-', b'-', b'>', b' ', b'b',
                b'\n', 0x0f,
            ],
        ),
    ];
    let mut seeds = Vec::new();
    for (name, recipe) in recipes {
        for damage in 0..8_u8 {
            let mut bytes = recipe.to_vec();
            bytes.extend_from_slice(&[b'v'; 40]);
            let [high, low] = (30 + 60 * u16::from(damage)).to_be_bytes();
            bytes.extend_from_slice(&[damage, high, low, 3]);
            seeds.push((format!("{name}-{damage}"), bytes));
        }
    }
    seeds
}
