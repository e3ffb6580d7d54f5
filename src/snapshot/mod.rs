//! What znap does with snapshots: each operation takes options and returns a report, and what it is about to
//! do can be shown without doing it. Joins [`crate::filestorage`] and [`crate::repository`].

pub mod anchor;
mod copy_out;
mod database;
mod delete;
mod gc;
mod handle;
pub mod id;
mod index_parts;
mod index_reader;
mod init;
mod list;
mod log;
mod plan;
mod reserve;
mod restore;
mod save;
mod status;
mod tail;
mod writing;

pub use copy_out::{CopiedDatabase, CopyReport, copy_out};
pub use delete::{DeleteReport, delete};
pub use gc::{GcOptions, GcReport, gc, gc_dry_run};
pub use handle::{PATIENCE, Place, Repository};
pub use init::{InitOptions, InitReport, KEPT_WHOLE, TrackedDatabase, init};
pub use list::{CutInfo, DatabaseDetails, SnapshotDetails, SnapshotInfo, list, show};
pub use log::{DatabaseLog, LogEntry, LogOptions, log};
pub use plan::{DatabasePlan, RestorePlan};
pub use restore::{RestoreOptions, RestoreReport, dry_run, restore};
pub use save::{SaveOptions, SaveReport, SavedDatabase, save};
pub use status::{DatabaseStatus, StatusReport, status};
