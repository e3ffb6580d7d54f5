//! Second names of databases, in `.znap/bases`. A pack puts another file in a database's place; the one that was there keeps
//! this name, so that no number of packs can take away what snapshots need of it.
//!
//! There is one per generation, named by its identity, as long as its base isn't stored and is needed: by a snapshot, or by the
//! next one, because the file is in that generation now. Where the file system knows no second names there is none. In a copy of the
//! repository they may lead to another file, or to one of their own: what is in it is judged by its content, as everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, IoContext, Result};
use crate::filestorage::{DataFile, FileIdentity};
use crate::repository::catalog::{Database, GenerationRow};
use crate::repository::hash::Uid;
use crate::repository::layout::Layout;
use crate::snapshot::anchor::begins_any;
use crate::snapshot::base::{needs_base, source_of};
use crate::snapshot::generations::{Life, life_of};
use crate::snapshot::handle::Repository;

/// A file from before a pack that takes room only because znap keeps it.
#[derive(Debug, Clone, Serialize)]
pub struct HeldFile {
    /// The database.
    pub database: String,
    /// How much it takes.
    pub bytes: u64,
}

/// A second name.
struct Link {
    path: PathBuf,
    file: FileIdentity,
    /// Whether nothing else leads to the file.
    is_last: bool,
    bytes: u64,
}

/// The one that has this path, if it is there.
fn link_at(path: PathBuf) -> Result<Option<Link>> {
    match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", &path, error)),
        Ok(metadata) => Ok(metadata.is_file().then(|| Link {
            path,
            file: FileIdentity::of(&metadata),
            is_last: metadata.nlink() == 1,
            bytes: metadata.len(),
        })),
    }
}

/// All of them.
fn links(layout: &Layout) -> Result<Vec<Link>> {
    let folder = layout.bases();
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("read", &folder)?,
    };
    let mut links = Vec::new();
    for entry in entries {
        links.extend(link_at(entry.at("read", &folder)?.path())?);
    }
    Ok(links)
}

/// The files that they lead to.
pub(crate) fn paths(layout: &Layout) -> Result<Vec<PathBuf>> {
    Ok(links(layout)?.into_iter().map(|link| link.path).collect())
}

/// Whether a file has other names than its own and those that znap gave it.
pub(crate) fn has_other_names(layout: &Layout, file: &DataFile) -> Result<bool> {
    let names = file.metadata()?.nlink();
    if names <= 1 {
        return Ok(false);
    }
    let own = links(layout)?.iter().filter(|link| link.file == file.identity()).count() as u64;
    Ok(names > 1 + own)
}

/// Gives a database's file its second name. Returns whether that could be.
pub(crate) fn make(layout: &Layout, path: &Path, file: Option<FileIdentity>, generation: &Uid) -> Result<bool> {
    let link = layout.base(generation);
    if !layout.bases().is_dir() {
        layout.create_directory(&layout.bases())?;
    }
    let is_made = fs::canonicalize(path).and_then(|real| layout.disk().link(&real, &link)).is_ok();
    // A pack may have put another file there just now.
    if is_made && file.is_some() && link_at(link.clone())?.map(|link| link.file) != file {
        layout.disk().remove(&link)?;
        return Ok(false);
    }
    if is_made {
        // The folder itself may have been made by a command that was killed.
        layout.disk().sync_directory(&layout.bases())?;
        layout.disk().sync_directory(layout.root())?;
    }
    Ok(is_made)
}

