//! Large buffers in large pages: the only module with `unsafe` code.
//!
//! A frame is decompressed into up to 64 MiB of new memory. In pages of 4 KiB, the first touch of each costs the kernel
//! more time than what is written into it; Linux gives pages of 2 MiB where it is asked to (madvise(2), MADV_HUGEPAGE).

/// Below this, a buffer is left as it is: it may not even hold one large page.
const LARGE: usize = 4 << 20;

/// Makes room for `bytes` in an empty buffer, in large pages where that helps and the system has them.
pub(crate) fn reserve(buffer: &mut Vec<u8>, bytes: usize) {
    debug_assert!(buffer.is_empty());
    if buffer.capacity() >= bytes {
        return;
    }
    // Nothing in it has to be copied to the new place.
    *buffer = Vec::with_capacity(bytes);
    if bytes >= LARGE {
        advise(buffer);
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn advise(buffer: &mut Vec<u8>) {
    use rustix::mm::{Advice, madvise};

    let room = buffer.spare_capacity_mut();
    let start = room.as_mut_ptr();
    // To the next page: the kernel wants whole ones.
    let skipped = start.align_offset(rustix::param::page_size());
    let Some(length) = room.len().checked_sub(skipped) else { return };
    let length = length - length % rustix::param::page_size();
    // SAFETY: the range is inside of one allocation, which is ours while `buffer` is borrowed. This advice changes
    // neither what is in it nor whether it may be used, only how large the pages are that the kernel puts there.
    // It is an advice: that it can't be followed doesn't matter.
    let _ = unsafe { madvise(start.wrapping_add(skipped).cast(), length, Advice::LinuxHugepage) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &mut Vec<u8>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_in_any_size() {
        for bytes in [0, 1, 4096, LARGE - 1, LARGE, 3 * LARGE + 1] {
            let mut buffer = Vec::new();
            reserve(&mut buffer, bytes);
            assert!(buffer.capacity() >= bytes);
            buffer.resize(bytes, 7);
            assert!(buffer.iter().all(|byte| *byte == 7));
            buffer.clear();
            let place = buffer.as_ptr();
            reserve(&mut buffer, bytes);
            assert_eq!(buffer.as_ptr(), place, "it is used again");
        }
    }
}
