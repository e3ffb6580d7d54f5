//! Blobs of databases: saving those that are new, and putting them back.

pub(crate) mod lists;
pub(crate) mod plan;
pub(crate) mod put;
pub(crate) mod save;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::repository::blob_list::{BlobForm, BlobMode};
use crate::repository::catalog::{Database, StoredBlob};
use crate::snapshot::handle::Repository;

/// Where a database's blobs are, and how they are stored; `None` if they aren't.
pub(crate) fn directory_of(repository: &Repository, database: &Database) -> Option<(PathBuf, BlobMode)> {
    let blobs = database.blobs.as_ref().filter(|blobs| blobs.mode != BlobMode::Skip)?;
    Some((repository.seen(&blobs.path), blobs.mode))
}

/// Whether the repository has the bytes of a blob, as far as that can be told without reading them. One that repair couldn't make
/// whole, or whose plain object file was lost, is stored again where the database still has it. A disk that doesn't tell is an error:
/// nobody would know then what may be removed.
pub(crate) fn is_there(repository: &Repository, blob: &StoredBlob) -> Result<bool> {
    Ok(match blob.entry.form {
        BlobForm::Missing => false,
        BlobForm::Plain => size_of(&repository.layout.plain(&blob.entry.hash))? == Some(blob.entry.size),
        BlobForm::Chunks => repository.catalog.blob_bytes(blob.row)? == blob.entry.size,
    })
}

/// How long a file is; `None` if there is none, or something else.
pub(crate) fn size_of(path: &Path) -> Result<Option<u64>> {
    Ok(look_at(path)?.filter(fs::Metadata::is_file).map(|metadata| metadata.len()))
}

/// What is at a path, links not followed; `None` if nothing is.
fn look_at(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(Error::io("look at", path, error)),
    }
}
