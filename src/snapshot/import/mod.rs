//! Import: what an archive, repozo or `znap2` holds becomes snapshots. No database is touched.
//!
//! Each state of a file is put together in a file without a name in `.znap`, which goes when nobody has it open any more, and is saved
//! from there: in the life of the tracked file that it begins with, if there is one; else in one of files from elsewhere, which
//! has no base, so that its snapshots need nothing but the repository.

mod archive;
mod blobs;
mod compare;
mod gunzip;
mod repozo;
mod take;
mod znap2;

use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::error::{Error, IoContext, Kind, Result};
use crate::filestorage::source::open_plain;
use crate::monitor::Monitor;
use crate::repository::catalog::Database;
use crate::repository::counters::Counts;
use crate::snapshot::choice::unknown;
use crate::snapshot::handle::Repository;

/// No list of backups, and no configuration, is larger.
const SMALL: u64 = 16 << 20;

/// What is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An archive that export wrote.
    Archive,
    /// A directory of backups that repozo made.
    Repozo,
    /// The directory of `znap2`.
    Znap2,
}

/// What to take in, and how.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// What it is.
    pub origin: Origin,
    /// The file or directory.
    pub path: PathBuf,
    /// The tracked database that it is of, if that can't be told, or is called otherwise there.
    pub database: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// The zone of ids that are made from times.
    pub zone: TimeZone,
}

/// What an import did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct ImportReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The snapshots that were made.
    pub imported: Vec<Imported>,
    /// What is in the repository already.
    pub present: Vec<Present>,
    /// What was not taken, and why.
    pub refused: Vec<Refused>,
    /// What it cost.
    pub counts: Counts,
}

/// A snapshot that was made.
#[derive(Debug, Clone, Serialize)]
pub struct Imported {
    /// Its id.
    pub id: String,
    /// What it was made from.
    pub source: String,
    /// When that was made.
    pub created: Timestamp,
    /// Its databases.
    pub databases: Vec<ImportedDatabase>,
    /// Bytes of data files that it added.
    pub stored_bytes: u64,
}

/// A database of it.
#[derive(Debug, Clone, Serialize)]
pub struct ImportedDatabase {
    /// Its name.
    pub name: String,
    /// The length of the file.
    pub cut: u64,
    /// The last transaction's id, as ZODB writes it.
    pub tid: String,
    /// The time of that transaction; `None` if the database has none.
    pub time: Option<Timestamp>,
    /// The blobs that came with it, if any did.
    pub blobs: Option<ImportedBlobs>,
    /// What lies behind the cut and was left out, in words.
    pub left_out: Option<String>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// The blobs of it.
#[derive(Debug, Clone, Serialize)]
pub struct ImportedBlobs {
    /// How many came with it.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether they are stored: not if the tracked database's are left alone.
    pub taken: bool,
    /// How many of its current blobs have no file; `None` if they aren't stored, or in a dry run.
    pub missing: Option<u64>,
}

/// Something of which there is a snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Present {
    /// What it is.
    pub source: String,
    /// The snapshot.
    pub id: String,
}

/// Something that was not taken.
#[derive(Debug, Clone, Serialize)]
pub struct Refused {
    /// What it is.
    pub source: String,
    /// What is wrong.
    pub reason: String,
}

/// Makes snapshots of what is sound; what is there already is left as it is.
pub fn import(repository: &mut Repository, options: &ImportOptions, monitor: &dyn Monitor) -> Result<ImportReport> {
    repository.writer_lock()?;
    let mut work = Work {
        options,
        monitor,
        report: ImportReport {
            dry_run: options.dry_run,
            imported: Vec::new(),
            present: Vec::new(),
            refused: Vec::new(),
            counts: Counts::default(),
        },
        repository,
    };
    let result = match options.origin {
        Origin::Archive => archive::import(&mut work),
        Origin::Repozo => repozo::import(&mut work),
        Origin::Znap2 => znap2::import(&mut work),
    };
    let imported = &work.report.imported;
    if let (Err(error), Some(last), false) = (&result, imported.last(), options.dry_run)
        && matches!(error.kind(), Kind::Interrupted(_))
    {
        let done = format!("the snapshots up to {} are there", last.id);
        return Err(
            Error::new(error.kind(), format!("{error}: {done}")).hint("give the command again: it goes on there")
        );
    }
    result?;
    Ok(ImportReport { counts: work.repository.counts(), ..work.report })
}

/// An import while it goes on.
struct Work<'a> {
    repository: &'a mut Repository,
    options: &'a ImportOptions,
    monitor: &'a dyn Monitor,
    report: ImportReport,
}

impl Work<'_> {
    fn refuse(&mut self, source: impl Into<String>, reason: impl Into<String>) {
        self.report.refused.push(Refused { source: source.into(), reason: reason.into() });
    }

    /// The tracked database that all of it is of: the one that was named, or the only one.
    fn only_database(&self) -> Result<Database> {
        let databases = self.repository.catalog.databases()?;
        if let Some(name) = &self.options.database {
            return named(&databases, name);
        }
        let tracked: Vec<Database> = databases.into_iter().filter(|database| database.tracked).collect();
        let names: Vec<String> = tracked.iter().map(|database| database.name.clone()).collect();
        match <[Database; 1]>::try_from(tracked) {
            Ok([only]) => Ok(only),
            Err(none) if none.is_empty() => Err(Error::usage("no database is tracked")
                .hint("znap track DB tracks one; or name the one that the backups are of: --database NAME")),
            Err(_) => Err(Error::usage(format!("several databases are tracked: {}", names.join(", ")))
                .hint("name the one that the backups are of: --database NAME")),
        }
    }
}

fn named(databases: &[Database], name: &str) -> Result<Database> {
    let found = databases.iter().find(|database| database.name == name);
    found.cloned().ok_or_else(|| unknown(name, databases))
}

/// What a small file has, or why it can't be told. Only a regular one is read: a pipe would never end.
fn small(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_plain(path, false)?.take(SMALL + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > SMALL {
        return Err(Error::failed(format!("{} is too large to be what its name says", path.display())));
    }
    Ok(bytes)
}

/// The last part of a path, for a report.
fn short(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
