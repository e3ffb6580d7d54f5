//! Export: a snapshot as an archive that plain `tar` unpacks, and that import takes in.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::CParameter;

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::blobs::LAYOUT_MARKER;
use crate::filestorage::{FIRST_TRANSACTION, Position, Scanner, Source, index_path};
use crate::monitor::Monitor;
use crate::repository::blob_list::BlobForm;
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::chunk_writer::Compression;
use crate::repository::counters::Counts;
use crate::repository::data::FRAME_LIMIT;
use crate::repository::frame_encoder::parameters;
use crate::repository::hash::Uid;
use crate::repository::plain::{open_plain, read_through};
use crate::repository::run_reader::RunReader;
use crate::snapshot::archive::{ABOUT, About, BlobMembers, FORMAT, Member, Owned, Packer, as_io};
use crate::snapshot::blobs::plan::BlobPlan;
use crate::snapshot::blobs::put::{check, read_pieces};
use crate::snapshot::copy_out::{CopiedDatabase, Job, prepare};
use crate::snapshot::handle::Repository;
use crate::snapshot::writing::{folder_of, write_index};

/// What was written, and where.
#[derive(Debug, Clone, Serialize)]
pub struct ExportReport {
    /// The snapshot.
    pub id: String,
    /// The archive.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Per database: its name, the member of the archive, the length of that.
    pub databases: Vec<CopiedDatabase>,
    /// The names of tracked databases that aren't in it: the snapshot doesn't have them.
    pub not_written: Vec<String>,
    /// The names of databases whose blobs aren't in it: they weren't wanted, or the snapshot doesn't have them.
    pub without_blobs: Vec<String>,
    /// What it cost.
    pub counts: Counts,
}

/// The most threads that compress: each takes some 200 MB.
const THREADS: usize = 4;
/// The longest name of a file, or of a blob directory: behind it there is room for `.index`, and for the path of a blob.
const LONGEST_NAME: usize = 90;
/// How many bytes of a base are read at once.
const READ: usize = 1 << 20;

/// Writes a snapshot into an archive, which must not be there yet. Needs no lock on the databases: what is read of them never changes.
/// If told so, without blobs.
pub fn export(
    repository: &Repository,
    word: &str,
    path: &Path,
    with_blobs: bool,
    monitor: &dyn Monitor,
) -> Result<ExportReport> {
    refuse_existing(path)?;
    let (snapshot, mut jobs, not_written) = prepare(repository, word, (&[], None), Path::new(""), monitor)?;
    let created = Timestamp::from_microsecond(snapshot.created)
        .map_err(|_| Error::damaged("the catalog has an impossible time").hint("put catalog.db back from a copy"))?;
    let databases = repository.catalog.databases()?;
    let mut without_blobs = Vec::new();
    for job in &mut jobs {
        let has_directory = databases.iter().any(|database| database.name == job.name && database.blobs.is_some());
        let blobs = job.blobs.take();
        if blobs.is_none() && has_directory || blobs.is_some() && !with_blobs {
            without_blobs.push(job.name.clone());
        }
        job.blobs = blobs.filter(|_| with_blobs);
        shorten_names(job);
    }
    let members: Vec<Member> = jobs.iter().map(member).collect();
    let about = About {
        format: FORMAT,
        id: snapshot.name.clone(),
        created,
        message: snapshot.message.clone(),
        one_moment: snapshot.one_moment,
        databases: members.clone(),
    };
    let about = serde_json::to_string_pretty(&about)
        .map_err(|error| Error::failed(format!("cannot describe the snapshot as JSON: {error}")))?;
    let disk = repository.disk();
    let mut out = Out::create(disk, path)?;
    // A database holds password hashes.
    let mut owned =
        Owned { mode: 0o600, owner: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() };
    let blob_bytes = |member: &Member| member.blobs.as_ref().map_or(0, |blobs| blobs.bytes);
    monitor.begin("writing", members.iter().map(|member| member.bytes + blob_bytes(member)).sum());
    let mut packer = Packer::new(compressor(&mut out).at("write", path)?, path, created.as_second().max(0) as u64);
    packer.text(ABOUT, &about, owned)?;
    let mut read = 0;
    for (job, member) in jobs.iter_mut().zip(&members) {
        owned = Owned { owner: job.model.uid(), group: job.model.gid(), ..owned };
        packer.member(&member.file, member.bytes, owned, |write| each_byte(job, write, monitor))?;
        read += if job.base_length > FIRST_TRANSACTION { job.base_length } else { 0 };
        if !job.index.is_empty() {
            let (file, length) = index_of(repository, job, path, monitor)?;
            let name = index_path(Path::new(&member.file)).to_string_lossy().into_owned();
            packer.member(&name, length, owned, |write| copy(&file, path, write))?;
        }
        if let Some((plan, reader)) = &mut job.blobs {
            pack_blobs(repository, plan, reader, &mut packer, owned, monitor)?;
        }
    }
    packer.finish(owned)?.finish().at("write", path)?;
    monitor.end();
    monitor.check()?;
    let bytes = out.put(path)?;
    repository.counters.fsync();
    let databases = members.into_iter().zip(jobs).map(|(member, job)| CopiedDatabase {
        name: member.name,
        path: member.file.into(),
        bytes: member.bytes,
        blobs: job.blobs.map(|(plan, _)| plan),
    });
    let counts = Counts { database_bytes_read: read, ..repository.counts() };
    Ok(ExportReport {
        id: snapshot.name,
        path: path.to_path_buf(),
        bytes,
        databases: databases.collect(),
        not_written,
        without_blobs,
        counts,
    })
}

