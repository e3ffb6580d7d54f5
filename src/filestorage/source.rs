//! Opening the files of a storage, and reading from them at given offsets.
//!
//! Nothing is ever mapped into memory: ZODB may cut the file shorter at any moment, and touching a
//! mapped page that is gone kills the process.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};

use super::FIRST_TRANSACTION;
use super::fence::{FENCE, notice_path};
use super::read;
use crate::error::{Error, IoContext, Result};

/// Something that holds the bytes of a FileStorage, from its magic on.
pub trait Source {
    /// The path to name in messages.
    fn path(&self) -> &Path;

    /// How many bytes there are at this moment. A live file may grow, and may shrink to the end of
    /// its last committed transaction.
    fn size(&self) -> Result<u64>;

    /// Fills the buffer with the bytes from this offset on. If there are not enough of them it fails
    /// with an error whose [`Error::io_error`] is of the kind [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
}

/// The first four bytes of a FileStorage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Magic {
    /// `FS21`, written by ZODB under Python 2. The format is otherwise the same.
    Fs21,
    /// `FS30`, written by ZODB under Python 3.
    Fs30,
}

impl Magic {
    /// The four bytes.
    pub fn bytes(self) -> [u8; 4] {
        match self {
            Magic::Fs21 => *b"FS21",
            Magic::Fs30 => *b"FS30",
        }
    }

    /// The magic that these four bytes are, if they are one.
    pub fn from_bytes(bytes: [u8; 4]) -> Option<Magic> {
        [Magic::Fs21, Magic::Fs30].into_iter().find(|magic| magic.bytes() == bytes)
    }
}

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Magic::Fs21 => "FS21",
            Magic::Fs30 => "FS30",
        })
    }
}

/// What makes a file this file, whatever its names: a pack gives the path another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The number of the file system's device.
    pub device: u64,
    /// The number of the file in that file system.
    pub inode: u64,
}

impl FileIdentity {
    /// The identity of the file that this metadata is of.
    pub fn of(metadata: &Metadata) -> FileIdentity {
        FileIdentity { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Opens an ordinary file, following symbolic links. Whatever else has that name (a directory, a
/// pipe, a device) is refused without waiting for it. A missing file is `Kind::NotFound`.
pub fn open_plain(path: &Path, writable: bool) -> Result<File> {
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    // NONBLOCK: opening a pipe would wait for its other end. It means nothing for ordinary files.
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let action = if writable { "open for writing" } else { "open" };
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT) => {
            return Err(Error::not_found(format!("there is no file {}", path.display()))
                .hint("put the file back, or name another one; symbolic links must lead to a file"));
        }
        Err(rustix::io::Errno::ISDIR) => return Err(not_ordinary(path, "a directory")),
        Err(error) => return Err(Error::io(action, path, error.into())),
    };
    let kind = file.metadata().at("look at", path)?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(not_ordinary(path, "a directory"))
    } else {
        Err(not_ordinary(path, "a pipe, a socket or a device"))
    }
}

fn not_ordinary(path: &Path, what: &str) -> Error {
    Error::failed(format!("{} is {what}, not a file", path.display()))
        .hint("put the database itself there, or name another file")
}

/// An open FileStorage file whose magic was right when it was opened.
///
/// It stays the same file when a pack puts another one at its path.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    path: PathBuf,
    magic: Magic,
    /// Whether the fence was there when it was opened: then the magic is read in its place.
    fenced: bool,
    identity: FileIdentity,
    bytes_read: AtomicU64,
}

impl DataFile {
    /// Opens the file for reading, as [`open_plain`] does, and checks its magic. An empty file and one
    /// with another magic are `Kind::Failed`.
    pub fn open(path: impl AsRef<Path>) -> Result<DataFile> {
        Self::checked(open_plain(path.as_ref(), false)?, path.as_ref())
    }

    /// Like [`DataFile::open`], for reading and writing.
    pub fn open_for_writing(path: impl AsRef<Path>) -> Result<DataFile> {
        Self::checked(open_plain(path.as_ref(), true)?, path.as_ref())
    }

    /// Takes a file that the caller opened and knows to be a FileStorage, whatever its first bytes are now.
    pub fn with_magic(file: File, path: impl AsRef<Path>, magic: Magic) -> Result<DataFile> {
        let path = path.as_ref().to_path_buf();
        let identity = FileIdentity::of(&file.metadata().at("look at", &path)?);
        Ok(DataFile { file, path, magic, fenced: false, identity, bytes_read: AtomicU64::new(0) })
    }

    /// Opens a file that may be fenced. If it is, it reads as if its magic, which the caller knows, were there.
    pub fn open_fenced_or_not(path: impl AsRef<Path>, writable: bool, magic: Magic) -> Result<DataFile> {
        let path = path.as_ref();
        let mut data = Self::with_magic(open_plain(path, writable)?, path, magic)?;
        let mut bytes = [0; 4];
        data.fenced = data.size()? >= FIRST_TRANSACTION && {
            data.read_exact_at(&mut bytes, 0)?;
            bytes == FENCE
        };
        if data.fenced { Ok(data) } else { Self::checked(data.file, path) }
    }

