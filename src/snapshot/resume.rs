//! Finishing a restore that was interrupted: forward, or back to what was there before.
//!
//! Files are judged by their content, as everywhere. A database that is fenced is the restore's: of what stays of
//! it, the last chunk is checked, and all that follows is written again. One that isn't fenced was not touched yet, and has to be as
//! it was; or, once [`Stage::Restored`] or [`Stage::TakenBack`] is recorded, it is done, and may be in use again.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk::Disk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::fence::notice_path;
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Magic, Source, StorageLock};
use crate::monitor::{Monitor, Silent};
use crate::repository::catalog::{Database, Stream, StreamChunk};
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frames::FrameFiles;
use crate::repository::manifest::Generation;
use crate::snapshot::anchor::{begins_any, begins_with, damaged_list, is_of, magic_of};
use crate::snapshot::base::whole_chunks;
use crate::snapshot::blobs::plan::BlobPlan;
use crate::snapshot::blobs::put::{are_left, take_out};
use crate::snapshot::blobs::{self, directory_of};
use crate::snapshot::caches::CacheMoved;
use crate::snapshot::carry_out::{Change, Done, Prepared, carry_out, end, open_again, tidy, unfinished};
use crate::snapshot::database::shell_word;
use crate::snapshot::generations::record_lives;
use crate::snapshot::handle::Repository;
use crate::snapshot::journal::{Entry, Journal, Named, Stage};
use crate::snapshot::left_out::path_of;
use crate::snapshot::links::{self, has_other_names};
use crate::snapshot::plan::{checked_chunks, shared_with};
use crate::snapshot::reserve;
use crate::snapshot::restore::{lock_all, refuse_opened, require_unchanged};

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
    /// Whether what no snapshot held is gone for good, because the restore was told to drop it.
    pub dropped: bool,
    /// The files that hold what lay behind the last complete transactions of databases, and isn't put back.
    #[serde(serialize_with = "crate::snapshot::database::as_texts")]
    pub left_out: Vec<PathBuf>,
    /// Databases that the restore hadn't touched yet, and that have been used since: they were left alone.
    pub left_alone: Vec<String>,
    /// Bytes written into databases and their indexes.
    pub database_bytes_written: u64,
    /// Caches of ZEO clients that remember what is gone, and were taken away.
    pub zeo_caches: Vec<CacheMoved>,
    /// Whether blobs that don't belong there could not all be removed; ZODB looks at none of them.
    pub blobs_left: bool,
}

/// A database of the unfinished restore, and what it is to become.
struct Left {
    name: String,
    file: DataFile,
    /// What it was when it was looked at: how long, and whether it has other names.
    size: u64,
    linked: bool,
    goal: Option<Stream>,
    /// The first four bytes that it will have, and whether a pack lies between.
    magic: Magic,
    anew: bool,
    keep: u64,
    chunks: Vec<StreamChunk>,
    goes_back: bool,
    blobs: Option<BlobPlan>,
    /// Whether it wasn't touched by the restore, and is not as it was then.
    was_used: bool,
}

/// Finishes the unfinished restore. `None` if there is none: what may be left beside databases is removed.
pub fn finish(repository: &mut Repository, way: Way, monitor: &dyn Monitor) -> Result<Option<Finished>> {
    repository.writer_lock()?;
    let root = shell_word(repository.root());
    finish_it(repository, way, monitor).map_err(|error| match error.kind() {
        Kind::Interrupted(_) if error.hint_text().is_none() => unfinished(error, &root),
        _ => error,
    })
}

