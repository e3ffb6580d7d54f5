//! The lock that ZODB takes on a storage that it opens for writing (zc.lockfile on `Data.fs.lock`).

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::holders::{Opener, process};
use super::index::with_suffix;
use super::ownership::create_like;
use super::source::{FileIdentity, open_plain};
use crate::disk::Disk;
use crate::error::{Error, IoContext, Kind, Result};

/// Holds a storage's lock: no ZODB opens it for writing, and no other process gets this lock. Given back
/// when dropped; the lock file stays, as ZODB's does.
#[derive(Debug)]
pub struct StorageLock {
    locks: Vec<(PathBuf, File)>,
}

impl StorageLock {
    /// Takes the lock of a storage, or both where the path leads through symbolic links to another name:
    /// ZODB locks the name that it was given.
    ///
    /// Doesn't wait. `Kind::Busy` if somebody has it, whom the message names as far as possible. A lock file
    /// that has to be created gets the owner and mode of the data file, or of its directory if there is no
    /// data file; but its owner may always read and write it.
    pub fn acquire(data_fs: &Path) -> Result<StorageLock> {
        let mut lock = StorageLock { locks: Vec::new() };
        lock.add(data_fs)?;
        match data_fs.canonicalize() {
            Ok(resolved) if resolved != data_fs => lock.add(&resolved)?,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("resolve the path", data_fs, error)),
        }
        Ok(lock)
    }

    /// The paths of the lock files that are held.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.locks.iter().map(|(path, _)| path.as_path())
    }

    fn add(&mut self, data_fs: &Path) -> Result<()> {
        let path = with_suffix(data_fs, ".lock");
        let mut file = open_or_create(data_fs, &path)?;
        let identity = FileIdentity::of(&file.metadata().at("look at", &path)?);
        for (path, held) in &self.locks {
            // Two names of one file: a second lock of our own would exclude the first.
            if FileIdentity::of(&held.metadata().at("look at", path)?) == identity {
                return Ok(());
            }
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(busy(data_fs, &path, identity)),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path, error)),
        }
        if !keeps_others_out(&path).at("lock", &path)? {
            let what = format!("the file system of {} says that it locks files, but does not", path.display());
            return Err(Error::failed(what).hint(NO_LOCKS));
        }
        // Only a hint for people: what excludes others is the lock. So nothing else is overwritten for it, wherever
        // somebody may have had this name lead to.
        if is_plain(&path, identity)? && holds_a_pid(&file) {
            let text = format!(" {}\n", std::process::id());
            file.rewind()
                .and_then(|()| file.write_all(text.as_bytes()))
                .and_then(|()| file.set_len(text.len() as u64))
                .at("write", &path)?;
        }
        self.locks.push((path, file));
        Ok(())
    }
}

impl Drop for StorageLock {
    fn drop(&mut self) {
        for (_, file) in &self.locks {
            // Closing the file gives the lock back in any case, unless a child process has inherited it.
            let _ = file.unlock();
        }
    }
}

const NO_LOCKS: &str = "so it can't be told whether a server has the database open: move the database to a local disk, or mount this \
    file system with locks; a snapshot can be written elsewhere with znap restore --to DIR ID";

