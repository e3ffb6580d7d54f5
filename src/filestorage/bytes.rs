//! Big-endian numbers in byte slices.
//!
//! A slice that is too short counts as followed by zeros, so that none of these can panic. Callers
//! pass slices whose length they have checked.

/// The number in the first `N` bytes from `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(part) = at.checked_add(N).and_then(|end| bytes.get(at..end)) {
        array.copy_from_slice(part);
    }
    array
}

/// Two bytes from `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(number(bytes, at))
}

/// Six bytes from `at`, as the offsets in an index are stored.
pub(super) fn u48_at(bytes: &[u8], at: usize) -> u64 {
    (u64::from(u16_at(bytes, at)) << 32) | u64::from(u32::from_be_bytes(number(bytes, at + 2)))
}

/// Eight bytes from `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(number(bytes, at))
}
