//! The MD5 compression function, for one message and for many in parallel.
//!
//! This is the only file of the crate with `unsafe`: vector loads and stores, calls of functions
//! compiled for CPU features that were detected, and pinned additions.
#![allow(unsafe_code)]

/// The block size of MD5.
pub(super) type Block = [u8; 64];

/// The state of an MD5 computation.
pub(super) type State = [u32; 4];

/// The initial state.
pub(super) const INITIAL: State = [0x6745_2301, 0xEFCD_AB89, 0x98BA_DCFE, 0x1032_5476];

/// Compresses many messages in parallel: `G` groups of `L` lanes, with one message per lane. A single
/// group waits for its own results most of the time; further groups fill the gaps.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
pub(super) trait Kernel<const L: usize>: Copy {
    /// Compresses the first `count` blocks of every lane into its state.
    fn compress<const G: usize>(
        self,
        states: &mut LaneStates<L, G>,
        blocks: &[[&[Block]; L]; G],
        count: usize,
    );
}

/// The states of all lanes, word by word: the same word of all lanes is contiguous.
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
pub(super) type LaneStates<const L: usize, const G: usize> = [[[u32; L]; G]; 4];

/// The 64 steps of MD5: mixing function, the four words of the state in the order of this step, the word
/// of the message, rotation, constant.
macro_rules! steps {
    ($step:ident, $a:ident, $b:ident, $c:ident, $d:ident) => {
        $step!(f, $a, $b, $c, $d, 0, 7, 0xD76A_A478);
        $step!(f, $d, $a, $b, $c, 1, 12, 0xE8C7_B756);
        $step!(f, $c, $d, $a, $b, 2, 17, 0x2420_70DB);
        $step!(f, $b, $c, $d, $a, 3, 22, 0xC1BD_CEEE);
        $step!(f, $a, $b, $c, $d, 4, 7, 0xF57C_0FAF);
        $step!(f, $d, $a, $b, $c, 5, 12, 0x4787_C62A);
        $step!(f, $c, $d, $a, $b, 6, 17, 0xA830_4613);
        $step!(f, $b, $c, $d, $a, 7, 22, 0xFD46_9501);
        $step!(f, $a, $b, $c, $d, 8, 7, 0x6980_98D8);
        $step!(f, $d, $a, $b, $c, 9, 12, 0x8B44_F7AF);
        $step!(f, $c, $d, $a, $b, 10, 17, 0xFFFF_5BB1);
        $step!(f, $b, $c, $d, $a, 11, 22, 0x895C_D7BE);
        $step!(f, $a, $b, $c, $d, 12, 7, 0x6B90_1122);
        $step!(f, $d, $a, $b, $c, 13, 12, 0xFD98_7193);
        $step!(f, $c, $d, $a, $b, 14, 17, 0xA679_438E);
        $step!(f, $b, $c, $d, $a, 15, 22, 0x49B4_0821);
        $step!(g, $a, $b, $c, $d, 1, 5, 0xF61E_2562);
        $step!(g, $d, $a, $b, $c, 6, 9, 0xC040_B340);
        $step!(g, $c, $d, $a, $b, 11, 14, 0x265E_5A51);
        $step!(g, $b, $c, $d, $a, 0, 20, 0xE9B6_C7AA);
        $step!(g, $a, $b, $c, $d, 5, 5, 0xD62F_105D);
        $step!(g, $d, $a, $b, $c, 10, 9, 0x0244_1453);
        $step!(g, $c, $d, $a, $b, 15, 14, 0xD8A1_E681);
        $step!(g, $b, $c, $d, $a, 4, 20, 0xE7D3_FBC8);
        $step!(g, $a, $b, $c, $d, 9, 5, 0x21E1_CDE6);
        $step!(g, $d, $a, $b, $c, 14, 9, 0xC337_07D6);
        $step!(g, $c, $d, $a, $b, 3, 14, 0xF4D5_0D87);
        $step!(g, $b, $c, $d, $a, 8, 20, 0x455A_14ED);
        $step!(g, $a, $b, $c, $d, 13, 5, 0xA9E3_E905);
        $step!(g, $d, $a, $b, $c, 2, 9, 0xFCEF_A3F8);
        $step!(g, $c, $d, $a, $b, 7, 14, 0x676F_02D9);
        $step!(g, $b, $c, $d, $a, 12, 20, 0x8D2A_4C8A);
        $step!(h, $a, $b, $c, $d, 5, 4, 0xFFFA_3942);
        $step!(h, $d, $a, $b, $c, 8, 11, 0x8771_F681);
        $step!(h, $c, $d, $a, $b, 11, 16, 0x6D9D_6122);
        $step!(h, $b, $c, $d, $a, 14, 23, 0xFDE5_380C);
        $step!(h, $a, $b, $c, $d, 1, 4, 0xA4BE_EA44);
        $step!(h, $d, $a, $b, $c, 4, 11, 0x4BDE_CFA9);
        $step!(h, $c, $d, $a, $b, 7, 16, 0xF6BB_4B60);
        $step!(h, $b, $c, $d, $a, 10, 23, 0xBEBF_BC70);
        $step!(h, $a, $b, $c, $d, 13, 4, 0x289B_7EC6);
        $step!(h, $d, $a, $b, $c, 0, 11, 0xEAA1_27FA);
        $step!(h, $c, $d, $a, $b, 3, 16, 0xD4EF_3085);
        $step!(h, $b, $c, $d, $a, 6, 23, 0x0488_1D05);
        $step!(h, $a, $b, $c, $d, 9, 4, 0xD9D4_D039);
        $step!(h, $d, $a, $b, $c, 12, 11, 0xE6DB_99E5);
        $step!(h, $c, $d, $a, $b, 15, 16, 0x1FA2_7CF8);
        $step!(h, $b, $c, $d, $a, 2, 23, 0xC4AC_5665);
        $step!(i, $a, $b, $c, $d, 0, 6, 0xF429_2244);
        $step!(i, $d, $a, $b, $c, 7, 10, 0x432A_FF97);
        $step!(i, $c, $d, $a, $b, 14, 15, 0xAB94_23A7);
        $step!(i, $b, $c, $d, $a, 5, 21, 0xFC93_A039);
        $step!(i, $a, $b, $c, $d, 12, 6, 0x655B_59C3);
        $step!(i, $d, $a, $b, $c, 3, 10, 0x8F0C_CC92);
        $step!(i, $c, $d, $a, $b, 10, 15, 0xFFEF_F47D);
        $step!(i, $b, $c, $d, $a, 1, 21, 0x8584_5DD1);
        $step!(i, $a, $b, $c, $d, 8, 6, 0x6FA8_7E4F);
        $step!(i, $d, $a, $b, $c, 15, 10, 0xFE2C_E6E0);
        $step!(i, $c, $d, $a, $b, 6, 15, 0xA301_4314);
        $step!(i, $b, $c, $d, $a, 13, 21, 0x4E08_11A1);
        $step!(i, $a, $b, $c, $d, 4, 6, 0xF753_7E82);
        $step!(i, $d, $a, $b, $c, 11, 10, 0xBD3A_F235);
        $step!(i, $c, $d, $a, $b, 2, 15, 0x2AD7_D2BB);
        $step!(i, $b, $c, $d, $a, 9, 21, 0xEB86_D391);
    };
}

