//! What lies behind the last complete transaction when a restore cuts it off: kept in a file beside, as ZODB does when it
//! opens such a database (`_truncate` of its FileStorage.py).
//!
//! Most of it is what a killed server had not finished. But where the length of a transaction is broken, complete
//! ones may follow it.

use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, IoContext, Result};
use crate::filestorage::ownership::create_like;
use crate::filestorage::transaction::HEADER_LENGTH;
use crate::filestorage::{DataFile, Source};
use crate::monitor::Monitor;
use crate::snapshot::handle::Repository;
use crate::snapshot::plan::DatabasePlan;
use crate::snapshot::restore::RestoreOptions;
use crate::snapshot::writing::folder_of;

/// How many bytes are copied at once.
const PIECE: u64 = 1 << 20;

/// Where the bytes begin that are to be kept; `None` if there are none. Fewer than a transaction's header ZODB drops, too.
pub(super) fn left_out_from(plan: &DatabasePlan, options: &RestoreOptions) -> Option<u64> {
    let from = plan.work.end;
    let is_cut = plan.left_out.is_some() && plan.keep < plan.size;
    (is_cut && !options.discard && plan.size - from >= HEADER_LENGTH).then_some(from)
}

/// Copies the bytes into the first `Data.fs.trN` that isn't there yet, durably.
pub(super) fn keep_left_out(
    repository: &Repository,
    file: &DataFile,
    range: Range<u64>,
    monitor: &dyn Monitor,
) -> Result<PathBuf> {
    let disk = repository.disk();
    let path = free_name(file)?;
    let copy = create_like(disk, &path, &file.metadata()?)?;
    let copied = (|| {
        let mut bytes = Vec::new();
        let mut at = range.start;
        while at < range.end {
            monitor.check()?;
            bytes.resize(PIECE.min(range.end - at) as usize, 0);
            file.read_exact_at(&mut bytes, at)?;
            disk.write_at(&copy, &path, &bytes, at - range.start)?;
            at += bytes.len() as u64;
        }
        disk.sync(&copy, &path)?;
        repository.counters.fsync();
        disk.sync_directory(folder_of(&path))?;
        repository.counters.fsync();
        Ok(())
    })();
    if copied.is_err() {
        let _ = disk.remove(&path);
    }
    copied.map(|()| path)
}

fn free_name(file: &DataFile) -> Result<PathBuf> {
    for number in 0..10_000 {
        let mut name = OsString::from(file.path());
        name.push(format!(".tr{number}"));
        let path = PathBuf::from(name);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(path),
            result => result.map(drop).at("look at", &path)?,
        }
    }
    Err(Error::failed(format!("there is no free name for what is left out of {}", file.path().display()))
        .hint("remove the files that end in .tr and a number, if nobody needs them"))
}