fn finish_it(repository: &mut Repository, way: Way, monitor: &dyn Monitor) -> Result<Option<Finished>> {
    let Some(mut journal) = Journal::unfinished(&repository.layout, repository.uid)? else {
        for database in repository.catalog.databases()? {
            let path = repository.path_of(&database);
            refuse_lost_journal(&path)?;
            remove_stale_notice(repository.disk(), &path)?;
            if let Some((directory, _)) = directory_of(repository, &database) {
                blobs::put::clear(repository.disk(), &directory)?;
            }
        }
        return Ok(None);
    };
    // What is read may not be on the disk yet, if it was interrupted just then; and files are about to be changed.
    repository.disk().sync_directory(repository.layout.root())?;
    repository.counters.fsync();
    for database in repository.catalog.databases()? {
        // So may what is in a blob directory: it was synced as far as the restore came, and is left alone if it is right.
        if let Some((directory, _)) = directory_of(repository, &database)
            && directory.try_exists().at("look at", &directory)?
        {
            let opened = File::open(&directory).at("open", &directory)?;
            repository.disk().sync_file_system(&opened, &directory)?;
            repository.counters.fsync();
        }
    }
    reserve::release_if_needed(&repository.layout)?;
    if way == Way::Back && journal.stage == Stage::Restored {
        return Err(Error::failed(format!(
            "it is too late to abort: all of {} is restored, and a database may be in use again",
            journal.target.id
        ))
        .hint("znap restore --resume ends it; then znap undo takes it back"));
    }
    let left_out = left_out_files(repository, &journal)?;
    let finished = |journal: &Journal, goal: Way, left_alone: Vec<String>, done: Done| Finished {
        id: journal.target.id.clone(),
        restored: goal == Way::Forward,
        dropped: goal == Way::Back && (journal.before.is_none() || journal.drops_left_out()),
        left_out: left_out
            .iter()
            .filter(|(name, _)| !left_alone.contains(name))
            .map(|(_, path)| path.clone())
            .collect(),
        left_alone,
        database_bytes_written: done.written,
        zeo_caches: done.caches,
        blobs_left: done.blobs_left,
    };
    if journal.stage != Stage::Writing {
        let goal = if journal.stage == Stage::Restored { Way::Forward } else { Way::Back };
        let blobs_left = open_all_again(repository, &journal, goal, monitor)?;
        end(repository, &journal)?;
        record_lives(repository)?;
        let _ = reserve::replenish(&repository.layout);
        return Ok(Some(finished(&journal, goal, Vec::new(), Done { blobs_left, ..Done::default() })));
    }
    let entries = journal.databases.clone();
    let databases = repository.catalog.databases()?;
    let own: Vec<Database> =
        entries.iter().map(|entry| known(&databases, entry).cloned()).collect::<Result<Vec<_>>>()?;
    let _locks = lock_all(repository, &own)?;
    let mut left = Vec::new();
    for entry in &entries {
        let database = look(repository, &databases, &journal, entry, way)?;
        refuse_opened(&database.file)?;
        left.push(database);
    }
    // Before the journal ends, or nobody would know of it.
    for database in left.iter().filter(|database| !database.file.is_fenced()) {
        tidy(repository.disk(), database.file.path())?;
        if let Some(blobs) = &database.blobs {
            blobs::put::clear(repository.disk(), &blobs.path)?;
        }
    }
    let done = write(repository, &mut journal, &left, way, monitor)?;
    record_lives(repository)?;
    let _ = links::refresh(repository, false);
    let _ = reserve::replenish(&repository.layout);
    let left_alone = left.iter().filter(|database| database.was_used).map(|database| database.name.clone()).collect();
    Ok(Some(finished(&journal, way, left_alone, done)))
}

/// The names of the databases of which something was left out and kept, and the files that hold it.
fn left_out_files(repository: &Repository, journal: &Journal) -> Result<Vec<(String, PathBuf)>> {
    let databases = repository.catalog.databases()?;
    let mut files = Vec::new();
    for entry in &journal.databases {
        if let Some(number) = entry.left_out.and_then(|left_out| left_out.kept) {
            let path = repository.path_of(known(&databases, entry)?);
            files.push((entry.name.clone(), path_of(&path, number)));
        }
    }
    Ok(files)
}

/// Lets ZODB open every database again: all of them are whole. Returns whether blobs that don't belong there are left.
fn open_all_again(repository: &Repository, journal: &Journal, goal: Way, monitor: &dyn Monitor) -> Result<bool> {
    let mut blobs_left = false;
    let databases = repository.catalog.databases()?;
    for entry in &journal.databases {
        let path = repository.path_of(known(&databases, entry)?);
        let lock = StorageLock::acquire(&path);
        let database = look(repository, &databases, journal, entry, goal)?;
        match lock {
            // Also where there is no fence any more: it may not be on the disk that there is none.
            Ok(_lock) => {
                let magic = if database.file.is_fenced() { database.magic } else { database.file.magic() };
                open_again(repository, (database.file.file(), &path), &path, magic)?;
            }
            Err(error) if database.file.is_fenced() || error.kind() != Kind::Busy => return Err(error),
            Err(_) => tidy(repository.disk(), &path)?,
        }
        if let Some(blobs) = &database.blobs {
            blobs_left |= are_left(take_out(repository.disk(), blobs), monitor);
        }
    }
    Ok(blobs_left)
}

/// Refuses a half restored database of which there is no journal: there is nothing that could be said to be finished.
fn refuse_lost_journal(path: &Path) -> Result<()> {
    match DataFile::open_fenced_or_not(path, false, Magic::Fs30) {
        Ok(file) if file.is_fenced() => Err(Error::failed(format!(
            "{} is half restored, but this repository knows of no unfinished restore",
            path.display()
        ))
        .hint("if another repository has its journal, give that one with -R; else write a snapshot elsewhere (znap restore --to DIR ID), and put that in its place")),
        _ => Ok(()),
    }
}

/// Removes the text that a power cut may have left beside a database that is whole.
fn remove_stale_notice(disk: &Disk, path: &Path) -> Result<()> {
    let notice = notice_path(path);
    // Who restores it from another repository holds its lock.
    if notice.exists() && DataFile::open(path).is_ok() {
        let _lock = match StorageLock::acquire(path) {
            // It is in use, and so is whole: another time.
            Err(error) if error.kind() == Kind::Busy => return Ok(()),
            lock => lock?,
        };
        if DataFile::open(path).is_ok() {
            disk.remove(&notice)?;
        }
    }
    Ok(())
}

fn missing(what: &str) -> Error {
    Error::damaged(format!("the catalog lacks {what}, which the unfinished restore needs"))
        .hint("put the catalog.db back that belongs to it")
}

