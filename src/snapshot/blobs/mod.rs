//! Blobs of databases: saving those that are new, and putting them back.

pub(crate) mod lists;
pub(crate) mod plan;
pub(crate) mod put;
pub(crate) mod save;

use std::path::PathBuf;

use crate::repository::blob_list::BlobMode;
use crate::repository::catalog::Database;
use crate::snapshot::handle::Repository;

/// Where a database's blobs are, and how they are stored; `None` if they aren't.
pub(crate) fn directory_of(repository: &Repository, database: &Database) -> Option<(PathBuf, BlobMode)> {
    let blobs = database.blobs.as_ref().filter(|blobs| blobs.mode != BlobMode::Skip)?;
    Some((repository.seen(&blobs.path), blobs.mode))
}
