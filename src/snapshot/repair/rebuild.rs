//! Making the catalog anew and putting it in place.
//!
//! The old one keeps its place until the new one is whole and durable, unless SQLite has left a journal beside it that could
//! not be played back: SQLite would play it into the new one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, IoContext, Result};
use crate::monitor::Monitor;
use crate::repository::blob_list::BlobDirectoryEntry;
use crate::repository::catalog::{Catalog, RebuiltSnapshot, Registration, journal_of};
use crate::repository::counters::Counters;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::manifest::{Config, Generation, Manifest, SAVE};
use crate::snapshot::database::path_of_entry;
use crate::snapshot::gc::lists;
use crate::snapshot::repair::examine::Examined;
use crate::snapshot::repair::objects::Stored;
use crate::snapshot::repair::picture::{Picture, Record};
use crate::snapshot::repair::search::newest_entries;

/// Makes a catalog beside the one that is there: of what was worked out, of which all object files are there. Checks its lists.
pub(super) fn build(
    layout: &Layout,
    counters: &Arc<Counters>,
    config: &Stored<Config>,
    examined: &Examined,
    monitor: &dyn Monitor,
) -> Result<()> {
    let Examined { objects, picture, registered, sequence, .. } = examined;
    let mut catalog = Catalog::create_beside(layout, counters)?;
    let uid = config.what.repository;
    catalog.register(&uid, config.what.created, config.file, &registrations(picture, registered)?)?;
    for data in &objects.data {
        monitor.check()?;
        catalog.record_data_file(&data.file.0, data.file.1, &data.what)?;
    }
    let mut used: Vec<Hash> = Vec::new();
    for chosen in picture.recorded() {
        monitor.check()?;
        let unwritten = || Error::failed("an object file was to be written, and was not");
        let tombstone = match &chosen.tombstone {
            None => None,
            Some(Record::There(file)) => Some(*file),
            Some(Record::New(_)) => return Err(unwritten()),
        };
        used.extend(tombstone.map(|(name, _)| name));
        catalog.record_rebuilt(&RebuiltSnapshot {
            manifest: &chosen.manifest,
            manifest_file: chosen.file.ok_or_else(unwritten)?,
            tombstone,
            reach: chosen.reach.clone(),
        })?;
    }
    let others: Vec<(Hash, u64)> =
        objects.tombstones.iter().map(|stored| stored.file).filter(|(name, _)| !used.contains(name)).collect();
    catalog.record_tombstones(&others, *sequence)?;
    if let Some(problem) = catalog.problem()? {
        return Err(Error::failed(format!("the new catalog is not as it should be: {problem}")));
    }
    lists::check(&catalog, monitor)?;
    catalog.finish_beside(layout)
}

/// The databases: as the snapshots have them, and those that only the old catalog knows.
fn registrations(picture: &Picture, registered: &[Registration]) -> Result<Vec<Registration>> {
    let mut all: Vec<Registration> = newest_entries(picture)
        .into_iter()
        .map(|entry| {
            // What was set after the last save only the catalog knows.
            let set = registered.iter().find(|registration| registration.uid == entry.uid);
            let entry_blobs = || entry.blob_directory.as_ref().map(BlobDirectoryEntry::directory);
            Registration {
                uid: entry.uid,
                name: entry.name.clone(),
                path: path_of_entry(entry),
                generation: first_generation(picture, entry.uid)
                    .or_else(|| set.map(|set| set.generation.clone()))
                    .unwrap_or_else(|| entry.generation.clone()),
                keep_base: set.map_or(entry.keep_base, |set| set.keep_base),
                tracked: set.map_or_else(|| is_in_newest(picture, entry.uid), |set| set.tracked),
                blobs: set.map_or_else(entry_blobs, |set| set.blobs.clone()),
            }
        })
        .collect();
    for registration in registered {
        if !all.iter().any(|known| known.uid == registration.uid || known.name == registration.name) {
            all.push(registration.clone());
        }
    }
    if all.is_empty() {
        return Err(Error::damaged("the object files name no database: there is no snapshot to make a catalog of")
            .hint("put .znap back from a copy; without one, znap init in another directory (-R DIR) starts anew"));
    }
    Ok(all)
}

