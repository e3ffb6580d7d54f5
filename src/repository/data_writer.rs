//! Writes frames, one behind the other, into data files.

use std::sync::Arc;

use crate::error::Result;
use crate::repository::counters::Counters;
use crate::repository::data::{Codec, Content, FILE_LIMIT, Frame, encode_table};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::object::{Finished, ObjectKind, ObjectWriter};

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

/// A frame that is compressed, if that is worth it.
pub struct NewFrame {
    /// What its chunks are.
    pub content: Content,
    /// How it is to be stored.
    pub codec: Codec,
    /// Its length when decompressed.
    pub raw: u32,
    /// Its chunks, one behind the other: hash and length.
    pub chunks: Vec<(Hash, u32)>,
}

/// Writes data files.
pub struct DataWriter {
    layout: Layout,
    counters: Arc<Counters>,
    file: Option<OpenFile>,
    done: Vec<NewDataFile>,
}

/// A data file being written.
struct OpenFile {
    writer: ObjectWriter,
    frames: Vec<Frame>,
    raw: u64,
}

impl DataWriter {
    /// One for this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>) -> Self {
        DataWriter { layout: layout.clone(), counters: Arc::clone(counters), file: None, done: Vec::new() }
    }

    /// Writes a frame, whose bytes are as its codec says, and closes the file once it is large enough.
    pub fn write(&mut self, frame: NewFrame, bytes: &[u8]) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let writer = ObjectWriter::create(&self.layout, ObjectKind::Data)?;
                none.insert(OpenFile { writer, frames: Vec::new(), raw: 0 })
            }
        };
        let NewFrame { content, codec, raw, chunks } = frame;
        // At most what zstd makes of a frame that it can't compress.
        let (offset, stored) = (file.writer.length(), bytes.len() as u32);
        file.writer.write(bytes)?;
        file.raw += u64::from(raw);
        file.frames.push(Frame { content, codec, offset, stored, raw, chunks });
        if file.raw >= FILE_LIMIT { self.close() } else { Ok(()) }
    }

    /// Returns the data files; none if there was no frame.
    pub fn finish(mut self) -> Result<Vec<NewDataFile>> {
        self.close()?;
        Ok(self.done)
    }

    fn close(&mut self) -> Result<()> {
        if let Some(OpenFile { mut writer, frames, .. }) = self.file.take() {
            let table = encode_table(&frames, writer.length());
            writer.write(&table)?;
            let file = writer.finish(&self.counters)?;
            self.done.push(NewDataFile { file, frames });
        }
        Ok(())
    }
}
