//! Delete: forget snapshots. Their space comes back with gc.

use jiff::Timestamp;
use serde::Serialize;

use crate::error::Result;
use crate::monitor::Monitor;
use crate::repository::catalog::Snapshot;
use crate::repository::manifest::Tombstone;
use crate::repository::object::publish;
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
    reserve::release_if_needed(&repository.layout)?;
    let mut deleted = Vec::new();
    for snapshot in snapshots {
        monitor.check()?;
        bury(repository, &snapshot)?;
        deleted.push(snapshot.name);
    }
    Ok(DeleteReport { deleted })
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
