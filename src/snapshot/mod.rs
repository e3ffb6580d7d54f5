//! What znap does with snapshots: each operation takes options and returns a report, and what it is about to
//! do can be shown without doing it. Joins [`crate::filestorage`] and [`crate::repository`].

pub mod anchor;
mod base;
pub mod blobs;
mod caches;
mod carry_out;
mod check;
mod choice;
mod copy_out;
mod database;
mod delete;
mod gc;
mod generations;
mod handle;
pub mod id;
mod index_parts;
mod index_reader;
mod init;
mod journal;
mod keep_base;
mod left_out;
mod links;
mod list;
mod log;
mod plan;
mod repair;
mod reserve;
mod restore;
mod resume;
mod save;
mod set_aside;
mod status;
mod tail;
mod track;
mod writing;

pub use crate::filestorage::configuration::{ConfiguredSite, find as find_configured};
pub use crate::repository::blob_list::BlobMode;
pub use base::{StoredBase, store_bases};
pub use blobs::plan::BlobPlan;
pub use blobs::save::{MissingBlob, SavedBlobs};
pub use caches::CacheMoved;
pub use check::{
    Affected, AffectedRange, CheckOptions, CheckReport, DataCheck, DatabaseCheck, Finding, Subject, check,
};
pub use copy_out::{CopiedDatabase, CopyReport, copy_out, copy_out_only};
pub use database::shell_word;
pub use delete::{DeleteReport, delete};
pub use gc::{GcOptions, GcReport, gc, gc_dry_run};
pub use generations::KEPT_WHOLE;
pub use handle::{PATIENCE, Place, Repository};
pub use init::{InitOptions, InitReport, init, init_on};
pub use keep_base::{DroppedBase, UnstoredBase, drop_bases, keep_bases, unstored_bases};
pub use links::{HeldFile, held_files};
pub use list::{CutInfo, DatabaseDetails, SnapshotDetails, SnapshotInfo, list, show};
pub use log::{DatabaseLog, LogEntry, LogOptions, log};
pub use plan::{DatabasePlan, RestorePlan};
pub use repair::{DamagedObject, RepairOptions, RepairReport, SetAside, Sources, repair, repair_on};
pub use restore::{RestoreOptions, RestoreReport, dry_run, dry_run_only, restore, undo, undo_dry_run};
pub use resume::{Finished, Way, finish};
pub use save::{SaveOptions, SaveReport, SavedDatabase, save};
pub use status::{DatabaseStatus, StatusReport, status};
pub use track::{NewDatabase, TrackOptions, TrackReport, TrackedDatabase, track, untrack};
