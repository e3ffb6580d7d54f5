//! Stores chunks: looks each one up first, and gathers the new ones in frames, which are compressed while
//! they fill.
//!
//! Memory: of each kind of content at most one frame that waits, and zstd's window of one frame with its
//! tables. Only one frame can be streamed into the file at a time; it is that of the first kind that has
//! enough to be worth it, in a save the tail. The others wait for it to end.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::Result;
use crate::repository::catalog::Catalog;
use crate::repository::counters::Counters;
use crate::repository::data::{Codec, Content, FILE_LIMIT, FRAME_LIMIT, Frame, encode_table};
use crate::repository::frame_encoder::{FrameEncoder, STREAM_FROM};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::object::{Finished, ObjectKind, ObjectWriter};

/// How frames are made.
#[derive(Debug, Clone, Copy)]
pub struct Compression {
    /// zstd's level.
    pub level: i32,
    /// The most raw bytes in a frame; at most [`FRAME_LIMIT`].
    pub frame: usize,
}

impl Compression {
    /// For saves: as fast as it gets with a ratio near the best (docs/design.md).
    pub const SAVE: Compression = Compression { level: 3, frame: FRAME_LIMIT };
    /// For gc, which has more time.
    pub const GC: Compression = Compression { level: 9, frame: FRAME_LIMIT };
}

/// The most raw bytes in a frame of an index. Nothing repeats in there, so that large frames gain nothing, and small ones
/// are decompressed while the ones before are used.
const INDEX_FRAME: usize = 2 << 20;

/// A data file that is written and durable, but has neither its name nor a place in the catalog.
#[derive(Debug)]
pub struct NewDataFile {
    /// The file.
    pub file: Finished,
    /// What is in it.
    pub frames: Vec<Frame>,
}

impl NewDataFile {
    /// What the catalog records of it: name, length, frames.
    pub fn record(&self) -> (Hash, u64, Vec<Frame>) {
        (self.file.name, self.file.bytes, self.frames.clone())
    }
}

/// Stores chunks for one operation. Nothing is visible before the data files of
/// [`ChunkWriter::finish`] are published and the catalog refers to them.
pub struct ChunkWriter {
    layout: Layout,
    counters: Arc<Counters>,
    frame_limit: usize,
    /// From how many bytes on a frame is streamed.
    stream_from: usize,
    encoder: FrameEncoder,
    pending: HashSet<Hash>,
    /// Per kind of content, what waits to become a frame.
    waiting: [Waiting; Content::ALL.len()],
    /// The frame that is being streamed into the file.
    streamed: Option<Frame>,
    file: Option<DataFile>,
    done: Vec<NewDataFile>,
}

/// Chunks that wait to become a frame.
#[derive(Default)]
struct Waiting {
    raw: Vec<u8>,
    chunks: Vec<(Hash, u32)>,
}

/// A data file being written.
struct DataFile {
    writer: ObjectWriter,
    frames: Vec<Frame>,
    raw: u64,
}

