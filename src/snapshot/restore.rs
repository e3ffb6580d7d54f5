//! Restore: put the databases back, at the cost of what differs; and take that back.
//!
//! Everything is locked, planned, read and checked first; what no snapshot holds is saved; then the journal is
//! written, and [`carry_out`] changes the databases.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Magic, Position, Source, StorageLock, openers, scan};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Database, GenerationRow, Snapshot, Stream};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::counters::Counts;
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frames::FrameFiles;
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::lock::Gate;
use crate::snapshot::anchor::{begins_any, begins_with, damaged_list, magic_of};
use crate::snapshot::base::{is_not_the_base, needs_base, sources_of, store_base, store_bases, store_from_any};
use crate::snapshot::blobs;
use crate::snapshot::caches::CacheMoved;
use crate::snapshot::carry_out::{Change, Prepared, carry_out};
use crate::snapshot::choice::of_snapshot;
use crate::snapshot::copy_out::existing;
use crate::snapshot::database;
use crate::snapshot::generations::{Life, begin, in_its_life, life_of, record_lives};
use crate::snapshot::handle::Repository;
use crate::snapshot::journal::{Entry, Journal, Named, Stage};
use crate::snapshot::left_out::{Kept, bytes_to_keep};
use crate::snapshot::links::{self, has_other_names};
use crate::snapshot::plan::{DatabasePlan, RestorePlan, Work, checked_chunks, plan, refuse_damage};
use crate::snapshot::save::save_for_undo;
use crate::snapshot::writing::{folder_of, require_room};

/// How to restore.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// Drop transactions that no snapshot holds.
    pub discard: bool,
    /// Check the bytes that stay, too.
    pub verify: bool,
    /// A file that begins as the database did before it was packed, if the snapshot needs that.
    pub base_from: Option<PathBuf>,
    /// The zone of the times in messages.
    pub zone: TimeZone,
    /// The names of the databases to put back; none for all that the snapshot has.
    pub only: Vec<String>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        RestoreOptions { discard: false, verify: false, base_from: None, zone: TimeZone::UTC, only: Vec::new() }
    }
}

/// What a restore did.
#[derive(Debug, Clone, Serialize)]
pub struct RestoreReport {
    /// What was planned, and done.
    pub plan: RestorePlan,
    /// The snapshot that was made of what no other one held.
    pub kept: Option<String>,
    /// Whether undo can take it back.
    pub undoable: bool,
    /// The bytes that stayed and were checked against their hashes, if that was asked for.
    pub verified: u64,
    /// The bytes that stayed from before init, of which only the structure could be checked.
    pub verified_structure: u64,
    /// The files that hold what lay behind the last complete transactions.
    #[serde(serialize_with = "crate::snapshot::database::as_texts")]
    pub left_out: Vec<PathBuf>,
    /// Caches of ZEO clients that remember what is gone, and were taken away.
    pub zeo_caches: Vec<CacheMoved>,
    /// Whether blobs that don't belong there could not all be removed; ZODB looks at none of them.
    pub blobs_left: bool,
    /// What it cost.
    pub counts: Counts,
}

/// How many bytes of what will be written are kept decompressed between the check and the write.
const KEPT: usize = 2 * FRAME_LIMIT;

/// What a restore of this snapshot would do, as things are now: nothing is locked.
pub fn dry_run(repository: &Repository, word: &str, monitor: &dyn Monitor) -> Result<RestorePlan> {
    dry_run_only(repository, word, &[], monitor)
}

/// The same for the databases that are named.
pub fn dry_run_only(
    repository: &Repository,
    word: &str,
    only: &[String],
    monitor: &dyn Monitor,
) -> Result<RestorePlan> {
    plan_only(repository, &repository.resolve(word)?, only, monitor)
}

fn plan_only(
    repository: &Repository,
    snapshot: &Snapshot,
    only: &[String],
    monitor: &dyn Monitor,
) -> Result<RestorePlan> {
    let mut files = open_files(repository, &of_snapshot(repository, snapshot, only)?.databases(), false, monitor)?;
    let mut new_lives = HashMap::new();
    for (database, file) in &mut files {
        database.generation = match life_of(repository, database, file)? {
            Life::Known(generation) => generation,
            // As the save will have it that comes first.
            Life::New(recognition, _) => {
                new_lives.insert(database.name.clone(), recognition.word());
                let known = begin(file, database.generation.known.number + 1, monitor)?.generation;
                GenerationRow { row: 0, known }
            }
        };
    }
    let _gate = Gate::shared(&repository.layout, monitor)?;
    let plan = |_: &Catalog| plan(repository, &repository.exactly(&snapshot.name)?, only, &files, true, monitor);
    let mut plan = repository.catalog.snapshot_of(plan)?;
    for planned in &mut plan.databases {
        planned.new_life = new_lives.get(&planned.name).copied();
    }
    Ok(plan)
}

