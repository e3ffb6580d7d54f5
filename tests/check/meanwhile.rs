//! What others do while a check is at work.

use std::fs;
use std::sync::Mutex;
use std::thread::{self, ThreadId};
use std::time::Duration;

use znap::error::{Kind, Result};
use znap::monitor::Monitor;
use znap::snapshot::check;

use crate::common::Bench;
use crate::{ALL, QUICK, data_files};

/// Does something when a phase begins, once.
struct Meanwhile<'a> {
    phase: &'static str,
    action: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl<'a> Meanwhile<'a> {
    fn new(phase: &'static str, action: impl FnOnce() + Send + 'a) -> Self {
        Meanwhile { phase, action: Mutex::new(Some(Box::new(action))) }
    }

    fn is_done(&self) -> bool {
        self.action.lock().unwrap().is_none()
    }
}

impl Monitor for Meanwhile<'_> {
    fn begin(&self, phase: &str, _bytes: u64) {
        if phase == self.phase
            && let Some(action) = self.action.lock().unwrap().take()
        {
            action();
        }
    }
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn notice(&self, _text: &str) {}
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Commits something whenever it is asked, without waiting for anybody.
struct Commits<'a> {
    bench: &'a Bench,
    thread: ThreadId,
    count: Mutex<u64>,
}

impl Monitor for Commits<'_> {
    fn begin(&self, _phase: &str, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn notice(&self, _text: &str) {}
    fn check(&self) -> Result<()> {
        // Not from the thread that only waits for signals, in the middle of something short.
        if thread::current().id() == self.thread {
            let sql = self.bench.sql();
            sql.busy_timeout(Duration::ZERO).unwrap();
            sql.execute("UPDATE repository SET sequence = sequence", []).unwrap();
            *self.count.lock().unwrap() += 1;
        }
        Ok(())
    }
}

#[test]
fn a_check_keeps_nobody_from_committing() {
    let bench = Bench::new();
    bench.saves(5, 50_000);
    fs::remove_file(&data_files(&bench)[1]).unwrap();
    let monitor = Commits { bench: &bench, thread: thread::current().id(), count: Mutex::new(0) };
    let report = check(&bench.read(), &ALL, &monitor).unwrap();
    assert_eq!((report.snapshots, report.findings.len()), (5, 1));
    assert!(*monitor.count.lock().unwrap() > 30);
}

#[test]
fn a_restore_that_begins_while_a_database_is_read_is_not_damage() {
    for phase in ["comparing with the snapshots", "reading the database"] {
        let bench = Bench::new();
        bench.saves(3, 400_000);
        let meanwhile = Meanwhile::new(phase, || bench.restore("s0"));
        let report = check(&bench.read(), &ALL, &meanwhile).unwrap();
        assert!(meanwhile.is_done() && !report.is_damaged(), "{phase}: {:#?}", report.findings);
        let database = &report.databases.unwrap()[0];
        assert!(database.problem.as_ref().unwrap().contains("restore"), "{database:?}");
    }
}

#[test]
fn a_catalog_that_repair_has_replaced_meanwhile_is_no_longer_asked() {
    let bench = Bench::new();
    bench.saves(3, 50_000);
    let catalog = bench.place.root.join("catalog.db");
    let file = data_files(&bench).remove(0);
    let meanwhile = Meanwhile::new("looking at the object files", || {
        fs::copy(&catalog, catalog.with_extension("new")).unwrap();
        fs::rename(catalog.with_extension("new"), &catalog).unwrap();
        fs::remove_file(&file).unwrap();
    });
    let error = check(&bench.read(), &QUICK, &meanwhile).unwrap_err();
    assert!(error.kind() == Kind::Busy && error.to_string().contains("replaced meanwhile"), "{error}");
    assert!(error.hint_text().unwrap().contains("check again"));
}

#[test]
fn a_snapshot_that_is_saved_meanwhile_was_not_checked() {
    let bench = Bench::new();
    bench.saves(3, 50_000);
    let meanwhile = Meanwhile::new("looking at the object files", || {
        bench.delete("s2");
        bench.grow(9, 1000);
        bench.save("s2");
        bench.save("s3");
    });
    let report = check(&bench.read(), &ALL, &meanwhile).unwrap();
    assert!(meanwhile.is_done() && !report.is_damaged(), "{:#?}", report.findings);
    assert_eq!((report.snapshots, report.last_whole.as_deref()), (3, Some("s2")));
}
