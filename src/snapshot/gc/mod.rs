//! gc: give back what nothing in the repository uses. Exact and immediate: no clocks, no list of files to
//! unlink; what goes is what the committed catalog does not name at that moment.
//!
//! Under the writer's lock, in bounded steps with short transactions:
//! 1. the catalog and the object files must agree ([`inventory`]), and every list must have its hash ([`lists`]), or
//!    nothing is done;
//! 2. chunk lists of deleted snapshots are joined into those that build on them, or dropped ([`fold`]);
//! 3. chunks that no list names are dropped, and object files that nothing refers to are unlinked;
//! 4. indexes that are made from many parts get a keyframe;
//! 5. data files that are more than a fifth unused, and small ones that are worth joining ([`choice`]), are written
//!    anew in large frames ([`rewrite`]);
//! 6. what is stored from before and behind a pack is put into the same frames ([`side_by_side`]), unless it is known to lie
//!    so ([`remembered`]).

mod choice;
mod fold;
pub(crate) mod inventory;
pub(crate) mod lists;
mod remembered;
mod rewrite;
mod side_by_side;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, IoContext, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::ObjectUse;
use crate::repository::chunk_writer::Compression;
use crate::repository::counters::Counts;
use crate::repository::hash::Hash;
use crate::repository::layout::Layout;
use crate::repository::lock::Gate;
use crate::repository::plain::PlainFiles;
use crate::snapshot::delete::bury;
use crate::snapshot::handle::Repository;
use crate::snapshot::links;
use crate::snapshot::reserve;
use crate::snapshot::writing::folder_of;

use choice::{is_wasteful, to_rewrite};
use inventory::Inventory;
use side_by_side::Beside;

/// How thoroughly to collect.
#[derive(Debug, Clone, Copy, Default)]
pub struct GcOptions {
    /// Write every data file anew that has any unused byte, and all small ones; and compress harder.
    pub all: bool,
}

impl GcOptions {
    fn compression(self) -> Compression {
        if self.all { Compression::SMALL } else { Compression::FAST }
    }
}

/// What gc did, or would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GcReport {
    /// Bytes of the repository before.
    pub bytes_before: u64,
    /// Bytes of the repository after; an estimate in a dry run.
    pub bytes_after: u64,
    /// Object files removed.
    pub files_removed: u64,
    /// Data files written anew, by their number before.
    pub files_rewritten: u64,
    /// Chunks that nothing used.
    pub chunks_dropped: u64,
    /// Snapshots that there are, and that keep the rest.
    pub snapshots: u64,
    /// Deleted snapshots whose beginnings several later ones share, and so are still there in part.
    pub deleted_still_needed: u64,
    /// Unused bytes left in data files that are mostly used, about.
    pub unused_bytes_left: u64,
    /// Files among the object files that znap knows nothing of, and left alone.
    pub unknown_files: Vec<String>,
    /// What it cost.
    pub counts: Counts,
}

/// Says what gc would do. Needs the writer's lock, too: a save that is about to commit looks like damage.
pub fn gc_dry_run(repository: &mut Repository, options: GcOptions) -> Result<GcReport> {
    repository.writer_lock()?;
    let repository = &*repository;
    repository.catalog.snapshot_of(|catalog| {
        let inventory = Inventory::take(repository)?;
        catalog.without(&catalog.idle_bases()?)?;
        let files = catalog.object_use()?;
        let mut freed: u64 = inventory.left_over.iter().map(|(_, bytes)| bytes).sum();
        let mut report = GcReport {
            files_removed: inventory.left_over.len() as u64,
            unknown_files: inventory.unknown,
            snapshots: catalog.snapshots()?.len() as u64,
            chunks_dropped: catalog.unused_chunks()?,
            ..GcReport::default()
        };
        let rewritten: Vec<&ObjectUse> =
            rewrite::steps(&to_rewrite(&files, options), options).into_iter().flatten().collect();
        for file in &files {
            let unused = file.unused_bytes();
            if file.live_raw == 0 {
                report.files_removed += 1;
                freed += file.file.bytes;
            } else if rewritten.contains(&file) {
                report.files_rewritten += 1;
                freed += unused;
            } else {
                report.unused_bytes_left += unused;
            }
        }
        for file in catalog.unused_plain()? {
            report.files_removed += 1;
            freed += bytes_of_its_own(&repository.layout, &file.name, file.bytes);
        }
        report.bytes_before = repository_bytes(&repository.layout)?;
        report.bytes_after = report.bytes_before.saturating_sub(freed);
        report.counts = repository.counts();
        Ok(report)
    })
}

