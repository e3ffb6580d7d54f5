//! What a restore will do, worked out without doing it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Forwards, Source, Tid, find_cut, read_transaction};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Database, Snapshot, Stream, StreamChunk};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::hash::{Hash, ListHash};
use crate::snapshot::anchor::{begins_with, damaged_list, known_end, nearest, unless_shorter};
use crate::snapshot::base::{needs_file, source_of, whole_chunks};
use crate::snapshot::blobs::{self, plan::BlobPlan};
use crate::snapshot::choice::of_snapshot;
use crate::snapshot::handle::Repository;
use crate::snapshot::links::has_other_names;
use crate::snapshot::log::LogEntry;

/// What a restore will do.
#[derive(Debug, Clone, Serialize)]
pub struct RestorePlan {
    /// The snapshot that is put back.
    pub id: String,
    /// Per database.
    pub databases: Vec<DatabasePlan>,
    /// The names of the databases that stay as they are: the snapshot doesn't have them, or others were asked for.
    pub untouched: Vec<String>,
}

/// What a restore will do with one database.
#[derive(Debug, Clone, Serialize)]
pub struct DatabasePlan {
    /// Its name.
    pub name: String,
    /// Its file.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// The snapshot that the file begins with now.
    pub from: Option<String>,
    /// How long the file is now.
    pub size: u64,
    /// How long it will be.
    pub target: u64,
    /// The last transaction that it will have.
    pub target_tid: String,
    /// The time of that transaction.
    pub target_time: Option<Timestamp>,
    /// Bytes that stay as they are.
    pub keep: u64,
    /// Bytes that will be cut off behind them.
    pub cut_off: u64,
    /// Bytes that will be written behind them.
    pub write: u64,
    /// Bytes at the end of the file that are no complete transaction, in words.
    pub left_out: Option<String>,
    /// What is wrong with the end of the file, if ZODB would not open it: what is there can't be told.
    pub damage: Option<String>,
    /// How many transactions no snapshot holds: they are saved first, or dropped if that is asked for.
    pub unsaved: u64,
    /// The first of them, oldest first.
    pub unsaved_transactions: Vec<LogEntry>,
    /// Whether transactions that the file has now won't be in it.
    pub goes_back: bool,
    /// Whether the file has other names (hard links), and so is built beside and renamed in.
    pub beside: bool,
    /// Whether a pack lies between, and so the whole file is built beside and renamed in.
    pub anew: bool,
    /// What will be done with its blobs, if it has a blob directory.
    pub blobs: Option<BlobPlan>,
    /// How many blobs the snapshot has of it, if it has no blob directory that they could be put in.
    pub homeless_blobs: u64,
    /// What happened to the file since the last snapshot, so that it is saved first: `packed` or `converted`.
    pub new_life: Option<&'static str>,
    /// What execution needs beyond this.
    #[serde(skip)]
    pub(crate) work: Work,
}

/// What execution needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) base_length: u64,
    pub(crate) target: Stream,
    /// The furthest-reaching snapshot that the file begins with.
    pub(crate) now: Option<Stream>,
    /// Where its last complete transaction ends, as far as that can be told.
    pub(crate) end: u64,
    /// The chunks that hold what is written.
    pub(crate) chunks: Vec<StreamChunk>,
}

/// How many unsaved transactions are listed one by one.
const LISTED: usize = 100;

impl RestorePlan {
    /// All transactions that no snapshot holds, over all databases.
    pub fn unsaved(&self) -> u64 {
        self.databases.iter().map(|database| database.unsaved).sum()
    }

    /// Whether any database goes back behind transactions that it has now.
    pub fn goes_back(&self) -> bool {
        self.databases.iter().any(|database| database.goes_back)
    }
}

/// Plans to put a snapshot back into the open files of its databases, or of those that are named. A `dry` plan may need a base that isn't stored, but will be.
pub(crate) fn plan(
    repository: &Repository,
    snapshot: &Snapshot,
    only: &[String],
    files: &[(Database, DataFile)],
    dry: bool,
    monitor: &dyn Monitor,
) -> Result<RestorePlan> {
    let chosen = of_snapshot(repository, snapshot, only)?;
    let mut databases = Vec::new();
    for (_, stream) in chosen.parts {
        let (database, file) =
            files.iter().find(|(database, _)| database.row == stream.database).ok_or_else(|| damaged_list(&stream))?;
        databases.push(plan_database(repository, (database, file), stream, dry, monitor)?);
    }
    Ok(RestorePlan { id: snapshot.name.clone(), databases, untouched: chosen.untouched })
}