/// Whether a database was saved to the end: after the last save that has it came none of all databases.
fn is_in_newest(picture: &Picture, database: Uid) -> bool {
    let mut saves = picture.snapshots.iter().rev().map(|chosen| &chosen.manifest).filter(|made| made.kind == SAVE);
    let has_it = |manifest: &Manifest| manifest.databases.iter().any(|entry| entry.uid == database);
    saves.find(|manifest| has_it(manifest) || !manifest.partial).is_none_or(has_it)
}

fn first_generation(picture: &Picture, database: Uid) -> Option<Generation> {
    let entries = picture.snapshots.iter().flat_map(|chosen| &chosen.manifest.databases);
    let generations = entries.filter(|entry| entry.uid == database).map(|entry| &entry.generation);
    generations.filter(|generation| generation.is_of_the_file()).min_by_key(|generation| generation.number).cloned()
}

/// Puts the new catalog in the place of the one that is there, which is kept if that is asked for. Returns its new name.
pub(super) fn put_in_place(layout: &Layout, keep: bool) -> Result<Option<String>> {
    let (path, disk) = (layout.catalog(), layout.disk());
    let journal = journal_of(&path);
    let mut kept = None;
    if keep && let Ok(there) = fs::symlink_metadata(&path) {
        let name = free_name(layout.root());
        let second = layout.root().join(&name);
        if there.is_dir() {
            disk.rename(&path, &second)?;
        } else {
            keep_under(layout, &path, &second)?;
        }
        if is_hot(&journal) {
            keep_under(layout, &journal, &journal_of(&second))?;
        }
        disk.sync_directory(layout.root())?;
        kept = Some(name);
    }
    if is_hot(&journal) {
        // Whoever sees half of this sees no catalog, and is told to repair.
        disk.remove_if_there(&path)?;
        disk.sync_directory(layout.root())?;
        disk.remove(&journal)?;
        disk.sync_directory(layout.root())?;
    }
    disk.rename(&layout.new_catalog(), &path)?;
    disk.sync_directory(layout.root())?;
    Ok(kept)
}

/// Whether SQLite would play it back: an empty one is what a commit leaves.
fn is_hot(journal: &Path) -> bool {
    fs::symlink_metadata(journal).is_ok_and(|metadata| metadata.len() > 0)
}

fn free_name(root: &Path) -> String {
    let mut number = 1;
    while fs::symlink_metadata(root.join(format!("catalog.db.damaged-{number}"))).is_ok() {
        number += 1;
    }
    format!("catalog.db.damaged-{number}")
}

/// Gives a file a second name, even if the disk can't read it; where the file system knows no second names, copies it.
pub(super) fn keep_under(layout: &Layout, from: &Path, to: &Path) -> Result<()> {
    match layout.disk().link(from, to) {
        Ok(()) => Ok(()),
        Err(_) => copy(layout, from, to),
    }
}

/// Copies a file within the repository, durably but for its name.
fn copy(layout: &Layout, from: &Path, to: &Path) -> Result<()> {
    let disk = layout.disk();
    let source = fs::File::open(from).at("open", from)?;
    let length = source.metadata().at("look at", from)?.len();
    let mut temporary = to.as_os_str().to_owned();
    temporary.push(".part");
    let temporary = PathBuf::from(temporary);
    disk.remove_if_there(&temporary)?;
    let file = layout.create_file(&temporary)?;
    disk.copy_range(&source, &file, &temporary, 0, length)?;
    disk.sync(&file, &temporary)?;
    disk.rename(&temporary, to)
}