/// Collects. Interrupted anywhere, it leaves a valid repository, and the next gc goes on.
pub fn gc(repository: &mut Repository, options: GcOptions, monitor: &dyn Monitor) -> Result<GcReport> {
    repository.writer_lock()?;
    let bytes_before = repository_bytes(&repository.layout)?;
    let inventory = Inventory::take(repository)?;
    lists::check(&repository.catalog, monitor)?;
    reserve::release_if_needed(&repository.layout)?;
    inventory.finish_deletions(repository)?;
    for base in repository.catalog.idle_bases()? {
        bury(repository, &base)?;
    }

    fold::fold_deleted(repository, monitor)?;
    repository.catalog.trim_dead_streams()?;
    repository.catalog.drop_snapshots()?;
    repository.catalog.drop_blobs()?;
    let mut chunks_dropped = repository.catalog.drop_chunks()?;
    let mut files_removed = unlink_unnamed(repository, monitor)?;
    // Only now: as long as a deleted snapshot's manifest is there, so must be its tombstone.
    repository.catalog.drop_tombstones()?;
    files_removed += unlink_unnamed(repository, monitor)?;
    monitor.check()?;

    if fold::shorten_index_chains(repository, monitor)? {
        chunks_dropped += repository.catalog.drop_chunks()?;
        files_removed += unlink_unnamed(repository, monitor)?;
    }

    let mut beside = Beside::look(repository)?;
    let mut files = repository.catalog.object_use()?;
    // What may be about to be put elsewhere isn't joined before.
    files.retain(|file| is_wasteful(file, options) || !beside.unsettled.contains(&file.file.name));
    let chosen = to_rewrite(&files, options);
    let mut files_rewritten = rewrite::rewrite(repository, &chosen, &beside.chunks, options, monitor)?;
    if !beside.unsettled.is_empty() {
        files_rewritten += beside.put(repository, monitor)?;
        // What else was in these files is alone in them now.
        let files = repository.catalog.object_use()?;
        let chosen = to_rewrite(&files, options);
        files_rewritten += rewrite::rewrite(repository, &chosen, &beside.chunks, options, monitor)?;
    }
    if files_rewritten > 0 || !beside.unsettled.is_empty() {
        beside.remember(repository)?;
    }

    links::refresh(repository, true)?;
    // Space for the next time is welcome, but no reason to fail now.
    let _ = reserve::replenish(&repository.layout);
    let files = repository.catalog.object_use()?;
    Ok(GcReport {
        bytes_before,
        bytes_after: repository_bytes(&repository.layout)?,
        files_removed,
        files_rewritten,
        chunks_dropped,
        snapshots: repository.catalog.snapshots()?.len() as u64,
        deleted_still_needed: repository.catalog.deleted_still_needed()?,
        unused_bytes_left: files.iter().map(ObjectUse::unused_bytes).sum(),
        unknown_files: inventory.unknown,
        counts: repository.counts(),
    })
}

/// Unlinks the object files that the committed catalog does not name, and unfinished ones. Returns how many.
fn unlink_unnamed(repository: &Repository, monitor: &dyn Monitor) -> Result<u64> {
    let inventory = Inventory::take(repository)?;
    if inventory.left_over.is_empty() {
        return Ok(0);
    }
    let _gate = Gate::exclusive(&repository.layout, monitor)?;
    for (path, _) in &inventory.left_over {
        repository.disk().remove(path)?;
    }
    let folders: BTreeSet<&Path> = inventory.left_over.iter().map(|(path, _)| folder_of(path)).collect();
    for folder in folders {
        repository.disk().sync_directory(folder)?;
        repository.counters.fsync();
    }
    Ok(inventory.left_over.len() as u64)
}

/// How many bytes all files of the repository have, but for the lock's few, which say who holds it.
pub(crate) fn repository_bytes(layout: &Layout) -> Result<u64> {
    let mut bytes = 0;
    for folder in [layout.root().to_path_buf(), layout.objects()] {
        for entry in fs::read_dir(&folder).at("read", &folder)? {
            let entry = entry.at("read", &folder)?;
            match entry.metadata() {
                Ok(_) if entry.path() == layout.lock() => {}
                Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
                Ok(_) => {}
                // Removed since the folder was read.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("look at", entry.path(), error)),
            }
        }
    }
    for (name, length) in PlainFiles::list(layout)?.files {
        bytes += bytes_of_its_own(layout, &name, length);
    }
    Ok(bytes)
}

/// How many bytes a plain object file takes: none, as long as a blob file is the same file.
fn bytes_of_its_own(layout: &Layout, name: &Hash, length: u64) -> u64 {
    let is_shared = fs::symlink_metadata(layout.plain(name)).is_ok_and(|metadata| metadata.nlink() > 1);
    if is_shared { 0 } else { length }
}
