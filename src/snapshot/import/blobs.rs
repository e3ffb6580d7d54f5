//! Blobs of an archive: unpacked into a blob directory in `.znap`, from which they are saved like those of a database.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, Permissions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{ImportedBlobs, Work};
use crate::error::{IoContext, Result};
use crate::filestorage::BlobLayout;
use crate::filestorage::blobs::{LAYOUT_MARKER, revision_at};
use crate::monitor::Monitor;
use crate::repository::blob_list::BlobMode;
use crate::repository::catalog::{Database, Stream};
use crate::repository::hash::Hash;
use crate::repository::plain::{open_plain, read_through};
use crate::snapshot::archive::BlobMembers;
use crate::snapshot::blobs::lists::blobs_of;
use crate::snapshot::blobs::put::changed;
use crate::snapshot::blobs::{is_there, size_of};
use crate::snapshot::handle::Repository;
use crate::snapshot::writing::require_room;

/// How many bytes are copied at once.
const COPIED: usize = 1 << 20;

/// The least that a record takes in a database's file.
const RECORD: u64 = 42;

/// The blobs that come with a database.
pub(super) struct IncomingBlobs {
    /// How many there are, and their bytes.
    pub(super) count: u64,
    bytes: u64,
    /// How they are to be stored.
    mode: BlobMode,
    /// The directory that has them, unless nothing is written.
    directory: Option<PathBuf>,
    /// Their hashes and lengths, by object and transaction.
    hashes: HashMap<(u64, u64), (Hash, u64)>,
}

impl IncomingBlobs {
    /// Whether they are to be stored.
    pub(super) fn are_taken(&self) -> bool {
        self.mode != BlobMode::Skip
    }

    /// Where they are, and how they are to be stored.
    pub(super) fn place(&self) -> Option<(PathBuf, BlobMode)> {
        self.directory.clone().map(|directory| (directory, self.mode))
    }

    /// Refuses if the repository has one of these, but what it is linked to was changed at the same length: that would stand for it.
    pub(super) fn check_stored(&self, repository: &Repository, monitor: &dyn Monitor) -> Result<()> {
        let mut stored = HashMap::new();
        for (hash, size) in self.hashes.values() {
            let is_known = repository.catalog.object_kind(hash)?.is_some();
            if is_known && size_of(&repository.layout.plain(hash))? == Some(*size) {
                stored.insert(*hash, *size);
            }
        }
        monitor.begin("comparing", stored.values().sum());
        for (hash, size) in stored {
            let path = repository.layout.plain(&hash);
            let file = open_plain(&repository.layout, &hash)?;
            if read_through(&file, &path, monitor, |_| Ok(()))? != (hash, size) {
                return Err(changed(&path).hint(
                    "nothing was changed; run znap repair (--from PATH, if a copy has it), which sets it aside, and import again: \
                     that brings it back",
                ));
            }
        }
        monitor.end();
        Ok(())
    }

    /// Whether a snapshot's blobs may stand for these: it has each that its part of the file can name, with the same bytes. Where none
    /// were saved, none stand for any.
    pub(super) fn agree(&self, repository: &Repository, stream: &Stream) -> Result<bool> {
        let Some(blobs) = blobs_of(&repository.catalog, stream)? else { return Ok(true) };
        let mut lacking: HashSet<_> = self.hashes.keys().filter(|(_, tid)| *tid <= stream.cut.tid).collect();
        for blob in blobs {
            let name = (blob.entry.oid, blob.entry.tid);
            let Some((hash, _)) = self.hashes.get(&name) else { continue };
            if *hash != blob.entry.hash || !is_there(repository, &blob)? {
                return Ok(false);
            }
            lacking.remove(&name);
        }
        Ok(lacking.is_empty())
    }

    pub(super) fn report(&self) -> ImportedBlobs {
        ImportedBlobs { count: self.count, bytes: self.bytes, taken: self.are_taken(), missing: None }
    }

    /// What to say if they are left out.
    pub(super) fn skipped(&self) -> Option<String> {
        let what = if self.count == 1 { "blob is" } else { "blobs are" };
        let is_said = !self.are_taken() && self.count > 0;
        is_said.then(|| {
            format!("its {} {what} left out: those of this database are not saved (--blobs-mode skip)", self.count)
        })
    }
}

/// The blobs of one database, while they are unpacked.
pub(super) struct Unpacking {
    directory: PathBuf,
    mode: BlobMode,
    layout: BlobLayout,
    /// Whether the marker of the layout was there.
    is_marked: bool,
    /// How many there are, and their bytes.
    all: (u64, u64),
    /// How many of them are still to come, and their bytes.
    count: u64,
    bytes: u64,
    /// Whose they will be, where root unpacks them.
    owner: Option<(u32, u32)>,
    /// Whether none is written.
    dry: bool,
    hashes: HashMap<(u64, u64), (Hash, u64)>,
}

