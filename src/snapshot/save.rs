//! Save: a snapshot of every database, at the cost of what is new.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::filestorage::{
    Changes, Cut, DataFile, Position, Scanner, Source, Tid, find_cut, index_path, scan, transaction_ending_at,
};
use crate::monitor::Monitor;
use crate::repository::blob_list::{BlobDirectoryEntry, BlobMode};
use crate::repository::catalog::{Database, GenerationRow, PreparedSnapshot, Stream};
use crate::repository::chunk_writer::{ChunkWriter, Compression};
use crate::repository::counters::Counts;
use crate::repository::data::Content;
use crate::repository::data_writer::NewDataFile;
use crate::repository::hash::Uid;
use crate::repository::manifest::{CutEntry, DatabaseEntry, IMPORTED, IndexEntry, Manifest, SAVE, STORED_BASE};
use crate::repository::object::{Finished, publish};
use crate::repository::plain::PlainWriter;
use crate::repository::record::hex_unless_utf8;
use crate::snapshot::anchor::{damaged_list, known_end, nearest_of};
use crate::snapshot::blobs::directory_of;
use crate::snapshot::blobs::save::{BlobSaving, SavedBlobs, Stores, hides_blobs, scan_from};
use crate::snapshot::choice::to_save;
use crate::snapshot::generations::{Life, begin, life_of, record_lives};
use crate::snapshot::handle::Repository;
use crate::snapshot::tail::Tail;
use crate::snapshot::{database, id, index_parts};

/// What to save and how.
#[derive(Debug, Clone)]
pub struct SaveOptions {
    /// The snapshot's id; without one, a time stamp.
    pub id: Option<String>,
    /// The user's words about it.
    pub message: String,
    /// The zone of an id made from the time.
    pub zone: TimeZone,
    /// How to compress.
    pub compression: Compression,
    /// The names of the databases to save; none for all.
    pub only: Vec<String>,
}

impl SaveOptions {
    /// The usual way.
    pub fn new(id: Option<String>, message: impl Into<String>, zone: TimeZone) -> Self {
        SaveOptions { id, message: message.into(), zone, compression: Compression::FAST, only: Vec::new() }
    }
}

/// What a save did.
#[derive(Debug, Clone, Serialize)]
pub struct SaveReport {
    /// The new snapshot's id.
    pub id: String,
    /// Its place in the order of all snapshots.
    pub sequence: u64,
    /// Whether all databases are of one moment.
    pub one_moment: bool,
    /// Whether it has only some of the databases that are tracked.
    pub partial: bool,
    /// The names of the others.
    pub not_saved: Vec<String>,
    /// Per database.
    pub databases: Vec<SavedDatabase>,
    /// Bytes of data files that it added.
    pub stored_bytes: u64,
    /// What it cost.
    pub counts: Counts,
}

/// What a save did with one database.
#[derive(Debug, Clone, Serialize)]
pub struct SavedDatabase {
    /// Its name.
    pub name: String,
    /// Its file.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: std::path::PathBuf,
    /// Where the snapshot ends in the file.
    pub cut: u64,
    /// The last transaction's id, as ZODB writes it.
    pub tid: String,
    /// The time of that transaction; `None` if the database has none.
    pub time: Option<Timestamp>,
    /// The snapshot that the file began with.
    pub parent: Option<String>,
    /// Transactions since then.
    pub new_transactions: u64,
    /// Bytes since then.
    pub new_bytes: u64,
    /// What happened to the file since the last snapshot, so that those before may need the file that was there: `packed` or
    /// `converted`.
    pub new_life: Option<&'static str>,
    /// What was done with its blobs, if they are saved.
    pub blobs: Option<SavedBlobs>,
    /// What lies behind the cut and was left out, in words.
    pub left_out: Option<String>,
    /// What is odd about the new transactions.
    pub warnings: Vec<String>,
}

/// How often a save starts over when the file is replaced under it.
const TRIES: u32 = 5;
/// How often it looks for a moment at which nothing is in flight in any of several databases.
const LOOKS: u32 = 8;
/// How many bytes are read at once.
const READ: usize = 4 << 20;

