//! Reads chunks out of data files, one at a time. Every chunk is checked against its hash before anyone sees it.
//! For many in a row see [`run_reader`](crate::repository::run_reader).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Result;
use crate::repository::counters::Counters;
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frames::{FrameAt, FrameFiles, Location};
use crate::repository::layout::Layout;

/// How many bytes of decompressed frames are kept: two of the largest, so that a
/// stream whose chunks alternate between an old frame and a new one is read once.
const CACHE: usize = 2 * FRAME_LIMIT;

/// Reads chunks, keeping files open and the last frames decompressed.
pub struct ChunkReader {
    files: Arc<FrameFiles>,
    frames: VecDeque<(FrameAt, Arc<Vec<u8>>)>,
    compressed: Vec<u8>,
    cache: usize,
}

impl ChunkReader {
    /// One for this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>) -> Self {
        Self::with_cache(Arc::new(FrameFiles::new(layout, counters)), CACHE)
    }

    /// One that reads from these files and keeps decompressed frames of so many bytes, and the last one in any case.
    pub fn with_cache(files: Arc<FrameFiles>, cache: usize) -> Self {
        ChunkReader { files, frames: VecDeque::new(), compressed: Vec::new(), cache }
    }

    /// Opens the object files of these chunks now: see [`FrameFiles::open`].
    pub fn open<'a>(&mut self, locations: impl IntoIterator<Item = &'a Location>) -> Result<()> {
        self.files.open(locations)
    }

    /// The bytes of a chunk, checked: gives them to `use_bytes`.
    pub fn with_chunk<T>(&mut self, location: &Location, use_bytes: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let frame = self.frame(&location.frame)?;
        use_bytes(self.files.check(location, &frame)?)
    }

    /// Whether a frame can be read and decompressed. Its chunks are not checked.
    pub fn try_frame(&mut self, at: &FrameAt) -> Result<()> {
        self.frame(at).map(drop)
    }

    fn frame(&mut self, at: &FrameAt) -> Result<Arc<Vec<u8>>> {
        if let Some(found) = self.frames.iter().position(|(other, _)| other == at)
            && let Some(entry) = self.frames.remove(found)
        {
            let frame = Arc::clone(&entry.1);
            self.frames.push_back(entry);
            return Ok(frame);
        }
        let mut held: usize = self.frames.iter().map(|(_, frame)| frame.len()).sum();
        while held + at.raw as usize > self.cache {
            match self.frames.pop_front() {
                Some((_, frame)) => held -= frame.len(),
                None => break,
            }
        }
        let frame = Arc::new(self.files.load(at, &mut self.compressed)?);
        self.frames.push_back((*at, Arc::clone(&frame)));
        Ok(frame)
    }
}