/// Compresses `blocks` into `state`.
pub(super) fn compress(state: &mut State, blocks: &[Block]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for block in blocks {
        let before = [a, b, c, d];
        let (words, _) = block.as_chunks::<4>();
        macro_rules! step {
            ($f:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $rotate:literal, $constant:literal) => {
                let sum = $a.wrapping_add(u32::from_le_bytes(words[$word])).wrapping_add($constant);
                $a = mix!($f, sum, $b, $c, $d).rotate_left($rotate).wrapping_add($b);
            };
        }
        // `b` was computed by the previous step. Everything else is added first.
        macro_rules! mix {
            (f, $sum:ident, $b:ident, $c:ident, $d:ident) => {
                add_last($sum, $d ^ ($b & ($c ^ $d)))
            };
            (g, $sum:ident, $b:ident, $c:ident, $d:ident) => {
                add_last($sum.wrapping_add(!$d & $c), $d & $b)
            };
            (h, $sum:ident, $b:ident, $c:ident, $d:ident) => {
                add_last($sum, ($c ^ $d) ^ $b)
            };
            (i, $sum:ident, $b:ident, $c:ident, $d:ident) => {
                add_last($sum, $c ^ ($b | !$d))
            };
        }
        steps!(step, a, b, c, d);
        a = a.wrapping_add(before[0]);
        b = b.wrapping_add(before[1]);
        c = c.wrapping_add(before[2]);
        d = d.wrapping_add(before[3]);
    }
    *state = [a, b, c, d];
}

