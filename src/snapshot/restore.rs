//! Restore: put the databases back, at the cost of what differs; or write them whole somewhere else.
//!
//! The order in which a database changes: everything that is needed is read and checked, and the new index is
//! written beside; then the old index goes, the file is cut and written and synced, and the new index takes its
//! place. A database never has an index of another state.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::{Error, IoContext, Result};
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Position, Source, StorageLock, index_path, openers, scan};
use crate::monitor::Monitor;
use crate::repository::catalog::Database;
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::counters::Counts;
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frames::FrameFiles;
use crate::repository::hash::Hash;
use crate::repository::in_order::beside;
use crate::repository::layout::sync_directory;
use crate::repository::lock::Gate;
use crate::repository::run_reader::RunReader;
use crate::snapshot::anchor::damaged_list;
use crate::snapshot::database;
use crate::snapshot::handle::Repository;
use crate::snapshot::plan::{DatabasePlan, RestorePlan, plan, refuse_loss};
use crate::snapshot::writing::{
    IndexSource, TemporaryFile, copy_range, folder_of, require_room, write_chunks, write_index,
};

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Drop transactions that no snapshot holds.
    pub discard: bool,
    /// Check the bytes that stay, too.
    pub verify: bool,
    /// The zone of the times in messages.
    pub zone: TimeZone,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        RestoreOptions { discard: false, verify: false, zone: TimeZone::UTC }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// What was planned, and done.
    pub plan: RestorePlan,
    /// The bytes that stayed and were checked against their hashes, if that was asked for.
    pub verified: u64,
    /// The bytes that stayed from before init, of which only the structure could be checked.
    pub verified_structure: u64,
    /// What it cost.
    pub counts: Counts,
}

/// How many bytes of what will be written are kept decompressed between the check and the write.
const KEPT: usize = 2 * FRAME_LIMIT;

/// What a restore of this snapshot would do, as things are now: nothing is locked.
pub fn dry_run(repository: &Repository, word: &str, monitor: &dyn Monitor) -> Result<RestorePlan> {
    let files = open_all(repository, false, monitor)?;
    let _gate = Gate::shared(&repository.layout)?;
    repository.catalog.snapshot_of(|_| plan(repository, &repository.resolve(word)?, &files))
}

/// Puts the databases of a snapshot back.
pub fn restore(
    repository: &mut Repository,
    word: &str,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreReport> {
    repository.writer_lock()?;
    let snapshot = repository.resolve(word)?;
    let locks = lock_all(repository)?;
    let files = open_all(repository, true, monitor)?;
    for (_, file) in &files {
        refuse_open(file)?;
    }
    let plan = plan(repository, &snapshot, &files)?;
    if !options.discard {
        refuse_loss(&plan, &options.zone)?;
    }
    let object_files = FrameFiles::new(&repository.layout, &repository.counters);
    let mut budget = KEPT;
    let mut prepared = Vec::new();
    let (mut verified, mut verified_structure) = (0, 0);
    check_room(&plan)?;
    for database in &plan.databases {
        let Some((_, file)) = files.iter().find(|(other, _)| other.name == database.name) else {
            return Err(damaged_list(&database.work.target));
        };
        if options.verify {
            let (hashed, parsed) = verify(repository, database, file, monitor)?;
            verified += hashed;
            verified_structure += parsed;
        }
        prepared.push((
            database,
            file,
            Prepared::new(repository, database, file, &object_files, &mut budget, monitor)?,
        ));
    }
    monitor.check()?;
    // Preparing may have taken minutes, and readers take no lock.
    for (_, file) in &files {
        refuse_open(file)?;
    }
    let mut written = 0;
    // From here on nothing is asked any more: it is done, or fails.
    for (database, file, prepared) in prepared {
        written += prepared.execute(repository, database, file, monitor)?;
    }
    drop(locks);
    let counts = Counts {
        database_bytes_read: files.iter().map(|(_, file)| file.bytes_read()).sum(),
        database_bytes_written: written,
        ..repository.counts()
    };
    Ok(RestoreReport { plan, verified, verified_structure, counts })
}

fn open_all(repository: &Repository, writable: bool, monitor: &dyn Monitor) -> Result<Vec<(Database, DataFile)>> {
    repository
        .catalog
        .databases()?
        .into_iter()
        .map(|database| {
            let path = repository.path_of(&database);
            let file =
                if writable { DataFile::open_for_writing(path) } else { database::open_patiently(&path, monitor) };
            file.map(|file| (database, file))
        })
        .collect()
}

/// Takes the locks of all databases before any of them is looked at.
fn lock_all(repository: &Repository) -> Result<Vec<StorageLock>> {
    repository
        .catalog
        .databases()?
        .iter()
        .map(|database| {
            let path = repository.path_of(database);
            // A missing file is a clearer message than what its lock would give.
            fs::metadata(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::not_found(format!("there is no file {}", path.display()))
                    .hint("put a copy of it back, or write the snapshot somewhere else with znap restore --to DIR ID"),
                _ => Error::io("look at", &path, error),
            })?;
            StorageLock::acquire(&path)
        })
        .collect()
}