/// Whether a file that is locked can't be locked once more: some network and user-space file systems grant every lock.
pub(crate) fn keeps_others_out(path: &Path) -> std::io::Result<bool> {
    // Some file systems grant an exclusive lock only to who may write.
    let other = OpenOptions::new().read(true).write(true).open(path)?;
    match other.try_lock() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Whether the path is this file's only name, and no symbolic link.
fn is_plain(path: &Path, identity: FileIdentity) -> Result<bool> {
    let metadata = std::fs::symlink_metadata(path).at("look at", path)?;
    Ok(FileIdentity::of(&metadata) == identity && metadata.nlink() == 1)
}

/// Whether nothing is in it, or what ZODB and znap write: a number, perhaps with something behind it.
fn holds_a_pid(mut file: &File) -> bool {
    let mut start = Vec::new();
    match file.rewind().and_then(|()| file.take(64).read_to_end(&mut start)) {
        Ok(0) => true,
        Ok(_) => start.trim_ascii_start().first().is_some_and(u8::is_ascii_digit),
        Err(_) => false,
    }
}

fn open_or_create(data_fs: &Path, path: &Path) -> Result<File> {
    // Another process may create it, or the target of a dangling link may not be there: try twice.
    for _ in 0..2 {
        match open_plain(path, true) {
            Err(error) if error.kind() == Kind::NotFound => {}
            result => return result,
        }
        let directory = match data_fs.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let model = std::fs::metadata(data_fs).or_else(|_| std::fs::metadata(directory)).at("look at", directory)?;
        match create_like(&Disk::default(), path, &model) {
            Err(error) if exists(&error) => {}
            Err(error) => return Err(error),
            Ok(file) => {
                // Even if the database is read-only: ZODB writes into its lock file.
                let mode = model.mode() & 0o666 | 0o600;
                file.set_permissions(Permissions::from_mode(mode)).at("change the mode of", path)?;
                return Ok(file);
            }
        }
    }
    open_plain(path, true)
}

fn exists(error: &Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::AlreadyExists)
}

fn busy(data_fs: &Path, path: &Path, identity: FileIdentity) -> Error {
    let (data_fs, lock) = (data_fs.display(), path.display());
    let error = match (holder(identity), written_pid(path)) {
        (Some(pid), _) if pid == std::process::id() => {
            return Error::busy(format!("{data_fs} is in use: this very process holds {lock}"));
        }
        (Some(pid), _) => {
            let holder: Opener = process(pid);
            Error::busy(format!("{data_fs} is in use: {holder} holds {lock}"))
        }
        // What is written in the file may be left over from a process that is gone.
        (None, Some(pid)) => {
            let holder: Opener = process(pid);
            Error::busy(format!("{data_fs} is in use: {lock} is locked, probably by {holder}"))
        }
        (None, None) => Error::busy(format!("{data_fs} is in use: another process holds {lock}")),
    };
    error.hint("stop the server that has the database open, then try again")
}

/// The process that has locked this file, from the system's list of locks.
fn holder(identity: FileIdentity) -> Option<u32> {
    let list = std::fs::read_to_string("/proc/locks").ok()?;
    list.lines().find_map(|line| lock_in(line, identity))
}

/// The process in a line of `/proc/locks` if it is about a lock of this file that is held, such as
/// `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`. A waiting one has `->` after the number.
fn lock_in(line: &str, identity: FileIdentity) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?.parse().ok().filter(|pid| *pid > 0)?;
    let mut place = words.next()?.split(':');
    let major = u32::from_str_radix(place.next()?, 16).ok()?;
    let minor = u32::from_str_radix(place.next()?, 16).ok()?;
    let inode: u64 = place.next()?.parse().ok()?;
    let device = (rustix::fs::major(identity.device), rustix::fs::minor(identity.device));
    ((major, minor) == device && inode == identity.inode).then_some(pid)
}

