//! Saving blobs: those that the transactions since the nearest snapshot name, each read once.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Seek};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, IoContext, Result};
use crate::filestorage::{BlobLayout, BlobRecord, BlobRecords, Position, Tid};
use crate::monitor::Monitor;
use crate::repository::blob_list::{BlobEntry, BlobForm, BlobMode, BlobTotals, BlobsEntry};
use crate::repository::catalog::{Catalog, Database, Stream};
use crate::repository::chunk_writer::ChunkWriter;
use crate::repository::data::Content;
use crate::repository::frames::FrameFiles;
use crate::repository::hash::Hash;
use crate::repository::manifest::ChunkName;
use crate::repository::object::{ObjectKind, open_regular};
use crate::repository::plain::{PlainWriter, read_through};
use crate::snapshot::blobs::{is_there, size_of};
use crate::snapshot::handle::Repository;
use crate::snapshot::index_parts::sources;
use crate::snapshot::index_reader::with_merged;
use crate::snapshot::save::Saving;
use crate::snapshot::writing::require_room;

/// What a save did with the blobs of one database.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SavedBlobs {
    /// Its blob directory.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// How many blobs the snapshot has.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many of them no snapshot that the file begins with has.
    pub new: u64,
    /// Their bytes.
    pub new_bytes: u64,
    /// How many files were read; of the others it was known what is in them.
    pub read: u64,
    /// The bytes of these.
    pub read_bytes: u64,
    /// How many of these became second names, or clones, of the files.
    pub linked: u64,
    /// How many current blobs have no file.
    pub missing: u64,
    /// The first of them.
    pub missing_blobs: Vec<MissingBlob>,
}

/// A revision of a blob that has no file.
#[derive(Debug, Clone, Serialize)]
pub struct MissingBlob {
    /// The object.
    pub oid: String,
    /// The transaction.
    pub tid: String,
    /// Where the file should be.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
}

/// How many missing blobs are listed one by one.
const LISTED: usize = 100;
/// How many bytes of a blob tell whether it can be compressed, and by how much it has to be to be worth it.
const SAMPLE: usize = 128 << 10;
const WORTH: f64 = 0.95;

/// The blobs of a database while it is being saved.
pub(crate) struct BlobSaving<'a> {
    database: &'a Database,
    directory: PathBuf,
    mode: BlobMode,
    /// Whether they come from elsewhere: what has the name of a known one may be another.
    is_from_elsewhere: bool,
    /// The snapshot that the file begins with, if its blobs were saved.
    parent: Option<(&'a Stream, &'a BlobTotals)>,
    /// Hears of every record since then; without a parent, of every record.
    pub(crate) records: BlobRecords,
    report: SavedBlobs,
    entry: BlobsEntry,
    /// What the snapshot's own list will have, in no order as yet.
    own: Vec<(BlobEntry, Vec<ChunkName>)>,
}

/// Where blobs are put.
pub(crate) struct Stores<'a> {
    pub(crate) chunks: &'a mut ChunkWriter,
    pub(crate) plain: &'a mut PlainWriter,
}

/// From where on the records of a file have to be looked at for its blobs: from where it is known, unless the blobs up to there
/// aren't.
pub(crate) fn scan_from(parent: Option<&Stream>, from: Position) -> Position {
    if parent.is_some_and(|parent| parent.blobs.is_some()) { from } else { Position::START }
}

/// Whether a stream, whose blobs weren't saved, builds on one whose blobs were. A list of all blobs can't go on from it: it would have
/// those of that one twice.
pub(crate) fn hides_blobs(catalog: &Catalog, stream: &Stream) -> Result<bool> {
    Ok(stream.blobs.is_none() && catalog.ancestry(stream.row)?.iter().any(|older| older.blobs.is_some()))
}

impl<'a> BlobSaving<'a> {
    /// Begins, if the database's blobs are to be saved.
    pub(crate) fn begin(source: &'a Saving, is_from_elsewhere: bool) -> Result<Option<Self>> {
        let Some((directory, mode)) = source.blobs.clone() else { return Ok(None) };
        let layout = BlobLayout::of(&directory)?.unwrap_or(BlobLayout::Bushy).name().to_string();
        let parent = source.parent.as_ref().and_then(|stream| Some((stream, stream.blobs.as_ref()?)));
        let totals = match parent {
            Some((_, totals)) => BlobTotals { layout, ..totals.clone() },
            None => BlobTotals::none(layout),
        };
        Ok(Some(BlobSaving {
            database: &source.database,
            report: SavedBlobs { path: directory.clone(), ..SavedBlobs::default() },
            directory,
            mode,
            is_from_elsewhere,
            parent,
            records: BlobRecords::default(),
            entry: BlobsEntry { totals, own: Vec::new(), chunks: Vec::new() },
            own: Vec::new(),
        }))
    }

