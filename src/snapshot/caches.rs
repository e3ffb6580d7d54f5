//! Taking the caches of ZEO clients away that remember what a restore takes back.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::snapshot::database::as_text;
use crate::snapshot::handle::Repository;
use crate::snapshot::writing::folder_of;

/// A ZEO client's cache that a restore came upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheMoved {
    /// Where it was.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// What it is called now, in the same folder; without it, it could not be renamed, and has to be removed by hand.
    pub now: Option<String>,
}

/// Renames these caches, durably. One that can't be renamed is no reason to leave a database fenced.
pub(crate) fn move_away(repository: &Repository, caches: Vec<PathBuf>) -> Vec<CacheMoved> {
    caches.into_iter().map(|path| CacheMoved { now: rename(repository, &path), path }).collect()
}

fn rename(repository: &Repository, path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let names = (1..).map(|number: u32| match number {
        1 => format!("{name}.before-restore"),
        number => format!("{name}.before-restore-{number}"),
    });
    let free = names.take(1000).find(|name| path.with_file_name(name).symlink_metadata().is_err())?;
    repository.disk().rename(path, &path.with_file_name(&free)).ok()?;
    repository.disk().sync_directory(folder_of(path)).ok()?;
    repository.counters.fsync();
    Some(free)
}
