//! What lies behind the last complete transaction of a database, perhaps whole ones behind one whose length is broken: a
//! restore keeps it in a file beside, which is there as long as the database lacks it, and says so. (P5)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use common::{Bench, Kill, undisturbed};
use znap::disk::{Change, Disk, Watcher};
use znap::error::{Error, Kind, Result};
use znap::filestorage::{Oid, Writer};
use znap::monitor::{Monitor, Silent};
use znap::snapshot::{Finished, Repository, RestoreOptions, RestoreReport, Way, finish, restore};

/// Bytes of a database up to its last complete transaction, and behind it.
struct Torn {
    bench: Bench,
    saved: Vec<u8>,
    whole: Vec<u8>,
    behind: Vec<u8>,
}

fn torn() -> Torn {
    let bench = Bench::new();
    let commit = |size: usize| {
        let mut writer = Writer::open(bench.data_fs()).unwrap();
        writer.transaction().data(Oid(1), vec![7; size]).commit().unwrap();
    };
    commit(200_000);
    bench.save("a");
    let saved = bench.bytes();
    commit(30_000);
    let whole = bench.bytes();
    (0..2).for_each(|_| commit(20_000));
    let mut bytes = bench.bytes();
    bytes[whole.len() + 8] ^= 1;
    fs::write(bench.data_fs(), &bytes).unwrap();
    Torn { behind: bytes[whole.len()..].to_vec(), bench, saved, whole }
}

fn restore_on(disk: &Disk, bench: &Bench, options: &RestoreOptions, monitor: &dyn Monitor) -> Result<RestoreReport> {
    let mut repository = Repository::open_to_write_on(disk, &bench.place, &Silent)?;
    undisturbed(|| restore(&mut repository, "a", options, monitor))
}

fn to_finish(bench: &Bench, way: Way, monitor: &dyn Monitor) -> Result<Option<Finished>> {
    undisturbed(|| finish(&mut Repository::open_to_finish(&bench.place, &Silent).unwrap(), way, monitor))
}

fn kept(bench: &Bench) -> Vec<PathBuf> {
    let names = fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.to_str().unwrap().contains("Data.fs.tr")).collect()
}

#[test]
fn p5_it_is_kept_as_long_as_the_database_lacks_it() {
    let (mut finished, mut kills) = (0, 0);
    for change in 0.. {
        let torn = torn();
        let bench = &torn.bench;
        if restore_on(&Disk::watched(Kill::at(change)), bench, &RestoreOptions::default(), &Silent).is_ok() {
            break;
        }
        kills += 1;
        let has_lost = bench.bytes().len() < torn.whole.len() + torn.behind.len();
        let is_kept = kept(bench).iter().any(|path| fs::read(path).unwrap() == torn.behind);
        assert!(is_kept || !has_lost, "change {change}");
        let way = if change % 2 == 0 { Way::Forward } else { Way::Back };
        match to_finish(bench, way, &Silent) {
            Ok(None) => {}
            Ok(Some(end)) => {
                let expected = if end.restored { &torn.saved } else { &torn.whole };
                // What wasn't touched yet still has it all.
                assert!(bench.bytes() == *expected || bench.bytes().len() > torn.whole.len(), "change {change}");
                assert_eq!(end.left_out, kept(bench), "change {change}");
                assert_eq!(fs::read(&end.left_out[0]).unwrap(), torn.behind, "change {change}");
                finished += 1;
            }
            Err(error) => assert!(error.to_string().contains("too late"), "{error}"),
        }
    }
    assert!(finished > 10 && kills > 30, "{finished} of {kills}");
}

/// Fails one change.
struct Refuse(fn(&Change<'_>) -> bool);

impl Watcher for Refuse {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        if (self.0)(change) { Err(io::Error::from_raw_os_error(5)) } else { Ok(usize::MAX) }
    }
}

/// Fails the first sync of a directory behind the rename that ends the journal.
#[derive(Default)]
struct RefuseLast(std::sync::atomic::AtomicBool);

impl Watcher for RefuseLast {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        use std::sync::atomic::Ordering::Relaxed;
        match change {
            Change::Rename { to, .. } if to.ends_with("last-restore") => self.0.store(true, Relaxed),
            Change::SyncDirectory { .. } if self.0.swap(false, Relaxed) => return Err(io::Error::from_raw_os_error(5)),
            _ => {}
        }
        Ok(usize::MAX)
    }
}