    /// Stores what is new, now that all records up to the cut were heard of. `changed` are the objects with records behind what the
    /// parent has, in ascending order, and where their last ones are; `kept_length` is up to where the parent's list is kept.
    pub(crate) fn finish(
        mut self,
        repository: &Repository,
        source: &Saving,
        changed: &[(u64, u64)],
        kept_length: u64,
        stores: &mut Stores<'_>,
        monitor: &dyn Monitor,
    ) -> Result<(BlobsEntry, SavedBlobs)> {
        let records = std::mem::take(&mut self.records).finish(&source.file)?;
        let missed = self.missed_before(repository, changed)?;
        let mut wanted = Vec::new();
        for (record, is_new) in records.iter().map(|record| (record, true)).chain(missed.iter().map(|one| (one, false)))
        {
            monitor.check()?;
            match self.known(repository, record, monitor)? {
                Some((entry, chunks)) => self.add(entry, chunks),
                None => wanted.push((record, is_new)),
            }
        }
        self.announce(repository, &wanted, monitor)?;
        for (record, is_new) in wanted {
            monitor.check()?;
            match self.store(repository, record, stores, monitor)? {
                Some((entry, chunks)) => self.add(entry, chunks),
                // What isn't current a pack may have removed.
                None if !record.current => {}
                None => {
                    self.miss(record);
                    if is_new {
                        self.own.push((BlobEntry::missing(record.offset, record.oid, record.tid), Vec::new()));
                    }
                }
            }
        }
        self.repeat(repository, kept_length)?;
        let (entry, report) = (&mut self.entry, &mut self.report);
        (report.count, report.bytes) = (entry.totals.count, entry.totals.bytes);
        entry.set(std::mem::take(&mut self.own));
        Ok((self.entry, self.report))
    }

    /// A blob of which the repository has the bytes already. A server whose clock is behind the database gives the same transaction id
    /// again after a restore: only then is the file compared, and where it comes from elsewhere.
    fn known(
        &self,
        repository: &Repository,
        record: &BlobRecord,
        monitor: &dyn Monitor,
    ) -> Result<Option<(BlobEntry, Vec<ChunkName>)>> {
        let known = repository.catalog.blob(self.database.row, record.oid, record.tid)?;
        let Some(known) = known else { return Ok(None) };
        if !is_there(repository, &known)? {
            return Ok(None);
        }
        if self.is_from_elsewhere || Tid(record.tid).time() > Timestamp::now() {
            let path = self.path_of(record);
            if let Some(file) = open_blob(&path)?
                && read_through(&file, &path, monitor, |_| Ok(()))?.0 != known.entry.hash
            {
                return Err(another(&path, record, self.is_from_elsewhere));
            }
        }
        let chunks = repository.catalog.blob_chunks(known.row)?.iter().map(ChunkName::of).collect();
        Ok(Some((BlobEntry { offset: record.offset, ..known.entry }, chunks)))
    }

    /// Adds a blob that is stored, and that no snapshot before has.
    fn add(&mut self, entry: BlobEntry, chunks: Vec<ChunkName>) {
        let totals = &mut self.entry.totals;
        totals.count += 1;
        totals.bytes += entry.size;
        totals.sum = entry.name().map_or(totals.sum, |name| totals.sum.plus(&name));
        self.report.new += 1;
        self.report.new_bytes += entry.size;
        self.own.push((entry, chunks));
    }

    /// Reports that a blob has no file.
    fn miss(&mut self, record: &BlobRecord) {
        self.report.missing += 1;
        if self.report.missing_blobs.len() < LISTED {
            self.report.missing_blobs.push(MissingBlob {
                oid: format!("{:#x}", record.oid),
                tid: Tid(record.tid).to_string(),
                path: self.path_of(record),
            });
        }
    }

    fn path_of(&self, record: &BlobRecord) -> PathBuf {
        let layout = BlobLayout::from_name(&self.entry.totals.layout).unwrap_or(BlobLayout::Bushy);
        self.directory.join(layout.path(record.oid, record.tid))
    }

