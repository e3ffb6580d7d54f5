//! What is among the object files, compared with what the catalog names.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::error::{Error, IoContext, Result};
use crate::repository::catalog::ObjectFile;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::{BLOBS, Layout};
use crate::repository::manifest::{Manifest, Tombstone};
use crate::repository::object::{ObjectKind, TEMPORARY, damaged, kind_of};
use crate::repository::plain::PlainFiles;
use crate::snapshot::handle::Repository;

/// What a file is that has the name of an object file, and that the catalog doesn't name.
pub(crate) enum Unnamed {
    /// What a killed command left, or what was just dropped.
    LeftOver,
    /// The same: a deletion that was written down but not committed.
    Deletion(Tombstone),
    /// The manifest of a snapshot that the catalog doesn't know.
    Newer(Box<Manifest>),
    /// Nothing that can be told.
    Unknown,
}

/// Says what a file is that the catalog doesn't name. `known` are the snapshots that the catalog knows, and `is_deleted` says
/// whether a tombstone that it names is of this one.
pub(crate) fn unnamed(
    layout: &Layout,
    name: &Hash,
    known: &HashSet<Uid>,
    is_deleted: impl FnOnce(&Uid) -> Result<bool>,
) -> Result<Unnamed> {
    Ok(match kind_of(&layout.object(name)) {
        Ok(ObjectKind::Data) => Unnamed::LeftOver,
        Ok(ObjectKind::Manifest) => {
            let manifest = Manifest::read(layout, name)?;
            // Another revision of one that the catalog has: a gc was killed. Or one that was deleted and dropped, and only
            // its file is still there.
            if known.contains(&manifest.uid) || is_deleted(&manifest.uid)? {
                Unnamed::LeftOver
            } else {
                Unnamed::Newer(Box::new(manifest))
            }
        }
        Ok(ObjectKind::Tombstone) => {
            let tombstone = Tombstone::read(layout, name)?;
            if known.contains(&tombstone.snapshot) { Unnamed::Deletion(tombstone) } else { Unnamed::LeftOver }
        }
        // It may be a deleted snapshot's manifest: as long as that is there, so must be its tombstone.
        Err(error) if error.io_error().is_some_and(|error| error.kind() != ErrorKind::NotFound) => return Err(error),
        Ok(ObjectKind::Config | ObjectKind::Plain) | Err(_) => Unnamed::Unknown,
    })
}

/// The error for a catalog that doesn't know this snapshot; the caller adds what can be done.
pub(crate) fn catalog_is_older(layout: &Layout, manifest: &Manifest) -> Error {
    Error::damaged(format!(
        "the catalog {} is older than the object files: it does not know snapshot {} ({})",
        layout.catalog().display(),
        manifest.id,
        jiff::Timestamp::from_microsecond(manifest.created).unwrap_or_default()
    ))
}

/// The object files that the catalog does not name.
pub(super) struct Inventory {
    /// What killed commands left, and what was just dropped: path and length.
    pub(super) left_over: Vec<(PathBuf, u64)>,
    /// Deletions that were written down but not committed.
    deletions: Vec<Tombstone>,
    /// Names of files that aren't znap's.
    pub(super) unknown: Vec<String>,
    /// The snapshots that the catalog's tombstones are of, once they were read.
    deleted: Option<HashSet<Uid>>,
}