/// Takes a snapshot of every tracked database, or of those that are named.
pub fn save(repository: &mut Repository, options: &SaveOptions, monitor: &dyn Monitor) -> Result<SaveReport> {
    let now = Timestamp::now();
    let id = match &options.id {
        Some(id) => {
            id::check_new(id)?;
            if repository.catalog.snapshot(id)?.is_some() {
                return Err(Error::failed(format!("there is a snapshot {id} already"))
                    .hint(format!("choose another id, or znap delete {id} first")));
            }
            id.clone()
        }
        None => id::from_time(now, &options.zone, |id| Ok(repository.catalog.snapshot(id)?.is_some()))?,
    };
    let (databases, not_saved) = to_save(&repository.catalog, &options.only)?;
    take(repository, &New { id, kind: SAVE, created: now, options, not_saved }, &databases, monitor)
}

/// Takes a snapshot of what a restore of `target` is about to drop of these databases.
pub(crate) fn save_for_undo(
    repository: &mut Repository,
    target: &str,
    databases: &[Database],
    zone: &TimeZone,
    monitor: &dyn Monitor,
) -> Result<SaveReport> {
    let now = Timestamp::now();
    let name = |time: &str| format!("{}{time}", id::UNDO);
    let id = name(&id::from_time(now, zone, |time| Ok(repository.catalog.snapshot(&name(time))?.is_some()))?);
    let options = SaveOptions::new(None, format!("before the restore of {target}"), zone.clone());
    let is_among = |other: &Database| databases.iter().any(|database| database.row == other.row);
    let others = repository.catalog.databases()?.into_iter().filter(|other| other.tracked && !is_among(other));
    let not_saved = others.map(|database| database.name).collect();
    take(repository, &New { id, kind: "undo", created: now, options: &options, not_saved }, databases, monitor)
}

/// A snapshot that is to be made.
pub(super) struct New<'a> {
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) created: Timestamp,
    pub(super) options: &'a SaveOptions,
    /// The names of the tracked databases that it doesn't have.
    pub(super) not_saved: Vec<String>,
}

fn take(
    repository: &mut Repository,
    new: &New<'_>,
    databases: &[Database],
    monitor: &dyn Monitor,
) -> Result<SaveReport> {
    let mut tries = 1;
    loop {
        match attempt(repository, new, databases, monitor)? {
            Some(report) => return Ok(report),
            None if tries < TRIES => {
                tries += 1;
                monitor.check()?;
                std::thread::sleep(Duration::from_millis(100));
            }
            None => {
                return Err(Error::failed("a database is being replaced all the time (is it being packed?)")
                    .hint("try again when that is over"));
            }
        }
    }
}

/// One database while it is being saved.
pub(crate) struct Saving {
    pub(super) database: Database,
    pub(super) file: DataFile,
    pub(super) parent: Option<Stream>,
    pub(super) from: Position,
    pub(super) cut: Cut,
    /// What began a new generation, if this is its first snapshot.
    pub(super) new_life: Option<&'static str>,
    /// Where its blobs are and how they are stored, if they are to be; and from where on the records are to be looked at for them.
    pub(super) blobs: Option<(PathBuf, BlobMode)>,
    pub(super) blobs_from: Position,
}

impl Saving {
    /// Goes on after a snapshot that the file begins with, or after its base; the end isn't looked for yet.
    pub(super) fn after(
        parent: Option<Stream>,
        database: Database,
        file: DataFile,
        blobs: Option<(PathBuf, BlobMode)>,
    ) -> Self {
        let from = known_end(parent.as_ref(), &database.generation.known);
        let blobs_from = if blobs.is_some() { scan_from(parent.as_ref(), from) } else { from };
        let cut = Cut::at(from);
        Saving { database, file, parent, from, cut, new_life: None, blobs, blobs_from }
    }

    /// How many bytes of the file are new, or have to be read for its blobs.
    fn to_read(&self) -> u64 {
        self.cut.offset - self.from.offset.min(self.blobs_from.offset)
    }
}