impl ChunkWriter {
    /// One that writes data files into this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>, compression: Compression) -> Self {
        let frame_limit = compression.frame.min(FRAME_LIMIT);
        ChunkWriter {
            layout: layout.clone(),
            counters: Arc::clone(counters),
            frame_limit,
            stream_from: STREAM_FROM.min(frame_limit / 2),
            encoder: FrameEncoder::new(compression.level),
            pending: HashSet::new(),
            waiting: Default::default(),
            streamed: None,
            file: None,
            done: Vec::new(),
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

    /// Stores a chunk whether or not the catalog has it: for gc, which moves chunks.
    /// The caller has checked the hash.
    pub fn append(&mut self, content: Content, hash: Hash, bytes: &[u8]) -> Result<()> {
        if !self.pending.insert(hash) {
            return Ok(());
        }
        if let Some(frame) = self.streamed.as_mut().filter(|frame| frame.content == content) {
            if frame.raw as usize + bytes.len() <= self.frame_limit {
                frame.raw += bytes.len() as u32;
                frame.chunks.push((hash, bytes.len() as u32));
                let file = Self::current_file(&mut self.file, &self.layout)?;
                return self.encoder.feed(bytes, &mut file.writer);
            }
            self.end_streamed()?;
        }
        if self.waiting[index_of(content)].raw.len() + bytes.len() > self.limit(content) {
            self.end_streamed()?;
            self.write_waiting(content)?;
        }
        let waiting = &mut self.waiting[index_of(content)];
        waiting.raw.extend_from_slice(bytes);
        waiting.chunks.push((hash, bytes.len() as u32));
        if waiting.raw.len() >= self.stream_from && self.streamed.is_none() {
            self.start_stream(content)?;
        }
        Ok(())
    }

    /// Writes what is left and returns the data files; no file if there was no new chunk.
    pub fn finish(mut self) -> Result<Vec<NewDataFile>> {
        self.end_streamed()?;
        for content in Content::ALL {
            self.write_waiting(content)?;
        }
        self.close_file()?;
        Ok(self.done)
    }

    /// The most raw bytes in a frame of this kind.
    fn limit(&self, content: Content) -> usize {
        match content {
            Content::Tail | Content::Base => self.frame_limit,
            Content::Keyframe | Content::Delta => self.frame_limit.min(INDEX_FRAME),
        }
    }

    /// Begins a streamed frame with what waits.
    fn start_stream(&mut self, content: Content) -> Result<()> {
        let file = Self::current_file(&mut self.file, &self.layout)?;
        let waiting = &mut self.waiting[index_of(content)];
        let chunks = std::mem::take(&mut waiting.chunks);
        let (offset, raw) = (file.writer.length(), waiting.raw.len() as u32);
        self.encoder.feed(&waiting.raw, &mut file.writer)?;
        waiting.raw.clear();
        self.streamed = Some(Frame { content, codec: Codec::Zstd, offset, stored: 0, raw, chunks });
        Ok(())
    }

    /// Ends the frame that is being streamed, if there is one.
    fn end_streamed(&mut self) -> Result<()> {
        let Some(mut frame) = self.streamed.take() else {
            return Ok(());
        };
        let file = Self::current_file(&mut self.file, &self.layout)?;
        self.encoder.end(&mut file.writer)?;
        // At most what zstd makes of a frame that it can't compress.
        frame.stored = (file.writer.length() - frame.offset) as u32;
        self.add(frame)
    }

    /// Makes a frame of what waits, if anything does. No frame is being streamed.
    fn write_waiting(&mut self, content: Content) -> Result<()> {
        let waiting = &mut self.waiting[index_of(content)];
        if waiting.chunks.is_empty() {
            return Ok(());
        }
        if waiting.raw.len() >= self.stream_from {
            self.start_stream(content)?;
            return self.end_streamed();
        }
        let compressed = self.encoder.compress(&waiting.raw)?;
        let (codec, bytes) = if compressed.len() < waiting.raw.len() {
            (Codec::Zstd, compressed)
        } else {
            (Codec::Raw, &waiting.raw[..])
        };
        let file = Self::current_file(&mut self.file, &self.layout)?;
        let frame = Frame {
            content,
            codec,
            offset: file.writer.length(),
            stored: bytes.len() as u32,
            raw: waiting.raw.len() as u32,
            chunks: std::mem::take(&mut waiting.chunks),
        };
        file.writer.write(bytes)?;
        waiting.raw.clear();
        self.add(frame)
    }

    /// Notes a frame that was written, and closes the file once it is large enough.
    fn add(&mut self, frame: Frame) -> Result<()> {
        let file = Self::current_file(&mut self.file, &self.layout)?;
        file.raw += u64::from(frame.raw);
        file.frames.push(frame);
        if file.raw >= FILE_LIMIT { self.close_file() } else { Ok(()) }
    }

    fn current_file<'a>(file: &'a mut Option<DataFile>, layout: &Layout) -> Result<&'a mut DataFile> {
        match file {
            Some(file) => Ok(file),
            none => {
                let writer = ObjectWriter::create(layout, ObjectKind::Data)?;
                Ok(none.insert(DataFile { writer, frames: Vec::new(), raw: 0 }))
            }
        }
    }

    fn close_file(&mut self) -> Result<()> {
        if let Some(DataFile { mut writer, frames, .. }) = self.file.take() {
            let table = encode_table(&frames, writer.length());
            writer.write(&table)?;
            let file = writer.finish(&self.counters)?;
            self.done.push(NewDataFile { file, frames });
        }
        Ok(())
    }
}

fn index_of(content: Content) -> usize {
    content as usize - 1
}
