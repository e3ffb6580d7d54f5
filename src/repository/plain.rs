//! Plain object files: exactly the bytes of a blob file, without a header. They are in a folder of their own, so that none is taken
//! for anything that describes itself, whatever is in it.
//!
//! A blob file never changes, so one that is on the same file system is cloned (it shares its blocks), or gets a second
//! name. A pack or a restore that removes the first one leaves it.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, IoContext, Result};
use crate::monitor::Monitor;
use crate::repository::counters::Counters;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::object::{TEMPORARY, damaged, open_regular};

/// How many bytes are read at once.
const READ: usize = 1 << 20;

/// Gives blob files a place among the object files.
pub struct PlainWriter {
    layout: Layout,
    counters: Arc<Counters>,
    /// Whether the file system may be able to clone files.
    clones: bool,
    /// Folders with new names in them.
    folders: BTreeSet<PathBuf>,
    new: HashSet<Hash>,
}

impl PlainWriter {
    /// One for this repository.
    pub fn new(layout: &Layout, counters: &Arc<Counters>) -> Self {
        // A watched disk doesn't know how to.
        let clones = !layout.disk().is_watched();
        PlainWriter {
            layout: layout.clone(),
            counters: Arc::clone(counters),
            clones,
            folders: BTreeSet::new(),
            new: HashSet::new(),
        }
    }

    /// Makes an open file, whose bytes have this hash, the plain object file of that name. Returns false if neither a clone nor a
    /// second name of it can be there.
    pub fn adopt(&mut self, file: &File, path: &Path, name: &Hash) -> Result<bool> {
        let place = self.layout.plain(name);
        let folder = self.folder_of(&place)?;
        let temporary = folder.join(format!("{TEMPORARY}{}", Uid::random()?));
        let disk = self.layout.disk().clone();
        let cloned = self.clones && {
            let new = self.layout.create_file(&temporary)?;
            self.clones = clone_into(file, &new);
            if self.clones {
                disk.sync(&new, &temporary)?;
            } else {
                disk.remove(&temporary)?;
            }
            self.clones
        };
        if !cloned {
            // Before: its new name makes it changed again, and a sync then waits for that to be written, too.
            disk.sync(file, path)?;
            match disk.link(path, &temporary) {
                Ok(()) => {}
                // A pack may have removed it since it was opened.
                Err(error) if cannot_link(&error) || error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(Error::io("link into the repository", path, error)),
            }
            let identity = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
            let linked = fs::symlink_metadata(&temporary).at("look at", &temporary)?;
            if identity(&linked) != identity(&file.metadata().at("look at", path)?) {
                disk.remove(&temporary)?;
                return Err(Error::failed(format!("{} was replaced while it was being saved", path.display()))
                    .hint("blob files never change; find out what does that, and try again"));
            }
        }
        self.counters.fsync();
        disk.rename(&temporary, &place)?;
        // Renaming a file to another name of itself leaves both.
        disk.remove_if_there(&temporary)?;
        self.folders.insert(folder);
        self.new.insert(*name);
        Ok(true)
    }

    /// Makes a plain object file of a copy of an open file, whose bytes have this hash.
    pub fn copy(&mut self, file: &File, path: &Path, name: &Hash, monitor: &dyn Monitor) -> Result<()> {
        let place = self.layout.plain(name);
        let folder = self.folder_of(&place)?;
        let temporary = folder.join(format!("{TEMPORARY}{}", Uid::random()?));
        let disk = self.layout.disk().clone();
        let new = self.layout.create_file(&temporary)?;
        let mut at = 0;
        let copied = read_through(file, path, monitor, |bytes| {
            disk.write_at(&new, &temporary, bytes, at)?;
            at += bytes.len() as u64;
            Ok(())
        });
        match copied {
            Ok((hash, _)) if hash == *name => {}
            other => {
                disk.remove(&temporary)?;
                other?;
                return Err(Error::failed(format!("{} has changed meanwhile", path.display())).hint("try again"));
            }
        }
        disk.sync(&new, &temporary)?;
        self.counters.fsync();
        disk.rename(&temporary, &place)?;
        self.folders.insert(folder);
        self.new.insert(*name);
        Ok(())
    }

