//! The catalog: a SQLite database that maps snapshot ids to each database's chunk list and index.
//!
//! Rollback journal, `synchronous=FULL`, short write transactions: the `sqlite3` program can read it
//! at any moment. Everything in it can be made again from the object files.

mod blobs;
mod check;
mod collect;
mod copy;
mod read;
mod rebuild;
mod rows;
mod write;

use std::cell::Cell;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use rusqlite_migration::{M, Migrations};
use rustix::fs::{Access, access};

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::monitor::Silent;
use crate::repository::counters::Counters;
use crate::repository::layout::{Layout, cannot_open};

pub use blobs::StoredBlob;
pub use check::{ChunkPlace, KnownChunk, KnownFrame, KnownSnapshot};
pub use collect::{DeadStream, IndexLink, MovingChunk, ObjectUse, Replacement, StreamReplacement};
pub use read::StreamChunk;
pub use rebuild::{RebuiltSnapshot, journal_of};
pub use rows::{Database, GenerationRow, IndexPartRow, ObjectFile, Snapshot, Stream};
pub use write::{PreparedSnapshot, Registration};

/// `ZNAP` in ASCII: what the `file` program sees in the catalog's header.
const APPLICATION_ID: i32 = 0x5a4e_4150;

const STEPS: &[M<'static>] = &[
    M::up(include_str!("../../../migrations/0001_catalog.sql")),
    M::up(include_str!("../../../migrations/0002_site.sql")),
];
const MIGRATIONS: Migrations<'static> = Migrations::from_slice(STEPS);

/// How many rows are deleted in one transaction, so that it takes milliseconds.
const BATCH: usize = 10_000;

/// How long to wait for a reader (the `sqlite3` program, say) that holds the catalog.
const PATIENCE: Duration = Duration::from_secs(10);

/// An open catalog.
pub struct Catalog {
    connection: Connection,
    path: PathBuf,
    /// Which file it is: device and inode.
    file: Option<(u64, u64)>,
    disk: Disk,
    counters: Arc<Counters>,
    rows: Cell<u64>,
}

impl Catalog {
    /// Makes a new, empty catalog. Only init does that; and repair, beside: see [`Catalog::create_beside`].
    pub fn create(layout: &Layout, counters: &Arc<Counters>) -> Result<Self> {
        let catalog = Self::create_at(layout, &layout.catalog(), true, counters)?;
        layout.disk().sync_directory(layout.root())?;
        Ok(catalog)
    }

    fn create_at(layout: &Layout, path: &Path, durably: bool, counters: &Arc<Counters>) -> Result<Self> {
        layout.create_file(path)?;
        let mut catalog = Self::connect(layout, path, OpenFlags::SQLITE_OPEN_READ_WRITE, counters)?;
        let prepare = |connection: &Connection| {
            connection.pragma_update(None, "page_size", 4096)?;
            if !durably {
                connection.pragma_update(None, "synchronous", "OFF")?;
                connection.pragma_update_and_check(None, "journal_mode", "MEMORY", |_| Ok(()))?;
            }
            connection.pragma_update(None, "application_id", APPLICATION_ID)
        };
        prepare(&catalog.connection).map_err(|error| catalog.error("prepare", error))?;
        catalog.migrate()?;
        Ok(catalog)
    }

    /// Opens the catalog to change it, bringing an older one up to date.
    pub fn open(layout: &Layout, counters: &Arc<Counters>) -> Result<Self> {
        let mut catalog = Self::open_with(layout, OpenFlags::SQLITE_OPEN_READ_WRITE, counters)?;
        catalog.migrate()?;
        Ok(catalog)
    }

    /// Opens the catalog to read it only; also from a directory that can't be written.
    pub fn open_read_only(layout: &Layout, counters: &Arc<Counters>) -> Result<Self> {
        // Read-write where possible: only then can SQLite roll back what a killed command left.
        let catalog = match Self::open_with(layout, OpenFlags::SQLITE_OPEN_READ_WRITE, counters) {
            Err(error) if error.kind() == crate::error::Kind::Failed => {
                Self::open_with(layout, OpenFlags::SQLITE_OPEN_READ_ONLY, counters)?
            }
            result => result?,
        };
        // One without a version is damaged: whoever asks it more will say how.
        if !(1..Self::known_version()).contains(&catalog.number("user_version")?) {
            return Ok(catalog);
        }
        // An older one stays as it is for the older program, until something is to be changed.
        let mut copy = catalog.copy(&Silent)?;
        copy.migrate()?;
        Ok(copy)
    }