/// Refuses a file that somebody has open: readers take no lock.
fn refuse_open(file: &DataFile) -> Result<()> {
    let openers = openers(file.identity());
    if openers.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = openers.iter().map(ToString::to_string).collect();
    Err(Error::busy(format!("{} is open in {}", file.path().display(), list.join(", ")))
        .hint("stop what has it open, and try again; the snapshot can also be written elsewhere with --to DIR"))
}

/// Refuses a plan for which there isn't room, on any of the file systems that the databases are on.
fn check_room(plan: &RestorePlan) -> Result<()> {
    let mut needed: HashMap<u64, (&Path, u64)> = HashMap::new();
    for database in &plan.databases {
        let folder = folder_of(&database.path);
        let device = fs::metadata(folder).at("look at", folder)?.dev();
        let growth = if database.beside { database.target } else { database.target.saturating_sub(database.size) };
        needed.entry(device).or_insert((folder, 0)).1 += growth;
    }
    needed.into_values().try_for_each(|(folder, bytes)| require_room(folder, bytes))
}

/// Checks the bytes that a restore keeps: the tail by the hashes of its chunks, the base by its structure.
/// Returns how many bytes were checked in each way.
fn verify(repository: &Repository, plan: &DatabasePlan, file: &DataFile, monitor: &dyn Monitor) -> Result<(u64, u64)> {
    let mut reader = ChunkReader::new(&repository.layout, &repository.counters);
    let work = &plan.work;
    monitor.begin("checking what stays", plan.keep);
    if work.base_length > FIRST_TRANSACTION {
        scan(file, Position::START, work.base_length, &mut (), monitor)?;
    }
    let mut bytes = Vec::new();
    for chunk in repository.catalog.stream_chunks(work.target.row, work.base_length, plan.keep)? {
        monitor.check()?;
        let end = chunk.end().min(plan.keep);
        bytes.resize((end - chunk.offset) as usize, 0);
        file.read_exact_at(&mut bytes, chunk.offset)?;
        let same = if end == chunk.end() {
            Hash::of(&bytes) == chunk.location.hash
        } else {
            reader.with_chunk(&chunk.location, |stored| Ok(stored.starts_with(&bytes)))?
        };
        if !same {
            return Err(Error::failed(format!(
                "{} differs from snapshot {} between offsets {} and {end}, in bytes that would have stayed",
                file.path().display(),
                plan.work.target.snapshot_name,
                chunk.offset,
            ))
            .hint("the file was damaged or changed in place; nothing was changed; znap restore --to DIR writes the snapshot elsewhere"));
        }
        monitor.advance(bytes.len() as u64);
    }
    monitor.end();
    // A base of four bytes is the magic, which was compared.
    let parsed = if work.base_length > FIRST_TRANSACTION { work.base_length } else { 0 };
    Ok((plan.keep - parsed, parsed))
}

/// A restore of one database of which everything is checked and the new index is written beside.
struct Prepared<'a> {
    /// What will be written, checked.
    chunks: RunReader<'a>,
    /// Where ZODB looks for an index, and what will be there; nothing, if the state has no objects.
    indexes: Vec<(Option<TemporaryFile>, PathBuf)>,
}