/// Gives what has a longer name than a member may have the usual one.
fn shorten_names(job: &mut Job) {
    if job.file_name.len() > LONGEST_NAME {
        job.file_name = "Data.fs".into();
    }
    if let Some((plan, _)) = &mut job.blobs
        && plan.path.file_name().is_some_and(|name| name.len() > LONGEST_NAME)
    {
        plan.path = job.folder.join("blobstorage");
    }
}

/// What the archive says of a database.
fn member(job: &Job) -> Member {
    let blobs = job.blobs.as_ref().map(|(plan, _)| BlobMembers {
        directory: plan.path.to_string_lossy().into_owned(),
        layout: plan.work.layout.name().into(),
        count: plan.add,
        bytes: plan.add_bytes,
    });
    let file = job.folder.join(&job.file_name).to_string_lossy().into_owned();
    Member { name: job.name.clone(), file, bytes: job.stream.cut.offset, blobs }
}

/// Appends a blob directory: its marker, and each blob, checked.
fn pack_blobs<W: Write>(
    repository: &Repository,
    plan: &BlobPlan,
    reader: &mut ChunkReader,
    packer: &mut Packer<W>,
    owned: Owned,
    monitor: &dyn Monitor,
) -> Result<()> {
    let name = |path: &Path| plan.path.join(path).to_string_lossy().into_owned();
    packer.text(&name(Path::new(LAYOUT_MARKER)), plan.work.layout.name(), owned)?;
    for (blob, chunks) in &plan.work.add {
        let entry = &blob.entry;
        let owned = Owned { mode: entry.mode & 0o777, owner: entry.owner, group: entry.group };
        packer.member(&name(&plan.work.path_of(entry)), entry.size, owned, |write| {
            if entry.form == BlobForm::Chunks {
                return read_pieces(blob, chunks, reader, monitor, write);
            }
            let stored = repository.layout.plain(&entry.hash);
            let file = open_plain(&repository.layout, &entry.hash)?;
            let (hash, size) = read_through(&file, &stored, monitor, write)?;
            check(&stored, blob, hash, size)
        })?;
    }
    Ok(())
}

fn refuse_existing(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look at", path, error)),
        Ok(_) => Err(exists(path)),
    }
}

fn exists(path: &Path) -> Error {
    Error::failed(format!("{} exists already", path.display())).hint("name a file that doesn't exist yet")
}

