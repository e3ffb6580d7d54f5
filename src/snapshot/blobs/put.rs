//! Putting blobs into a blob directory, and taking out those that don't belong.
//!
//! Every file is made, checked and synced (many of them all at once) in a folder of znap's own in the blob directory, before
//! anything is changed; then it is renamed to its place. ZODB looks for no blobs in there: its name begins with a dot.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, Uid, accessat, fchown};
use rustix::io::Errno;

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::BlobLayout;
use crate::filestorage::blobs::LAYOUT_MARKER;
use crate::monitor::Monitor;
use crate::repository::blob_list::BlobForm;
use crate::repository::catalog::StoredBlob;
use crate::repository::chunk_reader::ChunkReader;
use crate::repository::counters::Counters;
use crate::repository::frames::Location;
use crate::repository::hash::Hash;
use crate::repository::object::damaged;
use crate::repository::plain::{cannot_link, clone_into, open_plain, read_through};
use crate::snapshot::blobs::look_at;
use crate::snapshot::blobs::plan::BlobPlan;
use crate::snapshot::handle::Repository;
use crate::snapshot::writing::{TemporaryFile, folder_of};

/// The folder in which blobs are made.
const FOLDER: &str = ".znap-restore";

/// From more files on, one sync of their whole file system takes less time than one of each. Elsewhere that promises nothing.
const MANY: usize = if cfg!(target_os = "linux") { 32 } else { usize::MAX };

/// Whether the new files may be second names of files in the repository: where they are the database's own again. Elsewhere somebody
/// may change their owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    Allowed,
    No,
}

/// Blobs that are made and checked, and wait to be put in their places.
pub(crate) struct PreparedBlobs {
    disk: Disk,
    counters: Arc<Counters>,
    directory: PathBuf,
    folder: PathBuf,
    /// Names in the folder, and places seen from the blob directory.
    files: Vec<(PathBuf, PathBuf)>,
    remove: Vec<PathBuf>,
    /// The blob directory, if its file system is synced instead of many files and folders.
    together: Option<File>,
    /// Whether the file system may be able to clone files.
    clones: bool,
    /// What was made for this: the folder, and the blob directory itself.
    made: (bool, bool),
}

impl PreparedBlobs {
    /// Makes what a plan adds. A directory that isn't there is made, like the model, which is the database's file.
    pub(crate) fn new(
        repository: &Repository,
        plan: &BlobPlan,
        reader: &mut ChunkReader,
        (links, model): (Links, &fs::Metadata),
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let disk = repository.disk().clone();
        let mut prepared = PreparedBlobs {
            directory: plan.path.clone(),
            folder: plan.path.join(FOLDER),
            files: Vec::new(),
            remove: plan.work.remove.clone(),
            together: None,
            clones: !disk.is_watched(),
            made: (false, false),
            counters: Arc::clone(&repository.counters),
            disk,
        };
        // What a killed restore left.
        prepared.clear()?;
        // Before anything is changed: later it could go neither forward nor back.
        let added = plan.work.add.iter().map(|(blob, _)| plan.work.path_of(&blob.entry));
        require_writable(&plan.path, added.chain(plan.work.remove.iter().cloned()))?;
        if plan.work.add.is_empty() {
            return Ok(prepared);
        }
        prepared.make_directory(plan, model)?;
        prepared.made.0 = true;
        if plan.work.add.len() > MANY {
            prepared.together = Some(File::open(&prepared.directory).at("open", &prepared.directory)?);
        }
        prepared.disk.create_directory(&prepared.folder, 0o700).at("create", &prepared.folder)?;
        monitor.begin("preparing blobs", plan.add_bytes);
        for (number, (blob, chunks)) in plan.work.add.iter().enumerate() {
            monitor.check()?;
            let path = prepared.folder.join(number.to_string());
            match blob.entry.form {
                BlobForm::Chunks => prepared.join(blob, chunks, &path, reader, monitor)?,
                _ => prepared.make(repository, blob, &path, links, monitor)?,
            }
            prepared.files.push((path, plan.work.path_of(&blob.entry)));
        }
        prepared.sync_together()?;
        monitor.end();
        Ok(prepared)
    }

