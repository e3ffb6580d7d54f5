//! What lies behind the last complete transaction when a restore cuts it off: kept in a file beside, as ZODB does when it
//! opens such a database (`_truncate` of its FileStorage.py).
//!
//! Most of it is what a killed server had not finished. But where the length of a transaction is broken, complete
//! ones may follow it.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::error::{Error, IoContext, Result};
use crate::filestorage::ownership::create_like;
use crate::filestorage::transaction::HEADER_LENGTH;
use crate::filestorage::{DataFile, Source};
use crate::monitor::Monitor;
use crate::snapshot::handle::Repository;
use crate::snapshot::journal::LeftOutAt;
use crate::snapshot::plan::DatabasePlan;
use crate::snapshot::writing::folder_of;

/// How many bytes are copied at once.
const PIECE: u64 = 1 << 20;

/// The bytes that a restore cuts off behind the last complete transaction; `None` if there are none.
pub(super) fn left_out_of(plan: &DatabasePlan) -> Option<Range<u64>> {
    (plan.left_out.is_some() && plan.keep < plan.size).then_some(plan.work.end..plan.size)
}

/// How many of them are to be kept: fewer than a transaction's header ZODB drops, too.
pub(super) fn bytes_to_keep(plan: &DatabasePlan, discard: bool) -> u64 {
    let bytes = left_out_of(plan).map_or(0, |range| range.end - range.start);
    if discard || bytes < HEADER_LENGTH { 0 } else { bytes }
}

/// The files that were made for them. They are removed again, unless they are needed: if the restore does not begin.
pub(super) struct Kept {
    disk: Disk,
    paths: Vec<PathBuf>,
}

impl Kept {
    pub(super) fn new(disk: &Disk) -> Self {
        Kept { disk: disk.clone(), paths: Vec::new() }
    }

    /// Copies what is to be kept into the first `Data.fs.trN` that isn't there yet, durably.
    pub(super) fn keep(
        &mut self,
        repository: &Repository,
        file: &DataFile,
        plan: &DatabasePlan,
        discard: bool,
        monitor: &dyn Monitor,
    ) -> Result<Option<LeftOutAt>> {
        let Some(range) = left_out_of(plan) else { return Ok(None) };
        let bytes = range.end - range.start;
        if bytes_to_keep(plan, discard) == 0 {
            return Ok(Some(LeftOutAt { bytes, kept: None }));
        }
        let number = free_number(file.path())?;
        let path = path_of(file.path(), number);
        let copy = create_like(&self.disk, &path, &file.metadata()?)?;
        self.paths.push(path.clone());
        let mut piece = Vec::new();
        let mut at = range.start;
        while at < range.end {
            monitor.check()?;
            piece.resize(PIECE.min(range.end - at) as usize, 0);
            file.read_exact_at(&mut piece, at)?;
            self.disk.write_at(&copy, &path, &piece, at - range.start)?;
            at += piece.len() as u64;
        }
        self.disk.sync(&copy, &path)?;
        self.disk.sync_directory(folder_of(&path))?;
        repository.counters.fsync();
        repository.counters.fsync();
        Ok(Some(LeftOutAt { bytes, kept: Some(number) }))
    }

    /// Lets them stay.
    pub(super) fn stay(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.paths)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = self.disk.remove(path);
        }
    }
}

/// The file that has this number beside a database.
pub(super) fn path_of(database: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(format!(".tr{number}"));
    PathBuf::from(name)
}

fn free_number(database: &Path) -> Result<u32> {
    for number in 0..10_000 {
        let path = path_of(database, number);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(number),
            result => result.map(drop).at("look at", &path)?,
        }
    }
    Err(Error::failed(format!("there is no free name for what is left out of {}", database.display()))
        .hint("remove the files that end in .tr and a number, if nobody needs them"))
}