/// As saves compress, on all cores: each has as much at once as a window. With zstd's own smaller jobs an archive is half as large again.
fn compressor<W: Write>(out: W) -> io::Result<Encoder<'static, W>> {
    let mut encoder = Encoder::new(out, 0)?;
    for parameter in parameters(&Compression::FAST) {
        encoder.set_parameter(parameter)?;
    }
    encoder.include_checksum(true)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS);
    encoder.multithread(threads as u32)?;
    encoder.set_parameter(CParameter::JobSize(FRAME_LIMIT as u32))?;
    Ok(encoder)
}

/// Gives all bytes of a database's file to `write`: those of the tail checked against their hashes, all of them parsed.
fn each_byte(job: &Job, write: &mut dyn FnMut(&[u8]) -> Result<()>, monitor: &dyn Monitor) -> Result<()> {
    // The tail was parsed when it was saved; so it is the file, if anything is wrong.
    let path = job.base.as_ref().map_or(Path::new(&job.file_name), |base| base.path());
    let mut scanner = Scanner::new(path, Position::START);
    // Not as it is in the file: a restore may have put its fence there meanwhile.
    write(&job.magic.bytes())?;
    let mut take = |bytes: &[u8]| {
        monitor.check()?;
        scanner.feed(bytes, &mut ())?;
        monitor.advance(bytes.len() as u64);
        write(bytes)
    };
    let mut at = FIRST_TRANSACTION;
    if let Some(base) = &job.base {
        let mut buffer = vec![0; READ];
        while at < job.base_length {
            let piece = &mut buffer[..(job.base_length - at).min(READ as u64) as usize];
            base.read_exact_at(piece, at)?;
            take(piece)?;
            at += piece.len() as u64;
        }
    }
    RunReader::new(&job.object_files, job.chunks.iter().map(|chunk| &chunk.location)).each(|_, bytes| take(bytes))?;
    scanner.finish()?;
    Ok(())
}

/// The index of a database, in a file without a name: its length has to be known before it is written into the archive.
fn index_of(repository: &Repository, job: &Job, path: &Path, monitor: &dyn Monitor) -> Result<(File, u64)> {
    let file = tempfile::tempfile_in(folder_of(path)).at("make a temporary file in", folder_of(path))?;
    write_index(&job.index, &job.stream, repository.disk(), (&file, path), monitor)?;
    let length = file.metadata().at("look at", path)?.len();
    Ok((file, length))
}

fn copy(file: &File, path: &Path, write: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut file = file;
    file.seek(SeekFrom::Start(0)).at("read back what belongs to", path)?;
    let mut buffer = vec![0; READ];
    loop {
        match file.read(&mut buffer).at("read back what belongs to", path)? {
            0 => return Ok(()),
            length => write(&buffer[..length])?,
        }
    }
}

/// An archive being written under another name, removed unless it gets its own.
struct Out {
    disk: Disk,
    file: File,
    path: PathBuf,
    length: u64,
    placed: bool,
}

impl Out {
    fn create(disk: &Disk, target: &Path) -> Result<Self> {
        let mut path = OsString::from(target);
        path.push(format!(".{}.znap-new", Uid::random()?));
        let path = PathBuf::from(path);
        let file = disk.create(&path)?;
        Ok(Out { disk: disk.clone(), file, path, length: 0, placed: false })
    }

    /// Makes it durable, and gives it its name, if nothing has that by now. Returns its length.
    fn put(mut self, target: &Path) -> Result<u64> {
        self.disk.sync(&self.file, &self.path)?;
        self.disk.rename_new(&self.path, target).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(target),
            _ => Error::io("rename to its place", &self.path, error),
        })?;
        self.placed = true;
        self.disk.sync_directory(folder_of(target))?;
        Ok(self.length)
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write_at(&self.file, &self.path, bytes, self.length).map_err(as_io)?;
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        if !self.placed {
            let _ = self.disk.remove(&self.path);
        }
    }
}
