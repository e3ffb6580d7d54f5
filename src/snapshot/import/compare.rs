//! Whether what comes from elsewhere has, byte for byte, what the repository has.
//!
//! A live file is recognised by its ends: to read all of it for each save would cost too much. What comes from elsewhere has been
//! read and checked anyway, and may differ anywhere. So what is there is used in its place only where it is the same.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::take::Incoming;
use crate::error::Result;
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Source};
use crate::monitor::Monitor;
use crate::repository::catalog::{Stream, StreamChunk};
use crate::repository::hash::{Hash, Uid};
use crate::repository::manifest::Generation;
use crate::snapshot::anchor::unless_unreadable;
use crate::snapshot::base::source_of;
use crate::snapshot::handle::Repository;
use crate::snapshot::plan::checked_chunks;

/// How many bytes of two files are compared at once.
const READ: u64 = 1 << 20;

/// What was found out of the bytes of a file that is put together: of a series of increments, each byte is read once.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// The hashes of pieces, by offset and length.
    hashes: HashMap<(u64, u32), Hash>,
    /// Lives of a database, how long their bases are, and whether the file that has one begins as this does.
    bases: Vec<(Uid, u64, bool)>,
}

impl Compared {
    /// Forgets what is known of the bytes behind this length.
    pub(super) fn shorten(&mut self, length: u64) {
        self.hashes.retain(|(offset, piece), _| offset + u64::from(*piece) <= length);
        self.bases.retain(|(_, base, _)| *base <= length);
    }
}

impl Incoming {
    /// Whether it begins with all that a snapshot has of a database.
    pub(super) fn begins_with(&self, repository: &Repository, stream: &Stream, monitor: &dyn Monitor) -> Result<bool> {
        let known = repository.catalog.generation(stream.generation)?.known;
        Ok(self.has_base(repository, &known, monitor)? && self.has_tail(repository, stream, monitor)?)
    }

    /// Whether it has a snapshot's chunks, all of them, where they are.
    pub(super) fn has_tail(&self, repository: &Repository, stream: &Stream, monitor: &dyn Monitor) -> Result<bool> {
        let catalog = &repository.catalog;
        let base_length = catalog.generation(stream.generation)?.known.base_length;
        self.has(&checked_chunks(catalog, stream, None, base_length)?, monitor)
    }

    /// Whether it is of this life of a database: it has all bytes of the base, which is stored, or is in a file.
    pub(super) fn has_base(&self, repository: &Repository, life: &Generation, monitor: &dyn Monitor) -> Result<bool> {
        if self.file.magic().to_string() != life.magic || self.cut.offset < life.base_length {
            return Ok(false);
        }
        if life.base_length <= FIRST_TRANSACTION {
            return Ok(true);
        }
        if let Some(base) = repository.catalog.stored_base(life)? {
            return self.has(&checked_chunks(&repository.catalog, &base, None, FIRST_TRANSACTION)?, monitor);
        }
        let is_life = |known: &&(Uid, u64, bool)| known.0 == life.uid;
        if let Some((.., same)) = self.compared.borrow().bases.iter().find(is_life) {
            return Ok(*same);
        }
        // What can't be read isn't the same: this may be the good copy of it.
        let path = repository.path_of(&self.database);
        let file = unless_unreadable(source_of(&repository.layout, &path, life))?.flatten();
        let same = file.map_or(Ok(false), |file| same_bytes(&self.file, &file, life.base_length, monitor))?;
        self.compared.borrow_mut().bases.push((life.uid, life.base_length, same));
        Ok(same)
    }

    fn has(&self, chunks: &[StreamChunk], monitor: &dyn Monitor) -> Result<bool> {
        monitor.begin("comparing", chunks.iter().map(|chunk| u64::from(chunk.location.length)).sum());
        let mut compared = self.compared.borrow_mut();
        let mut bytes = Vec::new();
        let mut same = chunks.last().is_none_or(|last| last.end() <= self.cut.offset);
        let mut left = chunks.iter();
        while same && let Some(chunk) = left.next() {
            monitor.check()?;
            let length = chunk.location.length;
            let hash = match compared.hashes.entry((chunk.offset, length)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(place) => {
                    bytes.resize(length as usize, 0);
                    self.file.read_exact_at(&mut bytes, chunk.offset)?;
                    *place.insert(Hash::of(&bytes))
                }
            };
            same = hash == chunk.location.hash;
            monitor.advance(length.into());
        }
        monitor.end();
        Ok(same)
    }
}

/// Whether two files have the same bytes behind their magic, up to `length`, as far as the other one can be read.
fn same_bytes(one: &DataFile, other: &DataFile, length: u64, monitor: &dyn Monitor) -> Result<bool> {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    monitor.begin("comparing", length);
    let mut at = FIRST_TRANSACTION;
    while at < length {
        monitor.check()?;
        let piece = READ.min(length - at);
        here.resize(piece as usize, 0);
        there.resize(piece as usize, 0);
        one.read_exact_at(&mut here, at)?;
        if unless_unreadable(other.read_exact_at(&mut there, at))?.is_none() || here != there {
            break;
        }
        at += piece;
        monitor.advance(piece);
    }
    monitor.end();
    Ok(at >= length)
}
