//! Long reads of the catalog: while one goes on nobody can commit, and SQLite asks nobody whether to stop.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::error::{Error, Result};
use crate::monitor::Monitor;
use crate::repository::catalog::Catalog;
use crate::repository::in_order::beside;

/// How many pages are copied at once: some megabytes.
const PAGES: i32 = 2000;
/// How often a copy begins anew because somebody committed meanwhile; then it is made at once.
const BEGINNINGS: u32 = 5;
/// How often the monitor is asked.
const OFTEN: Duration = Duration::from_millis(100);

impl Catalog {
    /// A copy of it as it is at one moment, page by page, damaged ones too, in a file without a name: for reads that would keep
    /// others from committing for too long.
    pub fn copy(&self, monitor: &dyn Monitor) -> Result<Catalog> {
        let mut connection = self.copied(monitor)?;
        let prepare = |connection: &mut Connection| {
            connection.pragma_update(None, "trusted_schema", false)?;
            connection.pragma_update(None, "cell_size_check", true)?;
            connection.pragma_update(None, "cache_size", -16 * 1024)
        };
        prepare(&mut connection).map_err(|error| self.error("copy what is", error))?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(Catalog {
            connection,
            path: self.path.clone(),
            file: self.file,
            disk: self.disk.clone(),
            counters: Arc::clone(&self.counters),
            rows: Cell::new(0),
        })
    }

    fn copied(&self, monitor: &dyn Monitor) -> Result<Connection> {
        let failed = |error| self.error("copy what is", error);
        // SQLite's word for a file of its own that nobody else sees, and that is gone with it.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let mut copy = Connection::open_with_flags("", flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
        let backup = Backup::new(&self.connection, &mut copy).map_err(failed)?;
        let (mut beginnings, mut copied) = (0, 0);
        loop {
            monitor.check()?;
            match backup.step(if beginnings < BEGINNINGS { PAGES } else { -1 }).map_err(failed)? {
                StepResult::Done => break,
                StepResult::More => {}
                _ => {
                    return Err(Error::busy(format!("the catalog {} is locked", self.path.display()))
                        .hint("another program holds a lock on it; wait for it, or close it"));
                }
            }
            let progress = backup.progress();
            let now = progress.pagecount - progress.remaining;
            beginnings += u32::from(now <= copied);
            copied = now;
        }
        drop(backup);
        Ok(copy)
    }

    /// Runs `read`, and ends it in the middle of a question to SQLite if the monitor says so.
    pub fn interruptible<T>(&self, monitor: &dyn Monitor, read: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let handle = self.connection.get_interrupt_handle();
        let (over, wait) = channel::<()>();
        let watch = move || {
            while wait.recv_timeout(OFTEN) == Err(RecvTimeoutError::Timeout) {
                if monitor.check().is_err() {
                    handle.interrupt();
                }
            }
        };
        let here = || {
            let result = read(self);
            drop(over);
            result
        };
        let ((), result) = beside("waits for signals", watch, here)?;
        // In place of SQLite's own error.
        monitor.check()?;
        result
    }

    /// Whether another file has taken its place since it was opened: repair made it anew.
    pub fn is_replaced(&self) -> bool {
        file_at(&self.path) != self.file
    }
}

/// Which file is at a path: device and inode.
pub(super) fn file_at(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::disk::Disk;
    use crate::error::Kind;
    use crate::monitor::Silent;
    use crate::repository::counters::Counters;
    use crate::repository::layout::{Access, Layout};

    /// Says that a signal arrived, from the third time on that it is asked.
    #[derive(Default)]
    struct Signal(AtomicU32);

    impl Monitor for Signal {
        fn begin(&self, _phase: &str, _bytes: u64) {}
        fn advance(&self, _bytes: u64) {}
        fn end(&self) {}
        fn notice(&self, _text: &str) {}
        fn check(&self) -> Result<()> {
            match self.0.fetch_add(1, Ordering::Relaxed) {
                0..3 => Ok(()),
                _ => Err(Error::new(Kind::Interrupted(2), "interrupted")),
            }
        }
    }

    /// So many rows that a copy takes several steps.
    const FILL: &str = "INSERT INTO object_file (name, kind, bytes)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) SELECT randomblob(32), 1, i FROM n";

    fn catalog(folder: &Path) -> (Layout, Catalog) {
        let layout = Layout::create(&folder.join(".znap"), Access::Private, &Disk::default()).unwrap();
        let catalog = Catalog::create(&layout, &Arc::new(Counters::default())).unwrap();
        (layout, catalog)
    }

    #[test]
    fn a_question_that_takes_long_is_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let (_, catalog) = catalog(folder.path());
        let for_ever = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
        let ask = |catalog: &Catalog| catalog.one("count", for_ever, [], |row| row.get::<_, i64>(0));
        let error = catalog.interruptible(&Signal::default(), ask).unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted(2));
        let error = catalog.interruptible(&Silent, |_| Err::<(), _>(Error::failed("another"))).unwrap_err();
        assert_eq!(error.to_string(), "another");
        assert_eq!(catalog.interruptible(&Silent, Catalog::last_sequence).unwrap(), 0, "it works as before");
    }

    #[test]
    fn a_copy_stays_as_it_is_and_a_file_in_its_place_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, catalog) = catalog(folder.path());
        catalog.connection.execute_batch(FILL).unwrap();
        let copy = catalog.copy(&Silent).unwrap();
        catalog.connection.execute_batch("DELETE FROM object_file").unwrap();
        assert_eq!((copy.object_files().unwrap().len(), catalog.object_files().unwrap().len()), (200_000, 0));
        assert!(copy.integrity(true).unwrap().is_empty() && copy.schema_differences().unwrap() == 0);
        assert!(!catalog.is_replaced() && !copy.is_replaced());
        let path = layout.catalog();
        fs::copy(&path, path.with_extension("new")).unwrap();
        fs::rename(path.with_extension("new"), &path).unwrap();
        assert!(catalog.is_replaced() && copy.is_replaced());
    }

    #[test]
    fn a_copy_ends_though_somebody_commits_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let (layout, catalog) = catalog(folder.path());
        catalog.connection.execute_batch(FILL).unwrap();
        /// Commits whenever it is asked: nobody may wait for the copy.
        struct Busy(std::path::PathBuf, AtomicU32);
        impl Monitor for Busy {
            fn begin(&self, _phase: &str, _bytes: u64) {}
            fn advance(&self, _bytes: u64) {}
            fn end(&self) {}
            fn notice(&self, _text: &str) {}
            fn check(&self) -> Result<()> {
                let other = Connection::open(&self.0).unwrap();
                other.busy_timeout(Duration::ZERO).unwrap();
                other.execute_batch("UPDATE object_file SET bytes = bytes + 1 WHERE id = 1").unwrap();
                self.1.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
        let busy = Busy(layout.catalog(), AtomicU32::new(0));
        let copy = catalog.copy(&busy).unwrap();
        assert_eq!(busy.1.load(Ordering::Relaxed), BEGINNINGS + 2);
        assert_eq!(copy.object_files().unwrap().len(), 200_000);
        assert!(copy.integrity(true).unwrap().is_empty());
    }
}
