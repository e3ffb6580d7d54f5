//! Reading large parts of a live database without displacing what its server has in the page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// From how many bytes on a read isn't to stay in the page cache. What is smaller is a header that is looked at again.
#[cfg(target_os = "linux")]
const LARGE: usize = 128 << 10;

/// Like `read_exact_at`. Pages that a large read brings into the page cache don't stay there, and those that are there
/// do, where the system can do that (`RWF_DONTCACHE`, Linux 6.14); elsewhere it is an ordinary read.
/// Never `fadvise(DONTNEED)`: that would drop the server's pages.
pub(super) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if buffer.len() >= LARGE {
        return read_uncached(file, buffer, offset);
    }
    file.read_exact_at(buffer, offset)
}

#[cfg(target_os = "linux")]
fn read_uncached(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    use rustix::io::{Errno, ReadWriteFlags};

    // rustix has no name for it yet.
    let dont_cache = ReadWriteFlags::from_bits_retain(0x80);
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        match rustix::io::preadv2(file, &mut [io::IoSliceMut::new(rest)], offset + done as u64, dont_cache) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            // An older kernel, or a file system that can't.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                return file.read_exact_at(rest, offset + done as u64);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
