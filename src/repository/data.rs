//! Data files: frames of compressed chunks, a table of what is where, a footer (docs/format.md).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{IoContext, Result};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::object::{HEADER, ObjectKind, damaged, kind_in, open_object};

/// The most raw bytes in a frame. What a reader may have to allocate.
pub const FRAME_LIMIT: usize = 64 << 20;
/// A data file is closed when it holds this many raw bytes, so that gc rewrites in bounded pieces.
pub const FILE_LIMIT: u64 = 256 << 20;
/// The last eight bytes of a data file.
pub const FOOTER_MAGIC: [u8; 8] = *b"ZNAPEND\n";
/// The length of the footer, in bytes.
pub const FOOTER: usize = 64;
/// The length of a frame's entry in the table.
const FRAME_ENTRY: usize = 24;
/// The length of a chunk's entry in the table.
const CHUNK_ENTRY: usize = 36;

/// What kind of content a frame's chunks are. Kinds never share a frame: they compress differently
/// and are needed at different times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Content {
    /// Bytes of a database behind its base.
    Tail = 1,
    /// Bytes of a database's base.
    Base = 2,
    /// Pieces of an index keyframe.
    Keyframe = 3,
    /// Pieces of an index delta.
    Delta = 4,
    /// Pieces of blobs.
    Blob = 5,
}

impl Content {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Content; 5] = [Content::Tail, Content::Base, Content::Keyframe, Content::Delta, Content::Blob];

    /// From its number in tables and in the catalog.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|content| *content as u8 == number)
    }
}

/// How a frame's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As they are.
    Raw = 0,
    /// One zstd frame, without a checksum; it may lack its content size.
    Zstd = 1,
}

impl Codec {
    /// From its number in tables and in the catalog.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// One frame of a data file, and the chunks in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What its chunks are.
    pub content: Content,
    /// How it is stored.
    pub codec: Codec,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in the file.
    pub stored: u32,
    /// Its length when decompressed.
    pub raw: u32,
    /// Its chunks, one behind the other: hash and length.
    pub chunks: Vec<(Hash, u32)>,
}

/// The table and footer that end a data file with these frames; the table begins at `offset`.
pub fn encode_table(frames: &[Frame], offset: u64) -> Vec<u8> {
    let chunks: usize = frames.iter().map(|frame| frame.chunks.len()).sum();
    let mut bytes = Vec::with_capacity(frames.len() * FRAME_ENTRY + chunks * CHUNK_ENTRY + FOOTER);
    for frame in frames {
        bytes.extend([frame.content as u8, frame.codec as u8, 0, 0]);
        bytes.extend((frame.chunks.len() as u32).to_le_bytes());
        bytes.extend(frame.offset.to_le_bytes());
        bytes.extend(frame.stored.to_le_bytes());
        bytes.extend(frame.raw.to_le_bytes());
    }
    for (hash, length) in frames.iter().flat_map(|frame| &frame.chunks) {
        bytes.extend(hash.0);
        bytes.extend(length.to_le_bytes());
    }
    let table_hash = Hash::of(&bytes);
    bytes.extend(offset.to_le_bytes());
    bytes.extend((frames.len() as u32).to_le_bytes());
    bytes.extend((chunks as u32).to_le_bytes());
    bytes.extend(table_hash.0);
    bytes.extend([0; 8]);
    bytes.extend(FOOTER_MAGIC);
    bytes
}

/// Reads the table of a data file and checks its header, its hash, and that its numbers are possible.
pub fn read_table(layout: &Layout, name: &Hash) -> Result<Vec<Frame>> {
    table_of(&open_object(layout, name)?, &layout.object(name))
}

/// The same for a data file that is open, wherever it is.
pub fn table_of(file: &File, path: &Path) -> Result<Vec<Frame>> {
    let length = file.metadata().at("look at", path)?.len();
    if length < (HEADER + FOOTER) as u64 {
        return Err(damaged(path, "it is too short"));
    }
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).at("read", path)?;
    if kind_in(path, &header)? != ObjectKind::Data {
        return Err(damaged(path, "it holds something else"));
    }
    table_at_end(file, path)
}

