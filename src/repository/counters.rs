//! What an operation cost, counted rather than timed, so that tests can hold znap to its promises.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one repository handle since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    written: AtomicU64,
    read: AtomicU64,
    fsyncs: AtomicU64,
    commits: AtomicU64,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Bytes read from databases.
    pub database_bytes_read: u64,
    /// Bytes written into databases and their indexes.
    pub database_bytes_written: u64,
    /// Bytes written into object files.
    pub object_bytes_written: u64,
    /// Bytes read from object files.
    pub object_bytes_read: u64,
    /// Catalog rows inserted, changed or deleted.
    pub rows: u64,
    /// Syncs of object files, directories and database files; SQLite's own are not in it.
    pub fsyncs: u64,
    /// Committed catalog transactions, each of which syncs at most four times.
    pub commits: u64,
}

impl Counters {
    /// So many bytes of object files were written.
    pub fn wrote(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes of object files were read.
    pub fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// One sync was done.
    pub fn fsync(&self) {
        self.fsyncs.fetch_add(1, Ordering::Relaxed);
    }

    /// One catalog transaction was committed.
    pub fn commit(&self) {
        self.commits.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far, without what only others know (rows, database bytes).
    pub fn counts(&self) -> Counts {
        Counts {
            object_bytes_written: self.written.load(Ordering::Relaxed),
            object_bytes_read: self.read.load(Ordering::Relaxed),
            fsyncs: self.fsyncs.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            ..Counts::default()
        }
    }
}
