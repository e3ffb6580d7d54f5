//! What a restore will do with blobs: which are missing, and which don't belong.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::filestorage::BlobLayout;
use crate::monitor::Monitor;
use crate::repository::blob_list::{BlobEntry, BlobForm};
use crate::repository::catalog::{Database, StoredBlob, Stream};
use crate::repository::frames::Location;
use crate::repository::hash::Hash;
use crate::repository::object::open_regular;
use crate::repository::plain::read_through;
use crate::snapshot::blobs::lists::blobs_of;
use crate::snapshot::blobs::{directory_of, is_there, size_of};
use crate::snapshot::handle::Repository;

/// What a restore will do with the blobs of one database.
#[derive(Debug, Clone, Serialize)]
pub struct BlobPlan {
    /// Its blob directory.
    #[serde(serialize_with = "crate::snapshot::database::as_text")]
    pub path: PathBuf,
    /// Whether the snapshot has its blobs. Otherwise they stay as they are.
    pub saved: bool,
    /// How many blobs the snapshot has.
    pub count: u64,
    /// How many more its database names that nobody has: their files were missing, or were lost.
    pub missing: u64,
    /// How many files are put there, and their bytes.
    pub add: u64,
    /// Their bytes.
    pub add_bytes: u64,
    /// How many files are removed. A snapshot holds all of them.
    pub remove: u64,
    /// What execution needs beyond this.
    #[serde(skip)]
    pub(crate) work: BlobWork,
}

/// What execution needs to know.
#[derive(Debug, Clone)]
pub(crate) struct BlobWork {
    pub(crate) layout: BlobLayout,
    /// What the snapshot has, and the file isn't there, or isn't it; with where its pieces are.
    pub(crate) add: Vec<(StoredBlob, Vec<Location>)>,
    /// What it hasn't, seen from the blob directory.
    pub(crate) remove: Vec<PathBuf>,
}

impl BlobPlan {
    fn new(path: PathBuf, layout: BlobLayout) -> Self {
        let work = BlobWork { layout, add: Vec::new(), remove: Vec::new() };
        BlobPlan { path, saved: false, count: 0, missing: 0, add: 0, add_bytes: 0, remove: 0, work }
    }

    /// Whether any file is going to be copied, perhaps: a plain object file may be linked or cloned.
    pub(crate) fn copies(&self) -> bool {
        self.work.add.iter().any(|(blob, _)| blob.entry.form == BlobForm::Chunks)
    }

    fn add(&mut self, repository: &Repository, blob: StoredBlob) -> Result<()> {
        let chunks = match blob.entry.form {
            BlobForm::Chunks => repository.catalog.blob_chunks(blob.row)?,
            _ => Vec::new(),
        };
        self.add += 1;
        self.add_bytes += blob.entry.size;
        self.work.add.push((blob, chunks));
        Ok(())
    }
}

impl BlobWork {
    /// Where a blob's file is, seen from the blob directory.
    pub(crate) fn path_of(&self, blob: &BlobEntry) -> PathBuf {
        self.layout.path(blob.oid, blob.tid)
    }
}

/// Plans to have the blobs of `target` in the directory of a database whose file begins with `now`. Both are `None` where there is no
/// snapshot of that state: then nothing is known of its blobs. Returns `None` if blobs are no matter of znap's here.
pub(crate) fn plan(
    repository: &Repository,
    database: &Database,
    target: Option<&Stream>,
    now: Option<&Stream>,
) -> Result<Option<BlobPlan>> {
    let Some((directory, _)) = directory_of(repository, database) else { return Ok(None) };
    let catalog = &repository.catalog;
    let wanted = target.map(|stream| wanted_of(repository, stream)).transpose()?.flatten();
    let layout = match BlobLayout::of(&directory)? {
        Some(layout) => layout,
        None => target.and_then(saved_layout).unwrap_or(BlobLayout::Bushy),
    };
    let mut plan = BlobPlan::new(directory, layout);
    // Without a list of what belongs there nothing is removed; but where a state has no snapshot, it has nothing but its base.
    let (wanted, missing) = match wanted {
        Some(wanted) => wanted,
        None if target.is_none() => (Vec::new(), Vec::new()),
        None => return Ok(Some(plan)),
    };
    (plan.saved, plan.count, plan.missing) = (true, wanted.len() as u64, missing.len() as u64);
    for blob in &wanted {
        if size_of(&plan.path.join(plan.work.path_of(&blob.entry)))? != Some(blob.entry.size) {
            plan.add(repository, *blob)?;
        }
    }
    // What is wrong with this list keeps nothing from being put back; then nothing is removed.
    let known = now.and_then(|stream| blobs_of(catalog, stream).ok()).flatten().unwrap_or_default();
    let base_length = match target {
        Some(_) => 0,
        None => database.generation.known.base_length,
    };
    let all = wanted.iter().map(|blob| &blob.entry).chain(&missing);
    let belongs: HashSet<(u64, u64)> = all.map(|entry| (entry.oid, entry.tid)).collect();
    for blob in known {
        let StoredBlob { entry, .. } = blob;
        if entry.offset >= base_length && !belongs.contains(&(entry.oid, entry.tid)) {
            let path = plan.work.path_of(&entry);
            // Never the last copy.
            if size_of(&plan.path.join(&path))?.is_some() && is_there(repository, &blob)? {
                plan.work.remove.push(path);
            }
        }
    }
    plan.remove = plan.work.remove.len() as u64;
    Ok(Some(plan))
}