fn plan_database(
    repository: &Repository,
    (database, file): (&Database, &DataFile),
    target: Stream,
    dry: bool,
    monitor: &dyn Monitor,
) -> Result<DatabasePlan> {
    let catalog = &repository.catalog;
    let generation = &database.generation;
    let anew = target.generation != generation.row;
    let size = file.size()?;
    let base_length = generation.known.base_length;
    let now = nearest(file, size, catalog, generation.row)?;
    let saved = known_end(now.as_ref(), &generation.known);
    // Damage behind the last snapshot is a reason to go back, not one to refuse it.
    let (cut, damage) = match find_cut(file, saved, size, monitor) {
        Ok(cut) => (Some(cut), None),
        Err(error) if error.kind() == Kind::Failed && error.io_error().is_none() => (None, Some(error.to_string())),
        Err(error) => return Err(error),
    };
    let damage_found = damage.is_some();
    let end = cut.as_ref().map_or(saved.offset, |cut| cut.offset);
    let (mut keep, mut chunks) = if anew {
        let whole = match whole_chunks(catalog, &target)? {
            None if dry
                && source_of(&repository.layout, file.path(), &catalog.generation(target.generation)?.known)?
                    .is_some() =>
            {
                Some(Vec::new())
            }
            whole => whole,
        };
        (FIRST_TRANSACTION, whole.ok_or_else(|| needs_file(file.path(), &target))?)
    } else if begins_with(file, size, catalog, &target)? {
        (target.cut.offset, Vec::new())
    } else {
        difference(catalog, now.as_ref(), &target, base_length)?
    };
    if keep < size && !anew {
        keep = shared_with(repository, (file, size), &chunks, keep, monitor)?;
        chunks.retain(|chunk| chunk.end() > keep);
    }
    // What lies behind the nearest snapshot may be the beginning of what another one holds: a file that a crash cut
    // short, or a restore that was interrupted.
    let held = if keep >= end {
        keep
    } else {
        held_by_any(repository, (file, end), generation.row, now.as_ref(), base_length, monitor)?
    };
    let mut unsaved = 0;
    let mut unsaved_transactions = Vec::new();
    for header in Forwards::new(file, saved.offset, end) {
        monitor.check()?;
        let header = header?;
        if header.end() <= held {
            continue;
        }
        unsaved += 1;
        if unsaved_transactions.len() < LISTED {
            unsaved_transactions.push(LogEntry::new(&read_transaction(file, &header)?));
        }
    }
    let blobs = blobs::plan::plan(repository, database, Some(&target), now.as_ref())?;
    Ok(DatabasePlan {
        name: database.name.clone(),
        path: file.path().to_path_buf(),
        from: now.as_ref().map(|stream| stream.snapshot_name.clone()),
        size,
        target: target.cut.offset,
        target_tid: Tid(target.cut.tid).to_string(),
        target_time: (target.cut.last_length > 0).then(|| Tid(target.cut.tid).time()),
        keep,
        cut_off: size - keep,
        write: target.cut.offset - keep,
        left_out: cut.and_then(|cut| cut.left_out).map(|left| left.to_string()),
        damage,
        unsaved,
        unsaved_transactions,
        goes_back: end > keep || damage_found,
        beside: has_other_names(&repository.layout, file)?,
        anew,
        blobs,
        homeless_blobs: if database.blobs.is_some() { 0 } else { target.blobs.as_ref().map_or(0, |blobs| blobs.count) },
        new_life: None,
        work: Work { base_length: if anew { FIRST_TRANSACTION } else { base_length }, target, now, end, chunks },
    })
}

/// Up to where a file that begins with `now` and the target are the same, and the target's chunks behind
/// that, whose list is checked against its hash.
fn difference(
    catalog: &Catalog,
    now: Option<&Stream>,
    target: &Stream,
    base_length: u64,
) -> Result<(u64, Vec<StreamChunk>)> {
    let shared = match now {
        None => None,
        Some(now) => {
            let line = catalog.ancestry(now.row)?;
            catalog.ancestry(target.row)?.into_iter().find(|stream| line.iter().any(|other| other.row == stream.row))
        }
    };
    let mut keep = shared.as_ref().map_or(base_length, |stream| stream.cut.offset);
    let chunks = checked_chunks(catalog, target, shared.as_ref(), base_length)?;
    if let Some(now) = now.filter(|now| now.cut.offset > keep && target.cut.offset > keep) {
        // Both go on behind what they share by descent; perhaps with the same bytes for a while.
        let shared_end = keep;
        let mut others = catalog.stream_chunks(now.row, keep, now.cut.offset)?.into_iter().peekable();
        for chunk in chunks.iter().filter(|chunk| chunk.end() > shared_end) {
            while others.next_if(|other| other.offset < chunk.offset).is_some() {}
            let same = others.peek().is_some_and(|other| {
                other.offset == chunk.offset
                    && other.location.hash == chunk.location.hash
                    && other.location.length == chunk.location.length
            });
            if !same {
                break;
            }
            keep = chunk.end();
        }
    }
    let needed = chunks.into_iter().filter(|chunk| chunk.end() > keep).collect();
    Ok((keep, needed))
}

