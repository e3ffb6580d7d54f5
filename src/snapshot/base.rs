//! Storing the base of a generation: what was in the file when it began. Snapshots whose base is stored need nothing but the
//! repository.
//!
//! A stored base is a snapshot of kind `base`, of one database, that ends where the base does; it is in a
//! generation of its own ([`Generation::of_base`](crate::repository::manifest::Generation::of_base)), which begins with the file.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::filestorage::{Cut, DataFile, FIRST_TRANSACTION, Position, Source, Tid};
use crate::monitor::Monitor;
use crate::repository::catalog::{Catalog, Database, GenerationRow, Stream, StreamChunk};
use crate::repository::layout::Layout;
use crate::repository::manifest::{Generation, STORED_BASE};
use crate::snapshot::anchor::{begins_any, is_unreadable, old_path};
use crate::snapshot::delete::bury;
use crate::snapshot::generations::{Life, life_of};
use crate::snapshot::handle::Repository;
use crate::snapshot::id;
use crate::snapshot::links;
use crate::snapshot::plan::checked_chunks;
use crate::snapshot::save::{New, SaveOptions, Saving, store};
use crate::snapshot::writing::require_room;

/// A base that was stored.
#[derive(Debug, Clone, Serialize)]
pub struct StoredBase {
    /// The database.
    pub database: String,
    /// When its generation began: microseconds since 1970, UTC.
    pub began: i64,
    /// How long the base is.
    pub bytes: u64,
    /// How much it added to the repository.
    pub stored_bytes: u64,
    /// Whether the file is still in that generation.
    pub is_now: bool,
}

/// What follows a save: stores every base that a snapshot needs and that is to be kept, or that the file at the database's path has no
/// more, as long as the file that a pack replaced is there, as `Data.fs.old` or under the second name that it has in the repository; and
/// brings these names up to date.
pub fn store_bases(repository: &mut Repository, monitor: &dyn Monitor) -> Result<Vec<StoredBase>> {
    repository.writer_lock()?;
    let stored = store_lacking(repository, monitor);
    // Also what could not be stored, or not yet, is safer so.
    let refreshed = links::refresh(repository, false);
    let stored = stored?;
    refreshed?;
    Ok(stored)
}