/// Makes the second names that should be there, and gives up those that nothing needs any more. Forgets those of which
/// the catalog knows nothing only if it is known to be the newest.
pub(crate) fn refresh(repository: &mut Repository, is_newest: bool) -> Result<()> {
    repository.writer_lock()?;
    let (layout, catalog) = (&repository.layout, &repository.catalog);
    let mut known = Vec::new();
    let mut changed = false;
    for database in catalog.databases()? {
        let path = repository.path_of(&database);
        let file = DataFile::open(&path).ok();
        let life = file.as_ref().and_then(|file| life_of(repository, &database, file).ok());
        for generation in catalog.generations(database.row)? {
            let is_now = matches!(&life, Some(Life::Known(now)) if now.row == generation.row);
            let is_needed = needs_base(catalog, &generation.known)? && (is_now || catalog.is_used(generation.row)?);
            let link = layout.base(&generation.known.uid);
            known.push(link.clone());
            let now = file.as_ref().filter(|_| is_now && is_needed).map(DataFile::identity);
            let found = link_at(link.clone())?.map(|link| link.file);
            // The file may have been changed in place: then it is of no use any more.
            let is_useless = || match DataFile::open(&link) {
                Ok(file) => begins_any(&file, &[&generation.known]).is_ok_and(|begins| !begins),
                Err(_) => false,
            };
            let is_stale = !is_needed || now.is_some_and(|now| found != Some(now)) || is_useless();
            if found.is_some() && is_stale {
                layout.disk().remove(&link)?;
                changed = true;
            }
            if now.is_some() && found != now {
                changed |= make(layout, &path, now, &generation.known.uid)?;
            }
        }
    }
    if is_newest {
        for link in links(layout)?.iter().filter(|link| !known.contains(&link.path)) {
            layout.disk().remove(&link.path)?;
            changed = true;
        }
    }
    if changed && layout.bases().is_dir() {
        layout.disk().sync_directory(&layout.bases())?;
        repository.counters.fsync();
    }
    Ok(())
}

/// The files from before a pack that take room only because of their second name.
pub fn held_files(repository: &Repository) -> Result<Vec<HeldFile>> {
    let mut held = Vec::new();
    for database in repository.catalog.databases()? {
        let bytes = held_bytes(repository, &database)?;
        if bytes > 0 {
            held.push(HeldFile { database: database.name, bytes });
        }
    }
    Ok(held)
}

/// The same of one database, in bytes.
pub(crate) fn held_bytes(repository: &Repository, database: &Database) -> Result<u64> {
    let file = DataFile::open(repository.path_of(database)).ok();
    let mut bytes = 0;
    for GenerationRow { known, .. } in repository.catalog.generations(database.row)? {
        let link = link_at(repository.layout.base(&known.uid)).ok().flatten().filter(|link| link.is_last);
        let is_now = |file: &DataFile| begins_any(file, &[&known]);
        if let Some(link) = link
            && !file.as_ref().map(is_now).transpose()?.unwrap_or(false)
        {
            bytes += link.bytes;
        }
    }
    Ok(bytes)
}

/// Whether something that snapshots need of a file is neither stored nor has the file a second name: one pack leaves it as
/// `Data.fs.old`, the next one takes it away.
pub(crate) fn is_at_risk(repository: &Repository, database: &Database) -> Result<bool> {
    let (layout, catalog) = (&repository.layout, &repository.catalog);
    for GenerationRow { known, row } in catalog.generations(database.row)? {
        let is_needed = needs_base(catalog, &known)? && catalog.is_used(row)?;
        if !is_needed {
            continue;
        }
        let is_there = matches!(source_of(layout, &repository.path_of(database), &known), Ok(Some(_)));
        let is_safe = DataFile::open(layout.base(&known.uid)).and_then(|link| begins_any(&link, &[&known]));
        if is_there && !is_safe.unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The snapshots that need a file of before a pack of which nothing is to be found, oldest first: only a copy that somebody has helps.
pub fn lost_snapshots(repository: &Repository) -> Result<Vec<String>> {
    let catalog = &repository.catalog;
    let mut lost = BTreeSet::new();
    for database in catalog.databases()? {
        for generation in catalog.generations(database.row)? {
            let may_be_lost = generation.row != database.generation.row && needs_base(catalog, &generation.known)?;
            // What is there, and can't be read just now, isn't lost yet.
            let source = || source_of(&repository.layout, &repository.path_of(&database), &generation.known);
            if may_be_lost && matches!(source(), Ok(None)) {
                lost.insert(generation.row);
            }
        }
    }
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = Vec::new();
    for stream in catalog.all_streams()?.into_iter().filter(|stream| lost.contains(&stream.generation)) {
        if names.last() != Some(&stream.snapshot_name) {
            names.push(stream.snapshot_name);
        }
    }
    Ok(names)
}