/// The same, whatever the header is: it may be damaged, and all else whole.
pub fn table_at_end(file: &File, path: &Path) -> Result<Vec<Frame>> {
    let length = file.metadata().at("look at", path)?.len();
    let bad = |reason: &str| damaged(path, reason);
    if length < (HEADER + FOOTER) as u64 {
        return Err(bad("it is too short"));
    }
    let mut footer = [0; FOOTER];
    file.read_exact_at(&mut footer, length - FOOTER as u64).at("read", path)?;
    let mut fields = Fields(&footer);
    let table_offset = fields.u64();
    let frame_count = fields.u32() as usize;
    let chunk_count = fields.u32() as usize;
    let table_hash = fields.hash();
    if footer[FOOTER - 8..] != FOOTER_MAGIC {
        return Err(bad("it has no footer"));
    }
    let table_length = frame_count as u64 * FRAME_ENTRY as u64 + chunk_count as u64 * CHUNK_ENTRY as u64;
    let fits = table_offset >= HEADER as u64 && table_offset.checked_add(table_length) == Some(length - FOOTER as u64);
    if !fits {
        return Err(bad("its table is not where its footer says"));
    }
    // Not larger than the file itself, as was just checked.
    let mut table = vec![0; table_length as usize];
    file.read_exact_at(&mut table, table_offset).at("read", path)?;
    if Hash::of(&table) != table_hash {
        return Err(bad("its table does not match its hash"));
    }
    decode_table(&table, frame_count, table_offset).map_err(bad)
}

fn decode_table(table: &[u8], frame_count: usize, table_offset: u64) -> Result<Vec<Frame>, &'static str> {
    let (frame_part, chunk_part) = table.split_at(frame_count * FRAME_ENTRY);
    let mut chunk_fields = Fields(chunk_part);
    let mut frames = Vec::with_capacity(frame_count);
    for entry in frame_part.chunks_exact(FRAME_ENTRY) {
        let mut fields = Fields(&entry[4..]);
        let chunk_count = fields.u32() as usize;
        let offset = fields.u64();
        let (stored, raw) = (fields.u32(), fields.u32());
        let content = Content::from_number(entry[0]).ok_or("a block's content is of no known kind")?;
        let codec = Codec::from_number(entry[1]).ok_or("a block is compressed in an unknown way")?;
        let inside =
            offset >= HEADER as u64 && offset.checked_add(u64::from(stored)).is_some_and(|end| end <= table_offset);
        if !inside || raw as usize > FRAME_LIMIT {
            return Err("a block is not inside the file");
        }
        if chunk_fields.0.len() < chunk_count * CHUNK_ENTRY {
            return Err("its blocks list more chunks than there are");
        }
        let chunks: Vec<(Hash, u32)> = (0..chunk_count).map(|_| (chunk_fields.hash(), chunk_fields.u32())).collect();
        if chunks.iter().map(|(_, length)| u64::from(*length)).sum::<u64>() != u64::from(raw) {
            return Err("a block's chunks do not add up to its length");
        }
        frames.push(Frame { content, codec, offset, stored, raw, chunks });
    }
    if !chunk_fields.0.is_empty() {
        return Err("it lists more chunks than its blocks have");
    }
    Ok(frames)
}

/// Little-endian fields one after the other; the caller has checked that they are there.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.0.split_at(N);
        self.0 = rest;
        let mut bytes = [0; N];
        bytes.copy_from_slice(head);
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn hash(&mut self) -> Hash {
        Hash(self.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_as_it_went() {
        let frames = vec![
            Frame {
                content: Content::Tail,
                codec: Codec::Zstd,
                offset: 16,
                stored: 100,
                raw: 300,
                chunks: vec![(Hash::of(b"1"), 100), (Hash::of(b"2"), 200)],
            },
            Frame {
                content: Content::Delta,
                codec: Codec::Raw,
                offset: 116,
                stored: 5,
                raw: 5,
                chunks: vec![(Hash::of(b"3"), 5)],
            },
        ];
        let bytes = encode_table(&frames, 121);
        let table = &bytes[..bytes.len() - FOOTER];
        assert_eq!(decode_table(table, 2, 121), Ok(frames));
        assert!(decode_table(table, 2, 120).is_err());
        assert!(decode_table(&table[..table.len() - CHUNK_ENTRY], 2, 121).is_err());
    }
}