impl Inventory {
    /// Lists the object files. Fails if the catalog names one that isn't there, or if there is a snapshot that
    /// the catalog doesn't know: then the catalog is older than the objects, and nothing may be removed.
    pub(super) fn take(repository: &Repository) -> Result<Self> {
        let layout = &repository.layout;
        let (plain, described): (Vec<ObjectFile>, Vec<ObjectFile>) =
            repository.catalog.object_files()?.into_iter().partition(|file| file.kind == ObjectKind::Plain);
        let named: HashSet<Hash> = described.iter().map(|file| file.name).collect();
        let known: HashSet<Uid> = repository.catalog.known_snapshots()?.into_iter().collect();
        let mut inventory =
            Inventory { left_over: Vec::new(), deletions: Vec::new(), unknown: Vec::new(), deleted: None };
        let mut there = HashSet::new();
        let folder = layout.objects();
        for entry in fs::read_dir(&folder).at("read", &folder)? {
            let entry = entry.at("read", &folder)?;
            let (path, file_name) = (entry.path(), entry.file_name());
            let name = file_name.to_string_lossy();
            let bytes = entry.metadata().map_or(0, |metadata| metadata.len());
            match Hash::from_hex(&name) {
                Some(hash) if named.contains(&hash) => {
                    there.insert(hash);
                }
                Some(hash) => inventory.unnamed(repository, hash, path, bytes, &known)?,
                // No other command writes while this one holds the lock.
                None if name.starts_with(TEMPORARY) => inventory.left_over.push((path, bytes)),
                None if name == BLOBS => {}
                None => inventory.unknown.push(name.into_owned()),
            }
        }
        if let Some(missing) = named.difference(&there).next() {
            return Err(damaged(&layout.object(missing), "the catalog names it, and it is missing"));
        }
        inventory.take_plain(layout, plain)?;
        Ok(inventory)
    }

    /// Lists the plain object files. One that is missing is the loss of a blob, and no sign that the catalog is wrong.
    fn take_plain(&mut self, layout: &Layout, named: Vec<ObjectFile>) -> Result<()> {
        let named: HashSet<Hash> = named.into_iter().map(|file| file.name).collect();
        let there = PlainFiles::list(layout)?;
        self.left_over.extend(there.left_over);
        let unnamed = there.files.into_iter().filter(|(name, _)| !named.contains(name));
        self.left_over.extend(unnamed.map(|(name, bytes)| (layout.plain(&name), bytes)));
        Ok(())
    }

    fn unnamed(
        &mut self,
        repository: &Repository,
        name: Hash,
        path: PathBuf,
        bytes: u64,
        known: &HashSet<Uid>,
    ) -> Result<()> {
        let layout = &repository.layout;
        match unnamed(layout, &name, known, |uid| self.is_deleted(repository, uid))? {
            Unnamed::LeftOver => self.left_over.push((path, bytes)),
            Unnamed::Deletion(tombstone) => {
                self.deletions.push(tombstone);
                self.left_over.push((path, bytes));
            }
            Unnamed::Newer(manifest) => {
                return Err(catalog_is_older(layout, &manifest)
                    .hint("put the newest catalog.db back; or rebuild it with znap repair; nothing was removed"));
            }
            Unnamed::Unknown => {
                self.unknown.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        Ok(())
    }

    /// Whether one of the tombstones that the catalog names is of this snapshot.
    fn is_deleted(&mut self, repository: &Repository, snapshot: &Uid) -> Result<bool> {
        if self.deleted.is_none() {
            let mut deleted = HashSet::new();
            for file in repository.catalog.object_files()? {
                if file.kind == ObjectKind::Tombstone {
                    deleted.insert(Tombstone::read(&repository.layout, &file.name)?.snapshot);
                }
            }
            self.deleted = Some(deleted);
        }
        Ok(self.deleted.as_ref().is_some_and(|deleted| deleted.contains(snapshot)))
    }

    /// Commits deletions whose tombstones are there but which the catalog doesn't know: a delete was killed
    /// just before its end, or the catalog is from before it. Either way the user wanted it.
    pub(super) fn finish_deletions(&self, repository: &mut Repository) -> Result<()> {
        for tombstone in &self.deletions {
            if let Some(snapshot) = repository.catalog.snapshot(&tombstone.id)?
                && snapshot.uid == tombstone.snapshot
            {
                let file = tombstone.write(&repository.layout)?.finish(&repository.counters)?;
                let name = (file.name, file.bytes);
                crate::repository::object::publish(&repository.layout, vec![file], &repository.counters)?;
                repository.catalog.record_tombstone(snapshot.row, name)?;
            }
        }
        Ok(())
    }
}
