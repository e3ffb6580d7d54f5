//! Carrying a restore out: from the first byte of a database that changes to the last.
//!
//! Everything that is needed was read and checked, the new indexes are written beside, and the journal says what will be
//! done, before [`carry_out`] begins. Its order is what makes it possible to stop anywhere:
//!
//! 1. every database is fenced, so that ZODB opens none of them, and a text beside each says why;
//! 2. of each, the blobs that are missing are put in; the old index goes, the file is cut, written and synced, and the new index takes its place (a file that
//!    other names share is not cut: a new one, fenced already, takes its name first);
//! 3. caches of ZEO clients that remember what is gone get another name;
//! 4. the journal records that all databases are whole;
//! 5. every database is un-fenced;
//! 6. blobs that don't belong are removed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::fence::{FENCE, fence, notice_path, unfence};
use crate::filestorage::ownership::create_like;
use crate::filestorage::{DataFile, Magic, Source, index_path, zeo_caches};
use crate::monitor::Monitor;
use crate::repository::catalog::{Stream, StreamChunk};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::frames::FrameFiles;
use crate::repository::in_order::beside;
use crate::repository::run_reader::RunReader;
use crate::snapshot::blobs::plan::BlobPlan;
use crate::snapshot::blobs::put::{Links, PreparedBlobs, are_left};
use crate::snapshot::caches::{CacheMoved, move_away};
use crate::snapshot::database::shell_word;
use crate::snapshot::handle::Repository;
use crate::snapshot::journal::{Journal, Stage};
use crate::snapshot::restore::refuse_opened;
use crate::snapshot::writing::{
    IndexSource, TemporaryFile, copy_range, folder_of, temporary_path, write_chunks, write_index,
};

/// What one database becomes.
pub(crate) struct Change<'a> {
    /// The file, open for writing.
    pub(crate) file: &'a DataFile,
    /// How many of its bytes stay.
    pub(crate) keep: u64,
    /// Whose bytes follow; without one, none do, and it has no index.
    pub(crate) target: Option<&'a Stream>,
    /// The chunks that hold them.
    pub(crate) chunks: &'a [StreamChunk],
    /// Whether the file has other names, or a pack lies between: then a new one is built and renamed in, and they keep theirs.
    pub(crate) beside: bool,
    /// The first four bytes that it will have.
    pub(crate) magic: Magic,
    /// Whether transactions that it had are gone then.
    pub(crate) goes_back: bool,
    /// What becomes of its blobs.
    pub(crate) blobs: Option<&'a BlobPlan>,
}

/// A change of which everything is checked, and all that can be is written beside.
pub(crate) struct Prepared<'a> {
    change: Change<'a>,
    chunks: RunReader<'a>,
    /// Where ZODB looks for an index, and what will be there; nothing, if the state has no objects.
    indexes: Vec<(Option<TemporaryFile>, PathBuf)>,
    /// The new file, fenced, and where it will be.
    new_file: Option<(TemporaryFile, PathBuf)>,
    blobs: Option<PreparedBlobs>,
}

impl<'a> Prepared<'a> {
    /// Reads and checks every chunk, of which as much is kept in memory as `budget`, which is reduced, allows. Writes
    /// the index beside, and the whole file where that has to be.
    pub(crate) fn new(
        repository: &Repository,
        change: Change<'a>,
        object_files: &'a FrameFiles,
        budget: &mut usize,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let model = change.file.metadata()?;
        let (indexes, index) = match change.target {
            Some(stream) => {
                let index = IndexSource::find(repository, stream)?;
                let mut indexes = Vec::new();
                for path in index_paths(change.file.path())? {
                    let file = if index.is_empty() {
                        None
                    } else {
                        Some(TemporaryFile::create(repository.disk(), &path, &model)?)
                    };
                    indexes.push((file, path));
                }
                (indexes, Some((index, stream)))
            }
            None => (index_paths(change.file.path())?.into_iter().map(|path| (None, path)).collect(), None),
        };
        let (disk, counters) = (repository.disk(), &repository.counters);
        let write_indexes = || {
            let Some((index, stream)) = &index else { return Ok(()) };
            indexes.iter().filter_map(|(file, _)| file.as_ref()).try_for_each(|temporary| {
                write_index(index, stream, disk, (&temporary.file, &temporary.path), monitor)?;
                counters.fsync();
                Ok(())
            })
        };
        let mut chunks = RunReader::new(object_files, change.chunks.iter().map(|chunk| &chunk.location));
        let check = || {
            chunks.check(budget, |bytes| {
                monitor.advance(bytes as u64);
                monitor.check()
            })
        };
        monitor.begin("checking what will be written", change.bytes());
        // An index is synced while chunks are decompressed.
        let (written, checked) = beside("writes the index", write_indexes, check)?;
        checked?;
        written?;
        monitor.end();
        let with_links = (Links::Allowed, &model);
        let mut reader = ChunkReader::new(&repository.layout, &repository.counters);
        let mut prepare = |plan| PreparedBlobs::new(repository, plan, &mut reader, with_links, monitor);
        let blobs = change.blobs.map(&mut prepare).transpose()?;
        let mut prepared = Prepared { change, chunks, indexes, new_file: None, blobs };
        if prepared.change.beside {
            prepared.build(repository, &model, monitor)?;
        }
        Ok(prepared)
    }

