//! Stores chunks: looks each one up first, and gathers the new ones in frames, which are compressed while
//! they fill.
//!
//! Memory: of each kind of content at most one frame that waits, and two frames being compressed, with their output and
//! zstd's tables. Only one large frame is being filled at a time; it is that of the first kind that has enough to be worth it, in
//! a save the tail. Small ones are compressed whole meanwhile. While it is compressed to its end, the next one fills.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Result;
use crate::repository::catalog::Catalog;
use crate::repository::counters::Counters;
use crate::repository::data::{Codec, Content, FRAME_LIMIT};
use crate::repository::data_writer::{DataWriter, NewDataFile, NewFrame};
use crate::repository::frame_encoder::{EndedFrame, FILL_FROM, FrameEncoder, OpenFrame};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;

/// How frames are made. Why these: docs/design.md, "Compression".
#[derive(Debug, Clone, Copy)]
pub struct Compression {
    /// zstd's level.
    pub level: i32,
    /// The most raw bytes in a frame; at most [`FRAME_LIMIT`].
    pub frame: usize,
    /// How many places zstd's table of matches has, as a power of two, or 0 for its own choice: the quick levels'
    /// tables are made for windows of 2 MiB, and soon forget what they saw.
    pub hash: u32,
    /// The same for the second table that some levels have.
    pub chain: u32,
    /// The shortest match that is looked for, or 0 for its own choice. Records hold numbers of eight bytes.
    pub match_length: u32,
    /// How many candidates for a long-distance match it remembers at each place, as a power of two. Among near-copies all of
    /// them look right.
    pub long_bucket: u32,
}

impl Compression {
    /// For saves, and for gc, which makes larger frames: as fast as it gets, with a ratio near the best.
    pub const FAST: Compression =
        Compression { level: 3, frame: FRAME_LIMIT, hash: 19, chain: 15, match_length: 6, long_bucket: 1 };
    /// For a gc that has time: a tenth smaller, and twice as long.
    pub const SMALL: Compression =
        Compression { level: 9, frame: FRAME_LIMIT, hash: 0, chain: 0, match_length: 0, long_bucket: 2 };

    /// The most raw bytes in a frame of this kind.
    pub fn limit(&self, content: Content) -> usize {
        let limit = self.frame.min(FRAME_LIMIT);
        match content {
            Content::Tail | Content::Base | Content::Blob => limit,
            Content::Keyframe | Content::Delta => limit.min(INDEX_FRAME),
        }
    }
}

/// The most raw bytes in a frame of an index. Nothing repeats in there, so that large frames gain nothing, and small ones
/// are decompressed while the ones before are used.
const INDEX_FRAME: usize = 2 << 20;

/// The most bytes in a frame that isn't compressed. Nothing is gained by larger ones.
const RAW_FRAME: usize = 4 << 20;

/// Stores chunks for one operation. Nothing is visible before the data files of
/// [`ChunkWriter::finish`] are published and the catalog refers to them.
pub struct ChunkWriter {
    output: DataWriter,
    compression: Compression,
    /// From how many bytes on a frame is compressed while it fills.
    fill_from: usize,
    encoder: FrameEncoder,
    pending: HashSet<Hash>,
    /// Per kind of content, what waits to become a frame.
    waiting: [Waiting; Content::ALL.len()],
    /// What waits to become a frame that isn't compressed.
    incompressible: Waiting,
    /// The frame that is being filled and compressed.
    filling: Option<Filling>,
    /// The frame before it, which is full, and being compressed to its end while the next one fills.
    ending: Option<(EndedFrame, NewFrame)>,
}

/// Chunks that wait to become a frame.
#[derive(Default)]
struct Waiting {
    raw: Vec<u8>,
    chunks: Vec<(Hash, u32)>,
}

/// A frame that is being filled and compressed.
struct Filling {
    content: Content,
    chunks: Vec<(Hash, u32)>,
    raw: usize,
    frame: OpenFrame,
}

