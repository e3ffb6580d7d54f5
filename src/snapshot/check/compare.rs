//! A database's file compared with what snapshots have of it.

use std::collections::HashMap;

use crate::error::Result;
use crate::filestorage::{DataFile, Source};
use crate::repository::catalog::{Catalog, Database, Stream};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::chunker;
use crate::repository::frames::Location;
use crate::repository::hash::Hash;
use crate::repository::manifest::ChunkName;
use crate::snapshot::anchor::{ends_a_transaction, unless_shorter};

use super::{Check, damage};

/// How many different chunks of snapshots are compared with a file byte by byte.
const DIFFERENCES: usize = 100;

/// The snapshots of a database as it is now.
pub(super) struct Lists {
    /// By sequence.
    lists: Vec<List>,
}

struct List {
    stream: Stream,
    /// The chunks that it has of its own.
    own: Vec<(u64, ChunkName)>,
    /// Whether its snapshot is one that can be restored: not deleted, nor set aside.
    counts: bool,
}

impl Lists {
    pub(super) fn read(check: &Check<'_>, database: &Database) -> Result<Self> {
        let read = |catalog: &Catalog| -> Result<Self> {
            let set_aside = catalog.streams_set_aside()?;
            let mut lists = Vec::new();
            for stream in catalog.streams_with_deleted()? {
                if stream.database == database.row && stream.generation == database.generation.row {
                    let own = catalog.own_chunks(stream.row)?;
                    let counts = !set_aside.contains(&stream.row) && !catalog.is_deleted(stream.snapshot)?;
                    lists.push(List { stream, own, counts });
                }
            }
            Ok(Lists { lists })
        };
        check.reading.interruptible(check.monitor, |catalog| catalog.snapshot_of(read))
    }

    /// Where the catalog can't be read.
    pub(super) fn none() -> Self {
        Lists { lists: Vec::new() }
    }

    fn live(&self) -> impl Iterator<Item = &Stream> {
        self.lists.iter().filter(|list| list.counts).map(|list| &list.stream)
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.live().map(|stream| stream.snapshot_name.clone()).collect()
    }
}

/// How a file compares with the snapshots.
pub(super) struct Compared {
    /// Up to where it has what some snapshot has.
    pub(super) same_upto: u64,
    /// Of the snapshots all of whose bytes it begins with, the one that reaches furthest.
    pub(super) last_good: Option<String>,
    /// Those from which it differs.
    pub(super) forks: Vec<Fork>,
    /// Why a part of the file couldn't be read, if one couldn't: it isn't known whether that differs.
    pub(super) unreadable: Option<String>,
}

/// A snapshot from which a file differs, and may have gone another way.
pub(super) struct Fork {
    pub(super) stream: Stream,
    /// Up to where its chunks are in the file.
    pub(super) same_upto: u64,
    /// The first offset that differs, if that can be told: the chunk in which it is may be lost.
    pub(super) at: Option<u64>,
    /// Whether the snapshot's last transaction is where it was, so that the file should be as the snapshot.
    pub(super) goes_on: bool,
    /// Whether another transaction begins just there.
    pub(super) another_transaction: bool,
}

impl Compared {
    /// Whether a snapshot has the whole of the transaction that begins here, which isn't complete in the file of this size: one
    /// with the same id. (Up to the end of the file it may be the beginning of any.)
    pub(super) fn has_transaction(&self, position: u64, size: u64) -> bool {
        let behind_id = position.saturating_add(8);
        let differs_behind = |fork: &Fork| fork.at.is_some_and(|at| (behind_id..size).contains(&at));
        self.same_upto >= behind_id || self.forks.iter().any(differs_behind)
    }
}

/// How far a file is as a list, and the first chunk that differs, unless the list ends or has a gap there.
#[derive(Clone, Copy)]
struct Reached {
    upto: u64,
    differs: Option<(u64, ChunkName)>,
}

