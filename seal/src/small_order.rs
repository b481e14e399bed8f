//! Points of X25519 with which every private key makes the same shared secret: zero.
//!
//! A file wrapped for such a share opens with any key, and a value sealed to such a recipient opens for everybody. They
//! are refused by name before any arithmetic, so that no reader's order of trials decides whether a file opens.

/// Every encoding of every point of small order, the unused top bit zero, least significant byte first.
const SMALL_ORDER: [[u8; 32]; 7] = [
    [0; 32],
    with_ends(0x01, 0x00, 0x00),
    // Two of order eight.
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda,
        0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04,
        0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
    ],
    // p − 1, and the encodings of 0 and 1 that are not reduced: p and p + 1, where p = 2²⁵⁵ − 19.
    with_ends(0xec, 0xff, 0x7f),
    with_ends(0xed, 0xff, 0x7f),
    with_ends(0xee, 0xff, 0x7f),
];

const fn with_ends(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// Whether the point is of small order. The top bit is ignored, as X25519 does.
pub(crate) fn is_small_order(point: &[u8; 32]) -> bool {
    let mut masked = *point;
    masked[31] &= 0x7f;
    SMALL_ORDER.contains(&masked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret_is_zero(point: &[u8; 32]) -> bool {
        [[1; 32], [0xa5; 32]].into_iter().all(|scalar| x25519_dalek::x25519(scalar, *point) == [0; 32])
    }

    #[test]
    fn every_one_of_them_makes_a_secret_of_zeros() {
        for point in SMALL_ORDER {
            let mut top_bit_set = point;
            top_bit_set[31] |= 0x80;
            assert!(secret_is_zero(&point) && secret_is_zero(&top_bit_set), "{point:02x?}");
            assert!(is_small_order(&point) && is_small_order(&top_bit_set), "{point:02x?}");
        }
    }

    proptest! {
        #[test]
        fn no_other_does(point: [u8; 32], near in 0..7_usize, at in 0..32_usize, change: u8) {
            let mut neighbour = SMALL_ORDER[near];
            neighbour[at] ^= change;
            for point in [point, neighbour] {
                prop_assert_eq!(is_small_order(&point), secret_is_zero(&point));
            }
        }
    }
}
