//! The chunk list of a tail while it is being saved: what is kept of the parent's, and what is cut and stored.

use crate::error::Result;
use crate::repository::catalog::Stream;
use crate::repository::chunk_writer::ChunkWriter;
use crate::repository::chunker;
use crate::repository::data::Content;
use crate::repository::manifest::{ChunkName, FinalPoint, StreamEntry};
use crate::snapshot::handle::Repository;

/// The chunk list of a tail, growing.
///
/// What of the parent's list isn't final is kept as it is as long as everything behind the last final
/// chunk is too short to be cut; otherwise it is read again and cut as if it were all new.
pub(super) struct Tail {
    /// The list as a manifest has it.
    pub(super) entry: StreamEntry,
    /// The offset from which bytes have to be read.
    pub(super) read_from: u64,
    /// The offset up to which the list reaches.
    reached: u64,
}

impl Tail {
    /// The beginning of a list up to `cut`, for a file that begins with `parent`.
    pub(super) fn after(parent: Option<&Stream>, base_length: u64, cut: u64) -> Self {
        let nothing = FinalPoint { count: 0, length: base_length, hash: Default::default() };
        let last_final = parent.map_or(nothing, |stream| stream.last_final);
        let (kept, read_from, list_hash) = match parent {
            Some(stream) if cut - last_final.length < chunker::MAX as u64 => {
                (stream.count, stream.cut.offset, stream.list_hash)
            }
            _ => (last_final.count, last_final.length, last_final.hash),
        };
        Tail {
            entry: StreamEntry {
                parent: parent.map(|stream| stream.snapshot_uid),
                kept,
                kept_length: read_from,
                list_hash,
                last_final,
                chunks: Vec::new(),
            },
            read_from,
            reached: read_from,
        }
    }

    /// Stores all chunks that the bytes are enough to cut, and takes them out of the buffer.
    pub(super) fn cut_chunks(
        &mut self,
        buffer: &mut Vec<u8>,
        writer: &mut ChunkWriter,
        repository: &Repository,
    ) -> Result<()> {
        // Unfinished chunks that were kept are followed by too little for a cut.
        let mut start = 0;
        while let Some(length) = chunker::first_cut(&buffer[start..]) {
            self.push(&buffer[start..start + length], writer, repository)?;
            self.entry.last_final = FinalPoint {
                count: self.entry.kept + self.entry.chunks.len() as u64,
                length: self.reached,
                hash: self.entry.list_hash,
            };
            start += length;
        }
        buffer.drain(..start);
        Ok(())
    }

    /// Stores what is left as a chunk that isn't final.
    pub(super) fn rest(&mut self, bytes: &[u8], writer: &mut ChunkWriter, repository: &Repository) -> Result<()> {
        if bytes.is_empty() { Ok(()) } else { self.push(bytes, writer, repository) }
    }

    fn push(&mut self, bytes: &[u8], writer: &mut ChunkWriter, repository: &Repository) -> Result<()> {
        let (hash, _) = writer.put(&repository.catalog, Content::Tail, bytes)?;
        let length = bytes.len() as u32;
        self.entry.chunks.push(ChunkName { hash, length });
        self.entry.list_hash = self.entry.list_hash.extended(length, &hash);
        self.reached += u64::from(length);
        Ok(())
    }
}
