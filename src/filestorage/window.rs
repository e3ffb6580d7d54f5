//! A small piece of a file in memory, for reading headers that may lie next to each other.

use super::source::Source;
use crate::error::Result;

/// How many bytes are read at once. One page more or less costs nothing beside the system call.
const WINDOW: usize = 8192;

/// The piece that was read last. Needs at most [`WINDOW`] bytes, whatever it reads.
pub(super) struct Window {
    buffer: Vec<u8>,
    start: u64,
}

impl Window {
    /// Holds nothing yet.
    pub(super) fn new() -> Window {
        Window { buffer: Vec::new(), start: 0 }
    }

    /// Forgets what was read: the next look is a fresh one.
    pub(super) fn forget(&mut self) {
        self.buffer.clear();
    }

    /// `N` bytes at `offset`, which end at `limit` or before. Reads no byte from `limit` on; if it has to
    /// read, it reads on from `offset`.
    pub(super) fn forward<const N: usize, S: Source + ?Sized>(
        &mut self,
        source: &S,
        offset: u64,
        limit: u64,
    ) -> Result<[u8; N]> {
        if let Some(bytes) = self.held(offset) {
            return Ok(bytes);
        }
        let available = usize::try_from(limit.saturating_sub(offset)).unwrap_or(WINDOW);
        self.read(source, offset, available.min(WINDOW).max(N))?;
        Ok(self.held(offset).unwrap_or([0; N]))
    }

    /// `N` bytes at `offset`; if it has to read, it reads what comes before them too.
    pub(super) fn backward<const N: usize, S: Source + ?Sized>(&mut self, source: &S, offset: u64) -> Result<[u8; N]> {
        if let Some(bytes) = self.held(offset) {
            return Ok(bytes);
        }
        let before = usize::try_from(offset).unwrap_or(WINDOW).min(WINDOW - N);
        self.read(source, offset - before as u64, before + N)?;
        Ok(self.held(offset).unwrap_or([0; N]))
    }

    fn read<S: Source + ?Sized>(&mut self, source: &S, start: u64, length: usize) -> Result<()> {
        self.buffer.resize(length, 0);
        self.start = start;
        let result = source.read_exact_at(&mut self.buffer, start);
        if result.is_err() {
            self.forget();
        }
        result
    }

    fn held<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.buffer.get(at..at.checked_add(N)?)?.try_into().ok()
    }
}