/// One try; `None` if a file was replaced meanwhile.
fn attempt(
    repository: &mut Repository,
    new: &New<'_>,
    databases: &[Database],
    monitor: &dyn Monitor,
) -> Result<Option<SaveReport>> {
    let mut sources = Vec::new();
    for database in databases {
        let file = database::open_patiently(&repository.path_of(database), monitor)?;
        match look(repository, database.clone(), file, monitor)? {
            Some(source) => sources.push(source),
            None => return Ok(None),
        }
    }
    let one_moment = settle_on_a_moment(&mut sources, monitor)?;
    let report = store(repository, new, &sources, one_moment, monitor)?;
    let is_elsewhere = |(source, database): (&Saving, &Database)| {
        source.new_life.is_none() && source.database.generation.row != database.generation.row
    };
    if report.is_some() && sources.iter().zip(databases).any(is_elsewhere) {
        record_lives(repository)?;
    }
    Ok(report)
}

/// Stores what is new of the databases, and commits the snapshot; `None` if a file was replaced meanwhile.
pub(super) fn store(
    repository: &mut Repository,
    new: &New<'_>,
    sources: &[Saving],
    one_moment: bool,
    monitor: &dyn Monitor,
) -> Result<Option<SaveReport>> {
    let mut writer = ChunkWriter::new(&repository.layout, &repository.counters, new.options.compression);
    let mut entries = Vec::new();
    let mut saved = Vec::new();
    let mut plain = PlainWriter::new(&repository.layout, &repository.counters);
    writer.announce(sources.iter().map(|source| source.cut.offset - source.from.offset).sum());
    monitor.begin("saving", sources.iter().map(Saving::to_read).sum());
    for source in sources {
        let mut stores = Stores { chunks: &mut writer, plain: &mut plain };
        let (entry, report) = save_database(repository, source, new.kind, &mut stores, monitor)?;
        entries.push(entry);
        saved.push(report);
    }
    let data_files = writer.finish()?;
    plain.finish()?;
    monitor.end();
    for source in sources {
        let is_as_it_was = match new.kind {
            // A pack may take the name of the only file that has it, which is no matter; but who copies over it changes it.
            STORED_BASE => has_its_end(source)?,
            // A copy.
            IMPORTED => true,
            _ => is_unchanged(source)?,
        };
        if !is_as_it_was {
            return Ok(None);
        }
    }
    monitor.check()?;

    let manifest = Manifest {
        repository: repository.uid,
        uid: Uid::random()?,
        sequence: repository.catalog.last_sequence()? + 1,
        revision: 0,
        id: new.id.clone(),
        kind: new.kind.into(),
        kind_before: None,
        created: new.created.as_microsecond(),
        message: new.options.message.clone(),
        one_moment,
        partial: !new.not_saved.is_empty(),
        stored_bytes: data_files.iter().map(|data| data.file.bytes).sum(),
        databases: entries,
    };
    let manifest_file = manifest.write(&repository.layout)?.finish(&repository.counters)?;
    let prepared = PreparedSnapshot {
        manifest_file: (manifest_file.name, manifest_file.bytes),
        data_files: data_files.iter().map(NewDataFile::record).collect(),
        manifest,
    };
    repository.writer_lock()?.announce(&manifest_file.name)?;
    repository.counters.fsync();
    let mut files: Vec<Finished> = data_files.into_iter().map(|data| data.file).collect();
    files.push(manifest_file);
    publish(&repository.layout, files, &repository.counters)?;
    repository.catalog.record_snapshot(&prepared)?;
    repository.writer_lock()?.settle()?;

    let counts = repository.counts();
    Ok(Some(SaveReport {
        id: new.id.clone(),
        sequence: prepared.manifest.sequence,
        one_moment,
        partial: prepared.manifest.partial,
        not_saved: new.not_saved.clone(),
        databases: saved,
        stored_bytes: prepared.manifest.stored_bytes,
        counts: Counts { database_bytes_read: sources.iter().map(|source| source.file.bytes_read()).sum(), ..counts },
    }))
}