fn known<'a>(databases: &'a [Database], entry: &Entry) -> Result<&'a Database> {
    let found = databases.iter().find(|database| database.uid == entry.uid);
    found.ok_or_else(|| missing(&format!("the database {}", entry.name)))
}

/// Opens a database and checks that it is as the journal left it.
fn look(repository: &Repository, databases: &[Database], journal: &Journal, entry: &Entry, goal: Way) -> Result<Left> {
    let database = known(databases, entry)?;
    let bytes = <[u8; 4]>::try_from(entry.magic.as_bytes()).ok();
    let magic = bytes.and_then(Magic::from_bytes).ok_or_else(|| missing("the kind of the database"))?;
    let path = repository.path_of(database);
    let file = DataFile::open_fenced_or_not(&path, true, magic)?;
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
    let generation = |stream: &Stream| repository.catalog.generation(stream.generation);
    let (then, before) = (generation(&target)?, back.as_ref().map(generation).transpose()?);
    // Where a pack lies between, there is always a snapshot that holds what was before.
    let anew = before.as_ref().is_some_and(|before| before.row != then.row);
    let lives: Vec<&Generation> = [Some(&then), before.as_ref()].into_iter().flatten().map(|row| &row.known).collect();
    let base_length = if anew { FIRST_TRANSACTION } else { then.known.base_length };
    let possible = [Some(&target), back.as_ref()].into_iter().flatten().all(|stream| entry.keep <= stream.cut.offset);
    if !possible || entry.keep < base_length || entry.keep > entry.size {
        return Err(missing("what is in its journal"));
    }
    let size = file.size()?;
    let is_as_left = match (file.is_fenced(), journal.stage) {
        (true, Stage::Writing) => {
            (anew || begins_any(&file, &lives)?) && keeps(repository, &file, &target, base_length, entry.keep)?
        }
        // Whole, but for the fence.
        (true, Stage::Restored) => ends_at(repository, &file, Some(&target), base_length)?,
        (true, Stage::TakenBack) => ends_at(repository, &file, back.as_ref(), base_length)?,
        (false, Stage::Writing) => {
            let begins = match &back {
                Some(back) => begins_with(&file, size, &repository.catalog, back)?,
                None => true,
            };
            // ZODB may have opened it since, cut off what was incomplete, and written: there is nothing to take back then.
            let is_usable = size == entry.size || back.as_ref().is_some_and(|back| size == back.cut.offset);
            is_of(&file, before.as_ref().map_or(&then.known, |before| &before.known))?
                && begins
                && (is_usable || goal == Way::Back)
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
    let was_used = goal == Way::Back && !file.is_fenced() && size != entry.size;
    let life = if goal == Way::Forward { &then.known } else { before.as_ref().map_or(&then.known, |row| &row.known) };
    let magic = magic_of(life).ok_or_else(|| damaged_list(&target))?;
    let is_back = goal == Way::Back;
    let (goal, other) = if goal == Way::Forward { (Some(target), back) } else { (back, Some(target)) };
    let in_its_life = Database { generation: before.unwrap_or(then), ..database.clone() };
    let mut blobs = blobs::plan::plan(repository, &in_its_life, goal.as_ref(), other.as_ref())?;
    if let Some(blobs) = blobs.as_mut().filter(|_| is_back) {
        // Nothing is removed before all is restored.
        blobs.work.add.clear();
    }
    let (keep, chunks) = match &goal {
        Some(goal) if anew => {
            let chunks = whole_chunks(&repository.catalog, goal)?;
            (FIRST_TRANSACTION, chunks.ok_or_else(|| missing("the beginning of a database"))?)
        }
        Some(goal) => {
            let keep = entry.keep.min(goal.cut.offset);
            let mut chunks = checked_chunks(&repository.catalog, goal, None, base_length)?;
            chunks.retain(|chunk| chunk.end() > keep);
            (keep, chunks)
        }
        None => (entry.keep.min(base_length), Vec::new()),
    };
    let goes_back = entry.size > entry.keep;
    let linked = has_other_names(&repository.layout, &file)?;
    Ok(Left {
        name: entry.name.clone(),
        file,
        size,
        linked,
        goal,
        magic,
        anew,
        keep,
        chunks,
        goes_back,
        blobs,
        was_used,
    })
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
    Ok(shared_with(repository, (file, keep), &chunks, chunk.offset, &Silent)? == keep)
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
            // Over a pack the file is never changed in place: a second interruption would leave nothing to know it by.
            beside: database.anew || (!database.file.is_fenced() && database.linked),
            magic: database.magic,
            goes_back: database.goes_back,
            blobs: database.blobs.as_ref(),
        };
        prepared.push(Prepared::new(repository, change, &object_files, &mut budget, monitor)?);
    }
    for database in left {
        require_unchanged(&repository.layout, &database.file, database.size, database.linked)?;
    }
    let stage = if way == Way::Forward { Stage::Restored } else { Stage::TakenBack };
    carry_out(repository, &mut prepared, journal, (stage, false), monitor)
}
