//! Finishing a restore that was interrupted: forward, or back to what was there before.
//!
//! Files are judged by their content, as everywhere. A database that is fenced is the restore's: of what stays of
//! it, the last chunk is checked, and all that follows is written again. One that isn't fenced was not touched yet, and has to be as
//! it was; or, once [`Stage::Restored`] or [`Stage::TakenBack`] is recorded, it is done, and may be in use again.

use std::path::Path;

use serde::Serialize;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::filestorage::fence::notice_path;
use crate::filestorage::{DataFile, Magic, Source, StorageLock};
use crate::monitor::Monitor;
use crate::repository::catalog::{Database, Stream, StreamChunk};
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frames::FrameFiles;
use crate::snapshot::anchor::{Recognition, begins_with, damaged_list, recognise};
use crate::snapshot::caches::CacheMoved;
use crate::snapshot::carry_out::{Change, Done, Prepared, carry_out, end, open_again, tidy};
use crate::snapshot::handle::Repository;
use crate::snapshot::journal::{Entry, Journal, Named, Stage};
use crate::snapshot::plan::{checked_chunks, shared_with};
use crate::snapshot::restore::{lock_all, refuse_opened};

/// In which direction an unfinished restore is to be finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the snapshot.
    Forward,
    /// To what was there before.
    Back,
}

/// How an unfinished restore was finished.
#[derive(Debug, Clone, Serialize)]
pub struct Finished {
    /// The snapshot that was to be restored.
    pub id: String,
    /// Whether it is restored now; else everything is as it was before.
    pub restored: bool,
    /// Bytes written into databases and their indexes.
    pub database_bytes_written: u64,
    /// Caches of ZEO clients that remember what is gone, and were taken away.
    pub zeo_caches: Vec<CacheMoved>,
}

/// A database of the unfinished restore, and what it is to become.
struct Left {
    file: DataFile,
    goal: Option<Stream>,
    keep: u64,
    chunks: Vec<StreamChunk>,
    goes_back: bool,
}

/// Finishes the unfinished restore. `None` if there is none: what may be left beside databases is removed.
pub fn finish(repository: &mut Repository, way: Way, monitor: &dyn Monitor) -> Result<Option<Finished>> {
    repository.writer_lock()?;
    let Some(mut journal) = Journal::unfinished(&repository.layout, repository.uid)? else {
        for database in repository.catalog.databases()? {
            remove_stale_notice(repository.disk(), &repository.path_of(&database))?;
        }
        return Ok(None);
    };
    if way == Way::Back && journal.stage == Stage::Restored {
        return Err(Error::failed(format!(
            "it is too late to abort: all of {} is restored, and a database may be in use again",
            journal.target.id
        ))
        .hint("znap restore --resume ends it; then znap undo takes it back"));
    }
    let _locks = lock_all(repository)?;
    let entries = journal.databases.clone();
    let goal = match (way, journal.stage) {
        (Way::Back, _) | (_, Stage::TakenBack) => Way::Back,
        _ => Way::Forward,
    };
    let databases = repository.catalog.databases()?;
    let mut left = Vec::new();
    for entry in &entries {
        left.push(look(repository, &databases, &journal, entry, goal)?);
    }
    // Before the journal ends, or nobody would know of it.
    for database in left.iter().filter(|database| !database.file.is_fenced()) {
        tidy(repository.disk(), database.file.path())?;
    }
    let done = if journal.stage == Stage::Writing {
        write(repository, &mut journal, &left, goal, monitor)?
    } else {
        for database in left.iter().filter(|database| database.file.is_fenced()) {
            open_again(repository, database.file.file(), database.file.path(), &database.file)?;
        }
        end(repository, &journal)?;
        Done { written: 0, caches: Vec::new() }
    };
    Ok(Some(Finished {
        id: journal.target.id,
        restored: goal == Way::Forward,
        database_bytes_written: done.written,
        zeo_caches: done.caches,
    }))
}

/// Removes the text that a power cut may have left beside a database that is whole.
fn remove_stale_notice(disk: &Disk, path: &Path) -> Result<()> {
    let notice = notice_path(path);
    // Who restores it from another repository holds its lock.
    if notice.exists() && DataFile::open(path).is_ok() {
        let _lock = StorageLock::acquire(path)?;
        if DataFile::open(path).is_ok() {
            disk.remove(&notice)?;
        }
    }
    Ok(())
}

