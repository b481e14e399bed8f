//! Taking the file key out of an `X25519` stanza, which is nearly all the work of opening a small value.
//!
//! The age crate's own way is portable, and derives the public key anew for each stanza: 68 µs on the machine of
//! docs/benchmarks.md, of which 52 are the agreement itself. Here the public key is kept, and the agreement is the formally
//! verified assembly of s2n-bignum: 24 µs. Processors without the instructions that it needs keep to the age crate.
//!
//! Follows <https://c2sp.org/age#x25519-recipient-stanza>. A test holds both ways against each other.

use age::DecryptError;
use age_core::format::{FILE_KEY_BYTES, FileKey, Stanza};
use age_core::primitives::{aead_decrypt, bech32_decode, hkdf};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use graviola::key_agreement::x25519::{PublicKey, StaticPrivateKey};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const LABEL: &[u8] = b"age-encryption.org/v1/X25519";

/// A private key, ready for agreements. It is wiped when it is dropped.
pub(crate) struct Agreement {
    secret: StaticPrivateKey,
    public: [u8; KEY_BYTES],
}

impl Agreement {
    /// Takes the key from the text of a valid identity. `None` where the processor lacks an instruction.
    pub(crate) fn new(identity: &str) -> Option<Self> {
        if !graviola::util::is_cpu_supported() {
            return None;
        }
        let bytes = bech32_decode(
            identity,
            |_| (),
            |_| Ok(()),
            |_, bytes| {
                let mut key = Zeroizing::new([0; KEY_BYTES]);
                if bytes.len() != KEY_BYTES {
                    return Err(());
                }
                key.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
                Ok(key)
            },
        );
        let secret = StaticPrivateKey::from_array(&*bytes.ok()?);
        let public = secret.public_key().as_bytes();
        Some(Self { secret, public })
    }

    /// The file key of an `X25519` stanza. `None` when the stanza is for another key.
    pub(crate) fn unwrap(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        let malformed = || Some(Err(DecryptError::InvalidHeader));
        let Some(share) = share(stanza) else { return malformed() };
        if stanza.body.len() != FILE_KEY_BYTES + TAG_BYTES {
            return malformed();
        }
        // The only error is a shared secret of zeros, which a share of small order leads to, whatever the key.
        let Ok(agreed) = self.secret.diffie_hellman(&PublicKey::from_array(&share)) else {
            return malformed();
        };
        let mut salt = [0; 2 * KEY_BYTES];
        salt[..KEY_BYTES].copy_from_slice(&share);
        salt[KEY_BYTES..].copy_from_slice(&self.public);
        let wrapping = Zeroizing::new(hkdf(&salt, LABEL, &agreed.0));
        let file_key = Zeroizing::new(aead_decrypt(&wrapping, FILE_KEY_BYTES, &stanza.body).ok()?);
        Some(Ok(FileKey::init_with_mut(|key| key.copy_from_slice(&file_key))))
    }
}

