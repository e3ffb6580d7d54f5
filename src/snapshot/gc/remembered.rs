//! What gc has found to lie beside its past, or put there: a small file, replaced as a whole. If it is lost or can't be read, the next
//! gc finds it out anew, and nothing else depends on it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;

/// The version of this format.
const FORMAT: u32 = 1;
/// No such file is as long as this.
const LONGEST: u64 = 1 << 20;

/// What is remembered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Remembered {
    format: u32,
    /// Of each database, a hash of its chunks and the frames in which they lie.
    settled: BTreeSet<Hash>,
}

impl Remembered {
    /// What gc has left last: nothing if there is none.
    pub(super) fn read(layout: &Layout) -> Self {
        let read = || {
            let mut bytes = Vec::new();
            File::open(layout.side_by_side()).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
            let remembered: Remembered = serde_json::from_slice(&bytes).ok()?;
            (remembered.format == FORMAT).then_some(remembered)
        };
        read().unwrap_or(Remembered { format: FORMAT, settled: BTreeSet::new() })
    }

    /// Whether what has this hash is known to lie as it is to.
    pub(super) fn has(&self, state: &Hash) -> bool {
        self.settled.contains(state)
    }

    /// Puts this in place of what was remembered.
    pub(super) fn write(layout: &Layout, settled: BTreeSet<Hash>) -> Result<()> {
        if Self::read(layout).settled == settled {
            return Ok(());
        }
        let path = layout.side_by_side();
        let json = serde_json::to_vec(&Remembered { format: FORMAT, settled })
            .map_err(|error| Error::failed(format!("cannot write {}: {error}", path.display())))?;
        match layout.replace_file(&path, &json) {
            // Nothing needs it.
            Err(error) if error.is_no_space() => Ok(()),
            written => written,
        }
    }
}