    /// Whether it was fenced when it was opened.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Takes a file that the caller opened, if its magic is right.
    pub fn checked(file: File, path: &Path) -> Result<DataFile> {
        // Any magic will do until the real one has been read.
        let mut data = Self::with_magic(file, path, Magic::Fs30)?;
        let size = data.size()?;
        if size < FIRST_TRANSACTION {
            let what = if size == 0 { "empty" } else { "shorter than the four bytes that begin a FileStorage" };
            return Err(Error::failed(format!("{} is {what}", path.display())).hint(
                "put the database back, or name another file; ZODB makes an empty file a FileStorage when it opens it",
            ));
        }
        let mut bytes = [0; 4];
        data.read_exact_at(&mut bytes, 0)?;
        if bytes == FENCE {
            let error = Error::failed(format!("{} is half restored: a znap restore did not finish", path.display()));
            return Err(error.hint(format!(
                "znap restore --resume finishes it, --abort goes back; {} says more",
                notice_path(path).display()
            )));
        }
        data.magic = Magic::from_bytes(bytes).ok_or_else(|| {
            Error::failed(format!(
                "{} is not a FileStorage: it begins with \"{}\" instead of \"FS30\" or \"FS21\"",
                path.display(),
                bytes.escape_ascii()
            ))
            .hint("put the database back, or name another file; if this should be one, its beginning was overwritten")
        })?;
        Ok(data)
    }

    /// The magic that the file had when it was opened.
    pub fn magic(&self) -> Magic {
        self.magic
    }

    /// Which file this is.
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Size, owner, times as they are now.
    pub fn metadata(&self) -> Result<Metadata> {
        self.file.metadata().at("look at", &self.path)
    }

    /// The open file itself. Bytes read through it are not counted.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the path still leads to this file. It doesn't after a pack, nor during one, when there
    /// is no file at the path for a moment.
    pub fn is_still_at_path(&self) -> Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(metadata) => Ok(FileIdentity::of(&metadata) == self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look at", &self.path, error)),
        }
    }

    /// How many bytes were read through this handle so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }
}

impl Source for DataFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        read::read_exact_at(&self.file, buffer, offset).map_err(|error| {
            let action = format!("read {} bytes at offset {offset} of", buffer.len());
            Error::io(&action, &self.path, error)
        })?;
        self.bytes_read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        if self.fenced {
            let magic = self.magic.bytes();
            for (byte, original) in buffer.iter_mut().zip(magic.iter().skip(offset as usize)) {
                *byte = *original;
            }
        }
        Ok(())
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn path(&self) -> &Path {
        (**self).path()
    }

    fn size(&self) -> Result<u64> {
        (**self).size()
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        (**self).read_exact_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use crate::error::Kind;

    #[test]
    fn only_a_file_storage_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        assert_eq!(DataFile::open(&path).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(DataFile::open(dir.path()).unwrap_err().kind(), Kind::Failed);
        let pipe = dir.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).unwrap();
        assert!(DataFile::open(&pipe).unwrap_err().to_string().contains("pipe"));
        for bytes in [&b""[..], b"FS3", b"FS31", b"znap", b"FS22 and more"] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(DataFile::open(&path).unwrap_err().kind(), Kind::Failed);
        }
        for magic in [Magic::Fs21, Magic::Fs30] {
            std::fs::write(&path, magic.bytes()).unwrap();
            assert_eq!(DataFile::open(&path).unwrap().magic(), magic);
            assert_eq!(DataFile::open_for_writing(&path).unwrap().magic(), magic);
            assert_eq!(magic.to_string().as_bytes(), magic.bytes());
        }
    }

    #[test]
    fn a_fenced_file_is_refused_and_reads_as_what_it_was_where_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        std::fs::write(&path, b"FS21 more").unwrap();
        let data = DataFile::open_fenced_or_not(&path, true, Magic::Fs21).unwrap();
        assert!(!data.is_fenced());
        crate::filestorage::fence::fence(&Disk::default(), data.file(), &path).unwrap();
        assert!(DataFile::open(&path).unwrap_err().to_string().contains("half restored"));
        let data = DataFile::open_fenced_or_not(&path, true, Magic::Fs21).unwrap();
        assert!(data.is_fenced());
        for (offset, length) in [(0, 9), (0, 2), (1, 3), (2, 5), (4, 5)] {
            let mut bytes = vec![0; length];
            data.read_exact_at(&mut bytes, offset as u64).unwrap();
            assert_eq!(bytes, b"FS21 more"[offset..offset + length]);
        }
        crate::filestorage::fence::unfence(&Disk::default(), data.file(), &path, data.magic()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"FS21 more");
        std::fs::write(&path, b"FS").unwrap();
        assert!(DataFile::open_fenced_or_not(&path, true, Magic::Fs30).is_err());
    }

    #[test]
    fn a_replaced_file_is_noticed_and_bytes_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("Data.fs");
        std::fs::write(&path, b"FS30 more").unwrap();
        let data = DataFile::open(&path).unwrap();
        assert!(data.is_still_at_path().unwrap());
        data.read_exact_at(&mut [0; 5], 4).unwrap();
        assert_eq!(data.bytes_read(), 9);
        let error = data.read_exact_at(&mut [0; 6], 4).unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::UnexpectedEof);
        std::fs::rename(&path, dir.path().join("Data.fs.old")).unwrap();
        assert!(!data.is_still_at_path().unwrap());
        std::fs::write(&path, b"FS30 more").unwrap();
        assert!(!data.is_still_at_path().unwrap());
    }
}
