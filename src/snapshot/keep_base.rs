//! Whether the base of each generation is kept in the repository, so that snapshots need nothing else: a lasting setting.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Source};
use crate::monitor::Monitor;
use crate::repository::catalog::{Database, Stream};
use crate::repository::hash::Uid;
use crate::snapshot::anchor::is_of;
use crate::snapshot::base::{StoredBase, needs_base, store_bases};
use crate::snapshot::delete::bury;
use crate::snapshot::generations::{Life, life_of};
use crate::snapshot::handle::Repository;
use crate::snapshot::links;
use crate::snapshot::plan::{checked_chunks, shared_with};

/// The beginning of a database's file that snapshots need, and that isn't stored.
#[derive(Debug, Clone, Serialize)]
pub struct UnstoredBase {
    /// The database.
    pub database: String,
    /// How much it is.
    pub bytes: u64,
}

/// What isn't kept any more of a database.
#[derive(Debug, Clone, Serialize)]
pub struct DroppedBase {
    /// The database.
    pub database: String,
    /// How long the base is that was stored and can go, because the file has it.
    pub bytes: Option<u64>,
}

/// The tracked databases that aren't kept whole, and whose present file's beginning isn't stored.
pub fn unstored_bases(repository: &Repository) -> Result<Vec<UnstoredBase>> {
    let mut bases = Vec::new();
    for Database { name, generation, tracked, .. } in repository.catalog.databases()? {
        if tracked && needs_base(&repository.catalog, &generation.known)? {
            bases.push(UnstoredBase { database: name, bytes: generation.known.base_length });
        }
    }
    Ok(bases)
}

/// From now on keeps the bases of these databases, of all if none is named; stores what snapshots need of them.
pub fn keep_bases(repository: &mut Repository, names: &[String], monitor: &dyn Monitor) -> Result<Vec<StoredBase>> {
    repository.writer_lock()?;
    for database in named(repository, names)? {
        repository.catalog.set_keep_base(database.row, true)?;
    }
    store_bases(repository, monitor)
}

/// Doesn't keep them any more. What is stored of the generation that a file is in goes if the file has the same: it is compared.
pub fn drop_bases(repository: &mut Repository, names: &[String], monitor: &dyn Monitor) -> Result<Vec<DroppedBase>> {
    repository.writer_lock()?;
    let mut needless = Vec::new();
    for database in named(repository, names)? {
        let stored = needless_base(repository, &database, monitor)?;
        needless.push((database, stored));
    }
    let mut dropped = Vec::new();
    for (database, stored) in needless {
        repository.catalog.set_keep_base(database.row, false)?;
        if let Some(Needless { base, file, generation }) = &stored
            && let Some(snapshot) = repository.catalog.snapshot(&base.snapshot_name)?
        {
            // Before: from then on a pack could take the file away.
            links::make(&repository.layout, file.path(), Some(file.identity()), generation)?;
            bury(repository, &snapshot)?;
        }
        let bytes = stored.map(|stored| stored.base.cut.offset);
        dropped.push(DroppedBase { database: database.name, bytes });
    }
    links::refresh(repository, false)?;
    Ok(dropped)
}

/// A stored base, and the file that begins with it, which is in this generation.
struct Needless {
    base: Stream,
    file: DataFile,
    generation: Uid,
}

/// The stored base that the database's file begins with, byte for byte.
fn needless_base(repository: &Repository, database: &Database, monitor: &dyn Monitor) -> Result<Option<Needless>> {
    let Ok(file) = DataFile::open(repository.path_of(database)) else { return Ok(None) };
    let Ok(Life::Known(generation)) = life_of(repository, database, &file) else { return Ok(None) };
    let Some(base) = repository.catalog.stored_base(&generation.known)? else { return Ok(None) };
    // The file of another magic needs it to be made the one that it was.
    if !is_of(&file, &generation.known)? {
        return Ok(None);
    }
    let chunks = checked_chunks(&repository.catalog, &base, None, FIRST_TRANSACTION)?;
    let size = file.size()?;
    monitor.begin("comparing", base.cut.offset);
    let same = shared_with(repository, (&file, size), &chunks, FIRST_TRANSACTION, monitor)?;
    monitor.end();
    if same < base.cut.offset {
        return Err(Error::failed(format!(
            "{} differs at offset {same} from what is stored of it: what is stored is needed",
            file.path().display()
        ))
        .hint("znap check --databases says more; nothing was changed"));
    }
    Ok(Some(Needless { base, file, generation: generation.known.uid }))
}

/// The databases of these names, all if there are none.
fn named(repository: &Repository, names: &[String]) -> Result<Vec<Database>> {
    let databases = repository.catalog.databases()?;
    if names.is_empty() {
        return Ok(databases);
    }
    if let Some(unknown) = names.iter().find(|name| databases.iter().all(|database| database.name != **name)) {
        let known: Vec<&str> = databases.iter().map(|database| database.name.as_str()).collect();
        return Err(Error::not_found(format!("there is no database called {unknown}"))
            .hint(format!("those there are: {}", known.join(", "))));
    }
    Ok(databases.into_iter().filter(|database| names.contains(&database.name)).collect())
}