    fn build(&mut self, repository: &Repository, model: &fs::Metadata, monitor: &dyn Monitor) -> Result<()> {
        let Change { file, keep, .. } = self.change;
        let disk = repository.disk();
        let user = rustix::process::geteuid();
        if !user.is_root() && model.uid() != user.as_raw() {
            return Err(Error::failed(format!(
                "a new file would take the place of {}, and be yours",
                file.path().display()
            ))
            .hint("restore as the user that it belongs to, or as root"));
        }
        let path = fs::canonicalize(file.path()).at("resolve", file.path())?;
        let new = TemporaryFile::create(disk, &path, model)?;
        copy_range(disk, file.file(), 0..keep, (&new.file, &new.path), monitor)?;
        self.write(disk, &new.file, &new.path, monitor)?;
        fence(disk, &new.file, &new.path)?;
        repository.counters.fsync();
        self.new_file = Some((new, path));
        Ok(())
    }

    fn write(&self, disk: &Disk, file: &fs::File, path: &Path, monitor: &dyn Monitor) -> Result<()> {
        monitor.begin("writing", self.change.bytes());
        write_chunks(&self.chunks, self.change.chunks, self.change.keep, disk, (file, path), monitor)?;
        monitor.end();
        Ok(())
    }

    fn fence(&self, repository: &Repository, text: &str) -> Result<()> {
        let (disk, file) = (repository.disk(), self.change.file);
        for path in names(file.path())? {
            let notice = notice_path(&path);
            disk.remove_if_there(&notice)?;
            let written = create_like(disk, &notice, &file.metadata()?)?;
            disk.write_at(&written, &notice, text.as_bytes(), 0)?;
            disk.sync(&written, &notice)?;
            disk.sync_directory(folder_of(&notice))?;
            repository.counters.fsync();
        }
        if self.new_file.is_none() {
            fence(disk, file.file(), file.path())?;
            repository.counters.fsync();
        }
        Ok(())
    }

    /// Returns the bytes written.
    fn apply(&mut self, repository: &Repository, monitor: &dyn Monitor) -> Result<u64> {
        let disk = repository.disk();
        let (file, path) = (self.change.file.file(), self.change.file.path());
        if let Some((new, real)) = &mut self.new_file {
            // It is fenced: nobody sees it with the old index.
            new.put(real)?;
            disk.sync_directory(folder_of(real))?;
            repository.counters.fsync();
        }
        // Fenced by now, either way: what isn't is left alone when the restore is taken back.
        if let Some(blobs) = &mut self.blobs {
            blobs.put()?;
        }
        for (_, index) in &self.indexes {
            disk.remove_if_there(index)?;
            disk.sync_directory(folder_of(index))?;
            repository.counters.fsync();
        }
        if self.new_file.is_none() {
            if file.metadata().at("look at", path)?.len() > self.change.keep {
                disk.set_length(file, path, self.change.keep)?;
            }
            self.write(disk, file, path, monitor)?;
            disk.sync(file, path)?;
            repository.counters.fsync();
        }
        let mut written = self.change.bytes();
        for (temporary, index) in &mut self.indexes {
            let Some(temporary) = temporary else { continue };
            written += temporary.file.metadata().at("look at", &temporary.path)?.len();
            temporary.put(index)?;
            disk.sync_directory(folder_of(index))?;
            repository.counters.fsync();
        }
        Ok(written)
    }

    /// The caches near it that may remember what it won't have any more.
    fn caches(&self) -> Vec<PathBuf> {
        if self.change.goes_back { zeo_caches(self.change.file.path()) } else { Vec::new() }
    }

    fn unfence(&self, repository: &Repository) -> Result<()> {
        let (file, path) = match &self.new_file {
            Some((new, real)) => (&new.file, real.as_path()),
            None => (self.change.file.file(), self.change.file.path()),
        };
        open_again(repository, (file, path), self.change.file.path(), self.change.magic)
    }
}

impl Change<'_> {
    /// How many bytes are written.
    fn bytes(&self) -> u64 {
        self.target.map_or(0, |stream| stream.cut.offset.saturating_sub(self.keep))
    }
}

/// Lets ZODB open a database again, and removes what said why it couldn't, at the path by which it is known.
pub(crate) fn open_again(
    repository: &Repository,
    (file, path): (&fs::File, &Path),
    known: &Path,
    magic: Magic,
) -> Result<()> {
    unfence(repository.disk(), file, path, magic)?;
    repository.counters.fsync();
    tidy(repository.disk(), known)
}

/// Removes what a restore that was killed left beside a database.
pub(crate) fn tidy(disk: &Disk, path: &Path) -> Result<()> {
    for name in names(path)? {
        disk.remove_if_there(&notice_path(&name))?;
        disk.remove_if_there(&temporary_path(&index_path(&name)))?;
    }
    let real = fs::canonicalize(path).at("resolve", path)?;
    disk.remove_if_there(&temporary_path(&real))
}