/// The number in the lock file.
fn written_pid(path: &Path) -> Option<u32> {
    let mut start = Vec::new();
    open_plain(path, false).ok()?.take(64).read_to_end(&mut start).ok()?;
    std::str::from_utf8(&start).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("Data.fs");
        std::fs::write(&data, "FS30").unwrap();
        let lock = StorageLock::acquire(&data).unwrap();
        let path = dir.path().join("Data.fs.lock");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!(" {}\n", std::process::id()));
        let error = StorageLock::acquire(&data).unwrap_err();
        assert_eq!(error.kind(), Kind::Busy);
        drop(lock);
        std::fs::write(&path, " 1234567890\nmuch more").unwrap();
        let lock = StorageLock::acquire(&data).unwrap();
        assert_eq!(lock.paths().count(), 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!(" {}\n", std::process::id()));
    }

    #[test]
    fn p9_nothing_but_a_pid_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let (data, other) = (dir.path().join("Data.fs"), dir.path().join("other"));
        std::fs::write(&data, "FS30").unwrap();
        let lock = dir.path().join("Data.fs.lock");
        for text in ["", "12 is a number", "precious"] {
            std::fs::write(&other, text).unwrap();
            let links: [&dyn Fn(); 2] = [&|| std::os::unix::fs::symlink(&other, &lock).unwrap(), &|| {
                std::fs::hard_link(&other, &lock).unwrap()
            }];
            for link in links {
                link();
                let held = StorageLock::acquire(&data).unwrap();
                assert_eq!(StorageLock::acquire(&data).unwrap_err().kind(), Kind::Busy);
                drop(held);
                assert_eq!(std::fs::read_to_string(&other).unwrap(), text);
                std::fs::remove_file(&lock).unwrap();
            }
        }
        std::fs::write(&lock, "precious").unwrap();
        drop(StorageLock::acquire(&data).unwrap());
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), "precious");
        std::fs::remove_file(&lock).unwrap();
        std::os::unix::fs::symlink(dir.path().join("new"), &lock).unwrap();
        assert!(StorageLock::acquire(&data).is_err(), "a link that leads nowhere");
        assert!(!dir.path().join("new").exists());
    }

    #[test]
    fn a_file_system_whose_locks_keep_nobody_out_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = File::create(&path).unwrap();
        // As where every lock is granted.
        assert!(!keeps_others_out(&path).unwrap());
        file.lock().unwrap();
        assert!(keeps_others_out(&path).unwrap());
    }

    #[test]
    fn the_lock_of_a_read_only_file_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("Data.fs");
        std::fs::write(&data, "FS30").unwrap();
        for (mode, expected) in [(0o444, 0o644), (0o664, 0o664), (0o600, 0o600), (0o755, 0o644)] {
            std::fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
            drop(StorageLock::acquire(&data).unwrap());
            let lock = dir.path().join("Data.fs.lock");
            assert_eq!(lock.metadata().unwrap().mode() & 0o7777, expected, "{mode:o}");
            std::fs::remove_file(&lock).unwrap();
        }
    }

    #[test]
    fn both_names_of_a_linked_storage_are_locked() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        let (data, link) = (real.join("Data.fs"), dir.path().join("Linked.fs"));
        std::fs::write(&data, "FS30").unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let lock = StorageLock::acquire(&link).unwrap();
        assert_eq!(lock.paths().count(), 2);
        assert_eq!(StorageLock::acquire(&data).unwrap_err().kind(), Kind::Busy);
        drop(lock);
        // Through a linked directory both names are of one lock file.
        let directory = dir.path().join("directory");
        std::os::unix::fs::symlink(&real, &directory).unwrap();
        let lock = StorageLock::acquire(&directory.join("Data.fs")).unwrap();
        assert_eq!(lock.paths().count(), 1);
        // A storage that is not there yet can be locked.
        assert!(StorageLock::acquire(&real.join("New.fs")).is_ok());
    }

    #[test]
    fn holders_are_found_in_the_list_of_locks() {
        let identity = FileIdentity { device: rustix::fs::makedev(0xfd, 0x1a), inode: 5678 };
        let held = "1: FLOCK  ADVISORY  WRITE 1234 fd:1a:5678 0 EOF";
        assert_eq!(lock_in(held, identity), Some(1234));
        for other in [
            "1: POSIX  ADVISORY  WRITE 1234 fd:1a:5678 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 1234 fd:1b:5678 0 EOF",
            "1: FLOCK  ADVISORY  WRITE 1234 fd:1a:5679 0 EOF",
            "1: FLOCK  ADVISORY  WRITE -1 fd:1a:5678 0 EOF",
            "1: -> FLOCK  ADVISORY  WRITE 1234 fd:1a:5678 0 EOF",
            "",
        ] {
            assert_eq!(lock_in(other, identity), None, "{other}");
        }
    }
}