/// The blobs that a snapshot's database is to have, and those that nobody has. One whose file was missing when it was saved
/// may have been found by another save.
fn wanted_of(repository: &Repository, stream: &Stream) -> Result<Option<(Vec<StoredBlob>, Vec<BlobEntry>)>> {
    let Some(mut wanted) = blobs_of(&repository.catalog, stream)? else { return Ok(None) };
    let missing = repository.catalog.missing_blobs(stream)?;
    if missing.is_empty() {
        return Ok(Some((wanted, missing)));
    }
    let has: HashSet<u64> = wanted.iter().map(|blob| blob.entry.offset).collect();
    let mut nowhere = Vec::new();
    for entry in missing.into_iter().filter(|entry| !has.contains(&entry.offset)) {
        match repository.catalog.blob(stream.database, entry.oid, entry.tid)? {
            Some(found) if is_there(repository, &found)? => {
                wanted.push(StoredBlob { entry: BlobEntry { offset: entry.offset, ..found.entry }, ..found });
            }
            _ => nowhere.push(entry),
        }
    }
    Ok(Some((wanted, nowhere)))
}

/// Plans to write all blobs of a stream into a new directory in `folder`, called like the database's own. `None` if they weren't
/// saved.
pub(crate) fn plan_copy(
    repository: &Repository,
    database: &Database,
    target: &Stream,
    folder: &Path,
) -> Result<Option<BlobPlan>> {
    let Some((wanted, missing)) = wanted_of(repository, target)? else { return Ok(None) };
    let name = database.blobs.as_ref().and_then(|blobs| blobs.path.file_name());
    let layout = saved_layout(target).unwrap_or(BlobLayout::Bushy);
    let mut plan = BlobPlan::new(folder.join(name.unwrap_or("blobstorage".as_ref())), layout);
    (plan.saved, plan.count, plan.missing) = (true, wanted.len() as u64, missing.len() as u64);
    wanted.into_iter().try_for_each(|blob| plan.add(repository, blob))?;
    Ok(Some(plan))
}

/// Adds to what is put back the files that are there, and aren't what the snapshot has. Returns the bytes of those that are.
pub(crate) fn verify(
    repository: &Repository,
    plan: &mut BlobPlan,
    target: &Stream,
    monitor: &dyn Monitor,
) -> Result<u64> {
    let mut verified = 0;
    let added: HashSet<i64> = plan.work.add.iter().map(|(blob, _)| blob.row).collect();
    for blob in blobs_of(&repository.catalog, target)?.unwrap_or_default() {
        if added.contains(&blob.row) {
            continue;
        }
        if hash_of(&plan.path.join(plan.work.path_of(&blob.entry)), monitor)? == Some(blob.entry.hash) {
            verified += blob.entry.size;
        } else {
            plan.add(repository, blob)?;
        }
    }
    Ok(verified)
}

/// The layout that a blob directory had.
pub(crate) fn saved_layout(stream: &Stream) -> Option<BlobLayout> {
    BlobLayout::from_name(&stream.blobs.as_ref()?.layout)
}

fn hash_of(path: &Path, monitor: &dyn Monitor) -> Result<Option<Hash>> {
    match open_regular(path) {
        Ok(Some(file)) => Ok(Some(read_through(&file, path, monitor, |_| Ok(()))?.0)),
        Ok(None) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}
