//! The reserve: a megabyte that delete and gc give up first, so that they work on a full disk.

use crate::error::{IoContext, Result};
use crate::repository::layout::Layout;

/// The reserve's size in bytes.
const SIZE: usize = 1 << 20;

/// Makes the reserve if it isn't there; real bytes, since a hole would reserve nothing.
pub fn replenish(layout: &Layout) -> Result<()> {
    let path = layout.reserve();
    if path.exists() {
        return Ok(());
    }
    let written = layout.disk().write_at(&layout.create_file(&path)?, &path, &vec![0xa5; SIZE], 0);
    if written.is_err() {
        // Half a reserve would look like a whole one.
        let _ = layout.disk().remove(&path);
    }
    written
}

/// Gives the reserve up if the file system has less room than it holds.
pub fn release_if_needed(layout: &Layout) -> Result<()> {
    let path = layout.reserve();
    let room = rustix::fs::statvfs(layout.root()).at("ask for the free space of", layout.root())?;
    if room.f_bavail.saturating_mul(room.f_frsize) < 2 * SIZE as u64 && path.exists() {
        layout.disk().remove(&path)?;
    }
    Ok(())
}
