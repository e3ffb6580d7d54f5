//! Blobs of databases: saving those that are new, and putting them back.

pub(crate) mod lists;
pub(crate) mod plan;
pub(crate) mod put;
pub(crate) mod save;

use std::fs;
use std::path::PathBuf;

use crate::error::Result;
use crate::repository::blob_list::{BlobForm, BlobMode};
use crate::repository::catalog::{Database, StoredBlob};
use crate::snapshot::handle::Repository;

/// Where a database's blobs are, and how they are stored; `None` if they aren't.
pub(crate) fn directory_of(repository: &Repository, database: &Database) -> Option<(PathBuf, BlobMode)> {
    let blobs = database.blobs.as_ref().filter(|blobs| blobs.mode != BlobMode::Skip)?;
    Some((repository.seen(&blobs.path), blobs.mode))
}

/// Whether the repository has the bytes of a blob, as far as that can be told without reading them. One that repair couldn't make
/// whole, or whose plain object file was lost, is stored again where the database still has it.
pub(crate) fn is_there(repository: &Repository, blob: &StoredBlob) -> Result<bool> {
    Ok(match blob.entry.form {
        BlobForm::Missing => false,
        BlobForm::Plain => fs::symlink_metadata(repository.layout.plain(&blob.entry.hash))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.entry.size),
        BlobForm::Chunks => repository.catalog.blob_bytes(blob.row)? == blob.entry.size,
    })
}