    /// Makes a blob directory, and its marker, if they aren't there.
    fn make_directory(&mut self, plan: &BlobPlan, model: &fs::Metadata) -> Result<()> {
        let missing: Vec<&Path> =
            self.directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        for path in missing.iter().rev() {
            self.disk.create_directory(path, 0o777).at("create", path)?;
            self.disk.sync_directory(folder_of(path))?;
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(path, Some(model.uid()), Some(model.gid())).at("set the owner of", path)?;
            }
        }
        let is_new = !missing.is_empty();
        self.made.1 = is_new;
        // Without a marker ZODB takes one with files in it for a lawn.
        let marker = self.directory.join(LAYOUT_MARKER);
        if BlobLayout::of(&self.directory)?.is_none() {
            let mut file = TemporaryFile::create(&self.disk, &marker, model)?;
            self.disk.write_at(&file.file, &file.path, plan.work.layout.name().as_bytes(), 0)?;
            self.disk.sync(&file.file, &file.path)?;
            file.put(&marker)?;
            self.disk.sync_directory(&self.directory)?;
        }
        Ok(())
    }

    /// Makes one file of its pieces, checked and synced.
    fn join(
        &self,
        blob: &StoredBlob,
        chunks: &[Location],
        path: &Path,
        reader: &mut ChunkReader,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let disk = &self.disk;
        let file = disk.create(path)?;
        let mut at = 0;
        read_pieces(blob, chunks, reader, monitor, |bytes| {
            disk.write_at(&file, path, bytes, at)?;
            at += bytes.len() as u64;
            Ok(())
        })?;
        self.finish(&file, path, blob)
    }

    /// Makes one file of a plain object file, checked and synced.
    fn make(
        &mut self,
        repository: &Repository,
        blob: &StoredBlob,
        path: &Path,
        links: Links,
        monitor: &dyn Monitor,
    ) -> Result<()> {
        let (entry, disk) = (&blob.entry, self.disk.clone());
        let stored = repository.layout.plain(&entry.hash);
        let from = open_plain(&repository.layout, &entry.hash)?;
        let mut shared = None;
        if self.clones {
            let file = disk.create(path)?;
            self.clones = clone_into(&from, &file);
            if self.clones {
                shared = Some(file);
            } else {
                disk.remove(path)?;
            }
        }
        let may_link = links == Links::Allowed && is_as_saved(&from, &stored, blob)?;
        let is_linked = shared.is_none() && may_link && link(&disk, &stored, path)?;
        if shared.is_some() || is_linked {
            // What it shares with the repository may have been changed there.
            let (hash, size) = read_through(&from, &stored, monitor, |_| Ok(()))?;
            check(&stored, blob, hash, size)?;
            return match shared {
                Some(file) => self.finish(&file, path, blob),
                None => Ok(()),
            };
        }
        let file = disk.create(path)?;
        let mut at = 0;
        let (hash, size) = read_through(&from, &stored, monitor, |bytes| {
            disk.write_at(&file, path, bytes, at)?;
            at += bytes.len() as u64;
            Ok(())
        })?;
        check(&stored, blob, hash, size)?;
        self.finish(&file, path, blob)
    }

    /// Gives a new file the owner, group and mode that the blob's had, as far as this user can, and syncs it, or leaves it to be
    /// synced with many others.
    fn finish(&self, file: &File, path: &Path, blob: &StoredBlob) -> Result<()> {
        let (entry, is_root) = (&blob.entry, rustix::process::geteuid().is_root());
        let owner = is_root.then(|| Uid::from_raw(entry.owner));
        match fchown(file, owner, Some(Gid::from_raw(entry.group))) {
            Ok(()) => {}
            Err(Errno::PERM) if !is_root => {}
            Err(error) => return Err(Error::io("change the owner of", path, error.into())),
        }
        file.set_permissions(fs::Permissions::from_mode(entry.mode)).at("change the mode of", path)?;
        if self.together.is_some() {
            return Ok(());
        }
        self.counters.fsync();
        self.disk.sync(file, path)
    }

    /// Syncs everything, if not each by itself. Returns whether it did.
    fn sync_together(&self) -> Result<bool> {
        let Some(directory) = &self.together else { return Ok(false) };
        self.counters.fsync();
        self.disk.sync_file_system(directory, &self.directory)?;
        Ok(true)
    }

    /// Puts every file in its place. Something else that is in one keeps its bytes, under another name.
    pub(crate) fn put(&mut self) -> Result<()> {
        let mut changed = BTreeSet::new();
        for (path, place) in std::mem::take(&mut self.files) {
            let place = self.directory.join(place);
            let folder = folder_of(&place);
            self.make_folders(folder, &mut changed)?;
            if look_at(&place)?.is_some() {
                self.disk.rename(&place, &free_name(&place)?)?;
            }
            self.disk.rename(&path, &place)?;
            changed.insert(folder.to_path_buf());
        }
        if !self.sync_together()? {
            for folder in &changed {
                self.counters.fsync();
                self.disk.sync_directory(folder)?;
            }
        }
        self.clear()
    }

    /// Makes the folders of a place, with the mode and owner of the blob directory, as ZODB would.
    fn make_folders(&self, folder: &Path, changed: &mut BTreeSet<PathBuf>) -> Result<()> {
        if changed.contains(folder) || folder.is_dir() {
            return Ok(());
        }
        let model = fs::metadata(&self.directory).at("look at", &self.directory)?;
        let missing: Vec<&Path> =
            folder.ancestors().take_while(|path| *path != self.directory && !path.is_dir()).collect();
        for path in missing.into_iter().rev() {
            self.disk.create_directory(path, 0o777).at("create", path)?;
            // By its handle: whoever may write here could put a link in its place.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let made = File::from(
                rustix::fs::open(path, flags, Mode::empty()).map_err(std::io::Error::from).at("open", path)?,
            );
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::fchown(&made, Some(model.uid()), Some(model.gid())).at("set the owner of", path)?;
            }
            made.set_permissions(fs::Permissions::from_mode(model.mode() & 0o7777)).at("set the mode of", path)?;
            changed.insert(folder_of(path).to_path_buf());
        }
        Ok(())
    }

    /// Removes what doesn't belong, and the folders that are empty then.
    pub(crate) fn take_out(&self) -> Result<()> {
        remove(&self.disk, &self.directory, &self.remove)
    }

    /// Removes the folder of znap's own.
    fn clear(&self) -> Result<()> {
        clear(&self.disk, &self.directory)
    }
}