    /// What saves before this one didn't find, and whether it is still current.
    fn missed_before(&self, repository: &Repository, changed: &[(u64, u64)]) -> Result<Vec<BlobRecord>> {
        let Some((parent, _)) = self.parent else { return Ok(Vec::new()) };
        let missing = repository.catalog.missing_blobs(parent)?;
        let Some(first) = missing.first() else { return Ok(Vec::new()) };
        let found = repository.catalog.blobs_between(parent.row, first.offset, parent.cut.offset)?;
        let found: HashSet<u64> = found.iter().map(|blob| blob.entry.offset).collect();
        let mut last: HashMap<u64, u64> = missing.iter().map(|blob| (blob.oid, 0)).collect();
        let files = Arc::new(FrameFiles::new(&repository.layout, &repository.counters));
        with_merged(&files, &sources(&repository.catalog, parent)?, &parent.snapshot_name, |pairs| {
            for pair in pairs {
                let (oid, offset) = pair?;
                last.entry(oid).and_modify(|last| *last = offset);
            }
            Ok(())
        })?;
        for (oid, offset) in changed {
            last.entry(*oid).and_modify(|last| *last = *offset);
        }
        let mut seen = HashSet::new();
        let left = missing.into_iter().filter(|blob| !found.contains(&blob.offset) && seen.insert(blob.offset));
        let is_current = |blob: &BlobEntry| last.get(&blob.oid) == Some(&blob.offset);
        let record = |blob: BlobEntry| BlobRecord::known(blob.offset, blob.oid, blob.tid, is_current(&blob));
        Ok(left.map(record).collect())
    }

    /// Says how much a first save is going to read; and looks whether there is room for what will be copied.
    fn announce(&self, repository: &Repository, wanted: &[(&BlobRecord, bool)], monitor: &dyn Monitor) -> Result<()> {
        if wanted.is_empty() {
            return Ok(());
        }
        if !self.directory.is_dir() {
            return Err(Error::failed(format!(
                "there is no blob directory {}, and {} names blobs",
                self.directory.display(),
                self.database.name
            ))
            .hint("if it is elsewhere, say so with znap track; if it isn't mounted, mount it; znap track --blobs-mode skip leaves blobs alone"));
        }
        let sizes = wanted.iter().filter_map(|(record, _)| fs::symlink_metadata(self.path_of(record)).ok());
        let (mut count, mut bytes) = (0_u64, 0);
        for size in sizes.map(|metadata| metadata.len()) {
            (count, bytes) = (count + 1, bytes + size);
        }
        if self.mode == BlobMode::Copy {
            require_room(repository.root(), bytes)?;
        }
        // Not where an import has unpacked them.
        let is_own = self.database.blobs.as_ref().is_some_and(|own| repository.seen(&own.path) == self.directory);
        // The first time: after a pack nearly all are known.
        if self.parent.is_none() && self.report.new == 0 && count > 0 && is_own {
            let how =
                if self.mode == BlobMode::Copy { "copied" } else { "read once, and linked where that is possible" };
            monitor.notice(&format!(
                "{} has {count} {}, {:.1} MB, in {}: they are {how}",
                self.database.name,
                if count == 1 { "blob" } else { "blobs" },
                bytes as f64 / 1e6,
                self.directory.display()
            ));
        }
        Ok(())
    }

