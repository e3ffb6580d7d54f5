//! Reads the stored parts of an index, merged into the pairs of the whole.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use crate::error::{Error, Result};
use crate::filestorage::{Merge, merge};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::frames::FrameFiles;
use crate::repository::in_order::beside;
use crate::repository::run_reader::RunReader;
use crate::snapshot::index_parts::{StoredPart, damaged_index, unzigzag};

/// How many bytes of deltas stay decompressed: several small ones are often in one frame.
const DELTAS: usize = 8 << 20;

/// Gives all pairs of these parts, merged, in ascending order of oid, to `use_pairs`. The first part, which may be
/// a keyframe with most of them, is decompressed by other threads meanwhile. `name` is the snapshot's, for messages.
///
/// Memory: of each part a piece of 1 MiB, of the first one a few frames of 2 MiB, and [`DELTAS`].
pub fn with_merged<T>(
    files: &Arc<FrameFiles>,
    parts: &[StoredPart],
    name: &str,
    use_pairs: impl FnOnce(Merge<PartReader<'_>>) -> Result<T>,
) -> Result<T> {
    let chunks = RefCell::new(ChunkReader::with_cache(Arc::clone(files), DELTAS));
    let Some((first, others)) = parts.split_first() else {
        return use_pairs(merge(Vec::new()));
    };
    let (sender, receiver) = sync_channel(1);
    let read = move || {
        let read = RunReader::new(files, &first.pieces).each(|_, bytes| {
            // Nobody listens any more where the other side failed.
            sender.send(Ok(bytes.to_vec())).map_err(|_| Error::failed("an index is read no further"))
        });
        if let Err(error) = read {
            let _ = sender.send(Err(error));
        }
    };
    let use_all = || {
        let mut layers = vec![PartReader::new(first, name, receiver.into_iter())];
        for part in others {
            let chunks = &chunks;
            let pieces =
                part.pieces.iter().map(|piece| chunks.borrow_mut().with_chunk(piece, |bytes| Ok(bytes.to_vec())));
            layers.push(PartReader::new(part, name, pieces));
        }
        use_pairs(merge(layers))
    };
    let ((), used) = beside("reads an index", read, use_all)?;
    used
}

/// The pairs of one part in ascending order of oid, read piece by piece.
pub struct PartReader<'a> {
    pieces: Box<dyn Iterator<Item = Result<Vec<u8>>> + 'a>,
    bytes: Vec<u8>,
    at: usize,
    last: (u64, u64),
    left: u64,
    name: &'a str,
}

impl<'a> PartReader<'a> {
    fn new(stored: &StoredPart, name: &'a str, pieces: impl Iterator<Item = Result<Vec<u8>>> + 'a) -> Self {
        let left = stored.part.entries;
        PartReader { pieces: Box::new(pieces), bytes: Vec::new(), at: 0, last: (0, 0), left, name }
    }

    fn pair(&mut self) -> Result<(u64, u64)> {
        let oid = self.last.0.wrapping_add(self.number()?);
        let offset = self.last.1.wrapping_add(unzigzag(self.number()?) as u64);
        self.last = (oid, offset);
        Ok(self.last)
    }

    fn number(&mut self) -> Result<u64> {
        // Most have one or two bytes.
        if let Some(&[first, second]) = self.bytes.get(self.at..self.at + 2) {
            if first & 0x80 == 0 {
                self.at += 1;
                return Ok(u64::from(first));
            }
            if second & 0x80 == 0 {
                self.at += 2;
                return Ok(u64::from(first & 0x7f) | u64::from(second) << 7);
            }
        }
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(damaged_index(self.name))
    }

    fn byte(&mut self) -> Result<u8> {
        if self.at == self.bytes.len() {
            self.bytes = self.pieces.next().unwrap_or_else(|| Err(damaged_index(self.name)))?;
            self.at = 0;
        }
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte.ok_or_else(|| damaged_index(self.name))
    }
}

impl Iterator for PartReader<'_> {
    type Item = Result<(u64, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let pair = self.pair();
        if pair.is_err() {
            self.left = 0;
        }
        Some(pair)
    }
}