/// Whether blobs are left that could not be taken out, which is said then.
pub(crate) fn are_left(taken_out: Result<()>, monitor: &dyn Monitor) -> bool {
    taken_out
        .inspect_err(|error| {
            monitor.notice(&format!("blobs that don't belong there could not all be removed: {error}"));
        })
        .is_err()
}

/// Removes what a plan says doesn't belong.
pub(crate) fn take_out(disk: &Disk, plan: &BlobPlan) -> Result<()> {
    clear(disk, &plan.path)?;
    remove(disk, &plan.path, &plan.work.remove)
}

fn remove(disk: &Disk, directory: &Path, places: &[PathBuf]) -> Result<()> {
    let mut changed = BTreeSet::new();
    for place in places {
        let path = directory.join(place);
        disk.remove_if_there(&path)?;
        let mut folder = folder_of(&path);
        while folder != directory && folder.starts_with(directory) {
            match disk.remove_directory(folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => break, // Others are in there.
                _ => changed.remove(folder),
            };
            folder = folder_of(folder);
        }
        changed.insert(folder.to_path_buf());
    }
    let is_gone = |error: &Error| error.io_error().is_some_and(|error| error.kind() == ErrorKind::NotFound);
    changed.iter().try_for_each(|folder| {
        disk.sync_directory(folder).or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
    })
}

