//! Restore to another place: whole databases with their indexes, in a folder that has none.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::disk::Disk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Magic, Position, Source, index_path, scan};
use crate::monitor::Monitor;
use crate::repository::catalog::{Database, Snapshot, Stream, StreamChunk};
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::counters::Counts;
use crate::repository::frames::FrameFiles;
use crate::repository::hash::Hash;
use crate::repository::in_order::beside;
use crate::repository::lock::Gate;
use crate::repository::manifest::Generation;
use crate::repository::run_reader::RunReader;
use crate::snapshot::anchor::{begins_any, damaged_list, magic_of, recognise, refusal, unless_unreadable};
use crate::snapshot::base::{is_not_the_base, needs_file, source_of, whole_chunks};
use crate::snapshot::blobs::plan::{BlobPlan, plan_copy};
use crate::snapshot::blobs::put::{Links, PreparedBlobs};
use crate::snapshot::choice::of_snapshot;
use crate::snapshot::database;
use crate::snapshot::handle::Repository;
use crate::snapshot::plan::checked_chunks;
use crate::snapshot::writing::{
    IndexSource, TemporaryFile, copy_range, folder_of, require_room, write_chunks, write_index,
};

/// What was written, and where.
#[derive(Debug, Clone, Serialize)]
pub struct CopyReport {
    /// The snapshot.
    pub id: String,
    /// Per database: its name, the file written, its length.
    pub databases: Vec<CopiedDatabase>,
    /// The names of the databases that weren't written: the snapshot doesn't have them, or others were asked for.
    pub not_written: Vec<String>,
    /// What it cost.
    pub counts: Counts,
}

/// A database that was written whole.
#[derive(Debug, Clone, Serialize)]
pub struct CopiedDatabase {
    /// Its name.
    pub name: String,
    /// The new file.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its blobs, if the snapshot has them.
    pub blobs: Option<BlobPlan>,
}

/// Writes the databases of a snapshot to `to/NAME/`, whole, with their indexes. The folder `to` must not
/// exist, or be empty. Needs no lock on the databases: what is read of them never changes.
pub fn copy_out(repository: &Repository, word: &str, to: &Path, monitor: &dyn Monitor) -> Result<CopyReport> {
    copy_out_only(repository, word, &[], None, to, monitor)
}

/// The same for the databases that are named, and with a file that begins as one did before it was packed, if that is needed.
pub fn copy_out_only(
    repository: &Repository,
    word: &str,
    only: &[String],
    base_from: Option<&Path>,
    to: &Path,
    monitor: &dyn Monitor,
) -> Result<CopyReport> {
    let (snapshot, jobs, not_written) = prepare(repository, word, (only, base_from), to, monitor)?;
    require_room(existing(to), jobs.iter().map(|job| job.stream.cut.offset + job.blob_bytes()).sum())?;
    refuse_occupied(to, &jobs)?;
    let mut copied = Vec::new();
    let mut read = 0;
    let mut written = 0;
    for job in jobs {
        read += job.base.as_ref().map_or(0, |_| job.base_length);
        written += job.stream.cut.offset;
        copied.push(job.run(repository, monitor)?);
    }
    let counts = Counts { database_bytes_read: read, database_bytes_written: written, ..repository.counts() };
    Ok(CopyReport { id: snapshot.name, databases: copied, not_written, counts })
}

/// Opens everything that the databases of a snapshot, or of these those that are named, will be made from, in folders of their names
/// in `to`; their beginnings from the file that is named, where it is one of them. Returns the names of the others, too.
pub(super) fn prepare(
    repository: &Repository,
    word: &str,
    (only, base_from): (&[String], Option<&Path>),
    to: &Path,
    monitor: &dyn Monitor,
) -> Result<(Snapshot, Vec<Job>, Vec<String>)> {
    // The gate before the catalog, as gc has it; all that is asked is of one moment.
    let _gate = Gate::shared(&repository.layout, monitor)?;
    repository.catalog.snapshot_of(|_| {
        let snapshot = repository.resolve(word)?;
        let chosen = of_snapshot(repository, &snapshot, only)?;
        let mut jobs = Vec::new();
        let (mut needed, mut is_taken) = (None, false);
        for (database, stream) in chosen.parts {
            let job = Job::prepare(repository, &database, stream, base_from, to, monitor)?;
            if job.base_length > FIRST_TRANSACTION {
                needed = needed.or_else(|| Some(repository.path_of(&database)));
                is_taken |= job.base.as_ref().is_some_and(|base| Some(base.path()) == base_from);
            }
            jobs.push(job);
        }
        // Another file isn't taken without a word.
        if let (Some(named), Some(path), false) = (base_from, needed, is_taken) {
            return Err(is_not_the_base(named, &path, &snapshot.name));
        }
        Ok((snapshot, jobs, chosen.untouched))
    })
}

