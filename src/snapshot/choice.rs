//! Which databases a command is about: all that are tracked, or that a snapshot has, or of these those that are named.

use crate::error::{Error, Result};
use crate::repository::catalog::{Catalog, Database, Snapshot, Stream};
use crate::snapshot::anchor::damaged_list;
use crate::snapshot::handle::Repository;
use crate::snapshot::set_aside::refuse_set_aside;

/// The databases of a snapshot that a command is about, with its cuts.
pub(crate) struct Chosen {
    pub(crate) parts: Vec<(Database, Stream)>,
    /// The names of the tracked databases that stay as they are.
    pub(crate) untouched: Vec<String>,
}

impl Chosen {
    pub(crate) fn databases(&self) -> Vec<Database> {
        self.parts.iter().map(|(database, _)| database.clone()).collect()
    }
}

/// The databases that are saved, or of these those that are named; and the names of the others.
pub(crate) fn to_save(catalog: &Catalog, only: &[String]) -> Result<(Vec<Database>, Vec<String>)> {
    let all = catalog.databases()?;
    for name in only {
        let database = all.iter().find(|database| database.name == *name);
        if !database.ok_or_else(|| unknown(name, &all))?.tracked {
            return Err(Error::failed(format!("database {name} is not tracked any more"))
                .hint(format!("znap track {name} has it saved again")));
        }
    }
    let tracked = all.into_iter().filter(|database| database.tracked);
    let (chosen, others): (Vec<Database>, Vec<Database>) =
        tracked.partition(|database| only.is_empty() || only.contains(&database.name));
    if chosen.is_empty() {
        return Err(
            Error::failed("no database is tracked any more").hint("znap track var/filestorage/Data.fs adds one")
        );
    }
    Ok((chosen, others.into_iter().map(|database| database.name).collect()))
}

/// The databases of a snapshot, or of these those that are named. How many it has was recorded when it was saved: a catalog that lost one
/// would have it left as it is.
pub(crate) fn of_snapshot(repository: &Repository, snapshot: &Snapshot, only: &[String]) -> Result<Chosen> {
    refuse_set_aside(repository, snapshot)?;
    let catalog = &repository.catalog;
    let all = catalog.databases()?;
    let mut parts = Vec::new();
    for stream in catalog.streams_of(snapshot.row)? {
        let database = all.iter().find(|database| database.row == stream.database);
        parts.push((database.ok_or_else(|| damaged_list(&stream))?.clone(), stream));
    }
    if parts.len() as u64 != snapshot.databases {
        return Err(catalog.missing("a chunk list of the snapshot"));
    }
    for name in only {
        if parts.iter().all(|(database, _)| database.name != *name) {
            all.iter().find(|database| database.name == *name).ok_or_else(|| unknown(name, &all))?;
            let has: Vec<&str> = parts.iter().map(|(database, _)| database.name.as_str()).collect();
            return Err(Error::not_found(format!("snapshot {} doesn't have database {name}", snapshot.name))
                .hint(format!("it has {}", has.join(", "))));
        }
    }
    parts.retain(|(database, _)| only.is_empty() || only.contains(&database.name));
    let others =
        all.into_iter().filter(|other| other.tracked && parts.iter().all(|(chosen, _)| chosen.row != other.row));
    let untouched = others.map(|database| database.name).collect();
    Ok(Chosen { parts, untouched })
}

/// The error for a name that no database has.
pub(crate) fn unknown(name: &str, all: &[Database]) -> Error {
    let names: Vec<&str> = all.iter().map(|database| database.name.as_str()).collect();
    Error::not_found(format!("there is no database {name}")).hint(format!("there are {}", names.join(", ")))
}
