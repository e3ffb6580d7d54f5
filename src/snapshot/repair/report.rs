//! What repair found and did.

use std::path::PathBuf;

use serde::Serialize;

use crate::repository::counters::Counts;
use crate::repository::object::ObjectKind;
use crate::snapshot::repair::search::Sources;

/// How to repair.
#[derive(Debug, Clone, Default)]
pub struct RepairOptions {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Where to look for what is missing, besides the databases: copies of a database, repositories, or folders of object files.
    pub from: Vec<PathBuf>,
}

/// What repair did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RepairReport {
    /// What was wrong with the catalog, in words; `None` if nothing was.
    pub catalog_problem: Option<String>,
    /// Whether the catalog was made anew.
    pub catalog_rebuilt: bool,
    /// Under which name in the repository the one before it was kept, if it was.
    pub catalog_kept: Option<String>,
    /// Snapshots that there are now.
    pub snapshots: u64,
    /// Object files that were damaged or missing.
    pub damaged_files: Vec<DamagedObject>,
    /// Where chunks that they had were found.
    pub found: Sources,
    /// Chunks that snapshots need, and that were found nowhere.
    pub chunks_lost: u64,
    /// Blobs of which pieces are lost: they are missing from the snapshots that have them, until a save finds their files.
    pub blobs_lost: u64,
    /// Snapshots that can't be restored, and what they lack.
    pub set_aside: Vec<SetAside>,
    /// Snapshots that could not be restored before, and can be now.
    pub brought_back: Vec<String>,
    /// Snapshots whose ids had to be changed, because two had the same: the new ids.
    pub renamed: Vec<String>,
    /// Snapshots that only the catalog knew, and of which nothing is left.
    pub forgotten: Vec<String>,
    /// Snapshots that were made again from the catalog alone. They may have been deleted since that was made.
    pub from_catalog: Vec<String>,
    /// Files among the object files that znap knows nothing of, and left alone.
    pub unknown_files: Vec<String>,
    /// The snapshot whose restore is unfinished.
    pub unfinished_restore: Option<String>,
    /// What it cost.
    pub counts: Counts,
}

/// An object file that was damaged or missing.
#[derive(Debug, Clone, Serialize)]
pub struct DamagedObject {
    /// Its name.
    pub name: String,
    /// What it held: `data`, `manifest`, `tombstone`, `config` or `blob`; `None` if that can't be told.
    pub kind: Option<&'static str>,
    /// What is wrong with it, in words.
    pub problem: String,
    /// Whether all that is needed of it is there again.
    pub made_good: bool,
}

impl DamagedObject {
    /// Whether it was, or may have been, all about a snapshot or a deletion, and nobody else knows of that.
    pub fn is_lost(&self) -> bool {
        !self.made_good && !matches!(self.kind, Some("data" | "config" | "blob"))
    }
}

/// A snapshot that can't be restored.
#[derive(Debug, Clone, Serialize)]
pub struct SetAside {
    /// Its id.
    pub id: String,
    /// What nobody has, in words, one for each database that lacks something.
    pub missing: Vec<String>,
    /// Whether it was set aside before.
    pub before: bool,
}

impl RepairReport {
    /// Whether all is whole now: every snapshot that there is can be restored, and none is lost.
    pub fn is_whole(&self) -> bool {
        let is_lost = |file: &DamagedObject| file.is_lost() || (file.kind == Some("blob") && !file.made_good);
        self.blobs_lost == 0
            && self.set_aside.is_empty()
            && self.forgotten.is_empty()
            && !self.damaged_files.iter().any(is_lost)
    }

    /// Whether anything was, or would be, changed.
    pub fn is_change(&self) -> bool {
        self.catalog_rebuilt || !self.damaged_files.is_empty()
    }
}

/// The word for what an object file holds.
pub(super) fn word(kind: Option<ObjectKind>) -> Option<&'static str> {
    kind.map(|kind| match kind {
        ObjectKind::Data => "data",
        ObjectKind::Manifest => "manifest",
        ObjectKind::Tombstone => "tombstone",
        ObjectKind::Plain => "blob",
        ObjectKind::Config => "config",
    })
}
