//! `.znap/damaged`: where damaged files go. And which of them were records that nobody could make again: beside these is an
//! empty file with `.lost` behind the name, so that a copy that turns up later may bring them back. What was made good may have
//! been deleted since, and never comes back.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, IoContext, Result};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::snapshot::repair::objects::names_in;
use crate::snapshot::repair::rebuild::keep_under;

/// What follows the name of a file that is lost.
const LOST: &str = ".lost";

/// The folders of damaged files that there are: `damaged`, and in it `2` and on, for files whose names were taken. Fails
/// if something else is in their place: what is written there must not end up elsewhere.
pub(super) fn folders(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for number in 1.. {
        let folder = folder(layout, number);
        if !is_folder(&folder)? {
            break;
        }
        folders.push(folder);
    }
    Ok(folders)
}

fn folder(layout: &Layout, number: u32) -> PathBuf {
    match number {
        1 => layout.damaged(),
        number => layout.damaged().join(number.to_string()),
    }
}

fn is_folder(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(true),
        Ok(_) => Err(Error::failed(format!("{} is not a directory", path.display()))
            .hint("move it away: it is where repair keeps damaged files")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("look at", path, error)),
    }
}

/// Makes a folder for damaged files if it isn't there, like that of the object files.
fn make(layout: &Layout, folder: &Path) -> Result<()> {
    if is_folder(folder)? {
        return Ok(());
    }
    layout.create_directory(folder)
}

/// A free place for a file of this name.
fn place_for(layout: &Layout, name: &Hash) -> Result<PathBuf> {
    for number in 1.. {
        let folder = folder(layout, number);
        make(layout, &folder)?;
        let path = folder.join(name.to_string());
        if fs::symlink_metadata(&path).is_err() {
            return Ok(path);
        }
    }
    Err(Error::failed(format!("there is no free name in {}", layout.damaged().display())))
}

/// Gives files that are about to be replaced a second name in the folder, durably. What is no file is moved there.
pub(super) fn keep(layout: &Layout, names: impl Iterator<Item = Hash>) -> Result<()> {
    let mut kept_in = BTreeSet::new();
    for name in names {
        let from = layout.object(&name);
        let there = fs::symlink_metadata(&from).at("look at", &from)?;
        if is_kept(layout, &name, &there)? {
            // By a repair that was interrupted.
            kept_in.extend(folders(layout)?);
            continue;
        }
        let to = place_for(layout, &name)?;
        if !there.is_file() {
            layout.disk().rename(&from, &to)?;
        } else {
            keep_under(layout, &from, &to)?;
        }
        kept_in.extend(to.parent().map(Path::to_path_buf));
    }
    sync(layout, &kept_in)
}

/// Whether this very file has a name in one of the folders.
fn is_kept(layout: &Layout, name: &Hash, file: &Metadata) -> Result<bool> {
    let same = |path: PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|other| (other.dev(), other.ino()) == (file.dev(), file.ino()))
    };
    Ok(folders(layout)?.into_iter().any(|folder| same(folder.join(name.to_string()))))
}

/// Moves files there of which nothing is needed any more.
pub(super) fn move_away(layout: &Layout, names: impl Iterator<Item = Hash>) -> Result<()> {
    move_files_away(layout, names.map(|name| layout.object(&name)))
}

/// The same by the paths of object files.
pub(super) fn move_files_away(layout: &Layout, files: impl Iterator<Item = PathBuf>) -> Result<()> {
    let (mut to, mut from) = (BTreeSet::new(), BTreeSet::new());
    for path in files {
        let name = path.file_name().and_then(|name| Hash::from_hex(name.to_str()?));
        let place = place_for(layout, &name.unwrap_or_default())?;
        layout.disk().rename(&path, &place)?;
        to.extend(place.parent().map(Path::to_path_buf));
        from.extend(path.parent().map(Path::to_path_buf));
    }
    // There first, so that they are never nowhere.
    sync(layout, &to)?;
    sync(layout, &from)
}

fn sync(layout: &Layout, folders: &BTreeSet<PathBuf>) -> Result<()> {
    folders.iter().try_for_each(|folder| layout.disk().sync_directory(folder))
}

/// The names of files that nobody could make again.
pub(super) fn lost(layout: &Layout) -> Result<Vec<Hash>> {
    let folder = layout.damaged();
    if !is_folder(&folder)? {
        return Ok(Vec::new());
    }
    let (_, others) = names_in(&folder)?;
    Ok(others.iter().filter_map(|name| Hash::from_hex(name.strip_suffix(LOST)?)).collect())
}

fn mark(layout: &Layout, name: &Hash) -> PathBuf {
    layout.damaged().join(format!("{name}{LOST}"))
}

/// Marks these, durably.
pub(super) fn mark_lost(layout: &Layout, names: &[Hash]) -> Result<()> {
    let unmarked: Vec<PathBuf> =
        names.iter().map(|name| mark(layout, name)).filter(|path| fs::symlink_metadata(path).is_err()).collect();
    if unmarked.is_empty() {
        return Ok(());
    }
    make(layout, &layout.damaged())?;
    for path in &unmarked {
        layout.create_file(path)?;
    }
    layout.disk().sync_directory(&layout.damaged())
}

/// Takes the marks of these away, durably: they are there again, and from now on may be deleted.
pub(super) fn unmark(layout: &Layout, names: &[Hash]) -> Result<()> {
    for name in names {
        layout.disk().remove_if_there(&mark(layout, name))?;
    }
    if !names.is_empty() {
        layout.disk().sync_directory(&layout.damaged())?;
    }
    Ok(())
}
