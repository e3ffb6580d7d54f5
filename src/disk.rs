//! The seam through which every change of an object file, of a database and of what lies beside them goes.
//!
//! Usually it is the file system and nothing else. Tests put a [`Watcher`] there, which sees every change before it is
//! made, and may have it fail: so they stop a command at each of its changes, or let each of them fail. SQLite changes the
//! catalog by itself; of it, a watcher sees when a transaction is about to be committed.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, IoContext, Result};

/// A change that is about to be made.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Change<'a> {
    /// A file is created that isn't there yet.
    Create { path: &'a Path },
    /// Bytes are written at an offset.
    Write { path: &'a Path, offset: u64, bytes: &'a [u8] },
    /// A file is cut, or made longer.
    SetLength { path: &'a Path, length: u64 },
    /// What was written to a file is forced to the disk.
    Sync { path: &'a Path },
    /// The names in a directory are forced to the disk.
    SyncDirectory { path: &'a Path },
    /// Everything on the file system that a directory is on is forced to the disk.
    SyncFileSystem { path: &'a Path },
    /// A directory is made.
    CreateDirectory { path: &'a Path },
    /// A directory is removed, if it is empty.
    RemoveDirectory { path: &'a Path },
    /// A file gets a second name, which nothing has yet.
    Link { from: &'a Path, to: &'a Path },
    /// A file gets another name, in place of the file that has it.
    Rename { from: &'a Path, to: &'a Path },
    /// A file's name is removed.
    Remove { path: &'a Path },
    /// SQLite commits a transaction.
    Commit { path: &'a Path },
}

/// Sees every change before it is made.
pub trait Watcher: Send + Sync {
    /// The change is made if this is no error, and otherwise fails with it. Of a write, so many bytes are taken at once.
    fn before(&self, change: &Change<'_>) -> io::Result<usize>;
}

/// The file system, perhaps watched.
#[derive(Clone, Default)]
pub struct Disk(Option<Arc<dyn Watcher>>);

impl Disk {
    /// One on which every change is seen by a watcher.
    pub fn watched(watcher: Arc<dyn Watcher>) -> Self {
        Disk(Some(watcher))
    }

    /// Whether somebody watches.
    pub fn is_watched(&self) -> bool {
        self.0.is_some()
    }

    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        match &self.0 {
            Some(watcher) => watcher.before(change),
            None => Ok(usize::MAX),
        }
    }

    /// Creates a file for reading and writing that must not exist yet; only its owner may open it.
    pub fn create(&self, path: &Path) -> Result<File> {
        self.before(&Change::Create { path })
            .and_then(|_| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path))
            .at("create", path)
    }

    /// Writes all bytes at an offset.
    pub fn write_at(&self, file: &File, path: &Path, bytes: &[u8], offset: u64) -> Result<()> {
        self.write_all(file, path, bytes, offset).at("write", path)
    }

    fn write_all(&self, file: &File, path: &Path, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.before(&Change::Write { path, offset, bytes })?.min(bytes.len());
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let (now, rest) = bytes.split_at(taken);
            file.write_all_at(now, offset)?;
            bytes = rest;
            offset += taken as u64;
        }
        Ok(())
    }

    /// Copies a range of a file to the same place of another; shares the blocks where the file system can. Returns how many
    /// bytes there were.
    pub fn copy_range(&self, from: &File, to: &File, path: &Path, start: u64, end: u64) -> Result<u64> {
        let copy = || -> io::Result<u64> {
            if self.0.is_none() {
                use std::io::{Read, Seek, SeekFrom};
                let (mut from, mut to) = (from, to);
                from.seek(SeekFrom::Start(start))?;
                to.seek(SeekFrom::Start(start))?;
                return io::copy(&mut from.take(end - start), &mut to);
            }
            let mut buffer = vec![0; 1 << 20];
            let mut at = start;
            while at < end {
                let length = buffer.len().min((end - at) as usize);
                let read = from.read_at(&mut buffer[..length], at)?;
                if read == 0 {
                    break;
                }
                self.write_all(to, path, &buffer[..read], at)?;
                at += read as u64;
            }
            Ok(at - start)
        };
        copy().at("copy into", path)
    }

    /// Cuts a file, or makes it longer.
    pub fn set_length(&self, file: &File, path: &Path, length: u64) -> Result<()> {
        self.before(&Change::SetLength { path, length }).and_then(|_| file.set_len(length)).at("truncate", path)
    }

    /// Forces what was written to a file to the disk. If it fails, what was written may be gone, and trying again would not
    /// tell: the caller has to give up, or to write all of it again.
    pub fn sync(&self, file: &File, path: &Path) -> Result<()> {
        self.before(&Change::Sync { path }).and_then(|_| file.sync_all()).at("sync", path)
    }

    /// Makes the entries of a directory durable.
    pub fn sync_directory(&self, path: &Path) -> Result<()> {
        self.before(&Change::SyncDirectory { path })
            .and_then(|_| File::open(path))
            .and_then(|directory| directory.sync_all())
            .at("sync", path)
    }

    /// Forces everything to the disk that was changed on the file system of a directory, by whomever. Tells of what failed since the
    /// directory was opened (syncfs(2)): for what is written, that has to be before.
    pub fn sync_file_system(&self, directory: &File, path: &Path) -> Result<()> {
        self.before(&Change::SyncFileSystem { path })
            .and_then(|_| sync_all_of(directory))
            .at("sync the file system of", path)
    }

    /// Makes a directory with at most this mode. The caller syncs the one above.
    pub fn create_directory(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.before(&Change::CreateDirectory { path })?;
        DirBuilder::new().mode(mode).create(path)
    }

    /// Removes a directory, if it is empty. The caller syncs the one above.
    pub fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.before(&Change::RemoveDirectory { path })?;
        fs::remove_dir(path)
    }

    /// Gives a file a second name, which nothing has yet. Not every file system can: the caller knows another way, and
    /// syncs the directory.
    pub fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.before(&Change::Link { from, to })?;
        fs::hard_link(from, to)
    }

    /// Gives a file another name, in place of the file that has it. The caller syncs the directory.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.before(&Change::Rename { from, to }).and_then(|_| fs::rename(from, to)).at("rename to its place", from)
    }

    /// Gives a directory its name, unless something has that name. The caller syncs the directory above.
    pub fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        self.before(&Change::Rename { from, to })?;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // The file system can't promise that.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(from, to),
            result => Ok(result?),
        }
    }

    /// Removes a directory with all that is in it.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        self.before(&Change::Remove { path }).and_then(|_| fs::remove_dir_all(path)).at("remove", path)
    }

    /// Removes a file. The caller syncs the directory.
    pub fn remove(&self, path: &Path) -> Result<()> {
        self.before(&Change::Remove { path }).and_then(|_| fs::remove_file(path)).at("remove", path)
    }

    /// Removes a file if it is there. The caller syncs the directory.
    pub fn remove_if_there(&self, path: &Path) -> Result<()> {
        // Not by trying: what isn't there is no change.
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("look at", path, error)),
            Ok(_) => self.remove(path),
        }
    }

    /// SQLite is about to commit.
    pub fn commit(&self, path: &Path) -> Result<()> {
        self.before(&Change::Commit { path }).map(|_| ()).at("commit a transaction in", path)
    }
}

#[cfg(target_os = "linux")]
fn sync_all_of(directory: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_all_of(_: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "a watched disk" } else { "the disk" })
    }
}
