//! Where chunks end: a rule that depends on content only, so that equal bytes give equal chunks.
//!
//! With at least [`MAX`] bytes left, the chunk ends at the `i` in `MIN..=MAX` for which
//! `u32_le(bytes[i-4..i]) * 0x915f77f5 + 0x34636463` (mod 2^32) is smallest, the first of equals: the
//! MinCDC rule, by the crate `mincdc`, whose version is pinned; a plain copy of the rule in the tests
//! watches it. With fewer bytes left nothing is cut: what remains isn't final, because bytes that
//! follow later could move the cut.

use mincdc::{Cdc, MinCdcHash4};

/// The smallest chunk that the rule cuts, in bytes.
pub const MIN: usize = 32 * 1024;
/// The largest chunk, in bytes. A rest shorter than this is unfinished.
pub const MAX: usize = 96 * 1024;

/// How many bytes before a possible cut decide about it.
const WINDOW: usize = 4;

/// The length of the chunk that `bytes` begin with, or `None` if they are too short to say.
pub fn first_cut(bytes: &[u8]) -> Option<usize> {
    let region = bytes.get(MIN - WINDOW..MAX)?;
    Some(MIN - WINDOW + MinCdcHash4::new().best_splitpoint(region))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule again, as plainly as possible.
    fn reference(bytes: &[u8]) -> Option<usize> {
        if bytes.len() < MAX {
            return None;
        }
        (MIN..=MAX).min_by_key(|&i| {
            let window = u32::from_le_bytes([bytes[i - 4], bytes[i - 3], bytes[i - 2], bytes[i - 1]]);
            window.wrapping_mul(0x915f_77f5).wrapping_add(0x3463_6463)
        })
    }

    /// Bytes that are the same everywhere and for ever (a 64-bit LCG's high byte).
    fn noise(length: usize, mut state: u64) -> Vec<u8> {
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect()
    }

    fn cuts(mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = first_cut(bytes) {
            lengths.push(length);
            bytes = &bytes[length..];
        }
        lengths
    }

    #[test]
    fn the_crate_follows_the_written_rule() {
        for seed in 0..40 {
            let mut bytes = noise(MAX + 5000, seed);
            if seed % 4 == 1 {
                bytes.iter_mut().for_each(|byte| *byte &= 1);
            }
            if seed % 4 == 2 {
                bytes.fill(0);
            }
            assert_eq!(first_cut(&bytes), reference(&bytes), "seed {seed}");
            assert_eq!(first_cut(&bytes[..MAX]), reference(&bytes[..MAX]));
            assert_eq!(first_cut(&bytes[..MAX - 1]), None);
        }
    }

    /// If this test fails, chunks of new saves no longer match those in existing repositories.
    #[test]
    fn golden_cut_points() {
        let lengths = cuts(&noise(1 << 20, 42));
        assert_eq!(
            lengths, GOLDEN,
            "the cut points have changed: that breaks deduplication with every existing repository"
        );
    }

    const GOLDEN: &[usize] =
        &[55877, 63978, 37492, 39189, 84498, 67372, 73004, 65248, 82083, 78646, 36220, 74154, 97358, 80696, 58638];

    #[test]
    fn a_cut_depends_only_on_the_bytes_of_its_chunk_and_the_next_few() {
        let bytes = noise(3 * MAX, 7);
        let first = first_cut(&bytes);
        let mut other = bytes.clone();
        other[MAX..].fill(9);
        assert_eq!(first_cut(&other), first);
    }
}
