//! P5 for restores: wherever one is interrupted, it can be finished or taken back, and until then nobody opens
//! what is half restored.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use common::Bench;
use znap::error::{Error, Kind, Result};
use znap::filestorage::fence::{FENCE, notice_path};
use znap::filestorage::{DataFile, Oid, Writer, index_path};
use znap::monitor::{Monitor, Silent};
use znap::snapshot::{
    Finished, Repository, RestoreOptions, SaveOptions, Way, finish, list, restore, save, undo, undo_dry_run,
};

/// Stops an operation when it asks for the so many'th time whether to go on.
struct StopAt(AtomicI64);

impl Monitor for StopAt {
    fn begin(&self, _phase: &str, _bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn notice(&self, _text: &str) {}
    fn check(&self) -> Result<()> {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            return Err(Error::new(Kind::Interrupted(2), "interrupted by SIGINT"));
        }
        Ok(())
    }
}

/// What a database and its index are, the index as znap left it or a writer makes it.
type State = (Vec<u8>, Option<Vec<u8>>);

fn state(bench: &Bench) -> State {
    (bench.bytes(), fs::read(index_path(&bench.data_fs())).ok())
}

/// Three snapshots; the file is at the third, with an index, and two more transactions.
fn bench() -> Bench {
    let bench = Bench::new();
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        for more in 0..4 {
            bench.grow(seed + 10 * more, 400_000);
        }
        bench.save(id);
    }
    bench.grow(77, 5000);
    bench.grow(78, 5000);
    Writer::open(bench.data_fs()).unwrap().save_index().unwrap();
    bench
}

fn to_finish(bench: &Bench, way: Way) -> Result<Option<Finished>> {
    finish(&mut Repository::open_to_finish(&bench.place, &Silent).unwrap(), way, &Silent)
}

fn try_restore(bench: &Bench, id: &str, monitor: &dyn Monitor) -> Result<()> {
    restore(&mut bench.write(), id, &RestoreOptions::default(), monitor).map(|_| ())
}

/// The files in the database's folder that belong to no database.
fn others(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with(".znap")).collect();
    names.retain(|name| !["Data.fs", "Data.fs.index", "Data.fs.lock"].contains(&name.as_str()));
    names
}

/// Interrupts a restore at every place where it can be, and finishes it each time in this way. Returns at how many places it
/// was unfinished.
fn interrupted_everywhere(id: &str, way: Way) -> usize {
    let mut unfinished = 0;
    for place in 1.. {
        let bench = bench();
        if id == "c" {
            bench.restore("a");
        }
        let before = state(&bench);
        let Err(error) = try_restore(&bench, id, &StopAt(AtomicI64::new(place))) else { break };
        assert_eq!(error.kind(), Kind::Interrupted(2));
        if let Some(unfinished_id) = bench.read().unfinished_restore().unwrap() {
            unfinished += 1;
            assert_eq!(unfinished_id, id);
            assert!(error.hint_text().unwrap().contains("--resume"), "{error}");
            assert_eq!(bench.bytes()[..4], FENCE, "P5: nobody opens it");
            assert!(DataFile::open(bench.data_fs()).unwrap_err().to_string().contains("half restored"));
            assert!(fs::read_to_string(notice_path(&bench.data_fs())).unwrap().contains("--abort"));
            let refused = Repository::open_to_write(&bench.place, &Silent).map(|_| ()).unwrap_err();
            assert!(refused.to_string().contains("unfinished"), "{refused}");
            let finished = to_finish(&bench, way).unwrap().unwrap();
            assert_eq!(finished.restored, way == Way::Forward);
        } else {
            assert!(state(&bench) == before, "nothing was changed");
        }
        assert_eq!(others(bench.folder.path()), Vec::<String>::new());
        assert!(to_finish(&bench, way).unwrap().is_none(), "nothing to do");
        if way == Way::Back {
            assert!(state(&bench) == before, "P5: as if it had never begun");
        }
        // Finished or begun again: as if it had never been interrupted.
        try_restore(&bench, id, &Silent).unwrap();
        let restored = state(&bench);
        bench.restore(id);
        assert!(state(&bench) == restored, "P5");
    }
    unfinished
}

#[test]
fn p5_an_interrupted_restore_is_finished() {
    let forward = interrupted_everywhere("c", Way::Forward);
    let back = interrupted_everywhere("b", Way::Forward);
    // Going back cuts the file, and asks nobody meanwhile: tests/attacks stops it all the same.
    assert!(forward > 1, "{forward} {back}");
}

#[test]
fn p5_an_interrupted_restore_is_taken_back() {
    let forward = interrupted_everywhere("c", Way::Back);
    let back = interrupted_everywhere("b", Way::Back);
    // Going back cuts the file, and asks nobody meanwhile: tests/attacks stops it all the same.
    assert!(forward > 1, "{forward} {back}");
}

/// Leaves a restore of `c` forward from `a` unfinished.
fn half_restored(bench: &Bench) {
    bench.restore("a");
    for place in 1.. {
        try_restore(bench, "c", &StopAt(AtomicI64::new(place))).unwrap_err();
        if bench.read().unfinished_restore().unwrap().is_some() {
            return;
        }
    }
}