/// Finds out what is new in a file; `None` if it was replaced meanwhile.
fn look(repository: &Repository, database: Database, file: DataFile, monitor: &dyn Monitor) -> Result<Option<Saving>> {
    let catalog = &repository.catalog;
    let (generation, new_life) = match life_of(repository, &database, &file) {
        Ok(Life::Known(generation)) => (generation, None),
        Ok(Life::New(recognition, _)) => {
            let generations = catalog.generations(database.row)?;
            let numbers =
                generations.iter().filter(|other| other.known.is_of_the_file()).map(|other| other.known.number);
            let known = begin(&file, numbers.max().unwrap_or(0) + 1, monitor)?.generation;
            // It gets its row with the snapshot.
            (GenerationRow { row: 0, known }, Some(recognition.word()))
        }
        Err(error) => return if file.is_still_at_path()? { Err(error) } else { Ok(None) },
    };
    let size = file.size()?;
    let blobs = directory_of(repository, &database);
    let accept = |stream: &Stream| Ok(blobs.is_none() || !hides_blobs(catalog, stream)?);
    let parent = nearest_of(&file, size, catalog, generation.row, accept)?;
    let mut source = Saving::after(parent, Database { generation, ..database }, file, blobs);
    source.cut = find_cut(&source.file, source.from, size, monitor)?;
    source.new_life = new_life;
    Ok(Some(source))
}

/// Several databases are of one moment if, at two looks, nothing lies behind any cut and none moved: ZODB
/// finishes one database after the other. Moves the cuts on until that is so, or gives up and returns false.
fn settle_on_a_moment(sources: &mut [Saving], monitor: &dyn Monitor) -> Result<bool> {
    if sources.len() < 2 {
        return Ok(true);
    }
    for round in 0..LOOKS {
        let mut quiet = sources.iter().all(|source| source.cut.left_out.is_none());
        for source in sources.iter_mut() {
            let size = source.file.size()?;
            if size < source.cut.offset {
                return Ok(false);
            }
            let next = find_cut(&source.file, source.cut.position(), size, monitor)?;
            quiet &= next.transactions == 0 && next.left_out.is_none();
            advance(&mut source.cut, next);
        }
        if quiet {
            return Ok(true);
        }
        monitor.check()?;
        std::thread::sleep(Duration::from_millis(10 << round));
    }
    Ok(false)
}

/// Lets `cut` be where `next`, found from it, ends. What is odd on the way is found again by the scan.
fn advance(cut: &mut Cut, next: Cut) {
    cut.left_out = next.left_out;
    if next.transactions > 0 {
        cut.offset = next.offset;
        cut.tid = next.tid;
        cut.last_length = next.last_length;
        cut.transactions += next.transactions;
    }
}

/// Whether the file is still at its path with the same magic, and the cut still ends the same transaction.
fn is_unchanged(source: &Saving) -> Result<bool> {
    let mut magic = [0; 4];
    source.file.read_exact_at(&mut magic, 0)?;
    if magic != source.file.magic().bytes() || !source.file.is_still_at_path()? {
        return Ok(false);
    }
    Ok(source.cut.transactions == 0 || has_its_end(source)?)
}

/// Whether the cut still ends the same transaction.
fn has_its_end(source: &Saving) -> Result<bool> {
    if source.file.size()? < source.cut.offset {
        return Ok(false);
    }
    let last = transaction_ending_at(&source.file, source.cut.offset)?;
    Ok(last.is_some_and(|header| header.tid == source.cut.tid))
}