    fn open_with(layout: &Layout, flags: OpenFlags, counters: &Arc<Counters>) -> Result<Self> {
        let path = layout.catalog();
        let metadata = match std::fs::metadata(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot_open(&path, None, error)),
            result => result.ok().filter(std::fs::Metadata::is_file),
        };
        // Not by opening it: closing it again would give back SQLite's locks on it.
        if let Some(metadata) = &metadata {
            access(&path, Access::READ_OK).map_err(|error| cannot_open(&path, Some(metadata.uid()), error.into()))?;
        } else {
            return Err(Error::damaged(format!(
                "the catalog {} is missing; the snapshots themselves are in {}",
                path.display(),
                layout.objects().display()
            ))
            .hint("put catalog.db back from a copy; or rebuild it with znap repair"));
        }
        let catalog = Self::connect(layout, &path, flags, counters)?;
        catalog.check_version()?;
        Ok(catalog)
    }

    fn connect(layout: &Layout, path: &Path, flags: OpenFlags, counters: &Arc<Counters>) -> Result<Self> {
        let path = path.to_path_buf();
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(PATIENCE)?;
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            // Where the journal is removed instead, only EXTRA syncs the directory then: a power cut soon after a commit might bring
            // the journal back, which takes the commit back, perhaps after object files were removed because of it. Cutting
            // it to nothing is synced, and costs no more.
            connection.pragma_update_and_check(None, "journal_mode", "TRUNCATE", |_| Ok(()))?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "cache_size", -16 * 1024)?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        };
        let connection = open().map_err(|error| Error::catalog("open what is", &path, error))?;
        let (disk, counters) = (layout.disk().clone(), Arc::clone(counters));
        let file = copy::file_at(&path);
        Ok(Catalog { connection, path, file, disk, counters, rows: Cell::new(0) })
    }

    fn check_version(&self) -> Result<()> {
        if self.number("application_id")? != i64::from(APPLICATION_ID) {
            return Err(Error::damaged(format!("{} is not a catalog of znap", self.path.display()))
                .hint("put catalog.db back from a copy; or rebuild it with znap repair"));
        }
        let (found, known) = (self.number("user_version")?, Self::known_version());
        if found > known {
            return Err(Error::failed(format!(
                "the catalog {} was written by a newer znap (schema {found}; this one knows {known})",
                self.path.display()
            ))
            .hint("use that newer znap"));
        }
        Ok(())
    }

    /// A number in its header.
    fn number(&self, name: &str) -> Result<i64> {
        let read = self.connection.pragma_query_value(None, name, |row| row.get(0));
        read.map_err(|error| self.error("read the version", error))
    }

    /// The schema version of this program.
    pub fn known_version() -> i64 {
        STEPS.len() as i64
    }

    fn migrate(&mut self) -> Result<()> {
        MIGRATIONS.to_latest(&mut self.connection).map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => self.error("bring the tables up to date", err),
            error => Error::failed(format!("cannot bring the catalog {} up to date: {error}", self.path.display())),
        })
    }

    /// An error of SQLite on this catalog.
    fn error(&self, action: &str, error: rusqlite::Error) -> Error {
        Error::catalog(action, &self.path, error)
    }

    /// Runs `change` in one write transaction, which is committed if it succeeds.
    fn transaction<T>(
        &mut self,
        action: &str,
        change: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let path = self.path.clone();
        let before = self.connection.total_changes();
        let failed = |error| Error::catalog(action, &path, error);
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let result = change(&transaction).map_err(failed)?;
        self.disk.commit(&path)?;
        transaction.commit().map_err(failed)?;
        self.counters.commit();
        let changed = self.connection.total_changes().saturating_sub(before);
        self.rows.set(self.rows.get() + changed);
        Ok(result)
    }

    /// How many rows were inserted, changed or deleted through this handle.
    pub fn rows_changed(&self) -> u64 {
        self.rows.get()
    }

    /// Runs `read` so that all it sees is of one moment.
    pub fn snapshot_of<T>(&self, read: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let transaction = self.connection.unchecked_transaction().map_err(|error| self.error("read", error))?;
        let result = read(self);
        drop(transaction);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_migrations_are_valid_and_counted() {
        MIGRATIONS.validate().expect("valid SQL");
        let mut connection = Connection::open_in_memory().expect("SQLite");
        MIGRATIONS.to_latest(&mut connection).expect("migrated");
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("version");
        assert_eq!(version, Catalog::known_version());
    }
}
