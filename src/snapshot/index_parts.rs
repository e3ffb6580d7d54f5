//! How keyframes and deltas of an index are stored, and how they become an index again.
//!
//! A part is its (oid, offset) pairs in ascending order of oid, each as two LEB128 numbers: the oid less the one
//! before it, and the offset less the one before it, zigzag-coded. It is stored in pieces of 1 MiB.

use crate::error::{Error, Result};
use crate::repository::catalog::{Catalog, IndexPartRow, Stream};
use crate::repository::chunk_writer::ChunkWriter;
use crate::repository::data::Content;
use crate::repository::frames::Location;
use crate::repository::manifest::{ChunkName, IndexPart, parts_hash};

/// The length of the pieces that a part is stored in.
const PIECE: usize = 1 << 20;

/// Stores pairs that come in ascending order of oid; `None` if there were none.
pub fn store(
    pairs: impl IntoIterator<Item = Result<(u64, u64)>>,
    content: Content,
    writer: &mut ChunkWriter,
    catalog: &Catalog,
) -> Result<Option<IndexPart>> {
    let mut part = IndexPart { entries: 0, bytes: 0, chunks: Vec::new() };
    let mut piece = Vec::with_capacity(PIECE + 32);
    let mut put = |piece: &mut Vec<u8>, length: usize, part: &mut IndexPart| -> Result<()> {
        let (hash, _) = writer.put(catalog, content, &piece[..length])?;
        part.chunks.push(ChunkName { hash, length: length as u32 });
        part.bytes += length as u64;
        piece.drain(..length);
        Ok(())
    };
    let mut last = (0, 0);
    for pair in pairs {
        let (oid, offset) = pair?;
        push_number(&mut piece, oid.wrapping_sub(last.0));
        push_number(&mut piece, zigzag(offset.wrapping_sub(last.1) as i64));
        last = (oid, offset);
        part.entries += 1;
        if piece.len() >= PIECE {
            put(&mut piece, PIECE, &mut part)?;
        }
    }
    if !piece.is_empty() {
        let length = piece.len();
        put(&mut piece, length, &mut part)?;
    }
    Ok((part.entries > 0).then_some(part))
}

fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// An index part, and where its pieces are.
pub struct StoredPart {
    /// The part.
    pub part: IndexPartRow,
    /// Its pieces, in order.
    pub pieces: Vec<Location>,
}

/// The parts that a stream's index is made from: its keyframe, then the deltas, oldest first. Each stream's own
/// parts are checked against their hash: ZODB would believe an index that lacks some.
pub fn sources(catalog: &Catalog, stream: &Stream) -> Result<Vec<StoredPart>> {
    let mut newest_first = Vec::new();
    for ancestor in catalog.ancestry(stream.row)? {
        let own = own_parts(catalog, &ancestor)?;
        let has_keyframe = own.first().is_some_and(|stored| stored.part.keyframe);
        newest_first.extend(own.into_iter().rev());
        if has_keyframe {
            newest_first.reverse();
            return Ok(newest_first);
        }
    }
    Err(damaged_index(&stream.snapshot_name))
}

/// A stream's own parts: its keyframe if it has one, then its deltas, oldest first; checked against their hash.
pub fn own_parts(catalog: &Catalog, stream: &Stream) -> Result<Vec<StoredPart>> {
    let mut parts = Vec::new();
    let mut names: Vec<Vec<ChunkName>> = Vec::new();
    for part in catalog.index_parts(stream.row)? {
        let pieces = catalog.index_chunks(part.row)?;
        names.push(pieces.iter().map(|piece| ChunkName { hash: piece.hash, length: piece.length }).collect());
        parts.push(StoredPart { part, pieces });
    }
    // Parts that are right would make a wrong index together with those of another parent.
    let parent = stream.parent.map(|row| catalog.stream(row)).transpose()?;
    let described = parts.iter().zip(&names);
    let hash = parts_hash(
        parent.map(|parent| parent.snapshot_uid),
        described.map(|(StoredPart { part, .. }, names)| (part.keyframe, part.entries, part.bytes, names.iter())),
    );
    if hash == stream.index_hash { Ok(parts) } else { Err(damaged_index(&stream.snapshot_name)) }
}

/// The error for a stored index that can't be right.
pub fn damaged_index(snapshot: &str) -> Error {
    Error::damaged(format!("the stored index of snapshot {snapshot} is damaged"))
        .hint("restore another snapshot; or put catalog.db back from a copy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_their_coding() {
        for number in [0, 1, -1, 63, -64, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        let mut bytes = Vec::new();
        push_number(&mut bytes, 300);
        assert_eq!(bytes, [0xac, 0x02]);
    }
}