/// One database to write, with everything opened that it will be made from.
pub(super) struct Job {
    pub(super) name: String,
    pub(super) stream: Stream,
    /// What new files take after.
    pub(super) model: fs::Metadata,
    /// The file, of which the first `base_length` bytes are read if that is more than the magic.
    pub(super) base: Option<DataFile>,
    pub(super) base_length: u64,
    pub(super) magic: Magic,
    pub(super) object_files: FrameFiles,
    pub(super) chunks: Vec<StreamChunk>,
    pub(super) folder: PathBuf,
    pub(super) file_name: std::ffi::OsString,
    pub(super) index: IndexSource,
    /// Its blobs, with what reads their pieces.
    pub(super) blobs: Option<(BlobPlan, ChunkReader)>,
}

impl Job {
    fn blob_bytes(&self) -> u64 {
        self.blobs.as_ref().map_or(0, |(plan, _)| plan.add_bytes)
    }

    fn prepare(
        repository: &Repository,
        database: &Database,
        stream: Stream,
        base_from: Option<&Path>,
        to: &Path,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let generation = repository.catalog.generation(stream.generation)?.known;
        let path = repository.path_of(database);
        // What is needed of it never changes, not even while it is half restored.
        let magic = magic_of(&generation).ok_or_else(|| damaged_list(&stream))?;
        let open = || DataFile::open_fenced_or_not(&path, false, magic);
        let (base, base_length, chunks) = if let Some(chunks) =
            whole_chunks(&repository.catalog, &stream)?.filter(|_| generation.base_length > FIRST_TRANSACTION)
        {
            // What is stored is checked; of the file's beginning only the end could be.
            (open().ok(), FIRST_TRANSACTION, chunks)
        } else if generation.base_length > FIRST_TRANSACTION {
            let begins = |file: &DataFile| begins_any(file, &[&generation]);
            // Whoever names a copy has a reason: the database's own file may be damaged.
            let named = base_from.map(DataFile::open).transpose()?;
            let is_right = named.as_ref().map_or(Ok(false), begins)?;
            let base = match named.filter(|_| is_right) {
                Some(named) => Ok(named),
                None => match database::patiently(open, monitor) {
                    Ok(file) if unless_unreadable(begins(&file))? == Some(true) => Ok(file),
                    other => source_of(&repository.layout, &path, &generation)?.ok_or(other),
                },
            };
            let file = match (base, base_from) {
                (Ok(file), _) => file,
                (Err(_), Some(named)) => return Err(is_not_the_base(named, &path, &stream.snapshot_name)),
                // The life before is over: what has become of the file since is no matter.
                (Err(_), None) if generation.uid != database.generation.known.uid => {
                    return Err(needs_file(&path, &stream));
                }
                (Err(other), None) => return Err(lacks_base(&stream, &path, &generation, other)),
            };
            let chunks = checked_chunks(&repository.catalog, &stream, None, generation.base_length)?;
            (Some(file), generation.base_length, chunks)
        } else {
            // It is written from the catalog, and so is checked, too.
            if Hash::of(generation.magic.as_bytes()) != generation.base_check {
                return Err(damaged_list(&stream));
            }
            (open().ok(), FIRST_TRANSACTION, checked_chunks(&repository.catalog, &stream, None, FIRST_TRANSACTION)?)
        };
        let object_files = FrameFiles::new(&repository.layout, &repository.counters);
        object_files.open(chunks.iter().map(|chunk| &chunk.location))?;
        let index = IndexSource::open(repository, &stream)?;
        let folder = to.join(&database.name);
        let blobs = match plan_copy(repository, database, &stream, &folder)? {
            Some(plan) => {
                let mut reader = ChunkReader::new(&repository.layout, &repository.counters);
                reader.open(plan.work.add.iter().flat_map(|(_, chunks)| chunks))?;
                Some((plan, reader))
            }
            None => None,
        };
        // The database's own file; or what has its beginning; or as the repository's own.
        let model = match (fs::metadata(&path), &base) {
            (Ok(metadata), _) => metadata,
            (Err(_), Some(base)) => base.metadata()?,
            (Err(_), None) => fs::metadata(repository.layout.catalog()).at("look at", repository.layout.catalog())?,
        };
        Ok(Job {
            name: database.name.clone(),
            stream,
            model,
            base,
            base_length,
            magic,
            object_files,
            chunks,
            folder,
            file_name: path.file_name().unwrap_or("Data.fs".as_ref()).to_owned(),
            index,
            blobs,
        })
    }

