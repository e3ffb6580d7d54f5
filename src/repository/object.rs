//! Object files: immutable, named by the BLAKE3 hash of their content (docs/format.md).
//!
//! An object file is written under a temporary name, synced, renamed to its hash, and its directory
//! synced, before a committed catalog transaction refers to it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::repository::counters::Counters;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;

/// The first eight bytes of every object file that describes itself.
pub const MAGIC: [u8; 8] = *b"\x89ZNAP\r\n\x1a";
/// The version of the format that this program writes and reads.
pub const VERSION: u8 = 1;
/// The length of the header, in bytes.
pub const HEADER: usize = 16;
/// The beginning of the names of files that are being written.
pub const TEMPORARY: &str = ".tmp-";

/// What an object file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ObjectKind {
    /// Frames of chunks.
    Data = 1,
    /// All about one snapshot.
    Manifest = 2,
    /// A snapshot was deleted.
    Tombstone = 3,
    /// What never changes in a repository.
    Config = 4,
    /// Exactly the bytes of a blob file: without a header.
    Plain = 5,
}

impl ObjectKind {
    /// From its number in headers and in the catalog.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(ObjectKind::Data),
            2 => Some(ObjectKind::Manifest),
            3 => Some(ObjectKind::Tombstone),
            4 => Some(ObjectKind::Config),
            5 => Some(ObjectKind::Plain),
            _ => None,
        }
    }

    /// The header that a file of this kind begins with: magic, version, kind, codec, cipher, four zeros.
    pub fn header(self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&MAGIC);
        header[8] = VERSION;
        header[9] = self as u8;
        header
    }

    /// Reads a header. An error is the reason why it is none, as the end of a sentence.
    pub fn from_header(header: &[u8]) -> Result<Self, String> {
        let Some(header) = header.get(..HEADER) else {
            return Err("it is too short".into());
        };
        if header[..8] != MAGIC {
            return Err("it does not begin as one".into());
        }
        if header[8] != VERSION {
            return Err(format!("it has format version {}, and this znap knows version {VERSION}", header[8]));
        }
        if header[10..].iter().any(|&byte| byte != 0) {
            return Err("it uses a codec or cipher that this znap does not know".into());
        }
        Self::from_number(header[9])
            .filter(|kind| *kind != ObjectKind::Plain)
            .ok_or_else(|| format!("its kind is {}", header[9]))
    }
}

/// An object file being written. Dropped before [`ObjectWriter::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct ObjectWriter {
    disk: Disk,
    file: File,
    path: PathBuf,
    hasher: blake3::Hasher,
    length: u64,
    kind: ObjectKind,
    renamed: bool,
}

impl ObjectWriter {
    /// Starts one of this kind, header included.
    pub fn create(layout: &Layout, kind: ObjectKind) -> Result<Self> {
        let path = layout.objects().join(format!("{TEMPORARY}{}", Uid::random()?));
        let file = layout.create_file(&path)?;
        let disk = layout.disk().clone();
        let mut writer =
            ObjectWriter { disk, file, path, hasher: blake3::Hasher::new(), length: 0, kind, renamed: false };
        writer.write(&kind.header())?;
        Ok(writer)
    }

    /// How many bytes were written so far: where the next ones will be.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.disk.write_at(&self.file, &self.path, bytes, self.length)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Syncs the file; it is durable under its temporary name, and its final name is known.
    pub fn finish(self, counters: &Counters) -> Result<Finished> {
        self.disk.sync(&self.file, &self.path)?;
        counters.fsync();
        counters.wrote(self.length);
        Ok(Finished {
            name: Hash(*self.hasher.finalize().as_bytes()),
            kind: self.kind,
            bytes: self.length,
            writer: self,
        })
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if !self.renamed {
            // Only a leftover under a temporary name, which gc removes as well.
            let _ = self.disk.remove(&self.path);
        }
    }
}