/// `sum + late`, where `late` is available later than `sum`. Pinned, because otherwise the compiler
/// reorders the sums around it and makes every step wait longer for the previous one (a quarter of the
/// speed).
#[inline(always)]
fn add_last(sum: u32, late: u32) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let mut sum = sum;
        // SAFETY: an addition of two registers; it touches neither memory nor the stack.
        unsafe {
            std::arch::asm!(
                "add {sum:e}, {late:e}",
                sum = inout(reg) sum,
                late = in(reg) late,
                options(pure, nomem, nostack)
            );
        }
        sum
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    sum.wrapping_add(late)
}

#[cfg(target_arch = "x86_64")]
pub(super) use self::x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Block, Kernel, LaneStates};

    /// Proof that the CPU has AVX-512F: 16 lanes.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Avx512(());

    /// Proof that the CPU has AVX2: 8 lanes.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Avx2(());

    impl Avx512 {
        pub(in super::super) fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx512f").then_some(Self(()))
        }
    }

    impl Avx2 {
        pub(in super::super) fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx2").then_some(Self(()))
        }
    }

    impl Kernel<16> for Avx512 {
        fn compress<const G: usize>(
            self,
            states: &mut LaneStates<16, G>,
            blocks: &[[&[Block]; 16]; G],
            count: usize,
        ) {
            // SAFETY: `self` exists, so the CPU has AVX-512F.
            unsafe { avx512::compress(states, blocks, count) }
        }
    }

    impl Kernel<8> for Avx2 {
        fn compress<const G: usize>(
            self,
            states: &mut LaneStates<8, G>,
            blocks: &[[&[Block]; 8]; G],
            count: usize,
        ) {
            // SAFETY: `self` exists, so the CPU has AVX2.
            unsafe { avx2::compress(states, blocks, count) }
        }
    }

    mod avx512 {
        use super::*;

        #[target_feature(enable = "avx512f")]
        pub(super) fn compress<const G: usize>(
            states: &mut LaneStates<16, G>,
            blocks: &[[&[Block]; 16]; G],
            count: usize,
        ) {
            let [mut a, mut b, mut c, mut d] = load_states(states);
            for at in 0..count {
                let before = [a, b, c, d];
                let mut words = [[_mm512_setzero_si512(); 16]; G];
                for (words, lanes) in words.iter_mut().zip(blocks) {
                    for (word, lane) in words.iter_mut().zip(lanes) {
                        *word = load_block(&lane[at]);
                    }
                    *words = transpose(*words);
                }
                macro_rules! step {
                    ($f:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $rotate:literal, $constant:literal) => {
                        for group in 0..G {
                            let sum = _mm512_add_epi32($a[group], words[group][$word]);
                            let sum = _mm512_add_epi32(sum, _mm512_set1_epi32(u32::cast_signed($constant)));
                            let sum = add_last(sum, mix!($f, $b[group], $c[group], $d[group]));
                            $a[group] = _mm512_add_epi32(_mm512_rol_epi32::<$rotate>(sum), $b[group]);
                        }
                    };
                }
                // Any function of three bits is one instruction, given its truth table.
                macro_rules! mix {
                    (f, $b:expr, $c:expr, $d:expr) => {
                        _mm512_ternarylogic_epi32::<0b1100_1010>($b, $c, $d)
                    };
                    (g, $b:expr, $c:expr, $d:expr) => {
                        _mm512_ternarylogic_epi32::<0b1100_1010>($d, $b, $c)
                    };
                    (h, $b:expr, $c:expr, $d:expr) => {
                        _mm512_ternarylogic_epi32::<0b1001_0110>($b, $c, $d)
                    };
                    (i, $b:expr, $c:expr, $d:expr) => {
                        _mm512_ternarylogic_epi32::<0b0011_1001>($b, $c, $d)
                    };
                }
                steps!(step, a, b, c, d);
                for group in 0..G {
                    a[group] = _mm512_add_epi32(a[group], before[0][group]);
                    b[group] = _mm512_add_epi32(b[group], before[1][group]);
                    c[group] = _mm512_add_epi32(c[group], before[2][group]);
                    d[group] = _mm512_add_epi32(d[group], before[3][group]);
                }
            }
            for (groups, vectors) in states.iter_mut().zip([a, b, c, d]) {
                for (words, vector) in groups.iter_mut().zip(vectors) {
                    store_state(words, vector);
                }
            }
        }

        /// `sum + late`, where `late` is available later than `sum`; pinned for the same reason as the
        /// scalar one.
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn add_last(sum: __m512i, late: __m512i) -> __m512i {
            #[cfg(not(miri))]
            {
                let mut sum = sum;
                // SAFETY: an addition of two registers; it touches neither memory, stack nor flags. The
                // instruction is AVX-512F, which this function is compiled for.
                unsafe {
                    std::arch::asm!(
                        "vpaddd {sum}, {sum}, {late}",
                        sum = inout(zmm_reg) sum,
                        late = in(zmm_reg) late,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
                sum
            }
            #[cfg(miri)]
            _mm512_add_epi32(sum, late)
        }

        /// Transposes from one row per lane to one row per word.
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn transpose(lanes: [__m512i; 16]) -> [__m512i; 16] {
            let mut pairs = lanes;
            for (pair, rows) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(lanes.as_chunks::<2>().0) {
                *pair = [_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1])];
            }
            // Vector 4i+k: in each 128-bit quarter q, word 4q+k of lanes 4i to 4i+3.
            let mut fours = pairs;
            for (four, pair) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
                *four = [
                    _mm512_unpacklo_epi64(pair[0], pair[2]),
                    _mm512_unpackhi_epi64(pair[0], pair[2]),
                    _mm512_unpacklo_epi64(pair[1], pair[3]),
                    _mm512_unpackhi_epi64(pair[1], pair[3]),
                ];
            }
            let mut words = fours;
            for k in 0..4 {
                let even_low = even_quarters(fours[k], fours[4 + k]);
                let even_high = even_quarters(fours[8 + k], fours[12 + k]);
                let odd_low = odd_quarters(fours[k], fours[4 + k]);
                let odd_high = odd_quarters(fours[8 + k], fours[12 + k]);
                words[k] = even_quarters(even_low, even_high);
                words[4 + k] = even_quarters(odd_low, odd_high);
                words[8 + k] = odd_quarters(even_low, even_high);
                words[12 + k] = odd_quarters(odd_low, odd_high);
            }
            words
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn even_quarters(left: __m512i, right: __m512i) -> __m512i {
            _mm512_shuffle_i32x4::<0b10_00_10_00>(left, right)
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn odd_quarters(left: __m512i, right: __m512i) -> __m512i {
            _mm512_shuffle_i32x4::<0b11_01_11_01>(left, right)
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn load_block(block: &Block) -> __m512i {
            // SAFETY: reads the 64 bytes of `block`; any alignment is allowed.
            unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn load_states<const G: usize>(states: &LaneStates<16, G>) -> [[__m512i; G]; 4] {
            let mut vectors = [[_mm512_setzero_si512(); G]; 4];
            for (vectors, groups) in vectors.iter_mut().zip(states) {
                for (vector, words) in vectors.iter_mut().zip(groups) {
                    *vector = load_state(words);
                }
            }
            vectors
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn load_state(words: &[u32; 16]) -> __m512i {
            // SAFETY: reads the 64 bytes of `words`; any alignment is allowed.
            unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn store_state(words: &mut [u32; 16], vector: __m512i) {
            // SAFETY: writes the 64 bytes of `words`; any alignment is allowed.
            unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) }
        }
    }

    mod avx2 {
        use super::*;

        #[target_feature(enable = "avx2")]
        pub(super) fn compress<const G: usize>(
            states: &mut LaneStates<8, G>,
            blocks: &[[&[Block]; 8]; G],
            count: usize,
        ) {
            let [mut a, mut b, mut c, mut d] = load_states(states);
            for at in 0..count {
                let before = [a, b, c, d];
                let mut words = [[[_mm256_setzero_si256(); 8]; 2]; G];
                for (words, lanes) in words.iter_mut().zip(blocks) {
                    for (half, words) in words.iter_mut().enumerate() {
                        for (word, lane) in words.iter_mut().zip(lanes) {
                            *word = load_half(&lane[at], half);
                        }
                        *words = transpose(*words);
                    }
                }
                macro_rules! step {
                    ($f:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $rotate:literal, $constant:literal) => {
                        for group in 0..G {
                            let sum = _mm256_add_epi32($a[group], words[group][$word / 8][$word % 8]);
                            let sum = _mm256_add_epi32(sum, _mm256_set1_epi32(u32::cast_signed($constant)));
                            let sum = mix!($f, sum, $b[group], $c[group], $d[group]);
                            let left = _mm256_slli_epi32::<$rotate>(sum);
                            let right = _mm256_srli_epi32::<{ 32 - $rotate }>(sum);
                            $a[group] = _mm256_add_epi32(_mm256_or_si256(left, right), $b[group]);
                        }
                    };
                }
                macro_rules! mix {
                    (f, $sum:ident, $b:expr, $c:expr, $d:expr) => {{
                        let chosen = _mm256_and_si256($b, _mm256_xor_si256($c, $d));
                        _mm256_add_epi32($sum, _mm256_xor_si256($d, chosen))
                    }};
                    (g, $sum:ident, $b:expr, $c:expr, $d:expr) => {{
                        let early = _mm256_add_epi32($sum, _mm256_andnot_si256($d, $c));
                        _mm256_add_epi32(early, _mm256_and_si256($d, $b))
                    }};
                    (h, $sum:ident, $b:expr, $c:expr, $d:expr) => {
                        _mm256_add_epi32($sum, _mm256_xor_si256(_mm256_xor_si256($c, $d), $b))
                    };
                    (i, $sum:ident, $b:expr, $c:expr, $d:expr) => {{
                        let not_d = _mm256_xor_si256($d, _mm256_set1_epi32(-1));
                        _mm256_add_epi32($sum, _mm256_xor_si256($c, _mm256_or_si256($b, not_d)))
                    }};
                }
                steps!(step, a, b, c, d);
                for group in 0..G {
                    a[group] = _mm256_add_epi32(a[group], before[0][group]);
                    b[group] = _mm256_add_epi32(b[group], before[1][group]);
                    c[group] = _mm256_add_epi32(c[group], before[2][group]);
                    d[group] = _mm256_add_epi32(d[group], before[3][group]);
                }
            }
            for (groups, vectors) in states.iter_mut().zip([a, b, c, d]) {
                for (words, vector) in groups.iter_mut().zip(vectors) {
                    store_state(words, vector);
                }
            }
        }

        /// Transposes from one row per lane to one row per word.
        #[inline]
        #[target_feature(enable = "avx2")]
        fn transpose(lanes: [__m256i; 8]) -> [__m256i; 8] {
            let mut pairs = lanes;
            for (pair, rows) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(lanes.as_chunks::<2>().0) {
                *pair = [_mm256_unpacklo_epi32(rows[0], rows[1]), _mm256_unpackhi_epi32(rows[0], rows[1])];
            }
            // Vector 4i+k: in each 128-bit half h, word 4h+k of lanes 4i to 4i+3.
            let mut fours = pairs;
            for (four, pair) in fours.as_chunks_mut::<4>().0.iter_mut().zip(pairs.as_chunks::<4>().0) {
                *four = [
                    _mm256_unpacklo_epi64(pair[0], pair[2]),
                    _mm256_unpackhi_epi64(pair[0], pair[2]),
                    _mm256_unpacklo_epi64(pair[1], pair[3]),
                    _mm256_unpackhi_epi64(pair[1], pair[3]),
                ];
            }
            let mut words = fours;
            for k in 0..4 {
                words[k] = _mm256_permute2x128_si256::<0x20>(fours[k], fours[4 + k]);
                words[4 + k] = _mm256_permute2x128_si256::<0x31>(fours[k], fours[4 + k]);
            }
            words
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn load_half(block: &Block, half: usize) -> __m256i {
            let half: &[u8; 32] = &block.as_chunks().0[half];
            // SAFETY: reads the 32 bytes of `half`; any alignment is allowed.
            unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn load_states<const G: usize>(states: &LaneStates<8, G>) -> [[__m256i; G]; 4] {
            let mut vectors = [[_mm256_setzero_si256(); G]; 4];
            for (vectors, groups) in vectors.iter_mut().zip(states) {
                for (vector, words) in vectors.iter_mut().zip(groups) {
                    *vector = load_state(words);
                }
            }
            vectors
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn load_state(words: &[u32; 8]) -> __m256i {
            // SAFETY: reads the 32 bytes of `words`; any alignment is allowed.
            unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn store_state(words: &mut [u32; 8], vector: __m256i) {
            // SAFETY: writes the 32 bytes of `words`; any alignment is allowed.
            unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) }
        }
    }
}

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
pub(super) use self::neon::Neon;

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod neon {
    use std::arch::aarch64::*;

    use super::{Block, Kernel, LaneStates};

    /// Proof that the CPU has NEON: 4 lanes.
    #[derive(Debug, Clone, Copy)]
    pub(in super::super) struct Neon(());

    impl Neon {
        pub(in super::super) fn detect() -> Option<Self> {
            std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
        }
    }

    impl Kernel<4> for Neon {
        fn compress<const G: usize>(
            self,
            states: &mut LaneStates<4, G>,
            blocks: &[[&[Block]; 4]; G],
            count: usize,
        ) {
            // SAFETY: `self` exists, so the CPU has NEON.
            unsafe { compress(states, blocks, count) }
        }
    }

    #[target_feature(enable = "neon")]
    fn compress<const G: usize>(states: &mut LaneStates<4, G>, blocks: &[[&[Block]; 4]; G], count: usize) {
        let [mut a, mut b, mut c, mut d] = load_states(states);
        for at in 0..count {
            let before = [a, b, c, d];
            let mut words = [[[vdupq_n_u32(0); 4]; 4]; G];
            for (words, lanes) in words.iter_mut().zip(blocks) {
                for (quarter, words) in words.iter_mut().enumerate() {
                    for (word, lane) in words.iter_mut().zip(lanes) {
                        *word = load_quarter(&lane[at], quarter);
                    }
                    *words = transpose(*words);
                }
            }
            macro_rules! step {
                ($f:ident, $a:ident, $b:ident, $c:ident, $d:ident, $word:literal, $rotate:literal, $constant:literal) => {
                    for group in 0..G {
                        let sum = vaddq_u32($a[group], words[group][$word / 4][$word % 4]);
                        let sum = vaddq_u32(sum, vdupq_n_u32($constant));
                        let sum = vaddq_u32(sum, mix!($f, $b[group], $c[group], $d[group]));
                        let right = vshrq_n_u32::<{ 32 - $rotate }>(sum);
                        $a[group] = vaddq_u32(vorrq_u32(vshlq_n_u32::<$rotate>(sum), right), $b[group]);
                    }
                };
            }
            macro_rules! mix {
                (f, $b:expr, $c:expr, $d:expr) => {
                    vbslq_u32($b, $c, $d)
                };
                (g, $b:expr, $c:expr, $d:expr) => {
                    vbslq_u32($d, $b, $c)
                };
                (h, $b:expr, $c:expr, $d:expr) => {
                    veorq_u32(veorq_u32($c, $d), $b)
                };
                (i, $b:expr, $c:expr, $d:expr) => {
                    veorq_u32($c, vornq_u32($b, $d))
                };
            }
            steps!(step, a, b, c, d);
            for group in 0..G {
                a[group] = vaddq_u32(a[group], before[0][group]);
                b[group] = vaddq_u32(b[group], before[1][group]);
                c[group] = vaddq_u32(c[group], before[2][group]);
                d[group] = vaddq_u32(d[group], before[3][group]);
            }
        }
        for (groups, vectors) in states.iter_mut().zip([a, b, c, d]) {
            for (words, vector) in groups.iter_mut().zip(vectors) {
                store_state(words, vector);
            }
        }
    }

    /// Transposes from one row per lane to one row per word.
    #[inline]
    #[target_feature(enable = "neon")]
    fn transpose([lane0, lane1, lane2, lane3]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
        let even_low = vreinterpretq_u64_u32(vtrn1q_u32(lane0, lane1));
        let odd_low = vreinterpretq_u64_u32(vtrn2q_u32(lane0, lane1));
        let even_high = vreinterpretq_u64_u32(vtrn1q_u32(lane2, lane3));
        let odd_high = vreinterpretq_u64_u32(vtrn2q_u32(lane2, lane3));
        [
            vreinterpretq_u32_u64(vtrn1q_u64(even_low, even_high)),
            vreinterpretq_u32_u64(vtrn1q_u64(odd_low, odd_high)),
            vreinterpretq_u32_u64(vtrn2q_u64(even_low, even_high)),
            vreinterpretq_u32_u64(vtrn2q_u64(odd_low, odd_high)),
        ]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn load_states<const G: usize>(states: &LaneStates<4, G>) -> [[uint32x4_t; G]; 4] {
        let mut vectors = [[vdupq_n_u32(0); G]; 4];
        for (vectors, groups) in vectors.iter_mut().zip(states) {
            for (vector, words) in vectors.iter_mut().zip(groups) {
                // SAFETY: reads the 16 bytes of `words`.
                *vector = unsafe { vld1q_u32(words.as_ptr()) };
            }
        }
        vectors
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn load_quarter(block: &Block, quarter: usize) -> uint32x4_t {
        let quarter: &[u8; 16] = &block.as_chunks().0[quarter];
        // SAFETY: reads the 16 bytes of `quarter`; any alignment is allowed.
        vreinterpretq_u32_u8(unsafe { vld1q_u8(quarter.as_ptr()) })
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn store_state(words: &mut [u32; 4], vector: uint32x4_t) {
        // SAFETY: writes the 16 bytes of `words`.
        unsafe { vst1q_u32(words.as_mut_ptr(), vector) }
    }
}