/// Stores what is new of one database, for a snapshot of this kind.
fn save_database(
    repository: &Repository,
    source: &Saving,
    kind: &str,
    stores: &mut Stores<'_>,
    monitor: &dyn Monitor,
) -> Result<(DatabaseEntry, SavedDatabase)> {
    let Saving { database, file, parent, from, cut, new_life, blobs_from, .. } = source;
    let generation = &database.generation.known;
    if let Some(stream) = parent.as_ref().filter(|stream| stream.last_final.length > stream.cut.offset) {
        return Err(damaged_list(stream));
    }
    let mut changes = Changes::new(from.offset);
    // Nothing that lies beside it there is trusted, and no name.
    let is_from_elsewhere = kind == IMPORTED;
    let mut blobs = BlobSaving::begin(source, is_from_elsewhere)?;
    if let Some(blobs) = blobs.as_mut().filter(|_| blobs_from.offset < from.offset) {
        scan(file, *blobs_from, from.offset, &mut blobs.records, monitor)?;
    }
    let writer = &mut *stores.chunks;
    let mut tail = Tail::after(parent.as_ref(), generation.base_length, cut.offset);
    let mut scanner = Scanner::new(file.path(), *from);
    let mut at = tail.read_from;
    let mut buffer = Vec::new();
    while at < cut.offset {
        monitor.check()?;
        let length = (cut.offset - at).min(READ as u64) as usize;
        let kept = buffer.len();
        buffer.resize(kept + length, 0);
        file.read_exact_at(&mut buffer[kept..], at)?;
        // What is read again to finish a chunk was parsed by an earlier save.
        let parsed_before = from.offset.saturating_sub(at).min(length as u64) as usize;
        let blob_records = blobs.as_mut().map(|blobs| &mut blobs.records);
        scanner.feed(&buffer[kept + parsed_before..], &mut (&mut changes, blob_records))?;
        at += length as u64;
        tail.cut_chunks(&mut buffer, writer, repository)?;
        monitor.advance((length - parsed_before) as u64);
    }
    let summary = scanner.finish()?;
    tail.rest(&buffer, writer, repository)?;

    let (pairs, more_warnings) = changes.into_parts();
    // The scan repeats what the cut's walk over the headers found odd.
    let mut warnings = summary.warnings;
    warnings.append(more_warnings);

    let (blobs, saved_blobs) = match blobs {
        Some(blobs) => {
            let kept_length = tail.entry.kept_length;
            let (entry, report) = blobs.finish(repository, source, &pairs, kept_length, stores, monitor)?;
            (Some(entry), Some(report))
        }
        None => (None, None),
    };
    let writer = &mut *stores.chunks;
    let index = if parent.is_some() {
        let delta = index_parts::store(pairs.into_iter().map(Ok), Content::Delta, writer, &repository.catalog)?;
        IndexEntry::new(tail.entry.parent, None, delta.into_iter().collect())
    } else {
        let beside = (!is_from_elsewhere).then(|| index_path(file.path()));
        let whole = database::WholeIndex::of(file, beside.as_deref(), generation.base_length, cut, pairs, monitor)?;
        let keyframe = index_parts::store(whole.pairs(), Content::Keyframe, writer, &repository.catalog)?;
        let keyframe =
            keyframe.unwrap_or(crate::repository::manifest::IndexPart { entries: 0, bytes: 0, chunks: Vec::new() });
        IndexEntry::new(tail.entry.parent, Some(keyframe), Vec::new())
    };
    let last = match parent {
        _ if summary.transactions > 0 => (cut.tid.0, cut.last_length),
        Some(stream) => (stream.cut.tid, stream.cut.last_length),
        None => (generation.base_tid, generation.base_last_length),
    };
    database::check_tid(file.path(), Tid(last.0))?;
    let time = (last.1 > 0).then(|| Tid(last.0).time());
    let transactions = parent.as_ref().map_or(0, |stream| stream.cut.transactions) + summary.transactions;
    let new_bytes = cut.offset - from.offset;
    let entry = DatabaseEntry {
        uid: database.uid,
        name: database.name.clone(),
        path: database.path.to_string_lossy().into_owned(),
        path_hex: hex_unless_utf8(&database.path),
        keep_base: database.keep_base,
        blob_directory: database.blobs.as_ref().map(BlobDirectoryEntry::of),
        generation: generation.clone(),
        cut: CutEntry {
            offset: cut.offset,
            tid: last.0,
            last_length: last.1,
            time: time.map_or(0, Timestamp::as_microsecond),
            transactions,
            new_bytes,
        },
        stream: tail.entry,
        index,
        blobs,
    };
    let report = SavedDatabase {
        name: database.name.clone(),
        path: file.path().to_path_buf(),
        cut: cut.offset,
        tid: Tid(last.0).to_string(),
        time,
        parent: parent.as_ref().map(|stream| stream.snapshot_name.clone()),
        new_transactions: summary.transactions,
        new_bytes,
        new_life: *new_life,
        blobs: saved_blobs,
        left_out: cut.left_out.map(|left| left.to_string()),
        warnings: database::warning_lines(&warnings),
    };
    Ok((entry, report))
}