/// An object file that is complete and durable, but still under its temporary name.
#[derive(Debug)]
pub struct Finished {
    /// Its name-to-be.
    pub name: Hash,
    /// What it holds.
    pub kind: ObjectKind,
    /// Its length in bytes.
    pub bytes: u64,
    writer: ObjectWriter,
}

impl Finished {
    /// Gives the file its name. The caller syncs the directory: see [`publish`].
    /// An existing file of that name has the same content, and is replaced.
    fn rename(mut self, layout: &Layout) -> Result<()> {
        self.writer.disk.rename(&self.writer.path, &layout.object(&self.name))?;
        self.writer.renamed = true;
        Ok(())
    }
}

/// Gives finished object files their names and makes the names durable, with one sync.
pub fn publish(layout: &Layout, files: Vec<Finished>, counters: &Counters) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    for file in files {
        file.rename(layout)?;
    }
    layout.disk().sync_directory(&layout.objects())?;
    counters.fsync();
    Ok(())
}

/// The longest manifest, tombstone or config that is read into memory: a manifest of
/// a 2 TB first save has 1.2 GB of chunk names, everything usual is under 10 MB.
pub const LARGEST_RECORD: u64 = 2 << 30;

/// Reads a whole object file that isn't a data file, and checks its hash and kind.
pub fn read_record(layout: &Layout, name: &Hash, kind: ObjectKind) -> Result<Vec<u8>> {
    let path = layout.object(name);
    let file = open_object(layout, name)?;
    let length = file.metadata().at("look at", &path)?.len();
    if length > LARGEST_RECORD {
        return Err(damaged(&path, "it is too large to be one"));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_RECORD).read_to_end(&mut bytes).at("read", &path)?;
    if Hash::of(&bytes) != *name {
        return Err(damaged(&path, "its content does not match its name"));
    }
    if kind_in(&path, &bytes)? != kind {
        return Err(damaged(&path, "it holds something else"));
    }
    bytes.drain(..HEADER);
    Ok(bytes)
}

/// Opens an object file; one that is missing is damage.
pub fn open_object(layout: &Layout, name: &Hash) -> Result<File> {
    open_object_at(&layout.object(name))
}

/// The same, by its path.
pub fn open_object_at(path: &Path) -> Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(damaged(path, "it is missing")),
        result => result.at("open", path),
    }
}

/// Opens a file to read it; `None` if what has its name is no file: a link leads elsewhere, opening a pipe waits for its other
/// end, and a device may have none.
pub fn open_regular(path: &Path) -> std::io::Result<Option<File>> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        // A link; a socket, or a device that isn't there.
        Err(Errno::LOOP | Errno::NXIO | Errno::NODEV) => return Ok(None),
        result => File::from(result?),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// What an object file is, by its header alone.
pub fn kind_of(path: &Path) -> Result<ObjectKind> {
    let file = open_regular(path).at("open", path)?.ok_or_else(|| damaged(path, "it is no file"))?;
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => damaged(path, "it is too short"),
        _ => Error::io("read", path, error),
    })?;
    kind_in(path, &header)
}

/// What an object file that begins with these bytes is. One that a newer znap wrote isn't damaged, but refused.
pub fn kind_in(path: &Path, bytes: &[u8]) -> Result<ObjectKind> {
    let version = bytes.get(MAGIC.len()).copied().filter(|_| bytes.starts_with(&MAGIC));
    match version {
        Some(version) if version > VERSION => Err(Error::failed(format!(
            "{} was written by a newer znap (format {version}; this one knows {VERSION})",
            in_words(path)
        ))
        .hint("use that newer znap")),
        _ => ObjectKind::from_header(bytes).map_err(|reason| damaged(path, &reason)),
    }
}

/// An error about a damaged object file.
pub fn damaged(path: &Path, reason: &str) -> Error {
    Error::damaged(format!("{} is damaged: {reason}", in_words(path)))
        .hint("snapshots that do not need it still restore; put the file back from a copy of .znap if there is one")
}

fn in_words(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let short: String = name.to_string_lossy().chars().take(12).collect();
    format!("object file {short}… in {}", path.parent().unwrap_or(path).display())
}