impl Unpacking {
    /// Makes room for them; the inner error says what is wrong with what the archive says of them. `number` is that of the database,
    /// `length` how long its file is.
    pub(super) fn new(
        work: &Work<'_>,
        (database, number, length): (&Database, usize, u64),
        members: &BlobMembers,
    ) -> Result<Result<Self, String>> {
        let Some(layout) = BlobLayout::from_name(&members.layout) else {
            return Ok(Err("its blobs are laid out in no way that ZODB does".into()));
        };
        if members.count > length / RECORD {
            return Ok(Err("it has more blobs than its database can name".into()));
        }
        let root = work.repository.layout.import();
        let directory = root.join(number.to_string());
        let mode = database.blobs.as_ref().map_or(BlobMode::Link, |blobs| blobs.mode);
        let dry = work.options.dry_run || mode == BlobMode::Skip;
        let file = fs::metadata(work.repository.path_of(database)).ok();
        let owner = file.filter(|_| rustix::process::geteuid().is_root()).map(|file| (file.uid(), file.gid()));
        let (count, bytes) = (members.count, members.bytes);
        let all = (count, bytes);
        let hashes = HashMap::new();
        let unpacking = Unpacking { directory, mode, layout, is_marked: false, all, count, bytes, owner, dry, hashes };
        if !dry {
            require_room(work.repository.root(), members.bytes)?;
            let directory = &unpacking.directory;
            DirBuilder::new().recursive(true).mode(0o700).create(directory).at("create", directory)?;
            let marker = directory.join(LAYOUT_MARKER);
            fs::write(&marker, layout.name()).at("write", &marker)?;
        }
        Ok(Ok(unpacking))
    }

    /// Unpacks a member, of which `path` is seen from the blob directory, and all of which `hear` gets. The inner error says what is wrong
    /// with it.
    pub(super) fn take(
        &mut self,
        work: &Work<'_>,
        path: &Path,
        (from, size, mode): (&mut dyn Read, u64, u32),
        mut hear: impl FnMut(&[u8]),
    ) -> Result<Result<(), String>> {
        if path == Path::new(LAYOUT_MARKER) && size < 100 {
            if std::mem::replace(&mut self.is_marked, true) {
                return Ok(Err("its blobs have two markers of their layout".into()));
            }
            let mut text = Vec::new();
            return Ok(match from.read_to_end(&mut text) {
                Ok(_) if text == self.layout.name().as_bytes() => {
                    hear(&text);
                    Ok(())
                }
                Ok(_) => Err("its blobs are laid out in two ways".into()),
                Err(error) => Err(error.to_string()),
            });
        }
        // No other path than one of these is made.
        let Some((oid, tid)) = revision_at(self.layout, path) else { return Ok(Err("it has more than blobs".into())) };
        let place = self.directory.join(self.layout.path(oid, tid));
        if self.count == 0 || size > self.bytes || self.hashes.contains_key(&(oid, tid)) {
            return Ok(Err("it has more blobs than it says, or one of them twice".into()));
        }
        (self.count, self.bytes) = (self.count - 1, self.bytes - size);
        let disk = work.repository.disk();
        let file = if self.dry {
            None
        } else {
            let folder = place.parent().unwrap_or(&self.directory);
            DirBuilder::new().recursive(true).mode(0o700).create(folder).at("create", folder)?;
            Some(disk.create(&place)?)
        };
        let mut buffer = vec![0; COPIED.min(size as usize + 1)];
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        loop {
            work.monitor.check()?;
            let read = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => return Ok(Err(error.to_string())),
            };
            hear(&buffer[..read]);
            hasher.update(&buffer[..read]);
            if let Some(file) = &file {
                disk.write_at(file, &place, &buffer[..read], at)?;
            }
            at += read as u64;
            work.monitor.advance(read as u64);
        }
        if let Some(file) = &file {
            if let Some((user, group)) = self.owner {
                std::os::unix::fs::fchown(file, Some(user), Some(group)).at("set the owner of", &place)?;
            }
            // Nothing that anybody could execute.
            file.set_permissions(Permissions::from_mode(mode & 0o666)).at("set the mode of", &place)?;
        }
        self.hashes.insert((oid, tid), (Hash(*hasher.finalize().as_bytes()), at));
        Ok(if at == size { Ok(()) } else { Err("a blob is cut short".into()) })
    }

    /// All of them, now that no more come. The error says what is wrong.
    pub(super) fn finish(self) -> Result<IncomingBlobs, String> {
        if self.count > 0 || self.bytes > 0 {
            return Err("blobs are missing".into());
        }
        let (count, bytes) = self.all;
        let directory = (!self.dry).then_some(self.directory);
        Ok(IncomingBlobs { count, bytes, mode: self.mode, directory, hashes: self.hashes })
    }
}