/// Puts the databases of a snapshot back. What no snapshot holds is saved first, unless that is to be dropped.
pub fn restore(
    repository: &mut Repository,
    word: &str,
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreReport> {
    repository.writer_lock()?;
    let snapshot = repository.resolve(word)?;
    put_back(repository, &snapshot, &options.only, options, monitor)
}

/// Takes the last restore back: a restore of what was there before it. So twice is none at all.
pub fn undo(repository: &mut Repository, options: &RestoreOptions, monitor: &dyn Monitor) -> Result<RestoreReport> {
    repository.writer_lock()?;
    let (snapshot, only) = before_last(repository)?;
    put_back(repository, &snapshot, &only, options, monitor)
}

/// What undo would do, as things are now: nothing is locked.
pub fn undo_dry_run(repository: &Repository, monitor: &dyn Monitor) -> Result<RestorePlan> {
    let (snapshot, only) = before_last(repository)?;
    plan_only(repository, &snapshot, &only, monitor)
}

/// The snapshot that holds what was there before the last restore, and the databases that this one changed: the snapshot may have
/// more.
fn before_last(repository: &Repository) -> Result<(Snapshot, Vec<String>)> {
    let elsewhere = "znap list shows the snapshots that can be restored";
    let last = Journal::last(&repository.layout, repository.uid)?
        .ok_or_else(|| Error::not_found("there is no restore to take back").hint(elsewhere))?;
    let cannot = format!("the restore of {} can't be taken back", last.target.id);
    let before = last
        .before
        .ok_or_else(|| Error::failed(format!("{cannot}: it was told to drop what no snapshot held")).hint(elsewhere))?;
    let snapshot = repository.catalog.snapshot_by_uid(&before.uid)?.ok_or_else(|| {
        let gone = format!("{cannot}: snapshot {}, which held what was there before, was deleted", before.id);
        Error::not_found(gone).hint(elsewhere)
    })?;
    Ok((snapshot, last.databases.into_iter().map(|entry| entry.name).collect()))
}

fn put_back(
    repository: &mut Repository,
    snapshot: &Snapshot,
    only: &[String],
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<RestoreReport> {
    let databases = of_snapshot(repository, snapshot, only)?.databases();
    let locks = lock_all(repository, &databases)?;
    let mut files = open_files(repository, &databases, true, monitor)?;
    refuse_open(&files)?;
    let mut kept = None;
    if begins_anew(repository, &files)? {
        if options.discard {
            return Err(Error::failed(
                "a database was packed since the last snapshot, and --discard would drop all of it",
            )
            .hint(
                "save it first, or restore without --discard; if it can't be saved because it is damaged, write the snapshot \
                 elsewhere with --to DIR, and put that in its place",
            ));
        }
        kept = Some(save_for_undo(repository, &snapshot.name, &databases, &options.zone, monitor)?.id);
        // What could not be stored of another file is no reason to fail: `take_bases` has what this snapshot needs, or nobody.
        match store_bases(repository, monitor) {
            Err(error) if !matches!(error.kind(), Kind::Interrupted(_)) => {
                monitor
                    .notice(&format!("what other snapshots need of a file's beginning could not be stored: {error}"));
            }
            stored => drop(stored?),
        }
    }
    into_their_lives(repository, &mut files)?;
    take_bases(repository, snapshot, &files, options, monitor)?;
    let mut plan = plan(repository, snapshot, only, &files, false, monitor)?;
    if !options.discard {
        refuse_damage(&plan)?;
    }
    let mut before = holder(repository, &plan, &files)?;
    if before.is_none() && !options.discard {
        let report = save_for_undo(repository, &plan.id, &databases, &options.zone, monitor)?;
        plan = crate::snapshot::plan::plan(repository, snapshot, only, &files, false, monitor)?;
        before = Some(repository.exactly(&report.id)?);
        kept = Some(report.id);
    }
    keep_replaced(repository, &plan, &files, monitor)?;
    let object_files = FrameFiles::new(&repository.layout, &repository.counters);
    let mut budget = KEPT;
    let mut prepared = Vec::new();
    let mut entries = Vec::new();
    let (mut verified, mut verified_structure) = (0, 0);
    check_room(repository, &plan, options, false)?;
    if options.verify {
        for database in &mut plan.databases {
            if let Some(blobs) = &mut database.blobs {
                verified += blobs::plan::verify(repository, blobs, &database.work.target, monitor)?;
            }
        }
    }
    let mut pairs = Vec::new();
    for database in &plan.databases {
        let found = files.iter().find(|(other, _)| other.name == database.name);
        pairs.push((database, found.ok_or_else(|| damaged_list(&database.work.target))?));
    }
    for &(database, (tracked, file)) in &pairs {
        if options.verify {
            let (hashed, parsed) = verify(repository, database, file, monitor)?;
            verified += hashed;
            verified_structure += parsed;
        }
        let work = &database.work;
        let change = Change {
            file,
            keep: database.keep,
            target: Some(&work.target),
            chunks: &work.chunks,
            beside: database.beside || database.anew,
            magic: magic_of(&repository.catalog.generation(work.target.generation)?.known)
                .ok_or_else(|| damaged_list(&work.target))?,
            goes_back: database.goes_back,
            blobs: database.blobs.as_ref(),
        };
        prepared.push(Prepared::new(repository, change, &object_files, &mut budget, monitor)?);
        let back = work.now.as_ref();
        entries.push(Entry {
            uid: tracked.uid,
            name: database.name.clone(),
            magic: file.magic().to_string(),
            size: database.size,
            // What is dropped for good can't be gone back to.
            keep: database.keep.min(back.map_or(work.base_length, |stream| stream.cut.offset)),
            back: back.map(|stream| Named { uid: stream.snapshot_uid, id: stream.snapshot_name.clone() }),
            left_out: None,
        });
    }
    monitor.check()?;
    // Preparing may have taken minutes.
    for &(database, (_, file)) in &pairs {
        require_unchanged(&repository.layout, file, database.size, database.beside)?;
    }
    check_room(repository, &plan, options, true)?;
    let mut left_out = Kept::new(repository.disk());
    for (&(database, (_, file)), entry) in pairs.iter().zip(&mut entries) {
        entry.left_out = left_out.keep(repository, file, database, options.discard, monitor)?;
    }
    let named = |snapshot: &Snapshot| Named { uid: snapshot.uid, id: snapshot.name.clone() };
    let mut journal = Journal::new(
        repository.uid,
        Timestamp::now().as_microsecond(),
        named(snapshot),
        before.as_ref().map(named),
        entries,
    );
    let result = journal
        .write(&repository.layout, &repository.counters)
        .and_then(|()| carry_out(repository, &mut prepared, &mut journal, (Stage::Restored, true), monitor));
    // Where there is no journal, nothing was changed; unless it has ended.
    let has_ended = journal.stage != Stage::Writing;
    let is_needed = has_ended || !matches!(Journal::unfinished(&repository.layout, repository.uid), Ok(None));
    let left_out_files = if is_needed { left_out.stay() } else { Vec::new() };
    let done = result?;
    drop(prepared);
    record_lives(repository)?;
    drop(locks);
    let counts = Counts {
        database_bytes_read: files.iter().map(|(_, file)| file.bytes_read()).sum(),
        database_bytes_written: done.written,
        ..repository.counts()
    };
    let undoable = before.is_some();
    // The files are in place: without a second name they are as good.
    let _ = links::refresh(repository, false);
    Ok(RestoreReport {
        plan,
        kept,
        undoable,
        verified,
        verified_structure,
        left_out: left_out_files,
        zeo_caches: done.caches,
        blobs_left: done.blobs_left,
        counts,
    })
}

/// A snapshot that holds these databases exactly as they are, up to their last complete transactions, if there is one.
fn holder(repository: &Repository, plan: &RestorePlan, files: &[(Database, DataFile)]) -> Result<Option<Snapshot>> {
    let mut candidates: Vec<&Stream> = Vec::new();
    for database in &plan.databases {
        match &database.work.now {
            Some(stream) if database.damage.is_none() && stream.cut.offset == database.work.end => {
                candidates.push(stream);
            }
            _ => return Ok(None),
        }
    }
    candidates.dedup_by_key(|stream| stream.snapshot);
    for candidate in candidates {
        let streams = repository.catalog.streams_of(candidate.snapshot)?;
        let mut same = true;
        for (database, file) in files {
            same = same
                && match streams.iter().find(|stream| stream.database == database.row) {
                    Some(stream) => {
                        let planned = plan.databases.iter().find(|other| other.name == database.name);
                        let is_nearest = |work: &Work| work.now.as_ref().is_some_and(|now| now.row == stream.row);
                        stream.generation == database.generation.row
                            && planned.is_some_and(|other| other.work.end == stream.cut.offset)
                            // The plan has looked at the nearest one.
                            && (planned.is_some_and(|other| is_nearest(&other.work))
                                || begins_with(file, file.size()?, &repository.catalog, stream)?)
                    }
                    None => false,
                };
        }
        if same {
            return repository.exactly(&candidate.snapshot_name).map(Some);
        }
    }
    Ok(None)
}

fn into_their_lives(repository: &Repository, files: &mut [(Database, DataFile)]) -> Result<()> {
    for (database, file) in files {
        *database = in_its_life(repository, database.clone(), file)?;
    }
    Ok(())
}

/// Whether any file was packed, or converted, since it was saved last.
fn begins_anew(repository: &Repository, files: &[(Database, DataFile)]) -> Result<bool> {
    for (database, file) in files {
        if let Life::New(..) = life_of(repository, database, file)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Stores the bases that a snapshot needs and the files don't begin with, from a copy that was named or that a pack left.
fn take_bases(
    repository: &mut Repository,
    snapshot: &Snapshot,
    files: &[(Database, DataFile)],
    options: &RestoreOptions,
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut needed = None;
    let mut is_taken = false;
    for stream in repository.catalog.streams_of(snapshot.row)? {
        let found = files.iter().find(|(database, _)| database.row == stream.database);
        let Some((database, file)) = found else { continue };
        let generation = repository.catalog.generation(stream.generation)?;
        if stream.generation == database.generation.row || !needs_base(&repository.catalog, &generation.known)? {
            continue;
        }
        let named = options.base_from.as_ref().map(DataFile::open).transpose()?;
        let begins = named.as_ref().map_or(Ok(false), |named| begins_any(named, &[&generation.known]))?;
        is_taken |= begins;
        let sources = match named.filter(|_| begins) {
            Some(named) => vec![named],
            None => sources_of(&repository.layout, file.path(), &generation.known)?,
        };
        needed = needed.or_else(|| Some(file.path().to_path_buf()));
        store_from_any(repository, database, &generation, sources, monitor)?;
    }
    match (&options.base_from, needed) {
        (Some(named), Some(path)) if !is_taken => Err(is_not_the_base(named, &path, &snapshot.name)),
        _ => Ok(()),
    }
}

/// Stores the bases of files that a restore is about to replace: their snapshots need them.
fn keep_replaced(
    repository: &mut Repository,
    plan: &RestorePlan,
    files: &[(Database, DataFile)],
    monitor: &dyn Monitor,
) -> Result<()> {
    for planned in plan.databases.iter().filter(|planned| planned.anew) {
        let found = files.iter().find(|(database, _)| database.name == planned.name);
        let (database, file) = found.ok_or_else(|| damaged_list(&planned.work.target))?;
        if planned.work.now.is_none() {
            return Err(Error::failed(format!(
                "no snapshot holds {}, and all of it would be replaced",
                file.path().display()
            ))
            .hint("save it first, or restore without --discard"));
        }
        if needs_base(&repository.catalog, &database.generation.known)? {
            let again = DataFile::open(file.path())?;
            store_base(repository, database, &database.generation, again, monitor)?;
        }
    }
    Ok(())
}

fn open_files(
    repository: &Repository,
    databases: &[Database],
    writable: bool,
    monitor: &dyn Monitor,
) -> Result<Vec<(Database, DataFile)>> {
    databases
        .iter()
        .map(|database| {
            let path = repository.path_of(database);
            let file =
                if writable { DataFile::open_for_writing(path) } else { database::open_patiently(&path, monitor) };
            file.map(|file| (database.clone(), file))
        })
        .collect()
}

/// Takes the locks of all these databases before any of them is looked at.
pub(crate) fn lock_all(repository: &Repository, databases: &[Database]) -> Result<Vec<StorageLock>> {
    databases
        .iter()
        .map(|database| {
            let path = repository.path_of(database);
            // A missing file is a clearer message than what its lock would give.
            fs::metadata(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::not_found(format!("there is no file {}", path.display())).hint(
                    "put a copy of it back; --only leaves a database out; --to DIR writes the snapshot somewhere else",
                ),
                _ => Error::io("look at", &path, error),
            })?;
            // A lock file is made, or written to, only beside what is a FileStorage.
            drop(DataFile::open_fenced_or_not(&path, false, Magic::Fs30)?);
            StorageLock::acquire(&path)
        })
        .collect()
}

/// Refuses files that somebody has open: readers take no lock.
fn refuse_open(files: &[(Database, DataFile)]) -> Result<()> {
    files.iter().try_for_each(|(_, file)| refuse_opened(file))
}

/// Refuses a file that somebody has open.
pub(crate) fn refuse_opened(file: &DataFile) -> Result<()> {
    let openers = openers(file.identity());
    if openers.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = openers.iter().map(ToString::to_string).collect();
    Err(Error::busy(format!("{} is open in {}", file.path().display(), list.join(", ")))
        .hint("stop what has it open, and try again; the snapshot can also be written elsewhere with --to DIR"))
}

/// Refuses a plan for which there isn't room on one of the file systems that the databases and the repository are on.
/// Once it is `prepared`, the indexes and new files are there, and only what is still to be written counts.
fn check_room(repository: &Repository, plan: &RestorePlan, options: &RestoreOptions, prepared: bool) -> Result<()> {
    let mut needed: HashMap<u64, (&Path, u64)> = HashMap::new();
    let mut need = |folder, bytes: u64| -> Result<()> {
        let device = fs::metadata(folder).at("look at", folder)?.dev();
        needed.entry(device).or_insert((folder, SPARE)).1 += bytes;
        Ok(())
    };
    need(repository.root(), 0)?;
    for database in &plan.databases {
        let growth = match (database.beside || database.anew, prepared) {
            (true, true) => 0,
            (true, false) => database.target,
            (false, _) => database.target.saturating_sub(database.size),
        };
        // Once it is prepared, too: that is when it is copied.
        need(folder_of(&database.path), growth + bytes_to_keep(database, options.discard))?;
        if let Some(blobs) = &database.blobs {
            let copied = if blobs.copies() && !prepared { blobs.add_bytes } else { 0 };
            need(existing(&blobs.path), copied + blobs.add * FOLDER)?;
        }
    }
    needed.into_values().try_for_each(|(folder, bytes)| require_room(folder, bytes))
}

/// Refuses a file that isn't any more what was planned for. Whoever takes no lock may have renamed, linked or changed it.
pub(crate) fn require_unchanged(layout: &Layout, file: &DataFile, size: u64, beside: bool) -> Result<()> {
    if file.is_still_at_path()? && file.size()? == size && has_other_names(layout, file)? == beside {
        return Ok(());
    }
    Err(Error::failed(format!("{} was changed or replaced meanwhile", file.path().display()))
        .hint("nothing was changed; find out what did that, and try again"))
}

/// Room for the journal, and the texts beside databases.
const SPARE: u64 = 1 << 20;
/// What the folder of a blob takes.
const FOLDER: u64 = 4 << 10;

/// Checks the bytes that a restore keeps: the tail by the hashes of its chunks, the base by its structure.
/// Returns how many bytes were checked in each way.
fn verify(repository: &Repository, plan: &DatabasePlan, file: &DataFile, monitor: &dyn Monitor) -> Result<(u64, u64)> {
    let (catalog, work) = (&repository.catalog, &plan.work);
    let mut reader = ChunkReader::new(&repository.layout, &repository.counters);
    monitor.begin("checking what stays", plan.keep);
    let mut chunks = catalog.stream_chunks(work.target.row, work.base_length, plan.keep)?;
    // A base of four bytes is the magic, which was compared.
    let mut parsed = 0;
    if work.base_length > FIRST_TRANSACTION {
        match catalog.stored_base(&catalog.generation(work.target.generation)?.known)? {
            Some(base) => {
                let tail = std::mem::replace(&mut chunks, checked_chunks(catalog, &base, None, FIRST_TRANSACTION)?);
                chunks.extend(tail);
            }
            None => {
                scan(file, Position::START, work.base_length, &mut (), monitor)?;
                parsed = work.base_length;
            }
        }
    }
    let mut bytes = Vec::new();
    for chunk in chunks {
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
    Ok((plan.keep - parsed, parsed))
}
