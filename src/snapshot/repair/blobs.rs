//! Plain object files: one that is damaged or missing is taken again from a blob directory, or from a copy of the repository. The
//! catalog is no matter here: it is right about such a file, whether it is there or not.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, IoContext, Result};
use crate::filestorage::BlobLayout;
use crate::monitor::Monitor;
use crate::repository::blob_list::{BlobDirectoryEntry, BlobForm};
use crate::repository::counters::Counters;
use crate::repository::hash::Hash;
use crate::repository::layout::{BLOBS, Layout};
use crate::repository::object::{ObjectKind, open_regular};
use crate::repository::plain::{PlainWriter, read_through};
use crate::snapshot::repair::damaged;
use crate::snapshot::repair::picture::Picture;
use crate::snapshot::repair::report::{DamagedObject, word};
use crate::snapshot::repair::search::newest_entries;

/// A plain object file that isn't as it should be.
pub(super) struct DamagedPlain {
    name: Hash,
    problem: &'static str,
    is_there: bool,
    /// A file with the bytes that it should have.
    found: Option<PathBuf>,
}

/// Reads the plain object files that snapshots need, and looks for those that are damaged or missing: where blobs of that content
/// are in the databases' directories, and in `copies`, folders of object files.
pub(super) fn examine(
    layout: &Layout,
    picture: &Picture,
    copies: &[PathBuf],
    monitor: &dyn Monitor,
) -> Result<Vec<DamagedPlain>> {
    let directories: BTreeMap<_, _> = newest_entries(picture)
        .into_iter()
        .filter_map(|entry| Some((entry.uid, entry.blob_directory.as_ref().map(BlobDirectoryEntry::directory)?)))
        .collect();
    // Where each may be found again.
    let mut wanted: BTreeMap<Hash, (u64, Vec<PathBuf>)> = BTreeMap::new();
    for (_, _, entry, upto) in picture.entries() {
        let Some(blobs) = &entry.blobs else { continue };
        let saved = BlobLayout::from_name(&blobs.totals.layout).unwrap_or(BlobLayout::Bushy);
        let directory = directories.get(&entry.uid).map(|directory| layout.home().join(&directory.path));
        for blob in blobs.own.iter().filter(|blob| blob.form == BlobForm::Plain && blob.offset < upto) {
            let (_, places) = wanted.entry(blob.hash).or_insert((blob.size, Vec::new()));
            places.extend(directory.iter().map(|directory| directory.join(saved.path(blob.oid, blob.tid))));
        }
    }
    monitor.begin("checking the blobs", wanted.values().map(|(size, _)| size).sum());
    let mut found = Vec::new();
    for (name, (_, places)) in wanted {
        let there = hash_of(&layout.plain(&name), monitor)?;
        if there == Some(name) {
            continue;
        }
        let text = name.to_string();
        let in_copies = copies.iter().map(|folder| folder.join(BLOBS).join(&text[..2]).join(&text));
        let mut source = None;
        for place in places.into_iter().chain(in_copies) {
            if hash_of(&place, monitor)? == Some(name) {
                source = Some(place);
                break;
            }
        }
        let problem = if there.is_some() { "its content does not match its name" } else { "it is missing" };
        found.push(DamagedPlain { name, problem, is_there: there.is_some(), found: source });
    }
    monitor.end();
    Ok(found)
}

impl DamagedPlain {
    /// What is to be said about it.
    pub(super) fn report(&self) -> DamagedObject {
        DamagedObject {
            name: self.name.to_string(),
            kind: word(Some(ObjectKind::Plain)),
            problem: self.problem.into(),
            made_good: self.found.is_some(),
        }
    }
}

/// Moves the damaged ones away, and puts what was found in their places.
pub(super) fn carry_out(
    layout: &Layout,
    counters: &Arc<Counters>,
    plain: &[DamagedPlain],
    monitor: &dyn Monitor,
) -> Result<()> {
    let there = plain.iter().filter(|file| file.is_there).map(|file| layout.plain(&file.name));
    damaged::move_files_away(layout, there)?;
    let mut writer = PlainWriter::new(layout, counters);
    for (name, path) in plain.iter().filter_map(|file| Some((file.name, file.found.as_ref()?))) {
        let changed = || Error::failed(format!("{} has changed meanwhile", path.display())).hint("try again");
        let file = open_regular(path).at("open", path)?.ok_or_else(changed)?;
        // A blob of the site is linked, as a save would. A link to a copy of the repository would tie both together.
        let is_copy = path.file_name().is_some_and(|last| last == name.to_string().as_str());
        if is_copy || !writer.adopt(&file, path, &name)? {
            writer.copy(&file, path, &name, monitor)?;
        }
    }
    writer.finish()
}

/// The hash of a file; `None` if there is none.
fn hash_of(path: &std::path::Path, monitor: &dyn Monitor) -> Result<Option<Hash>> {
    match open_regular(path) {
        Ok(Some(file)) => match read_through(&file, path, monitor, |_| Ok(())) {
            Ok((hash, _)) => Ok(Some(hash)),
            // What the disk can't read has no hash.
            Err(error) if error.io_error().is_some() => Ok(Some(Hash::default())),
            Err(error) => Err(error),
        },
        Ok(None) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io("open", path, error)),
    }
}