/// Compares the file with every list, chunk by chunk: what lists share is read once.
pub(super) fn compare(
    check: &Check<'_>,
    lists: &Lists,
    file: &DataFile,
    size: u64,
    base_length: u64,
) -> Result<Compared> {
    check.monitor.begin("comparing with the snapshots", size.saturating_sub(base_length));
    let mut reached: HashMap<i64, Reached> = HashMap::new();
    let mut furthest = base_length;
    let mut unreadable = None;
    for List { stream, own, .. } in &lists.lists {
        let parent = stream.parent.and_then(|parent| reached.get(&parent)).copied();
        let mut so_far = parent.unwrap_or(Reached { upto: base_length, differs: None });
        if so_far.upto >= stream.kept_length {
            so_far = Reached { upto: stream.kept_length, differs: None };
            along(check, file, size, own, &mut so_far, &mut furthest, &mut unreadable)?;
        }
        reached.insert(stream.row, so_far);
    }
    check.monitor.end();
    let is_same = |stream: &&Stream| reached.get(&stream.row).is_some_and(|reached| reached.upto == stream.cut.offset);
    // Of several that end at the same place, the newest.
    let last_good =
        lists.live().filter(is_same).max_by_key(|stream| stream.cut.offset).map(|stream| stream.snapshot_name.clone());
    let mut forks = Vec::new();
    let mut chunks = DifferentChunks::new(check, file, size);
    for stream in lists.live().filter(|stream| !is_same(stream)) {
        // A list with a gap is damaged, which is found elsewhere; it says nothing of the file.
        let Some(&Reached { upto, differs: Some((offset, chunk)) }) = reached.get(&stream.row) else { continue };
        let goes_on = stream.cut.offset <= size && ends_a_transaction(file, &stream.cut).unwrap_or(false);
        let at = chunks.differ_at(stream, offset, chunk)?;
        forks.push(Fork { stream: stream.clone(), same_upto: upto, at, goes_on, another_transaction: false });
    }
    Ok(Compared { same_upto: furthest, last_good, forks, unreadable })
}

/// Goes along the chunks that a list has of its own.
fn along(
    check: &Check<'_>,
    file: &DataFile,
    size: u64,
    own: &[(u64, ChunkName)],
    reached: &mut Reached,
    furthest: &mut u64,
    unreadable: &mut Option<String>,
) -> Result<()> {
    let mut bytes = Vec::new();
    for &(offset, chunk) in own {
        check.monitor.check()?;
        // No chunk of a tail is longer than this, whatever a damaged catalog says.
        if offset != reached.upto || chunk.length as usize > chunker::MAX {
            break;
        }
        let end = offset.saturating_add(u64::from(chunk.length));
        bytes.resize(chunk.length as usize, 0);
        let is_there = end <= size
            && match unless_shorter(file.read_exact_at(&mut bytes, offset)) {
                Ok(read) => read.is_some(),
                Err(error) => {
                    *unreadable = Some(damage(error)?);
                    break;
                }
            };
        if !is_there || Hash::of(&bytes) != chunk.hash {
            reached.differs = Some((offset, chunk));
            break;
        }
        check.monitor.advance(end.saturating_sub(offset.max(*furthest)));
        *furthest = end.max(*furthest);
        reached.upto = end;
    }
    Ok(())
}

/// Chunks of snapshots from which a file differs, and where each does; many snapshots have the same.
struct DifferentChunks<'c> {
    check: &'c Check<'c>,
    file: &'c DataFile,
    size: u64,
    reader: ChunkReader,
    known: HashMap<(u64, Hash), Option<u64>>,
}

impl<'c> DifferentChunks<'c> {
    fn new(check: &'c Check<'c>, file: &'c DataFile, size: u64) -> Self {
        let reader = ChunkReader::new(check.layout(), &check.repository.counters);
        DifferentChunks { check, file, size, reader, known: HashMap::new() }
    }

    /// The first offset at which the file differs from a chunk; `None` if the chunk can't be had, or if it is one of too many.
    fn differ_at(&mut self, stream: &Stream, offset: u64, chunk: ChunkName) -> Result<Option<u64>> {
        if let Some(at) = self.known.get(&(offset, chunk.hash)) {
            return Ok(*at);
        }
        if self.known.len() >= DIFFERENCES {
            return Ok(None);
        }
        let at = match self.look(stream, offset, chunk) {
            Ok(at) => at,
            Err(error) => damage(error).map(|_| None)?,
        };
        self.known.insert((offset, chunk.hash), at);
        Ok(at)
    }

    fn look(&mut self, stream: &Stream, offset: u64, chunk: ChunkName) -> Result<Option<u64>> {
        let there = self.check.catalog().stream_chunks(stream.row, offset, offset.saturating_add(1))?.pop();
        // A gc may have replaced the list meanwhile.
        let is_it = |location: &Location| location.hash == chunk.hash && location.length == chunk.length;
        let Some(there) = there.filter(|there| there.offset == offset && is_it(&there.location)) else {
            return Ok(None);
        };
        let mut bytes = vec![0; there.end().min(self.size).saturating_sub(offset) as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        self.reader.with_chunk(&there.location, |stored| {
            let same = stored.iter().zip(&bytes).take_while(|(one, other)| one == other).count();
            Ok(Some(offset + same as u64))
        })
    }
}