    fn run(mut self, repository: &Repository, monitor: &dyn Monitor) -> Result<CopiedDatabase> {
        let model = self.model.clone();
        create_folders(repository.disk(), &self.folder, &model)?;
        let path = self.folder.join(&self.file_name);
        let index_path = index_path(&path);
        // Under other names until both are whole: what fails half-way must not look like a database.
        let mut index = if self.index.is_empty() {
            None
        } else {
            let index = TemporaryFile::create(repository.disk(), &index_path, &model)?;
            write_index(&self.index, &self.stream, repository.disk(), (&index.file, &index.path), monitor)?;
            repository.counters.fsync();
            Some(index)
        };
        let mut data = TemporaryFile::create(repository.disk(), &path, &model)?;
        monitor.begin("writing", self.stream.cut.offset);
        self.write_data(repository.disk(), &data, monitor)?;
        repository.disk().sync(&data.file, &data.path)?;
        repository.counters.fsync();
        monitor.end();
        let mut blobs = None;
        if let Some((plan, mut reader)) = self.blobs.take() {
            let mut prepared = PreparedBlobs::new(repository, &plan, &mut reader, (Links::No, &model), monitor)?;
            prepared.put()?;
            blobs = Some(plan);
        }
        data.put(&path)?;
        if let Some(index) = &mut index {
            index.put(&index_path)?;
        }
        repository.disk().sync_directory(&self.folder)?;
        repository.counters.fsync();
        Ok(CopiedDatabase { name: self.name, path, bytes: self.stream.cut.offset, blobs })
    }

    /// Copies the base while the tail is decompressed and written behind it, and the base is parsed.
    fn write_data(&self, disk: &Disk, data: &TemporaryFile, monitor: &dyn Monitor) -> Result<()> {
        let base = self.base.as_ref().filter(|_| self.base_length > FIRST_TRANSACTION);
        let copy_base = || {
            if let Some(base) = base {
                copy_range(disk, base.file(), 0..self.base_length, (&data.file, &data.path), monitor)?;
            }
            // A restore may have put its fence there meanwhile.
            disk.write_at(&data.file, &data.path, &self.magic.bytes(), 0)
        };
        let write_tail = || {
            let reader = RunReader::new(&self.object_files, self.chunks.iter().map(|chunk| &chunk.location));
            write_chunks(&reader, &self.chunks, self.base_length, disk, (&data.file, &data.path), monitor)?;
            match base {
                // No hashes of it are known.
                Some(base) => scan(base, Position::START, self.base_length, &mut (), monitor).map(drop),
                None => Ok(()),
            }
        };
        let (copied, tail) = beside("copies the base", copy_base, write_tail)?;
        copied?;
        tail
    }
}

/// Creates a folder and those above it that are missing; where root does, they get the database's owner, who has
/// to make a lock file in there.
fn create_folders(disk: &Disk, folder: &Path, model: &fs::Metadata) -> Result<()> {
    let missing: Vec<&Path> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    for path in missing.into_iter().rev() {
        disk.create_directory(path, 0o777).at("create", path)?;
        disk.sync_directory(folder_of(path))?;
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(path, Some(model.uid()), Some(model.gid())).at("set the owner of", path)?;
        }
    }
    Ok(())
}

/// The error for a snapshot whose base nobody has, and why the file at the database's path hasn't. A file that is kept whole is
/// never needed, so it is a megabyte or more.
fn lacks_base(stream: &Stream, path: &Path, generation: &Generation, file: Result<DataFile>) -> Error {
    let why = match file.and_then(|file| recognise(&file, generation, None)) {
        Ok(recognition) => refusal(path, &recognition, generation).unwrap_or_else(|| needs_file(path, stream)),
        Err(error) if error.kind() == Kind::NotFound => error.hint("put a copy of it back"),
        Err(error) => error,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let megabytes = generation.base_length as f64 / 1e6;
    let places = if megabytes < 9.995 { 2 } else { usize::from(megabytes < 99.95) };
    why.context(format!("snapshot {} needs the first {megabytes:.places$} MB of {name}", stream.snapshot_name))
}

/// The nearest folder above that exists.
pub(crate) fn existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."))
}

/// Refuses a folder that has anything in it but empty folders of these databases, which an interrupted command leaves.
fn refuse_occupied(to: &Path, jobs: &[Job]) -> Result<()> {
    let refuse = |folder: &Path, what: &str| {
        Err(Error::failed(format!("{} {what}", folder.display())).hint("name a folder that is new or empty"))
    };
    let entries_of = |folder: &Path| -> Result<Vec<PathBuf>> {
        match fs::read_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound && !folder.is_symlink() => Ok(Vec::new()),
            Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {
                refuse(folder, "is no folder").map(|()| Vec::new())
            }
            entries => entries.and_then(|all| all.map(|entry| Ok(entry?.path())).collect()).at("read", folder),
        }
    };
    for path in entries_of(to)? {
        let is_ours = jobs.iter().any(|job| job.folder == path) && !path.is_symlink();
        if !is_ours || !entries_of(&path)?.is_empty() {
            return refuse(to, "isn't empty");
        }
    }
    Ok(())
}