impl<'a> Prepared<'a> {
    fn new(
        repository: &Repository,
        plan: &'a DatabasePlan,
        file: &DataFile,
        object_files: &'a FrameFiles,
        budget: &mut usize,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let model = file.metadata()?;
        let index = IndexSource::find(repository, &plan.work.target)?;
        let mut indexes = Vec::new();
        for target in index_paths(file.path())? {
            let temporary = if index.is_empty() { None } else { Some(TemporaryFile::create(&target, &model)?) };
            indexes.push((temporary, target));
        }
        let counters = &repository.counters;
        let write_indexes = || {
            indexes.iter().filter_map(|(temporary, _)| temporary.as_ref()).try_for_each(|temporary| {
                write_index(&index, &plan.work.target, &temporary.file, &temporary.path)?;
                counters.fsync();
                Ok(())
            })
        };
        let mut chunks = RunReader::new(object_files, plan.work.chunks.iter().map(|chunk| &chunk.location));
        let check = || {
            chunks.check(budget, |bytes| {
                monitor.advance(bytes as u64);
                monitor.check()
            })
        };
        monitor.begin("checking what will be written", plan.write);
        // An index is synced while chunks are decompressed.
        let (written, checked) = beside("writes the index", write_indexes, check)?;
        checked?;
        written?;
        monitor.end();
        Ok(Prepared { chunks, indexes })
    }

    /// Changes the database. Returns the bytes written.
    fn execute(
        self,
        repository: &Repository,
        plan: &DatabasePlan,
        file: &DataFile,
        monitor: &dyn Monitor,
    ) -> Result<u64> {
        for (_, index) in &self.indexes {
            match fs::remove_file(index) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", index, error));
                }
                _ => sync_directory(folder_of(index))?,
            }
            repository.counters.fsync();
        }
        monitor.begin("writing", plan.write);
        if plan.beside {
            build_beside(plan, file, &self.chunks, monitor)?;
        } else {
            change_in_place(plan, file, &self.chunks, monitor)?;
        }
        repository.counters.fsync();
        monitor.end();
        let mut written = plan.write;
        for (temporary, index) in self.indexes {
            let Some(temporary) = temporary else { continue };
            written += temporary.file.metadata().at("look at", &temporary.path)?.len();
            temporary.rename(&index)?;
            sync_directory(folder_of(&index))?;
            repository.counters.fsync();
        }
        Ok(written)
    }
}

fn change_in_place(plan: &DatabasePlan, file: &DataFile, chunks: &RunReader<'_>, monitor: &dyn Monitor) -> Result<()> {
    let (path, file) = (file.path(), file.file());
    if file.metadata().at("look at", path)?.len() > plan.keep {
        file.set_len(plan.keep).at("truncate", path)?;
    }
    write_chunks(chunks, &plan.work.chunks, plan.keep, file, path, monitor)?;
    file.sync_all().at("sync", path)
}

/// For a file with other names: builds a new one and renames it in, so that the other names keep theirs.
fn build_beside(plan: &DatabasePlan, file: &DataFile, chunks: &RunReader<'_>, monitor: &dyn Monitor) -> Result<()> {
    let path = fs::canonicalize(file.path()).at("resolve", file.path())?;
    let temporary = TemporaryFile::create(&path, &file.metadata()?)?;
    copy_range(file.file(), 0, plan.keep, &temporary.file, &temporary.path)?;
    write_chunks(chunks, &plan.work.chunks, plan.keep, &temporary.file, &temporary.path, monitor)?;
    temporary.file.sync_all().at("sync", &temporary.path)?;
    temporary.rename(&path)?;
    sync_directory(folder_of(&path))
}

/// The names under which ZODB may look for the index: beside the path as typed, and beside the file itself.
fn index_paths(path: &Path) -> Result<Vec<PathBuf>> {
    let real = fs::canonicalize(path).at("resolve", path)?;
    let mut paths = vec![index_path(path)];
    let same_folder =
        fs::canonicalize(folder_of(path)).at("resolve", folder_of(path))?.join(path.file_name().unwrap_or_default());
    if real != same_folder {
        paths.push(index_path(&real));
    }
    Ok(paths)
}
