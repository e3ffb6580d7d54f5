//! Stores chunks: looks each one up first, gathers the new ones in frames, compresses and writes the
//! frames on a thread of its own while the next one fills.
//!
//! Memory: per kind of content one frame being filled, and together one being handed over and one
//! being compressed, with its output: at most five times [`FRAME_LIMIT`] for huge saves, and no more than
//! a few times what is stored for small ones.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use zstd::zstd_safe::CParameter;

use crate::error::{Error, Result};
use crate::repository::catalog::Catalog;
use crate::repository::counters::Counters;
use crate::repository::data::{Codec, Content, FILE_LIMIT, FRAME_LIMIT, Frame, encode_table};
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
    buffers: Vec<Buffer>,
    pending: HashSet<Hash>,
    frame_limit: usize,
    worker: Option<Worker>,
}

struct Worker {
    sender: SyncSender<Buffer>,
    spent: Receiver<Buffer>,
    thread: JoinHandle<Result<Vec<NewDataFile>>>,
}

/// A frame being filled.
struct Buffer {
    content: Content,
    raw: Vec<u8>,
    chunks: Vec<(Hash, u32)>,
}

impl Buffer {
    fn new(content: Content) -> Self {
        Buffer { content, raw: Vec::new(), chunks: Vec::new() }
    }
}

impl ChunkWriter {
    /// One that writes data files into this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>, compression: Compression) -> Self {
        let (sender, receiver) = sync_channel::<Buffer>(1);
        let (give_back, spent) = sync_channel::<Buffer>(2);
        let (layout, counters) = (layout.clone(), Arc::clone(counters));
        let thread = std::thread::spawn(move || {
            let mut output = Output::new(layout, counters, compression.level)?;
            for buffer in receiver {
                output.frame(&buffer)?;
                // Nobody waits for it if the other side is gone or has enough.
                let _ = give_back.try_send(buffer);
            }
            output.finish()
        });
        ChunkWriter {
            buffers: Content::ALL.into_iter().map(Buffer::new).collect(),
            pending: HashSet::new(),
            frame_limit: compression.frame.min(FRAME_LIMIT),
            worker: Some(Worker { sender, spent, thread }),
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
        let index = content as usize - 1;
        if self.buffers[index].raw.len() + bytes.len() > self.frame_limit {
            self.hand_over(index)?;
        }
        let buffer = &mut self.buffers[index];
        buffer.raw.extend_from_slice(bytes);
        buffer.chunks.push((hash, bytes.len() as u32));
        Ok(())
    }

    /// Writes what is left and returns the data files; no file if there was no new chunk.
    pub fn finish(mut self) -> Result<Vec<NewDataFile>> {
        for index in 0..self.buffers.len() {
            self.hand_over(index)?;
        }
        self.join()
    }

    fn hand_over(&mut self, index: usize) -> Result<()> {
        if self.buffers[index].chunks.is_empty() {
            return Ok(());
        }
        let content = self.buffers[index].content;
        let Some(worker) = &self.worker else {
            return Err(stopped());
        };
        let mut next = worker.spent.try_recv().unwrap_or_else(|_| Buffer::new(content));
        next.content = content;
        next.raw.clear();
        next.chunks.clear();
        let full = std::mem::replace(&mut self.buffers[index], next);
        if worker.sender.send(full).is_err() {
            // It only ends early with an error, which joining brings.
            self.join()?;
            return Err(stopped());
        }
        Ok(())
    }

    fn join(&mut self) -> Result<Vec<NewDataFile>> {
        let Some(Worker { sender, thread, .. }) = self.worker.take() else {
            return Err(stopped());
        };
        drop(sender);
        thread.join().map_err(|_| stopped())?
    }
}

fn stopped() -> Error {
    Error::failed("the thread that writes object files stopped unexpectedly")
}

/// The writing side.
struct Output {
    layout: Layout,
    counters: Arc<Counters>,
    compressor: zstd::bulk::Compressor<'static>,
    compressed: Vec<u8>,
    current: Option<(ObjectWriter, Vec<Frame>, u64)>,
    done: Vec<NewDataFile>,
}

impl Output {
    fn new(layout: Layout, counters: Arc<Counters>, level: i32) -> Result<Self> {
        Ok(Output {
            layout,
            counters,
            compressor: compressor(level)?,
            compressed: Vec::new(),
            current: None,
            done: Vec::new(),
        })
    }

    fn frame(&mut self, buffer: &Buffer) -> Result<()> {
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(buffer.raw.len()));
        self.compressor
            .compress_to_buffer(&buffer.raw, &mut self.compressed)
            .map_err(|error| Error::failed(format!("cannot compress a block: {error}")))?;
        let (codec, bytes) = if self.compressed.len() < buffer.raw.len() {
            (Codec::Zstd, &self.compressed)
        } else {
            (Codec::Raw, &buffer.raw)
        };
        let (writer, frames, raw) = match &mut self.current {
            Some(current) => current,
            None => {
                let writer = ObjectWriter::create(&self.layout, ObjectKind::Data)?;
                self.current.insert((writer, Vec::new(), 0))
            }
        };
        frames.push(Frame {
            content: buffer.content,
            codec,
            offset: writer.length(),
            stored: bytes.len() as u32,
            raw: buffer.raw.len() as u32,
            chunks: buffer.chunks.clone(),
        });
        writer.write(bytes)?;
        *raw += buffer.raw.len() as u64;
        if *raw >= FILE_LIMIT {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some((mut writer, frames, _)) = self.current.take() {
            let table = encode_table(&frames, writer.length());
            writer.write(&table)?;
            let file = writer.finish(&self.counters)?;
            self.done.push(NewDataFile { file, frames });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<NewDataFile>> {
        self.close()?;
        Ok(self.done)
    }
}

/// A zstd context for frames: long-distance matching over the whole frame, because ZODB rewrites
/// whole records and near-copies lie megabytes apart (docs/design.md).
fn compressor(level: i32) -> Result<zstd::bulk::Compressor<'static>> {
    let prepare = || -> std::io::Result<_> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        compressor.set_parameter(CParameter::WindowLog(FRAME_LIMIT.ilog2()))?;
        Ok(compressor)
    };
    prepare().map_err(|error| Error::failed(format!("cannot prepare zstd: {error}")))
}