#[test]
fn a_restore_that_does_not_begin_leaves_no_such_file() {
    let ends: [fn(&Change<'_>) -> bool; 3] = [
        |change| matches!(change, Change::Rename { to, .. } if to.ends_with("restore-journal")),
        |change| matches!(change, Change::Sync { path } if path.to_str().unwrap().ends_with("Data.fs.tr0")),
        |change| matches!(change, Change::Write { path, .. } if path.to_str().unwrap().ends_with("Data.fs.tr0")),
    ];
    // Over, but for the last sync: that may fail, and it stays.
    let over = torn();
    let syncs = Arc::new(RefuseLast::default());
    restore_on(&Disk::watched(syncs.clone()), &over.bench, &RestoreOptions::default(), &Silent).unwrap_err();
    assert!(over.bench.bytes() == over.saved && fs::read(&kept(&over.bench)[0]).unwrap() == over.behind);
    for end in ends {
        let torn = torn();
        let before = torn.bench.bytes();
        let disk = Disk::watched(Arc::new(Refuse(end)));
        restore_on(&disk, &torn.bench, &RestoreOptions::default(), &Silent).unwrap_err();
        assert!(kept(&torn.bench).is_empty() && torn.bench.bytes() == before);
        let report = restore_on(&Disk::default(), &torn.bench, &RestoreOptions::default(), &Silent).unwrap();
        assert_eq!(report.left_out, kept(&torn.bench));
    }
}

#[test]
fn what_is_dropped_is_not_kept_and_an_abort_does_not_hide_it() {
    let discard = RestoreOptions { discard: true, ..RestoreOptions::default() };
    let mut aborted = false;
    for change in 0.. {
        let copy = torn();
        // A snapshot holds all that is whole: only what lies behind it is lost.
        copy.bench.save("b");
        if restore_on(&Disk::watched(Kill::at(change)), &copy.bench, &discard, &Silent).is_ok() {
            break;
        }
        assert!(kept(&copy.bench).is_empty());
        if copy.bench.bytes().len() < copy.whole.len()
            && let Ok(Some(end)) = to_finish(&copy.bench, Way::Back, &Silent)
            && !end.restored
        {
            assert!(copy.bench.bytes() == copy.whole && end.dropped);
            aborted = true;
        }
    }
    assert!(aborted);
}

/// Asked whether to go on, says no.
struct Stop;

impl Monitor for Stop {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn notice(&self, _: &str) {}
    fn check(&self) -> Result<()> {
        Err(Error::new(Kind::Interrupted(15), "interrupted"))
    }
}

#[test]
fn p5_what_finishes_a_restore_and_is_interrupted_says_that_it_is_unfinished() {
    let torn = torn();
    let bench = &torn.bench;
    bench.save("b");
    restore_on(&Disk::default(), bench, &RestoreOptions::default(), &Silent).unwrap();
    // Forward again: there is something to check and to write.
    let to_b = |disk: &Disk| {
        let mut repository = Repository::open_to_write_on(disk, &bench.place, &Silent).unwrap();
        undisturbed(|| restore(&mut repository, "b", &RestoreOptions::default(), &Silent))
    };
    let writes_the_database: fn(&Change<'_>) -> bool =
        |change| matches!(change, Change::Write { path, bytes, .. } if path.ends_with("Data.fs") && bytes.len() > 4);
    to_b(&Disk::watched(Arc::new(Refuse(writes_the_database)))).unwrap_err();
    let error = to_finish(bench, Way::Forward, &Stop).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted(15));
    assert!(error.to_string().contains("unfinished") && error.hint_text().unwrap().contains("--resume"), "{error}");
    to_finish(bench, Way::Forward, &Silent).unwrap();
    assert!(bench.bytes() == torn.whole);
}