/// The sender's share: the stanza's one argument.
fn share(stanza: &Stanza) -> Option<[u8; KEY_BYTES]> {
    let [argument] = &stanza.args[..] else { return None };
    // One more, so that a longer one is seen to be longer.
    let mut bytes = [0; KEY_BYTES + 1];
    let decoded = BASE64_STANDARD_NO_PAD.decode_slice(argument, &mut bytes).ok()?;
    bytes.get(..decoded)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use age_core::primitives::aead_encrypt;
    use age_core::secrecy::ExposeSecret;
    use proptest::prelude::*;

    use super::*;

    /// What comes of a stanza: the file key, that it is for another key, or that it is malformed.
    #[derive(Debug, PartialEq)]
    enum Outcome {
        Key([u8; FILE_KEY_BYTES]),
        Another,
        Malformed,
    }

    fn outcome(unwrapped: Option<Result<FileKey, DecryptError>>) -> Outcome {
        match unwrapped {
            Some(Ok(key)) => Outcome::Key(*key.expose_secret()),
            Some(Err(DecryptError::InvalidHeader)) => Outcome::Malformed,
            Some(Err(error)) => panic!("{error}"),
            None => Outcome::Another,
        }
    }

    /// Both ways; they must agree.
    fn unwrap(identity: &age::x25519::Identity, stanza: &Stanza) -> Outcome {
        let text = identity.to_string();
        let here = outcome(Agreement::new(text.expose_secret()).unwrap().unwrap(stanza));
        assert_eq!(here, outcome(age::Identity::unwrap_stanza(identity, stanza)));
        here
    }

    fn wrap(identity: &age::x25519::Identity, key: [u8; FILE_KEY_BYTES]) -> Stanza {
        let key = FileKey::new(Box::new(key));
        let (mut stanzas, _) = age::Recipient::wrap_file_key(&identity.to_public(), &key).unwrap();
        stanzas.remove(0)
    }

    fn stanza(args: &[&str], body: &[u8]) -> Stanza {
        let args = args.iter().map(ToString::to_string).collect();
        Stanza { tag: "X25519".to_owned(), args, body: body.to_vec() }
    }

    #[test]
    fn malformed_stanzas_are_malformed_to_both_ways() {
        let identity = age::x25519::Identity::generate();
        let good = wrap(&identity, [7; FILE_KEY_BYTES]);
        let (share, body) = (good.args[0].as_str(), good.body.as_slice());
        let mut one = [0; KEY_BYTES];
        one[0] = 1;
        // The field's prime, which is zero that is not reduced.
        let mut prime = [0xff; KEY_BYTES];
        (prime[0], prime[31]) = (0xed, 0x7f);
        let small_order = [[0; KEY_BYTES], one, prime].map(|point| BASE64_STANDARD_NO_PAD.encode(point));
        // The last letter has more bits than there are left.
        let loose = format!("{}B", "A".repeat(42));
        for stanza in [
            stanza(&[], body),
            stanza(&[share, share], body),
            stanza(&[""], body),
            stanza(&[&share[1..]], body),
            stanza(&[&format!("{share}=")], body),
            stanza(&[&format!("{share}A")], body),
            stanza(&[&format!("{share}AAAA")], body),
            stanza(&[&format!("{} ", &share[..42])], body),
            stanza(&[&loose], body),
            stanza(&[&small_order[0]], body),
            stanza(&[&small_order[1]], body),
            stanza(&[&small_order[2]], body),
            stanza(&[share], &body[1..]),
            stanza(&[share], &[body, &[0]].concat()),
        ] {
            assert_eq!(unwrap(&identity, &stanza), Outcome::Malformed, "{stanza:?}");
        }
    }

    /// RFC 7748 has the highest bit of a share ignored. It counts in the salt.
    #[test]
    fn a_share_with_the_bit_that_does_not_count_is_opened_by_both_ways() {
        let identity = age::x25519::Identity::generate();
        let public = Agreement::new(identity.to_string().expose_secret()).unwrap().public;
        let ours = x25519_dalek::StaticSecret::from([7; KEY_BYTES]);
        let mut share = x25519_dalek::PublicKey::from(&ours).to_bytes();
        share[31] |= 0x80;
        let agreed = ours.diffie_hellman(&public.into());
        let wrapping = hkdf(&[share, public].concat(), LABEL, agreed.as_bytes());
        let key = [9; FILE_KEY_BYTES];
        let stanza = stanza(&[&BASE64_STANDARD_NO_PAD.encode(share)], &aead_encrypt(&wrapping, &key));
        assert_eq!(unwrap(&identity, &stanza), Outcome::Key(key));
    }

    proptest! {
        #[test]
        fn both_ways_give_the_same_for_every_key_and_every_share(
            key in any::<[u8; FILE_KEY_BYTES]>(),
            share in any::<[u8; KEY_BYTES]>(),
            place in 0..FILE_KEY_BYTES + TAG_BYTES,
            change in 1..=255_u8,
        ) {
            let identity = age::x25519::Identity::generate();
            let good = wrap(&identity, key);
            prop_assert_eq!(unwrap(&identity, &good), Outcome::Key(key));
            prop_assert_eq!(unwrap(&age::x25519::Identity::generate(), &good), Outcome::Another);
            let mut changed = stanza(&[&good.args[0]], &good.body);
            changed.body[place] ^= change;
            prop_assert_eq!(unwrap(&identity, &changed), Outcome::Another);
            // Any bytes at all as the share: most are no point of the curve but one of its twist.
            let other = stanza(&[&BASE64_STANDARD_NO_PAD.encode(share)], &good.body);
            prop_assert_eq!(unwrap(&identity, &other), Outcome::Another);
        }
    }
}