    /// Stores a blob that isn't known; `None` if it has no file.
    fn store(
        &mut self,
        repository: &Repository,
        record: &BlobRecord,
        stores: &mut Stores<'_>,
        monitor: &dyn Monitor,
    ) -> Result<Option<(BlobEntry, Vec<ChunkName>)>> {
        let path = self.path_of(record);
        let Some(mut file) = open_blob(&path)? else { return Ok(None) };
        let metadata = file.metadata().at("look at", &path)?;
        let mut linked = None;
        if self.mode == BlobMode::Link {
            let (hash, size) = read_through(&file, &path, monitor, |_| Ok(()))?;
            // A blob that has the bytes of an object file of znap's is copied: there can't be two of one name.
            let kind = repository.catalog.object_kind(&hash)?;
            let is_other = kind.is_some_and(|kind| kind != ObjectKind::Plain);
            let is_known =
                stores.plain.has(&hash) || kind.is_some() && size_of(&repository.layout.plain(&hash))? == Some(size);
            if !is_other && (is_known || stores.plain.adopt(&file, &path, &hash)?) {
                linked = Some((hash, size));
            } else {
                file.rewind().at("read", &path)?;
            }
        }
        let (form, (hash, size), chunks) = match linked {
            Some(found) => (BlobForm::Plain, found, Vec::new()),
            None => {
                let (found, chunks) = copy(repository, &file, &path, stores.chunks, monitor)?;
                (BlobForm::Chunks, found, chunks)
            }
        };
        // One that was lost may be stored again; it is the same.
        let before = repository.catalog.blob(self.database.row, record.oid, record.tid)?;
        if before.is_some_and(|before| (before.entry.size, before.entry.hash) != (size, hash)) {
            return Err(another(&path, record, self.is_from_elsewhere));
        }
        self.report.read += 1;
        self.report.read_bytes += size;
        self.report.linked += u64::from(form == BlobForm::Plain);
        let entry = BlobEntry {
            offset: record.offset,
            oid: record.oid,
            tid: record.tid,
            size,
            mode: metadata.permissions().mode() & 0o7777,
            owner: metadata.uid(),
            group: metadata.gid(),
            form,
            chunks: chunks.len() as u32,
            hash,
        };
        Ok(Some((entry, chunks)))
    }

    /// Lists again what the parent has behind the place up to which its list is kept.
    fn repeat(&mut self, repository: &Repository, kept_length: u64) -> Result<()> {
        let Some((parent, _)) = self.parent else { return Ok(()) };
        for blob in repository.catalog.blobs_between(parent.row, kept_length, parent.cut.offset)? {
            let chunks = repository.catalog.blob_chunks(blob.row)?;
            self.own.push((blob.entry, chunks.iter().map(ChunkName::of).collect()));
        }
        let missing = repository.catalog.missing_blobs(parent)?;
        self.own.extend(missing.into_iter().filter(|blob| blob.offset >= kept_length).map(|blob| (blob, Vec::new())));
        Ok(())
    }
}

/// Opens a blob's file; `None` if there is none.
fn open_blob(path: &Path) -> Result<Option<File>> {
    match open_regular(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        result => result.at("open", path)?.map(Some).ok_or_else(|| {
            Error::failed(format!("{} is no regular file, and should be a blob", path.display()))
                .hint("put the file itself there; or leave blobs alone with znap track --blobs-mode skip")
        }),
    }
}

/// Stores a blob's bytes as chunks. Returns their hash and number, and the chunks.
fn copy(
    repository: &Repository,
    file: &File,
    path: &Path,
    writer: &mut ChunkWriter,
    monitor: &dyn Monitor,
) -> Result<((Hash, u64), Vec<ChunkName>)> {
    let mut chunks = Vec::new();
    let mut compressible = None;
    let found = read_through(file, path, monitor, |piece| {
        let hash = Hash::of(piece);
        chunks.push(ChunkName { hash, length: piece.len() as u32 });
        if writer.has(&hash) || repository.catalog.has_chunk(&hash)? {
            return Ok(());
        }
        if *compressible.get_or_insert_with(|| is_compressible(piece)) {
            writer.append(Content::Blob, hash, piece)
        } else {
            writer.append_incompressible(hash, piece)
        }
    })?;
    Ok((found, chunks))
}

/// Whether compressing a blob is worth it, judged by its beginning: pictures and archives are compressed already.
fn is_compressible(piece: &[u8]) -> bool {
    let sample = &piece[..piece.len().min(SAMPLE)];
    zstd::bulk::compress(sample, 1).is_ok_and(|compressed| (compressed.len() as f64) < sample.len() as f64 * WORTH)
}

/// The error for a blob that isn't the one of its name that the repository knows.
fn another(path: &Path, record: &BlobRecord, is_from_elsewhere: bool) -> Error {
    if is_from_elsewhere {
        let (oid, tid) = (record.oid, Tid(record.tid));
        let error =
            Error::failed(format!("blob {oid:#x} of transaction {tid} isn't the one of that name that is saved"));
        return error.hint(
            "import it into a repository of its own; or delete the snapshots that have the other one, and run znap gc",
        );
    }
    Error::failed(format!("{} is another file than the one of that name that was saved before", path.display())).hint(
        "blob files never change: put the right one there; or, if the server's clock went backwards between two restores, \
         delete the snapshots that have the other one, and run znap gc",
    )
}
