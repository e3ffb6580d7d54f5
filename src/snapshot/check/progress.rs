//! Where a check of the data goes on that was limited: a small file, replaced as a whole. If it is lost or can't be
//! read, the next check begins at the first file again.

use std::fs::File;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::repository::hash::{Hash, Uid};
use crate::repository::layout::Layout;

/// The version of this format.
const FORMAT: u32 = 1;
/// No such file is as long as this.
const LONGEST: u64 = 1 << 20;
/// How many damaged files are remembered.
const DAMAGED: usize = 1000;

/// How far checks have come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    format: u32,
    repository: Uid,
    /// The last object file, by name, that was read.
    pub(super) after: Hash,
    /// Those that were found damaged.
    pub(super) damaged: Vec<Hash>,
}

impl Progress {
    /// So far.
    pub(super) fn new(repository: Uid, after: Hash, mut damaged: Vec<Hash>) -> Self {
        damaged.truncate(DAMAGED);
        Progress { format: FORMAT, repository, after, damaged }
    }

    /// What the last check has left, if it is of this repository.
    pub(super) fn read(layout: &Layout, repository: Uid) -> Option<Self> {
        let mut bytes = Vec::new();
        File::open(layout.check_progress()).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
        let progress: Progress = serde_json::from_slice(&bytes).ok()?;
        (progress.format == FORMAT && progress.repository == repository).then_some(progress)
    }

    /// Writes it in place of what is there.
    pub(super) fn write(&self, layout: &Layout) -> Result<()> {
        let path = layout.check_progress();
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::failed(format!("cannot write {}: {error}", path.display())))?;
        // Two at the same time may spoil each other's: then the next one begins at the first file again.
        layout.replace_file(&path, &json)
    }

    /// The next check begins at the first file again.
    pub(super) fn forget(layout: &Layout) -> Result<()> {
        layout.disk().remove_if_there(&layout.check_progress())
    }
}
