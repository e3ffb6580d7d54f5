//! Reads chunks out of data files. Every chunk is checked against its hash before anyone sees it.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use zstd::zstd_safe::compress_bound;

use crate::error::{Error, Result};
use crate::repository::counters::Counters;
use crate::repository::data::{Codec, FRAME_LIMIT};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::object::{damaged, open_object};

/// Where a chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its hash.
    pub hash: Hash,
    /// Its length in bytes.
    pub length: u32,
    /// The object file that has it.
    pub object: Hash,
    /// Where the frame begins in the file.
    pub frame_offset: u64,
    /// The frame's length in the file.
    pub frame_stored: u32,
    /// The frame's length when decompressed.
    pub frame_raw: u32,
    /// How the frame is stored.
    pub codec: Codec,
    /// Where the chunk begins in the decompressed frame.
    pub start: u32,
}

/// How many bytes of decompressed frames are kept: two of the largest, so that a
/// stream whose chunks alternate between an old frame and a new one is read once.
const CACHE: usize = 2 * FRAME_LIMIT;

/// How many files stay open for the next chunk, unless they have to.
const OPEN_FILES: usize = 64;

type FrameKey = (Hash, u64);

/// Reads chunks, keeping files open and the last frames decompressed.
pub struct ChunkReader {
    layout: Layout,
    counters: Arc<Counters>,
    files: HashMap<Hash, File>,
    /// Whether the files that are open have to stay open.
    pinned: bool,
    frames: VecDeque<(FrameKey, Rc<Vec<u8>>)>,
    compressed: Vec<u8>,
}

impl ChunkReader {
    /// One for this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>) -> Self {
        ChunkReader {
            layout: layout.clone(),
            counters: Arc::clone(counters),
            files: HashMap::new(),
            pinned: false,
            frames: VecDeque::new(),
            compressed: Vec::new(),
        }
    }

    /// Opens the object files of these chunks now, so that a later gc can't take them away: the caller holds the
    /// gate. Who holds the writer's lock needn't, and has but a few files open at any time.
    pub fn open<'a>(&mut self, locations: impl IntoIterator<Item = &'a Location>) -> Result<()> {
        self.pinned = true;
        for location in locations {
            if !self.files.contains_key(&location.object) {
                let file = open_object(&self.layout, &location.object)?;
                self.files.insert(location.object, file);
            }
        }
        Ok(())
    }

    /// The bytes of a chunk, checked: gives them to `use_bytes`.
    pub fn with_chunk<T>(&mut self, location: &Location, use_bytes: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        let frame = self.frame(location)?;
        let start = location.start as usize;
        let bytes = start
            .checked_add(location.length as usize)
            .and_then(|end| frame.get(start..end))
            .filter(|bytes| Hash::of(bytes) == location.hash)
            .ok_or_else(|| {
                let reason = format!("chunk {} in it does not match its hash", location.hash.short());
                damaged(&self.layout.object(&location.object), &reason)
            })?;
        use_bytes(bytes)
    }

    fn frame(&mut self, location: &Location) -> Result<Rc<Vec<u8>>> {
        let key = (location.object, location.frame_offset);
        if let Some(found) = self.frames.iter().position(|(other, _)| *other == key)
            && let Some(entry) = self.frames.remove(found)
        {
            let frame = Rc::clone(&entry.1);
            self.frames.push_back(entry);
            return Ok(frame);
        }
        let raw = location.frame_raw as usize;
        let mut held: usize = self.frames.iter().map(|(_, frame)| frame.len()).sum();
        while held + raw > CACHE {
            match self.frames.pop_front() {
                Some((_, frame)) => held -= frame.len(),
                None => break,
            }
        }
        let frame = Rc::new(self.decompress(location)?);
        self.frames.push_back((key, Rc::clone(&frame)));
        Ok(frame)
    }

    fn decompress(&mut self, location: &Location) -> Result<Vec<u8>> {
        let path = self.layout.object(&location.object);
        if !self.files.contains_key(&location.object) {
            if !self.pinned && self.files.len() >= OPEN_FILES {
                self.files.clear();
            }
            self.files.insert(location.object, open_object(&self.layout, &location.object)?);
        }
        let (raw, stored) = (location.frame_raw as usize, location.frame_stored as usize);
        // Both bounded by what a frame may be, whatever a damaged catalog says.
        if raw > FRAME_LIMIT || stored > compress_bound(FRAME_LIMIT) {
            return Err(Error::damaged(format!(
                "the catalog lists an impossible compressed block of {} (offset {})",
                path.display(),
                location.frame_offset
            )));
        }
        let Some(file) = self.files.get(&location.object) else {
            return Err(damaged(&path, "it is missing"));
        };
        self.compressed.resize(stored, 0);
        file.read_exact_at(&mut self.compressed, location.frame_offset).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged(&path, "it is too short"),
            _ => Error::io("read", &path, error),
        })?;
        self.counters.read(stored as u64);
        match location.codec {
            Codec::Raw => Ok(self.compressed.clone()),
            Codec::Zstd => {
                zstd::bulk::decompress(&self.compressed, raw).ok().filter(|bytes| bytes.len() == raw).ok_or_else(|| {
                    damaged(
                        &path,
                        &format!("the compressed block at offset {} does not decompress", location.frame_offset),
                    )
                })
            }
        }
    }
}