impl ChunkWriter {
    /// One that writes data files into this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>, compression: Compression) -> Self {
        ChunkWriter {
            output: DataWriter::new(layout, counters),
            compression,
            fill_from: FILL_FROM.min(compression.frame / 2),
            encoder: FrameEncoder::new(compression),
            pending: HashSet::new(),
            waiting: Default::default(),
            incompressible: Waiting::default(),
            filling: None,
            ending: None,
        }
    }

    /// Says that about so many bytes will come, besides indexes: if they fit one frame, less memory is used.
    pub fn announce(&mut self, bytes: u64) {
        if bytes <= self.compression.frame as u64 {
            self.encoder.expect_one();
        }
    }

    /// Stores a chunk unless the catalog or this operation has it already. Returns its hash and
    /// whether it is new.
    pub fn put(&mut self, catalog: &Catalog, content: Content, bytes: &[u8]) -> Result<(Hash, bool)> {
        let hash = Hash::of(bytes);
        if self.pending.contains(&hash) || catalog.has_chunk(&hash)? {
            return Ok((hash, false));
        }
        self.append(content, hash, bytes)?;
        Ok((hash, true))
    }

    /// Stores a chunk whether or not the catalog has it, unless this operation has. The caller has made the hash.
    pub fn append(&mut self, content: Content, hash: Hash, bytes: &[u8]) -> Result<()> {
        if !self.pending.insert(hash) {
            return Ok(());
        }
        if let Some(filling) = self.filling.as_mut().filter(|filling| filling.content == content) {
            if filling.raw + bytes.len() <= self.compression.limit(content) {
                filling.raw += bytes.len();
                filling.chunks.push((hash, bytes.len() as u32));
                filling.frame.feed(bytes);
                return Ok(());
            }
            self.end_filling()?;
        }
        if self.waiting[index_of(content)].raw.len() + bytes.len() > self.compression.limit(content) {
            self.write_waiting(content)?;
        }
        let waiting = &mut self.waiting[index_of(content)];
        waiting.raw.extend_from_slice(bytes);
        waiting.chunks.push((hash, bytes.len() as u32));
        if waiting.raw.len() >= self.fill_from && self.filling.is_none() {
            self.start_filling(content)?;
        }
        Ok(())
    }

    /// The same for a piece of a blob that compression would make no smaller: it isn't tried.
    pub fn append_incompressible(&mut self, hash: Hash, bytes: &[u8]) -> Result<()> {
        if !self.pending.insert(hash) {
            return Ok(());
        }
        if self.incompressible.raw.len() + bytes.len() > RAW_FRAME {
            self.write_incompressible()?;
        }
        self.incompressible.raw.extend_from_slice(bytes);
        self.incompressible.chunks.push((hash, bytes.len() as u32));
        Ok(())
    }

    /// Whether this operation has stored a chunk.
    pub fn has(&self, hash: &Hash) -> bool {
        self.pending.contains(hash)
    }

    fn write_incompressible(&mut self) -> Result<()> {
        let Waiting { raw, chunks } = std::mem::take(&mut self.incompressible);
        if chunks.is_empty() {
            return Ok(());
        }
        let frame = NewFrame { content: Content::Blob, codec: Codec::Raw, raw: raw.len() as u32, chunks };
        self.output.write(frame, &raw)
    }

    /// Writes what is left and returns the data files; no file if there was no new chunk.
    pub fn finish(mut self) -> Result<Vec<NewDataFile>> {
        self.write_incompressible()?;
        self.end_filling()?;
        for content in Content::ALL {
            self.write_waiting(content)?;
        }
        self.finish_ending()?;
        self.output.finish()
    }

    /// Begins a frame with what waits.
    fn start_filling(&mut self, content: Content) -> Result<()> {
        let mut frame = self.encoder.open()?;
        let waiting = &mut self.waiting[index_of(content)];
        frame.feed(&waiting.raw);
        let chunks = std::mem::take(&mut waiting.chunks);
        self.filling = Some(Filling { content, chunks, raw: waiting.raw.len(), frame });
        // Its room stays, to be filled again.
        waiting.raw.clear();
        Ok(())
    }

    /// Ends the frame that is being filled, if there is one. Its thread goes on while the next one fills.
    fn end_filling(&mut self) -> Result<()> {
        self.finish_ending()?;
        if let Some(Filling { content, chunks, raw, frame }) = self.filling.take() {
            let new = NewFrame { content, codec: Codec::Zstd, raw: raw as u32, chunks };
            self.ending = Some((frame.end(), new));
        }
        Ok(())
    }

    /// Waits for the frame that is ending, if there is one, and writes it.
    fn finish_ending(&mut self) -> Result<()> {
        let Some((ended, frame)) = self.ending.take() else {
            return Ok(());
        };
        let compressed = self.encoder.finish(ended)?;
        self.output.write(frame, &compressed)
    }

    /// Makes a frame of what waits, if anything does.
    fn write_waiting(&mut self, content: Content) -> Result<()> {
        let waiting = &self.waiting[index_of(content)];
        if waiting.chunks.is_empty() {
            return Ok(());
        }
        if waiting.raw.len() >= self.fill_from {
            self.end_filling()?;
            self.start_filling(content)?;
            return self.end_filling();
        }
        let waiting = &mut self.waiting[index_of(content)];
        let raw = std::mem::take(&mut waiting.raw);
        let chunks = std::mem::take(&mut waiting.chunks);
        let (codec, bytes) = self.encoder.compress(&raw)?;
        self.output.write(NewFrame { content, codec, raw: raw.len() as u32, chunks }, &bytes)
    }
}

fn index_of(content: Content) -> usize {
    content as usize - 1
}