    /// Whether it has made a plain object file of this name.
    pub fn has(&self, name: &Hash) -> bool {
        self.new.contains(name)
    }

    /// Makes the names durable. The catalog may refer to them only then.
    pub fn finish(self) -> Result<()> {
        for folder in &self.folders {
            self.layout.disk().sync_directory(folder)?;
            self.counters.fsync();
        }
        Ok(())
    }

    /// The folder that a plain object file is in, which is made if it isn't there.
    fn folder_of(&mut self, place: &Path) -> Result<PathBuf> {
        let folder = place.parent().unwrap_or(place).to_path_buf();
        // Perhaps a killed save has made it, and its name is on no disk.
        self.folders.extend([self.layout.objects(), self.layout.blobs()]);
        if !folder.is_dir() {
            self.layout.create_folder(&self.layout.blobs())?;
            self.layout.create_folder(&folder)?;
        }
        Ok(folder)
    }
}

/// Lets an empty file share the blocks of another one; false if that can't be.
pub fn clone_into(from: &File, to: &File) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::ioctl_ficlone(to, from).is_ok();
    #[cfg(not(target_os = "linux"))]
    return {
        let _ = (from, to);
        false
    };
}

/// Whether a link can't be because of where or whose the file is.
pub fn cannot_link(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let no: [Errno; 5] = [Errno::XDEV, Errno::PERM, Errno::MLINK, Errno::OPNOTSUPP, Errno::ACCESS];
    error.raw_os_error().is_some_and(|code| no.iter().any(|errno| errno.raw_os_error() == code))
}

/// Opens the plain object file of this name.
pub fn open_plain(layout: &Layout, name: &Hash) -> Result<File> {
    let path = layout.plain(name);
    match open_regular(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(damaged(&path, "it is missing")),
        result => result.at("open", &path)?.ok_or_else(|| damaged(&path, "it is no file")),
    }
}

/// Reads a file to its end, giving its bytes to `each`, and returns their hash and number.
pub fn read_through(
    mut file: &File,
    path: &Path,
    monitor: &dyn Monitor,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<(Hash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; READ];
    let mut bytes = 0;
    loop {
        monitor.check()?;
        let mut filled = 0;
        while filled < READ {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", path, error)),
            }
        }
        if filled == 0 {
            return Ok((Hash(*hasher.finalize().as_bytes()), bytes));
        }
        hasher.update(&buffer[..filled]);
        bytes += filled as u64;
        each(&buffer[..filled])?;
        monitor.advance(filled as u64);
    }
}

/// The plain object files that are there, with their lengths, and what a killed save left of others.
pub struct PlainFiles {
    /// Names and lengths.
    pub files: Vec<(Hash, u64)>,
    /// Paths and lengths.
    pub left_over: Vec<(PathBuf, u64)>,
}

impl PlainFiles {
    /// Lists them.
    pub fn list(layout: &Layout) -> Result<Self> {
        let mut found = PlainFiles { files: Vec::new(), left_over: Vec::new() };
        for folder in entries(&layout.blobs())? {
            let path = folder.path();
            if !path.is_dir() {
                continue;
            }
            for entry in entries(&path)? {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
                match Hash::from_hex(&name) {
                    Some(hash) if layout.plain(&hash) == entry.path() => found.files.push((hash, bytes)),
                    _ if name.starts_with(TEMPORARY) => found.left_over.push((entry.path(), bytes)),
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

/// What is in a folder; nothing if it isn't there.
fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        result => result.at("read", folder)?.collect::<Result<_, _>>().at("read", folder),
    }
}
