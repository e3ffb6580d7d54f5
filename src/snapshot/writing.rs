//! Writing databases and indexes: what restore in place and restore elsewhere share.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

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
    file: &File,
    path: &Path,
    monitor: &dyn Monitor,
) -> Result<()> {
    reader.each(|places, bytes| {
        let Some(first) = chunks.get(places.start) else { return Ok(()) };
        let skipped = from.saturating_sub(first.offset).min(bytes.len() as u64);
        let bytes = &bytes[skipped as usize..];
        file.write_all_at(bytes, first.offset + skipped).at("write", path)?;
        monitor.advance(bytes.len() as u64);
        Ok(())
    })
}

/// Copies a range to the same place of a new file; shares the blocks where the file system can.
pub(crate) fn copy_range(from: &File, start: u64, end: u64, to: &File, path: &Path) -> Result<()> {
    let copy = || -> std::io::Result<u64> {
        let mut source = from.try_clone()?;
        source.seek(SeekFrom::Start(start))?;
        let mut target = to;
        target.seek(SeekFrom::Start(start))?;
        std::io::copy(&mut source.take(end - start), &mut target)
    };
    let copied = copy().at("copy into", path)?;
    if copied != end - start {
        return Err(Error::failed(format!(
            "only {copied} of {} bytes could be copied into {}",
            end - start,
            path.display()
        ))
        .hint("the database became shorter meanwhile; try again"));
    }
    Ok(())
}

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
pub(crate) fn write_index(source: &IndexSource, stream: &Stream, file: &File, path: &Path) -> Result<()> {
    write_pairs(source, stream, file, path).map_err(|error| error.context(path.display()))
}

fn write_pairs(source: &IndexSource, stream: &Stream, file: &File, path: &Path) -> Result<()> {
    // Merging and writing take about as long.
    let (sender, pieces) = sync_channel(2);
    let write = || pieces.into_iter().try_for_each(|piece: Vec<u8>| (&*file).write_all(&piece));
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
    let (written, merged) = beside("writes an index", write, merge)?;
    // What went wrong there is why this side could go no further.
    written.at("write", path)?;
    merged?;
    file.sync_all().at("sync", path)
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

/// A file being written beside its target, removed unless it is renamed.
pub(crate) struct TemporaryFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    renamed: bool,
}

impl TemporaryFile {
    /// Creates it with owner, group and mode of the model.
    pub(crate) fn create(target: &Path, model: &fs::Metadata) -> Result<Self> {
        let mut path = target.as_os_str().to_owned();
        path.push(".znap-new");
        let path = PathBuf::from(path);
        // What a killed restore left; this one holds the database's lock.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &path, error));
            }
            _ => {}
        }
        let file = create_like(&path, model)?;
        Ok(TemporaryFile { file, path, renamed: false })
    }

    /// Puts it in the target's place; the caller syncs the folder.
    pub(crate) fn rename(mut self, target: &Path) -> Result<()> {
        fs::rename(&self.path, target).at("rename to its place", &self.path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}