/// What was done.
#[derive(Default)]
pub(crate) struct Done {
    /// Bytes written into databases and their indexes.
    pub(crate) written: u64,
    pub(crate) caches: Vec<CacheMoved>,
    /// Whether blobs that don't belong there could not all be removed.
    pub(crate) blobs_left: bool,
}

/// Does it: see the module. The journal is written, and says [`Stage::Writing`]; at the end it says `stage`, or is over.
/// `untouched` says that nothing was changed before.
pub(crate) fn carry_out(
    repository: &Repository,
    prepared: &mut [Prepared<'_>],
    journal: &mut Journal,
    (stage, untouched): (Stage, bool),
    monitor: &dyn Monitor,
) -> Result<Done> {
    let mut all = || -> Result<Done> {
        let text = notice(repository, journal);
        for database in prepared.iter() {
            database.fence(repository, &text)?;
        }
        // Readers take no lock; from now on nobody opens it.
        if let Err(error) = prepared.iter().try_for_each(|database| refuse_opened(database.change.file)) {
            return if untouched { take_back(repository, prepared, journal, error) } else { Err(error) };
        }
        let mut written = 0;
        for database in prepared.iter_mut() {
            written += database.apply(repository, monitor)?;
        }
        // What is taken back was never served.
        let mut caches = Vec::new();
        if stage == Stage::Restored {
            let found: BTreeSet<PathBuf> = prepared.iter().flat_map(Prepared::caches).collect();
            caches = move_away(repository, found.into_iter().collect());
        }
        journal.record(stage, &repository.layout, &repository.counters)?;
        for database in prepared.iter() {
            database.unfence(repository)?;
        }
        let mut blobs_left = false;
        for blobs in prepared.iter().flat_map(|database| &database.blobs) {
            // The databases are whole, and may be in use: this is no reason to call the restore unfinished.
            blobs_left |= are_left(blobs.take_out(), monitor);
        }
        end(repository, journal)?;
        Ok(Done { written, caches, blobs_left })
    };
    all().map_err(|error| match Journal::unfinished(&repository.layout, repository.uid) {
        Ok(None) => error,
        _ => unfinished(error, &shell_word(repository.root())),
    })
}

/// Takes the fences down again: nothing else was changed. Gives the error that is the reason.
fn take_back(repository: &Repository, prepared: &[Prepared<'_>], journal: &Journal, reason: Error) -> Result<Done> {
    for database in prepared {
        // The file that was there, also where a new one is ready.
        let file = database.change.file;
        open_again(repository, (file.file(), file.path()), file.path(), file.magic())?;
    }
    journal.discard(&repository.layout, &repository.counters)?;
    Err(reason)
}

/// Ends a journal of which everything is done.
pub(crate) fn end(repository: &Repository, journal: &Journal) -> Result<()> {
    match journal.stage {
        Stage::TakenBack => journal.discard(&repository.layout, &repository.counters),
        _ => journal.finish(&repository.layout, &repository.counters),
    }
}

/// Says what to do about a restore that ended in the middle.
pub(crate) fn unfinished(error: Error, root: &str) -> Error {
    error.context("the restore is unfinished").hint(format!(
        "until it is finished, ZODB refuses to open what is half restored: znap -R {root} restore --resume finishes it, --abort goes back"
    ))
}

fn notice(repository: &Repository, journal: &Journal) -> String {
    let root = fs::canonicalize(repository.root()).unwrap_or_else(|_| repository.root().to_path_buf());
    let magic: String = journal.databases.first().map(|entry| entry.magic.clone()).unwrap_or_default();
    format!(
        "znap is restoring snapshot {id} into the database beside this file, or was when it was interrupted.\n\
         While this file is here, the database may be half restored: its first four bytes are {fence} instead of\n\
         {magic}, so that ZODB refuses to open it. Don't put them back by hand.\n\
         \n\
         If no znap is running any more, type one of these:\n\
         \n\
         \x20   znap -R {root} restore --resume    finishes the restore\n\
         \x20   znap -R {root} restore --abort     puts back what was there before\n",
        id = journal.target.id,
        fence = FENCE.escape_ascii(),
        root = shell_word(&root),
    )
}

/// The names that ZODB may know a file by: the path as typed, and, where that is a link, the file's own.
pub(crate) fn names(path: &Path) -> Result<Vec<PathBuf>> {
    let real = fs::canonicalize(path).at("resolve", path)?;
    let same_folder =
        fs::canonicalize(folder_of(path)).at("resolve", folder_of(path))?.join(path.file_name().unwrap_or_default());
    let mut names = vec![path.to_path_buf()];
    if real != same_folder {
        names.push(real);
    }
    Ok(names)
}

/// The names under which ZODB may look for the index.
fn index_paths(path: &Path) -> Result<Vec<PathBuf>> {
    Ok(names(path)?.iter().map(|name| index_path(name)).collect())
}
