//! The fence: what keeps ZODB out of a database that is half restored.
//!
//! The first four bytes are replaced by four that no FileStorage begins with. ZODB then raises `FileStorageFormatError`,
//! read-only or not, and changes nothing (docs/reliability.md says which versions were tried).

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::source::Magic;
use crate::disk::Disk;
use crate::error::Result;

/// What a fenced database begins with.
pub const FENCE: [u8; 4] = *b"ZNAP";

/// Puts the fence up, durably.
pub fn fence(disk: &Disk, file: &File, path: &Path) -> Result<()> {
    disk.write_at(file, path, &FENCE, 0)?;
    disk.sync(file, path)
}

/// Puts the database's own first bytes back, durably: ZODB opens it again.
pub fn unfence(disk: &Disk, file: &File, path: &Path, magic: Magic) -> Result<()> {
    disk.write_at(file, path, &magic.bytes(), 0)?;
    disk.sync(file, path)
}

/// The path of the text file that says what is going on, beside a fenced database.
pub fn notice_path(database: &Path) -> PathBuf {
    let mut name: OsString = database.as_os_str().to_owned();
    name.push(".ZNAP-RESTORE-UNFINISHED.txt");
    PathBuf::from(name)
}