/// Removes what a killed restore left in a blob directory.
pub(crate) fn clear(disk: &Disk, directory: &Path) -> Result<()> {
    let folder = directory.join(FOLDER);
    if folder.is_dir() { disk.remove_tree(&folder) } else { Ok(()) }
}

impl Drop for PreparedBlobs {
    fn drop(&mut self) {
        // Only what was prepared, which the next restore removes as well. A directory in which something was put stays.
        if self.made.0 {
            let _ = self.clear();
        }
        if self.made.1 && fs::read_dir(&self.directory).is_ok_and(|entries| entries.count() == 1) {
            let _ = self.disk.remove_if_there(&self.directory.join(LAYOUT_MARKER));
            let _ = self.disk.remove_directory(&self.directory);
        }
    }
}

/// Refuses if a folder in which something is to be put or removed can't be written, or, where it isn't there, the nearest above.
fn require_writable(directory: &Path, places: impl Iterator<Item = PathBuf>) -> Result<()> {
    let mut asked = BTreeSet::new();
    for place in places {
        let place = directory.join(place);
        let Some(folder) = place.ancestors().skip(1).find(|folder| folder.is_dir()) else { continue };
        if !asked.insert(folder.to_path_buf()) {
            continue;
        }
        accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).map_err(|error| {
            Error::io("change what is in", folder, error.into())
                .hint("nothing was changed; restore as the user whom the blobs belong to, or as root")
        })?;
    }
    Ok(())
}

/// A name beside a blob's for what is in its place.
fn free_name(place: &Path) -> Result<PathBuf> {
    for number in 1.. {
        let name = if number == 1 { "blob.replaced".into() } else { format!("blob.replaced-{number}") };
        let free = place.with_extension(name);
        if look_at(&free)?.is_none() {
            return Ok(free);
        }
    }
    Err(Error::failed(format!("there is no free name beside {}", place.display())))
}

/// Hands out a blob's pieces, and refuses them at the end if together they aren't what was saved: each is what it should be.
pub(crate) fn read_pieces(
    blob: &StoredBlob,
    chunks: &[Location],
    reader: &mut ChunkReader,
    monitor: &dyn Monitor,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut size = 0;
    for location in chunks {
        monitor.check()?;
        reader.with_chunk(location, |bytes| {
            hasher.update(bytes);
            size += bytes.len() as u64;
            monitor.advance(bytes.len() as u64);
            write(bytes)
        })?;
    }
    if Hash(*hasher.finalize().as_bytes()) == blob.entry.hash && size == blob.entry.size {
        return Ok(());
    }
    let lost = format!("pieces of blob {:#x} are lost, or the catalog lists wrong ones", blob.entry.oid);
    Err(Error::damaged(lost).hint("znap check says more; other snapshots still restore"))
}

/// Refuses bytes that aren't those that were saved.
pub(crate) fn check(stored: &Path, blob: &StoredBlob, hash: Hash, size: u64) -> Result<()> {
    if hash == blob.entry.hash && size == blob.entry.size {
        return Ok(());
    }
    Err(changed(stored))
}

/// The error for a plain object file that has other bytes than it should have.
pub(crate) fn changed(stored: &Path) -> Error {
    damaged(stored, "its content does not match its name: the blob file that it is linked to may have been changed")
}

/// Whether a file has the owner, group and mode that the blob's had.
fn is_as_saved(file: &File, path: &Path, blob: &StoredBlob) -> Result<bool> {
    let metadata = file.metadata().at("look at", path)?;
    let (entry, mode) = (&blob.entry, metadata.mode() & 0o7777);
    // A name that can be written through would be another way into the repository; ZODB makes none.
    Ok(mode == entry.mode && mode & 0o222 == 0 && metadata.uid() == entry.owner && metadata.gid() == entry.group)
}

/// Gives a file of the repository a second name; false if that can't be.
fn link(disk: &Disk, stored: &Path, path: &Path) -> Result<bool> {
    match disk.link(stored, path) {
        Ok(()) => Ok(true),
        Err(error) if cannot_link(&error) => Ok(false),
        Err(error) => Err(Error::io("link from the repository", stored, error)),
    }
}
