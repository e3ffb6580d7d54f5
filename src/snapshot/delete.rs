//! Delete: forget snapshots. Their space comes back with gc.

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::filestorage::{DataFile, FIRST_TRANSACTION, Source};
use crate::monitor::Monitor;
use crate::repository::catalog::{Database, Snapshot, Stream};
use crate::repository::manifest::Tombstone;
use crate::repository::object::publish;
use crate::snapshot::anchor::nearest_of;
use crate::snapshot::generations::known_life_of;
use crate::snapshot::handle::Repository;
use crate::snapshot::reserve;

/// What was deleted.
#[derive(Debug, Clone, Serialize)]
pub struct DeleteReport {
    /// The ids, in the order in which they were named.
    pub deleted: Vec<String>,
}

/// Deletes the snapshots with exactly these ids; none of them if one doesn't exist.
pub fn delete(repository: &mut Repository, ids: &[String], monitor: &dyn Monitor) -> Result<DeleteReport> {
    repository.writer_lock()?;
    let mut snapshots = Vec::new();
    for id in ids {
        let snapshot = repository.exactly(id)?;
        if !snapshots.contains(&snapshot) {
            snapshots.push(snapshot);
        }
    }
    for database in repository.catalog.databases()? {
        require_known(repository, &database, &snapshots)?;
    }
    reserve::release_if_needed(&repository.layout)?;
    let mut deleted = Vec::new();
    for snapshot in snapshots {
        monitor.check()?;
        bury(repository, &snapshot)?;
        deleted.push(snapshot.name);
    }
    Ok(DeleteReport { deleted })
}

/// Refuses to delete what a database's file is known by: one that was imported, and restored since, begins with no base.
fn require_known(repository: &Repository, database: &Database, doomed: &[Snapshot]) -> Result<()> {
    let Ok(file) = DataFile::open(repository.path_of(database)) else { return Ok(()) };
    let Ok(Some(life)) = known_life_of(&repository.catalog, database, &file) else { return Ok(()) };
    if !life.known.is_from_elsewhere() {
        return Ok(());
    }
    let stays = |stream: &Stream| Ok(doomed.iter().all(|snapshot| snapshot.row != stream.snapshot));
    match nearest_of(&file, file.size()?, &repository.catalog, life.row, stays)? {
        Some(stream) if stream.cut.offset > FIRST_TRANSACTION => Ok(()),
        _ => Err(Error::failed(format!(
            "{} is as an import has it, and no other snapshot knows it as that",
            database.name
        ))
        .hint("znap save first; then delete")),
    }
}

/// Writes a snapshot's tombstone, and records it.
pub(super) fn bury(repository: &mut Repository, snapshot: &Snapshot) -> Result<()> {
    let tombstone = Tombstone {
        repository: repository.uid,
        snapshot: snapshot.uid,
        sequence: snapshot.sequence,
        id: snapshot.name.clone(),
        deleted: Timestamp::now().as_microsecond(),
    };
    let file = tombstone.write(&repository.layout)?.finish(&repository.counters)?;
    let name = (file.name, file.bytes);
    publish(&repository.layout, vec![file], &repository.counters)?;
    repository.catalog.record_tombstone(snapshot.row, name)
}
