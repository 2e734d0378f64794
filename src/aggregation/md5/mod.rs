//! MD5 of many messages at once: for the digest of aggregates, and for the hash keys of partition keys.

#![cfg_attr(
    not(feature = "internals"),
    expect(unreachable_pub, dead_code, reason = "benches and tests pick the instructions")
)]

mod kernel;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod lanes;

use self::kernel::{Block, INITIAL, State, compress};

/// The length of a digest.
pub(super) const DIGEST_BYTES: usize = 16;

/// The CPU instructions used to compute MD5.
#[derive(Debug, Clone, Copy)]
pub struct Hasher(Instructions);

#[derive(Debug, Clone, Copy)]
enum Instructions {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2(kernel::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(kernel::Avx512),
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Neon(kernel::Neon),
}

impl Hasher {
    /// The name of the instruction set.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(_) => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(_) => "AVX-512",
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Instructions::Neon(_) => "NEON",
        }
    }

    /// Uses the fastest instructions this CPU has.
    pub fn detect() -> Self {
        *Self::all().last().unwrap_or(&Self(Instructions::Scalar))
    }

    /// One for each instruction set this CPU has, the fastest last.
    pub fn all() -> Vec<Self> {
        let all = [
            Some(Instructions::Scalar),
            #[cfg(target_arch = "x86_64")]
            kernel::Avx2::detect().map(Instructions::Avx2),
            #[cfg(target_arch = "x86_64")]
            kernel::Avx512::detect().map(Instructions::Avx512),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            kernel::Neon::detect().map(Instructions::Neon),
        ];
        all.into_iter().flatten().map(Self).collect()
    }

    /// The digest of one message.
    pub fn digest(message: &[u8]) -> [u8; DIGEST_BYTES] {
        let mut state = INITIAL;
        compress(&mut state, message.as_chunks().0);
        compress(&mut state, pad(message, &mut [[0; 64]; 2]));
        bytes(state)
    }

    /// The digests of `messages`, in order. Uses 64 bytes of memory per message.
    pub fn digests(self, messages: &[&[u8]]) -> Vec<[u8; DIGEST_BYTES]> {
        match self.0 {
            Instructions::Scalar => messages.iter().map(|message| Self::digest(message)).collect(),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2(avx2) => lanes::digests(avx2, messages),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512(avx512) => lanes::digests(avx512, messages),
            #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
            Instructions::Neon(neon) => lanes::digests(neon, messages),
        }
    }
}

/// Pads the end of a message: the bytes after its last whole block, a one bit, zeros, and the length of
/// the message in bits. One or two blocks, written to `end`.
fn pad<'a>(message: &[u8], end: &'a mut [Block; 2]) -> &'a [Block] {
    let rest = message.as_chunks::<64>().1;
    let bits = (message.len() as u64).wrapping_mul(8).to_le_bytes();
    end[0] = [0; 64];
    let blocks = match end_blocks(message) {
        1 => &mut end[..1],
        _ => {
            end[1] = [0; 64];
            &mut end[..]
        }
    };
    let bytes = blocks.as_flattened_mut();
    copy_short(rest, bytes);
    bytes[rest.len()] = 0x80;
    if let Some(length) = bytes.last_chunk_mut() {
        *length = bits;
    }
    blocks
}

/// Copies less than 64 bytes to the start of `to`: the first and the last few, which may overlap. Keys
/// are so short that a call of `memcpy` would take longer than the copy.
#[inline]
fn copy_short(from: &[u8], to: &mut [u8]) {
    #[inline]
    fn copy_both_ends<const N: usize>(from: &[u8], to: &mut [u8]) {
        if let (Some(from), Some(to)) = (from.first_chunk::<N>(), to.first_chunk_mut::<N>()) {
            *to = *from;
        }
        if let (Some(from), Some(to)) = (from.last_chunk::<N>(), to.last_chunk_mut::<N>()) {
            *to = *from;
        }
    }
    let to = &mut to[..from.len()];
    match from.len() {
        0..4 => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
        4..8 => copy_both_ends::<4>(from, to),
        8..16 => copy_both_ends::<8>(from, to),
        16..32 => copy_both_ends::<16>(from, to),
        _ => copy_both_ends::<32>(from, to),
    }
}

/// The number of blocks that [`pad`] writes.
fn end_blocks(message: &[u8]) -> usize {
    if message.len() % 64 < 64 - size_of::<u64>() { 1 } else { 2 }
}

fn bytes(state: State) -> [u8; DIGEST_BYTES] {
    let mut digest = [0; DIGEST_BYTES];
    for (bytes, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *bytes = word.to_le_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use md5::{Digest, Md5};

    use super::*;

    /// Miri is slow: with it, tests run only every n-th case.
    const MIRI_STEP: usize = if cfg!(miri) { 11 } else { 1 };

    fn message(len: usize, seed: u64) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(seed ^ (len as u64) << 32);
        (0..len).map(|_| random.u8(..)).collect()
    }

    fn assert_digests_are_right(messages: &[Vec<u8>]) {
        let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let expected: Vec<[u8; 16]> = slices.iter().map(|message| Md5::digest(message).into()).collect();
        for hasher in Hasher::all() {
            assert!(hasher.digests(&slices) == expected, "{hasher:?}");
        }
        for (message, expected) in slices.iter().zip(expected) {
            assert_eq!(Hasher::digest(message), expected);
        }
    }

    #[test]
    fn every_length_is_hashed_right_alone_and_among_all_others() {
        let messages: Vec<Vec<u8>> = (0..=300).step_by(MIRI_STEP).map(|len| message(len, 1)).collect();
        assert_digests_are_right(&messages);
        for message in messages {
            assert_digests_are_right(&[message]);
        }
    }

    #[test]
    fn any_number_of_equal_lengths_is_hashed_right() {
        for count in (0..=50).chain([95, 96, 97, 145]).step_by(MIRI_STEP) {
            let messages: Vec<Vec<u8>> = (0..count).map(|seed| message(130, seed)).collect();
            assert_digests_are_right(&messages);
        }
    }

    #[test]
    fn random_batches_are_hashed_right() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..if cfg!(miri) { 2 } else { 100 } {
            let longest = *random.choice(&[60, 300, 3000]).expect("not empty");
            let messages: Vec<Vec<u8>> =
                (0..random.usize(0..70)).map(|seed| message(random.usize(0..longest), seed as u64)).collect();
            assert_digests_are_right(&messages);
        }
    }

    #[test]
    fn one_long_message_among_short_ones_is_hashed_right() {
        let lengths = [100_000 / MIRI_STEP, 3, 64, 0, 5000, 5000, 5001, 128, 63, 55, 56, 57];
        assert_digests_are_right(&lengths.map(|len| message(len, 3)));
    }

    /// Whether the tests here, which go through all hashers there are, use these instructions.
    fn is_tested(instructions: &str) -> bool {
        Hasher::all().iter().any(|hasher| format!("{hasher:?}").contains(instructions))
    }

    #[test]
    fn every_instruction_set_of_this_cpu_is_tested() {
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(is_x86_feature_detected!("avx2"), is_tested("Avx2"));
            assert_eq!(is_x86_feature_detected!("avx512f"), is_tested("Avx512"));
        }
        #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
        assert!(is_tested("Neon"));
        assert!(is_tested("Scalar"));
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[ignore = "needs a processor with AVX2"]
    fn avx2_is_tested() {
        assert!(is_tested("Avx2"), "this processor has no AVX2");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[ignore = "needs a processor with AVX-512"]
    fn avx512_is_tested() {
        assert!(is_tested("Avx512"), "this processor has no AVX-512");
    }
}
