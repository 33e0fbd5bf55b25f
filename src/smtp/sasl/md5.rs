//! MD5 (RFC 1321) that goes on from where it stood: CRAM-MD5 is checked with two such states
//! instead of the password, and OpenSSL 3 does not let anybody set them.
//!
//! For nothing else: MD5 is broken where an attacker chooses both messages, which HMAC
//! withstands.

/// The state before the first block, as octets.
pub(super) const INITIAL: [u8; 16] = [
    0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10,
];

/// The octets of a block.
pub(super) const BLOCK: usize = 64;

/// How far each round turns its words, again and again.
const TURNS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// The first 32 bits behind the point of |sin(1)|, |sin(2)| and so on.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613,
    0xfd46_9501, 0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193,
    0xa679_438e, 0x49b4_0821, 0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d,
    0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8, 0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed,
    0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a, 0xfffa_3942, 0x8771_f681, 0x6d9d_6122,
    0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70, 0x289b_7ec6, 0xeaa1_27fa,
    0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665, 0xf429_2244,
    0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb,
    0xeb86_d391,
];

/// The state behind one more block (RFC 1321 §3.4).
pub(super) fn behind_block(state: [u8; 16], block: &[u8; BLOCK]) -> [u8; 16] {
    let before: [u32; 4] = words(&state);
    let message: [u32; 16] = words(block);
    let [mut a, mut b, mut c, mut d] = before;
    for (step, sine) in SINES.into_iter().enumerate() {
        let (mixed, place) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((b & d) | (c & !d), 5 * step + 1),
            2 => (b ^ c ^ d, 3 * step + 5),
            _ => (c ^ (b | !d), 7 * step),
        };
        let sum = a.wrapping_add(mixed).wrapping_add(message[place % 16]).wrapping_add(sine);
        let turned = b.wrapping_add(sum.rotate_left(TURNS[step / 16][step % 4]));
        (a, b, c, d) = (d, turned, b, c);
    }
    let mut state = [0; 16];
    for (octets, (old, new)) in state.chunks_exact_mut(4).zip(before.into_iter().zip([a, b, c, d]))
    {
        octets.copy_from_slice(&old.wrapping_add(new).to_le_bytes());
    }
    state
}

/// The digest of so many blocks, which led to `state`, and `rest`.
pub(super) fn digest(state: [u8; 16], blocks: usize, rest: &[u8]) -> [u8; 16] {
    let bits = (blocks * BLOCK + rest.len()) as u64 * 8;
    let mut padded = rest.to_vec();
    padded.push(0x80);
    while padded.len() % BLOCK != BLOCK - 8 {
        padded.push(0);
    }
    padded.extend_from_slice(&bits.to_le_bytes());
    let (blocks, _) = padded.as_chunks();
    blocks.iter().fold(state, behind_block)
}

fn words<const N: usize>(octets: &[u8]) -> [u32; N] {
    let (octets, _) = octets.as_chunks();
    std::array::from_fn(|place| u32::from_le_bytes(octets[place]))
}

#[cfg(test)]
mod tests {
    use openssl::hash::MessageDigest;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_digest_is_that_of_openssl(
            first in prop::collection::vec(any::<[u8; BLOCK]>(), 0..3),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let state = first.iter().fold(INITIAL, behind_block);
            let whole = [first.concat(), rest.clone()].concat();
            let expected = openssl::hash::hash(MessageDigest::md5(), &whole).unwrap();
            prop_assert_eq!(&digest(state, first.len(), &rest)[..], &expected[..]);
        }
    }
}