/// Up to where the file has the same bytes as the chunks, which are a stream's from before `from` on; at least `from`.
pub(crate) fn shared_with(
    repository: &Repository,
    (file, size): (&DataFile, u64),
    chunks: &[StreamChunk],
    from: u64,
    monitor: &dyn Monitor,
) -> Result<u64> {
    let mut reader = ChunkReader::new(&repository.layout, &repository.counters);
    let mut shared = from;
    let mut bytes = Vec::new();
    for chunk in chunks {
        if chunk.end() <= shared {
            continue;
        }
        monitor.check()?;
        let (start, end) = (shared.max(chunk.offset), chunk.end().min(size));
        if start != shared || start >= end {
            break;
        }
        bytes.resize((end - start) as usize, 0);
        if unless_shorter(file.read_exact_at(&mut bytes, start))?.is_none() {
            break;
        }
        let same = if bytes.len() == chunk.location.length as usize {
            // A whole chunk is told by its hash alone.
            if Hash::of(&bytes) == chunk.location.hash {
                bytes.len()
            } else {
                differs_at(&mut reader, chunk, start, &bytes)?
            }
        } else {
            differs_at(&mut reader, chunk, start, &bytes)?
        };
        shared += same as u64;
        if same < bytes.len() || shared < chunk.end() {
            break;
        }
    }
    Ok(shared)
}

/// How many of the bytes, which lie at `start` of the file, a chunk has in the same place.
fn differs_at(reader: &mut ChunkReader, chunk: &StreamChunk, start: u64, bytes: &[u8]) -> Result<usize> {
    reader.with_chunk(&chunk.location, |stored| {
        let stored = stored.get((start - chunk.offset) as usize..).unwrap_or_default();
        Ok(stored.iter().zip(bytes).take_while(|(a, b)| a == b).count())
    })
}

/// How many snapshots are compared with what lies behind the nearest one.
const CANDIDATES: usize = 50;

/// Up to where some snapshot holds what the file has behind the nearest one, `end` at most being of interest.
fn held_by_any(
    repository: &Repository,
    (file, end): (&DataFile, u64),
    generation: i64,
    now: Option<&Stream>,
    base_length: u64,
    monitor: &dyn Monitor,
) -> Result<u64> {
    let catalog = &repository.catalog;
    let from = now.map_or(base_length, |stream| stream.cut.offset);
    let mut held = from;
    for stream in catalog.streams_beyond(generation, from, CANDIDATES)? {
        let chunks = catalog.stream_chunks(stream.row, from, stream.cut.offset)?;
        held = held.max(shared_with(repository, (file, end), &chunks, from, monitor)?.min(stream.cut.offset));
        if held >= end {
            break;
        }
    }
    Ok(held)
}

/// A stream's chunks from the last final one of an ancestor on (or from the base on), after checking
/// that they follow each other without a gap and that the list has the hash that it should have.
pub(crate) fn checked_chunks(
    catalog: &Catalog,
    stream: &Stream,
    ancestor: Option<&Stream>,
    base_length: u64,
) -> Result<Vec<StreamChunk>> {
    let (from, mut hash) = match ancestor {
        Some(ancestor) => (ancestor.last_final.length, ancestor.last_final.hash),
        None => (base_length, ListHash::default()),
    };
    let chunks = catalog.stream_chunks(stream.row, from, stream.cut.offset)?;
    let mut reached = from;
    for chunk in &chunks {
        if chunk.offset != reached {
            return Err(damaged_list(stream));
        }
        reached = chunk.end();
        hash = hash.extended(chunk.location.length, &chunk.location.hash);
    }
    if reached != stream.cut.offset || hash != stream.list_hash {
        return Err(damaged_list(stream));
    }
    Ok(chunks)
}

/// Refuses a plan by which something would be dropped that can't be saved first.
pub(crate) fn refuse_damage(plan: &RestorePlan) -> Result<()> {
    let Some((database, damage)) =
        plan.databases.iter().find_map(|database| Some((database, database.damage.as_ref()?)))
    else {
        return Ok(());
    };
    Err(Error::failed(format!(
        "restoring {} would drop the end of {}, of which it can't be told what is in it: {damage}",
        plan.id, database.name
    ))
    .hint(format!(
        "copy {} first if it matters; znap restore --discard {} drops it",
        database.path.display(),
        plan.id
    )))
}