fn store_lacking(repository: &mut Repository, monitor: &dyn Monitor) -> Result<Vec<StoredBase>> {
    let mut stored = Vec::new();
    let mut failed = None;
    for database in repository.catalog.databases()? {
        let path = repository.path_of(&database);
        let now = DataFile::open(&path).and_then(|file| life_of(repository, &database, &file)).ok();
        for generation in repository.catalog.generations(database.row)? {
            let is_now = matches!(&now, Some(Life::Known(now)) if now.row == generation.row);
            if (is_now && !database.keep_base) || !is_lacking(repository, &generation)? {
                continue;
            }
            let files = sources_of(&repository.layout, &path, &generation.known);
            match files.and_then(|files| store_from_any(repository, &database, &generation, files, monitor)) {
                Ok(base) => stored.extend(base.map(|base| StoredBase { is_now, ..base })),
                Err(error) if matches!(error.kind(), Kind::Interrupted(_)) => return Err(error),
                // The others are stored all the same.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    failed.map_or(Ok(stored), Err)
}

/// The files that begin with a base: the database's (one that was converted has another magic, and the same base), the one that has
/// its second name, what a pack left of it, which somebody may have copied. An error for one that can't be read: it may be such.
fn sources<'a>(
    layout: &Layout,
    path: &Path,
    generation: &'a Generation,
) -> impl Iterator<Item = Result<DataFile>> + use<'a> {
    let paths = [path.to_path_buf(), layout.base(&generation.uid), old_path(path)];
    let hint = "if snapshots need it as it was before a pack: znap restore ID --base-from FILE takes any copy of it";
    let with_hint = move |error: Error| if error.hint_text().is_none() { error.hint(hint) } else { error };
    let begins = |file: DataFile| Ok(begins_any(&file, &[generation])?.then_some(file));
    paths.into_iter().filter_map(move |path| match DataFile::open(path) {
        Err(error) if !is_unreadable(&error) => None,
        found => found.and_then(begins).map_err(with_hint).transpose(),
    })
}

/// All of them that can be read, each once; an error if there are none, and one that can't be read.
pub(crate) fn sources_of(layout: &Layout, path: &Path, generation: &Generation) -> Result<Vec<DataFile>> {
    let mut files: Vec<DataFile> = Vec::new();
    let mut failed = None;
    for file in sources(layout, path, generation) {
        match file {
            Ok(file) if files.iter().all(|other| other.identity() != file.identity()) => files.push(file),
            Ok(_) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if files.is_empty() { failed.map_or(Ok(files), Err) } else { Ok(files) }
}

/// The first of them; those behind it aren't looked at.
pub(crate) fn source_of(layout: &Layout, path: &Path, generation: &Generation) -> Result<Option<DataFile>> {
    let mut failed = None;
    for file in sources(layout, path, generation) {
        match file {
            Ok(file) => return Ok(Some(file)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Stores a base from the first of these files that is whole; `None` if there are no files.
pub(crate) fn store_from_any(
    repository: &mut Repository,
    database: &Database,
    generation: &GenerationRow,
    files: Vec<DataFile>,
    monitor: &dyn Monitor,
) -> Result<Option<StoredBase>> {
    let mut failed = None;
    for file in files {
        match store_base(repository, database, generation, file, monitor) {
            Err(error) if error.kind() == Kind::Failed && !error.is_no_space() => failed = failed.or(Some(error)),
            result => return result.map(Some),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Whether what is restored of a generation needs a file that begins with its base: the repository doesn't have it.
pub(crate) fn needs_base(catalog: &Catalog, generation: &Generation) -> Result<bool> {
    Ok(generation.base_length > FIRST_TRANSACTION && catalog.stored_base(generation)?.is_none())
}

/// Whether there is a snapshot that needs it.
fn is_lacking(repository: &Repository, generation: &GenerationRow) -> Result<bool> {
    let catalog = &repository.catalog;
    Ok(needs_base(catalog, &generation.known)? && catalog.is_used(generation.row)?)
}

/// A stream's chunks from the beginning of the file on, each list checked against its hash; `None` if its base isn't stored.
pub(crate) fn whole_chunks(catalog: &Catalog, stream: &Stream) -> Result<Option<Vec<StreamChunk>>> {
    let known = catalog.generation(stream.generation)?.known;
    let mut chunks = Vec::new();
    if known.base_length > FIRST_TRANSACTION {
        let Some(base) = catalog.stored_base(&known)? else { return Ok(None) };
        chunks = checked_chunks(catalog, &base, None, FIRST_TRANSACTION)?;
    }
    chunks.extend(checked_chunks(catalog, stream, None, known.base_length)?);
    Ok(Some(chunks))
}

/// The error for a snapshot whose base isn't stored, and was replaced by a pack.
pub(crate) fn needs_file(path: &Path, stream: &Stream) -> Error {
    Error::failed(format!(
        "snapshot {} needs {} as it was before it was packed or replaced",
        stream.snapshot_name,
        path.display()
    ))
    .hint(format!(
        "znap restore {} --base-from FILE takes any copy of it, such as {}",
        stream.snapshot_name,
        old_path(path).display()
    ))
}

/// The error for a file that was named as the one that a snapshot needs, and isn't.
pub(crate) fn is_not_the_base(named: &Path, path: &Path, snapshot: &str) -> Error {
    Error::failed(format!(
        "{} isn't {} as it was before it was packed or replaced, which snapshot {snapshot} needs",
        named.display(),
        path.display(),
    ))
    .hint(format!(
        "znap restore {snapshot} --base-from FILE takes any copy of it, from any time before that pack but after the one before"
    ))
}

/// Stores the base of a generation, from a file that begins with it.
pub(crate) fn store_base(
    repository: &mut Repository,
    database: &Database,
    generation: &GenerationRow,
    file: DataFile,
    monitor: &dyn Monitor,
) -> Result<StoredBase> {
    let known = &generation.known;
    // About what it takes; if it takes more, that is found out, and nothing is lost.
    require_room(repository.root(), known.base_length / 10)?;
    let base = known.of_base();
    let options = SaveOptions::new(None, String::new(), TimeZone::UTC);
    let uid = base.uid.to_string();
    let id = format!("{}{}", id::BASE, uid.get(..12).unwrap_or(&uid));
    // One that repair has set aside.
    if let Some(useless) = repository.catalog.snapshot(&id)? {
        bury(repository, &useless)?;
    }
    let new = New { id, kind: STORED_BASE, created: Timestamp::now(), options: &options, not_saved: Vec::new() };
    let cut = Cut {
        offset: known.base_length,
        tid: Tid(known.base_tid),
        last_length: known.base_last_length,
        transactions: 0,
        left_out: None,
        warnings: Default::default(),
    };
    let path = file.path().to_path_buf();
    let source = Saving {
        database: Database { generation: GenerationRow { row: 0, known: base }, ..database.clone() },
        file,
        parent: None,
        from: Position::START,
        cut,
        new_life: None,
        blobs: None,
        blobs_from: Position::START,
    };
    let report = store(repository, &new, &[source], true, monitor)?;
    let report = report.ok_or_else(|| {
        Error::failed(format!("{} was replaced while it was being stored", path.display())).hint("try again")
    })?;
    Ok(StoredBase {
        database: database.name.clone(),
        began: known.began,
        bytes: known.base_length,
        stored_bytes: report.stored_bytes,
        is_now: false,
    })
}