/// Opens a database and checks that it is as the journal left it.
fn look(repository: &Repository, databases: &[Database], journal: &Journal, entry: &Entry, goal: Way) -> Result<Left> {
    let missing = |what: &str| {
        Error::damaged(format!("the catalog lacks {what}, which the unfinished restore needs"))
            .hint("put the catalog.db back that belongs to it")
    };
    let database = databases
        .iter()
        .find(|database| database.uid == entry.uid)
        .ok_or_else(|| missing(&format!("the database {}", entry.name)))?;
    let bytes = <[u8; 4]>::try_from(entry.magic.as_bytes()).ok();
    let magic = bytes.and_then(Magic::from_bytes).ok_or_else(|| missing("the kind of the database"))?;
    let path = repository.path_of(database);
    let file = DataFile::open_fenced_or_not(&path, magic)?;
    refuse_opened(&file)?;
    let stream = |named: &Named| -> Result<Stream> {
        let snapshot = repository
            .catalog
            .snapshot_by_uid(&named.uid)?
            .ok_or_else(|| missing(&format!("snapshot {}", named.id)))?;
        let streams = repository.catalog.streams_of(snapshot.row)?;
        let mine = streams.into_iter().find(|stream| stream.database == database.row);
        mine.ok_or_else(|| missing(&format!("snapshot {} of {}", named.id, entry.name)))
    };
    let target = stream(&journal.target)?;
    let back = entry.back.as_ref().map(stream).transpose()?;
    let base_length = database.generation.known.base_length;
    let is_as_left = match (file.is_fenced(), journal.stage) {
        (true, Stage::Writing) => {
            recognise(&file, &database.generation.known)? == Recognition::Same
                && keeps(repository, &file, &target, base_length, entry.keep)?
        }
        // Whole, but for the fence.
        (true, Stage::Restored) => ends_at(repository, &file, Some(&target), base_length)?,
        (true, Stage::TakenBack) => ends_at(repository, &file, back.as_ref(), base_length)?,
        (false, Stage::Writing) => {
            let begins = match &back {
                Some(back) => begins_with(&file, file.size()?, &repository.catalog, back)?,
                None => true,
            };
            recognise(&file, &database.generation.known)? == Recognition::Same && file.size()? == entry.size && begins
        }
        // Done, and perhaps in use since.
        (false, _) => true,
    };
    if !is_as_left {
        let state = if file.is_fenced() { "half restored" } else { "not changed by the restore yet" };
        return Err(Error::failed(format!(
            "{} is not as the unfinished restore left it ({state}): it was changed or replaced since",
            path.display()
        ))
        .hint(format!(
            "nothing was changed now; put the file back that was there, or write the snapshot elsewhere: znap restore --to DIR {}",
            journal.target.id
        )));
    }
    let goal = if goal == Way::Forward { Some(target) } else { back };
    let (keep, chunks) = match &goal {
        Some(goal) => {
            let keep = entry.keep.min(goal.cut.offset);
            let mut chunks = checked_chunks(&repository.catalog, goal, None, base_length)?;
            chunks.retain(|chunk| chunk.end() > keep);
            (keep, chunks)
        }
        None => (entry.keep.min(base_length), Vec::new()),
    };
    Ok(Left { file, goal, keep, chunks, goes_back: entry.size > entry.keep })
}

/// Whether the last chunk of what stays is what the snapshot has there.
fn keeps(repository: &Repository, file: &DataFile, target: &Stream, base_length: u64, keep: u64) -> Result<bool> {
    if file.size()? < keep {
        return Ok(false);
    }
    if keep <= base_length {
        return Ok(true);
    }
    let chunks = repository.catalog.stream_chunks(target.row, keep - 1, keep)?;
    let Some(chunk) = chunks.first() else { return Err(damaged_list(target)) };
    Ok(shared_with(repository, file, keep, &chunks, chunk.offset)? == keep)
}

/// Whether a file ends where this snapshot does, with what it has there.
fn ends_at(repository: &Repository, file: &DataFile, stream: Option<&Stream>, base_length: u64) -> Result<bool> {
    let size = file.size()?;
    match stream {
        Some(stream) => Ok(size == stream.cut.offset && begins_with(file, size, &repository.catalog, stream)?),
        None => Ok(size == base_length),
    }
}

/// Writes every database again that has to be, and ends in the stage that belongs to the way.
fn write(
    repository: &Repository,
    journal: &mut Journal,
    left: &[Left],
    way: Way,
    monitor: &dyn Monitor,
) -> Result<Done> {
    use std::os::unix::fs::MetadataExt;
    let object_files = FrameFiles::new(&repository.layout, &repository.counters);
    let mut budget = 2 * FRAME_LIMIT;
    let mut prepared = Vec::new();
    for database in left {
        // What wasn't touched is as it was before.
        if way == Way::Back && !database.file.is_fenced() {
            continue;
        }
        let change = Change {
            file: &database.file,
            keep: database.keep,
            target: database.goal.as_ref(),
            chunks: &database.chunks,
            beside: !database.file.is_fenced() && database.file.metadata()?.nlink() > 1,
            goes_back: database.goes_back,
        };
        prepared.push(Prepared::new(repository, change, &object_files, &mut budget, monitor)?);
    }
    let stage = if way == Way::Forward { Stage::Restored } else { Stage::TakenBack };
    carry_out(repository, &mut prepared, journal, stage, monitor)
}