#[test]
fn p5_what_was_changed_since_is_noticed_and_left_alone() {
    let bench = bench();
    bench.restore("a");
    let at_a = state(&bench);
    bench.restore("c");
    let at_c = state(&bench);
    half_restored(&bench);
    let left = bench.bytes();
    // A byte in what stays, cut off too far, another file.
    let mut changed = left.clone();
    changed[at_a.0.len() - 9] ^= 1;
    let mut cut = left.clone();
    cut.truncate(at_a.0.len() - 1);
    for bytes in [changed, cut, b"FS30".to_vec()] {
        fs::write(bench.data_fs(), &bytes).unwrap();
        for way in [Way::Forward, Way::Back] {
            let error = to_finish(&bench, way).unwrap_err();
            assert!(error.to_string().contains("not as the unfinished restore left it"), "{error}");
            assert!(bench.bytes() == bytes);
        }
    }
    fs::write(bench.data_fs(), &left).unwrap();
    assert!(to_finish(&bench, Way::Back).unwrap().is_some_and(|finished| !finished.restored));
    assert!(state(&bench) == at_a);
    half_restored(&bench);
    assert!(to_finish(&bench, Way::Forward).unwrap().is_some_and(|finished| finished.restored));
    assert!(state(&bench) == at_c);
    // It is the last restore now, and can be taken back.
    undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    assert!(state(&bench) == at_a);
}

#[test]
fn p5_undo_takes_a_restore_back_and_twice_is_redo() {
    let bench = bench();
    let (before, index) = state(&bench);
    let index = index.unwrap();
    assert_eq!(undo_dry_run(&bench.read(), &Silent).unwrap_err().kind(), Kind::NotFound, "there was no restore");
    let report = restore(&mut bench.write(), "a", &RestoreOptions::default(), &Silent).unwrap();
    let kept = report.kept.expect("no snapshot held the last two transactions");
    assert!(kept.starts_with("undo-"), "{kept}");
    let at_a = state(&bench);
    let infos = list(&bench.read()).unwrap();
    let info = infos.iter().find(|info| info.id == kept).unwrap();
    assert_eq!((info.kind.as_str(), info.message.as_str()), ("undo", "before the restore of a"));
    assert_eq!(bench.read().resolve("latest").unwrap().name, "c", "latest is the user's");

    assert_eq!(undo_dry_run(&bench.read(), &Silent).unwrap().id, kept);
    let report = undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    assert_eq!((report.plan.id, report.kept), (kept.clone(), None), "a held all that was there");
    assert!(state(&bench) == (before, Some(index)), "P5");
    undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    assert!(state(&bench) == at_a, "twice is redo");

    // What came after a restore is kept, too.
    bench.grow(99, 10_000);
    let grown = bench.bytes();
    let report = undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    assert!(report.kept.is_some());
    undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    assert!(bench.bytes() == grown);

    // gc keeps it, delete takes it, and then undo says so.
    bench.gc(true);
    undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    bench.delete(&kept);
    let error = undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap_err();
    assert!(error.to_string().contains("was deleted"), "{error}");
    assert!(bench.bytes() == grown);

    bench.grow(101, 10_000);
    let discard = RestoreOptions { discard: true, ..RestoreOptions::default() };
    let report = restore(&mut bench.write(), "b", &discard, &Silent).unwrap();
    assert_eq!((report.kept, report.undoable), (None, false));
    let error = undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap_err();
    assert!(error.to_string().contains("told to drop"), "{error}");
}

#[test]
fn p5_a_discarding_restore_that_is_taken_back_ends_at_what_is_held() {
    let bench = bench();
    bench.restore("a");
    let at_a = state(&bench);
    bench.grow(5, 300_000);
    let discard = RestoreOptions { discard: true, ..RestoreOptions::default() };
    for place in 1.. {
        let stopped = restore(&mut bench.write(), "c", &discard, &StopAt(AtomicI64::new(place)));
        assert!(stopped.is_err());
        if bench.read().unfinished_restore().unwrap().is_some() {
            break;
        }
    }
    assert!(to_finish(&bench, Way::Back).unwrap().is_some());
    assert!(state(&bench) == at_a);
}

#[test]
fn an_id_that_restore_gives_is_not_the_users() {
    let bench = bench();
    let options = SaveOptions::new(Some("undo-1".into()), "", jiff::tz::TimeZone::UTC);
    let error = save(&mut bench.write(), &options, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    writer.transaction().data(Oid(1), vec![1; 10]).commit().unwrap();
}

/// With the index there and without: ZODB says no, and leaves everything as it is.
#[test]
fn p5_real_zodb_opens_nothing_that_is_half_restored() {
    let bench = bench();
    half_restored(&bench);
    let path = bench.data_fs();
    let left = bench.bytes();
    for with_index in [false, true] {
        if with_index {
            // As if it had been killed between the fence and the removal of the index.
            fs::write(index_path(&path), b"whatever").unwrap();
        }
        for mode in [&[][..], &["--read-only"]] {
            let arguments = [&["open", path.to_str().unwrap()], mode].concat();
            let opened = common::zodb(&arguments);
            assert_eq!(
                (&opened["ok"], &opened["error"]),
                (&false.into(), &"FileStorageFormatError".into()),
                "{opened}"
            );
            assert!(bench.bytes() == left, "it was changed");
        }
    }
    assert!(to_finish(&bench, Way::Forward).unwrap().is_some());
    let opened = common::zodb(&["open", path.to_str().unwrap()]);
    assert_eq!(opened["ok"], true, "{opened}");
}
