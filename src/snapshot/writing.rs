//! Writing databases and indexes: what restore in place and restore elsewhere share.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::IndexWriter;
use crate::filestorage::ownership::create_like;
use crate::monitor::Monitor;
use crate::repository::catalog::{Stream, StreamChunk};
use crate::repository::frames::FrameFiles;
use crate::repository::in_order::beside;
use crate::repository::run_reader::RunReader;
use crate::snapshot::handle::Repository;
use crate::snapshot::index_parts::{self, StoredPart, damaged_index};
use crate::snapshot::index_reader::with_merged;

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Refuses to begin what there isn't room for.
pub(crate) fn require_room(folder: &Path, bytes: u64) -> Result<()> {
    let room = rustix::fs::statvfs(folder).at("ask for the free space of", folder)?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < bytes {
        return Err(Error::failed(format!(
            "there is not enough room in {}: {bytes} bytes are needed and {free} are free",
            folder.display()
        ))
        .hint("free some space; nothing was changed"));
    }
    Ok(())
}

/// Writes what of the chunks lies behind `from` to where it belongs. Each was checked when it was read.
pub(crate) fn write_chunks(
    reader: &RunReader<'_>,
    chunks: &[StreamChunk],
    from: u64,
    disk: &Disk,
    (file, path): (&File, &Path),
    monitor: &dyn Monitor,
) -> Result<()> {
    reader.each(|places, bytes| {
        let Some(first) = chunks.get(places.start) else { return Ok(()) };
        let skipped = from.saturating_sub(first.offset).min(bytes.len() as u64);
        let bytes = &bytes[skipped as usize..];
        disk.write_at(file, path, bytes, first.offset + skipped)?;
        monitor.advance(bytes.len() as u64);
        monitor.check()
    })
}

/// Copies a range to the same place of a new file; shares the blocks where the file system can.
pub(crate) fn copy_range(
    disk: &Disk,
    from: &File,
    range: Range<u64>,
    (to, path): (&File, &Path),
    monitor: &dyn Monitor,
) -> Result<()> {
    let mut at = range.start;
    while at < range.end {
        monitor.check()?;
        let end = range.end.min(at + COPIED_AT_ONCE);
        let copied = disk.copy_range(from, to, path, at, end)?;
        if copied != end - at {
            return Err(Error::failed(format!(
                "only {} of {} bytes could be copied into {}",
                at + copied - range.start,
                range.end - range.start,
                path.display()
            ))
            .hint("the database became shorter meanwhile; try again"));
        }
        monitor.advance(copied);
        at = end;
    }
    Ok(())
}

/// How many bytes are copied before it is asked whether to go on.
const COPIED_AT_ONCE: u64 = 64 << 20;

/// The stored parts of a stream's index, and what reads them.
pub(crate) struct IndexSource {
    parts: Vec<StoredPart>,
    files: Arc<FrameFiles>,
}

impl IndexSource {
    /// Finds them. Their object files are opened as they are needed: the caller holds the writer's lock.
    pub(crate) fn find(repository: &Repository, stream: &Stream) -> Result<Self> {
        let parts = index_parts::sources(&repository.catalog, stream)?;
        let files = Arc::new(FrameFiles::new(&repository.layout, &repository.counters));
        Ok(IndexSource { parts, files })
    }

    /// Finds them and opens their object files now: the caller holds the gate, for a moment.
    pub(crate) fn open(repository: &Repository, stream: &Stream) -> Result<Self> {
        let source = Self::find(repository, stream)?;
        source.files.open(source.parts.iter().flat_map(|stored| &stored.pieces))?;
        Ok(source)
    }

    /// Whether no object was ever stored. Then there must be no index: ZODB can't open a storage that
    /// has one and only empty transactions (it seeks before the file's beginning).
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.iter().all(|stored| stored.part.entries == 0)
    }
}

/// Writes the index of a stream, as ZODB would, and syncs it.
pub(crate) fn write_index(
    source: &IndexSource,
    stream: &Stream,
    disk: &Disk,
    (file, path): (&File, &Path),
    monitor: &dyn Monitor,
) -> Result<()> {
    // Merging and writing take about as long.
    let (sender, pieces) = sync_channel(2);
    let write = || {
        let mut offset = 0;
        pieces.into_iter().try_for_each(|piece: Vec<u8>| {
            monitor.check()?;
            disk.write_at(file, path, &piece, offset)?;
            offset += piece.len() as u64;
            Ok(())
        })
    };
    let merge = || {
        with_merged(&source.files, &source.parts, &stream.snapshot_name, |pairs| {
            let mut writer = IndexWriter::new(BufWriter::with_capacity(PIECE, Pieces(sender)), stream.cut.offset)?;
            for pair in pairs {
                let (oid, offset) = pair?;
                if offset >= stream.cut.offset {
                    return Err(damaged_index(&stream.snapshot_name));
                }
                writer.push(oid, offset)?;
            }
            writer.finish()?.flush().at("write", path)
        })
    };
    // What went wrong while writing is why merging could go no further.
    beside("writes an index", write, merge)
        .and_then(|(written, merged)| written.and(merged))
        .and_then(|()| disk.sync(file, path))
        .map_err(|error| error.context(path.display()))
}

/// How many bytes of an index are written at once.
const PIECE: usize = 1 << 20;

/// Hands what is written to it to a thread that writes it.
struct Pieces(SyncSender<Vec<u8>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| std::io::Error::from(std::io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The name under which a target's new file is written.
pub(crate) fn temporary_path(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(".znap-new");
    PathBuf::from(path)
}

/// A file being written beside its target, removed unless it is renamed.
pub(crate) struct TemporaryFile {
    disk: Disk,
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    renamed: bool,
}

impl TemporaryFile {
    /// Creates it with owner, group and mode of the model.
    pub(crate) fn create(disk: &Disk, target: &Path, model: &fs::Metadata) -> Result<Self> {
        let path = temporary_path(target);
        // What a killed restore left; this one holds the database's lock.
        disk.remove_if_there(&path)?;
        let file = create_like(disk, &path, model)?;
        Ok(TemporaryFile { disk: disk.clone(), file, path, renamed: false })
    }

    /// Puts it in the target's place; the caller syncs the folder.
    pub(crate) fn put(&mut self, target: &Path) -> Result<()> {
        self.disk.rename(&self.path, target)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = self.disk.remove(&self.path);
        }
    }
}
