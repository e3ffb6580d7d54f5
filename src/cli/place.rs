//! Which repository is meant.

use std::env;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use znap::error::{Error, IoContext, Result};
use znap::repository::layout::{DIRECTORY, Layout};
use znap::snapshot::{Place, Repository};

use super::Context;
use super::args::Global;

/// The repository that a command works on: `-R`, else `ZNAP_DIR`, else the nearest `.znap` upward.
pub fn existing(global: &Global) -> Result<Place> {
    let root = match named(global)? {
        Some(root) => root,
        None => nearest()?,
    };
    Ok(Place { root, trusted: trusted() })
}

/// The same for a command that changes something: says which one it is, if it was found further up.
pub fn existing_to_change(context: &Context) -> Result<Place> {
    let place = existing(context.global)?;
    if named(context.global)?.is_none() && place.root != Path::new(DIRECTORY) {
        context.terminal.note(format_args!("using the repository {}", place.root.display()));
    }
    Ok(place)
}

/// Opens a repository for reading; warns of a restore that is unfinished.
pub fn open(context: &Context, place: &Place) -> Result<Repository> {
    let repository = Repository::open(place)?;
    match repository.unfinished_restore() {
        Ok(None) => {}
        Ok(Some(id)) => context.terminal.warn(format_args!(
            "the restore of {id} is unfinished: znap restore --resume finishes it, --abort goes back"
        )),
        // Whoever only reads isn't kept from it: snapshots can be written elsewhere.
        Err(error) => context.terminal.warn(format_args!("a restore is unfinished, and {error}")),
    }
    Ok(repository)
}

/// The directory that a new repository is made in.
pub fn new(global: &Global) -> Result<PathBuf> {
    Ok(named(global)?.unwrap_or_else(|| PathBuf::from(DIRECTORY)))
}

/// The present directory.
pub fn current() -> Result<PathBuf> {
    env::current_dir().at("find out", "the current directory")
}

fn named(global: &Global) -> Result<Option<PathBuf>> {
    let path = match &global.repository {
        Some(path) => path.clone(),
        None => match env::var_os("ZNAP_DIR").filter(|value| !value.is_empty()) {
            Some(value) => PathBuf::from(value),
            None => return Ok(None),
        },
    };
    // The directory that holds it must have a name: `.` and `..` are resolved.
    match path.components().next_back() {
        Some(Component::Normal(_)) => Ok(Some(path)),
        _ => path.canonicalize().at("resolve", &path).map(Some),
    }
}

/// The nearest `.znap`, seen from here: `.znap`, `../.znap` and so on.
fn nearest() -> Result<PathBuf> {
    let current = current()?;
    let found = Layout::find(&current).ok_or_else(|| {
        Error::not_found(format!("there is no {DIRECTORY} in {} or above it", current.display()))
            .hint("znap init var/filestorage/Data.fs starts one here; -R DIR or ZNAP_DIR name one elsewhere")
    })?;
    let home = found.parent().unwrap_or(Path::new("/"));
    let above = current.strip_prefix(home).map_or(0, |rest| rest.components().count());
    Ok((0..above).map(|_| "..").chain([DIRECTORY]).collect())
}

/// The repositories of other users that this user trusts.
fn trusted() -> Vec<PathBuf> {
    let value: OsString = env::var_os("ZNAP_TRUST").unwrap_or_default();
    env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect()
}
