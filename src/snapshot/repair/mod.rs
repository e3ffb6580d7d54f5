//! Repair: bring back what can be brought back of a repository, and say what can't. Never touches a database.
//!
//! All object files are read; what is wrong is worked out from them alone, and from the catalog as far as it can be
//! believed ([`examine`]). Then everything new is written and forced to the disk, a new catalog is made of all that is there and
//! takes the old one's place, and only then damaged files go to `.znap/damaged` ([`carry_out`]). Nothing is ever deleted that
//! was there before. Interrupted anywhere, it has changed nothing that counts, or all; given again, it finishes.

mod blob_lists;
mod blobs;
mod carry_out;
mod damaged;
mod examine;
mod indexes;
mod objects;
mod old;
mod picture;
mod possible;
mod rebuild;
mod records;
mod report;
mod search;

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;
use crate::repository::lock::WriterLock;
use crate::snapshot::generations::record_lives;
use crate::snapshot::handle::{PATIENCE, Place, Repository};
use crate::snapshot::journal::Journal;

pub use report::{DamagedObject, RepairOptions, RepairReport, SetAside};
pub use search::Sources;

/// Repairs a repository, or says what would be done.
pub fn repair(place: &Place, options: &RepairOptions, monitor: &dyn Monitor) -> Result<RepairReport> {
    repair_on(&Disk::default(), place, options, monitor)
}

/// The same, changed through this disk.
pub fn repair_on(disk: &Disk, place: &Place, options: &RepairOptions, monitor: &dyn Monitor) -> Result<RepairReport> {
    let (layout, counters) = Repository::look(place)?;
    let layout = layout.on(disk);
    // A dry run too: what a save is about to commit looks like damage.
    let mut lock = WriterLock::acquire(&layout, PATIENCE, monitor)?;
    let mut examined = examine::examine(&layout, &counters, options, &lock, monitor)?;
    let mut report = examined.report()?;
    report.unfinished_restore = unfinished(&layout, examined.repository(), examined.needs_change(), monitor)?;
    let records = report.damaged_files.iter().filter(|file| file.is_lost());
    examined.lost = records.filter_map(|file| Hash::from_hex(&file.name)).collect();
    let blobs = blobs::examine(&layout, &examined.picture, &examined.folders, monitor)?;
    report.damaged_files.extend(blobs.iter().map(blobs::DamagedPlain::report));
    if !options.dry_run {
        carry_out::carry_out(&layout, &counters, &mut examined, &mut lock, &mut report, monitor)?;
        blobs::carry_out(&layout, &counters, &blobs, monitor)?;
        // A catalog made anew has the newest life of each database; its file may be in an earlier one.
        if report.unfinished_restore.is_none() {
            record_lives(&mut Repository::holding(layout, Arc::clone(&counters), lock)?)?;
        }
    }
    report.counts = counters.counts();
    Ok(report)
}

/// The snapshot whose restore is unfinished. Refuses if nothing is to be repaired that could keep it from being finished first.
fn unfinished(layout: &Layout, repository: Uid, needs_change: bool, monitor: &dyn Monitor) -> Result<Option<String>> {
    match Journal::unfinished(layout, repository) {
        Ok(None) => Ok(None),
        Ok(Some(journal)) if !needs_change => {
            Err(Error::failed(format!("the restore of {} is unfinished", journal.target.id))
                .hint("finish it first: znap restore --resume, or --abort goes back; then repair"))
        }
        Ok(Some(journal)) => Ok(Some(journal.target.id)),
        Err(error) if !needs_change => Err(error),
        // It stays as it is.
        Err(error) => {
            monitor.notice(&error.to_string());
            Ok(None)
        }
    }
}
