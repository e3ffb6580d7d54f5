//! What others may do while a restore runs, or is unfinished; and what is left when its journal is damaged, or lost.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Bench, Kill, Sandbox, undisturbed};
use znap::disk::{Change, Disk, Watcher};
use znap::error::{Error, Kind, Result};
use znap::filestorage::fence::{FENCE, notice_path};
use znap::filestorage::{DataFile, Oid, StorageLock, Tid, Writer, index_path};
use znap::monitor::{Monitor, Silent};
use znap::repository::hash::Hash;
use znap::snapshot::{Finished, Repository, RestoreOptions, Way, copy_out, finish, restore};

/// Does something before a change, once; and from another one on, fails them all, as a kill would.
struct Story {
    event: Mutex<Option<Event>>,
    dead_from: fn(&Change<'_>) -> bool,
    dead: Mutex<bool>,
}

type Event = (fn(&Change<'_>) -> bool, Box<dyn FnOnce() + Send>);

impl Story {
    fn killed(dead_from: fn(&Change<'_>) -> bool) -> Disk {
        Disk::watched(Arc::new(Story { event: Mutex::new(None), dead_from, dead: Mutex::new(false) }))
    }

    fn meanwhile(when: fn(&Change<'_>) -> bool, what: impl FnOnce() + Send + 'static) -> Disk {
        let event = Mutex::new(Some((when, Box::new(what) as Box<dyn FnOnce() + Send>)));
        Disk::watched(Arc::new(Story { event, dead_from: |_| false, dead: Mutex::new(false) }))
    }
}

impl Watcher for Story {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        let event = self.event.lock().unwrap().take_if(|(when, _)| when(change));
        if let Some((_, what)) = event {
            what();
        }
        let mut dead = self.dead.lock().unwrap();
        *dead |= (self.dead_from)(change);
        if *dead { Err(io::Error::other("killed")) } else { Ok(usize::MAX) }
    }
}

fn is_at(path: &Path, end: &str) -> bool {
    path.to_str().unwrap().ends_with(end)
}

fn cuts_the_database(change: &Change<'_>) -> bool {
    matches!(change, Change::SetLength { path, .. } if is_at(path, "Data.fs"))
}

fn restore_on(disk: &Disk, bench: &Bench, id: &str) -> Result<()> {
    let mut repository = Repository::open_to_write_on(disk, &bench.place, &Silent)?;
    undisturbed(|| restore(&mut repository, id, &RestoreOptions::default(), &Silent)).map(|_| ())
}

fn to_finish(bench: &Bench, way: Way) -> Result<Option<Finished>> {
    undisturbed(|| finish(&mut Repository::open_to_finish(&bench.place, &Silent).unwrap(), way, &Silent))
}

/// A commit at a later time than any other.
fn commit(path: &Path) {
    let mut writer = Writer::open(path).unwrap();
    let tid = Tid(writer.end().tid.0 + (1 << 40));
    writer.transaction().tid(tid).data(Oid(3), vec![7; 3000]).commit().unwrap();
}

/// Snapshots `a` and `b`, of which the file is at `b`, with its index.
fn two() -> Bench {
    let bench = Bench::new();
    bench.grow(1, 200_000);
    bench.save("a");
    bench.grow(3, 200_000);
    bench.save("b");
    Writer::open(bench.data_fs()).unwrap().save_index().unwrap();
    bench
}

fn state(bench: &Bench) -> (Vec<u8>, Option<Vec<u8>>) {
    (bench.bytes(), fs::read(index_path(&bench.data_fs())).ok())
}

/// Snapshots `a` and `b` of a database that had two megabytes when it was put under znap's care.
fn with_base() -> Bench {
    let bench = Bench::with_base();
    bench.grow(31, 200_000);
    bench.save("a");
    bench.grow(33, 200_000);
    bench.save("b");
    bench
}

/// Where neither --resume nor --abort can go on, this is what is left.
#[test]
fn p5_p6_what_is_half_restored_can_be_written_elsewhere() {
    let bench = with_base();
    let b = bench.bytes();
    restore_on(&Story::killed(cuts_the_database), &bench, "a").unwrap_err();
    assert_eq!(bench.bytes()[..4], FENCE);
    let to = tempfile::tempdir().unwrap();
    copy_out(&bench.read(), "b", &to.path().join("copy"), &Silent).unwrap();
    assert!(fs::read(to.path().join("copy/data/Data.fs")).unwrap() == b);
    assert!(to_finish(&bench, Way::Back).unwrap().is_some());
    assert!(bench.bytes() == b);
}

/// A restore begins while the same database is written elsewhere: its fence must not come along.
#[test]
fn p6_a_copy_never_begins_with_a_fence() {
    let bench = with_base();
    let b = bench.bytes();
    let path = bench.data_fs();
    let disk = Story::meanwhile(
        |change| matches!(change, Change::Create { path } if is_at(path, "Data.fs.znap-new")),
        move || {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &FENCE, 0).unwrap();
        },
    );
    let to = tempfile::tempdir().unwrap();
    let repository = Repository::open_to_write_on(&disk, &bench.place, &Silent).unwrap();
    copy_out(&repository, "b", &to.path().join("copy"), &Silent).unwrap();
    assert_eq!(bench.bytes()[..4], FENCE);
    assert!(fs::read(to.path().join("copy/data/Data.fs")).unwrap() == b);
}

#[test]
fn p5_who_only_reads_is_not_kept_from_it_by_a_damaged_journal() {
    let sandbox = Sandbox::with_database(3, 20, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    let journal = sandbox.file(".znap/restore-journal");
    for garbage in [&b""[..], b"{}\n", b"\xff\xfe", b"{}\n0123\n"] {
        fs::write(&journal, garbage).unwrap();
        for args in [&["list"][..], &["show", "a"], &["status"]] {
            let output = sandbox.znap(args);
            assert_eq!(output.code, 0, "{args:?}: {output:?}");
            assert!(output.stderr.contains("restore-journal"), "{output:?}");
        }
        for args in [&["save"][..], &["restore", "a"], &["restore", "--resume"], &["gc"]] {
            let output = sandbox.znap(args);
            assert_eq!(output.code, 3, "{args:?}: {output:?}");
            assert!(output.stderr.contains("reliability.md"), "{output:?}");
        }
        sandbox.znap_ok(&["restore", "a", "--to", "copy"]);
        fs::remove_dir_all(sandbox.file("copy")).unwrap();
    }
    fs::remove_file(&journal).unwrap();
    sandbox.znap_ok(&["save", "b"]);
}

/// A file with other names is not fenced before a new one has its name: so it may be in use again before the restore is finished.
#[test]
fn p5_what_was_used_before_it_was_touched_is_left_alone() {
    let bench = two();
    fs::hard_link(bench.data_fs(), bench.folder.path().join("other")).unwrap();
    let rename = |change: &Change<'_>| matches!(change, Change::Rename { to, .. } if is_at(to, "Data.fs"));
    restore_on(&Story::killed(rename), &bench, "a").unwrap_err();
    assert_eq!(bench.read().unfinished_restore().unwrap().as_deref(), Some("a"));
    commit(&bench.data_fs());
    let used = bench.bytes();
    let error = to_finish(&bench, Way::Forward).unwrap_err();
    assert!(error.to_string().contains("not as the unfinished restore left it"), "{error}");
    assert!(bench.bytes() == used, "P5: the commit is there");
    let finished = to_finish(&bench, Way::Back).unwrap().unwrap();
    assert_eq!((finished.restored, finished.left_alone), (false, vec!["data".to_string()]));
    assert!(bench.bytes() == used);
    bench.save("c");
    bench.restore("a");
    bench.restore("c");
    assert!(bench.bytes() == used);
}

/// Killed at each change, and taken back: a file with other names has its index again, too.
#[test]
fn p4_p5_what_is_taken_back_has_its_index() {
    for linked in [true, false] {
        let reference = two();
        restore_on(&Disk::default(), &reference, "a").unwrap();
        let after = state(&reference);
        for change in 0.. {
            let bench = two();
            if linked {
                fs::hard_link(bench.data_fs(), bench.folder.path().join("other")).unwrap();
            }
            let before = state(&bench);
            if restore_on(&Disk::watched(Kill::at(change)), &bench, "a").is_ok() {
                assert!(change > 10);
                break;
            }
            match to_finish(&bench, Way::Back) {
                Ok(Some(_)) => assert!(state(&bench) == before, "change {change}, linked {linked}"),
                // Not begun, or done.
                Ok(None) => assert!([&before, &after].contains(&&state(&bench)), "change {change}, linked {linked}"),
                Err(error) => assert!(error.to_string().contains("too late"), "{error}"),
            }
        }
    }
}

/// The power came back, the server was started at boot; only the journal is still to be ended.
#[test]
fn a_restore_that_is_done_is_ended_also_while_the_server_runs() {
    let bench = two();
    let end = |change: &Change<'_>| matches!(change, Change::Rename { to, .. } if is_at(to, "last-restore"));
    restore_on(&Story::killed(end), &bench, "a").unwrap_err();
    assert_eq!(bench.read().unfinished_restore().unwrap().as_deref(), Some("a"));
    // What a power cut may bring back.
    fs::write(notice_path(&bench.data_fs()), "text").unwrap();
    let lock = StorageLock::acquire(&bench.data_fs()).unwrap();
    let _server = File::open(bench.data_fs()).unwrap();
    let finished = to_finish(&bench, Way::Forward).unwrap().unwrap();
    assert!(finished.restored && !notice_path(&bench.data_fs()).exists());
    fs::write(notice_path(&bench.data_fs()), "text").unwrap();
    assert!(to_finish(&bench, Way::Forward).unwrap().is_none(), "nothing to do");
    drop(lock);
    assert!(to_finish(&bench, Way::Back).unwrap().is_none() && !notice_path(&bench.data_fs()).exists());
}

/// That a fence isn't there any more in memory doesn't mean that it isn't on the disk: the sync that should have seen to it failed.
#[test]
fn p5_taking_a_fence_down_is_done_again_if_it_is_not_known_to_be_durable() {
    let bench = two();
    let unfence =
        |change: &Change<'_>| matches!(change, Change::Remove { path } if is_at(path, "RESTORE-UNFINISHED.txt"));
    restore_on(&Story::killed(unfence), &bench, "a").unwrap_err();
    assert_eq!(bench.bytes()[..4], *b"FS30");
    let written = Arc::new(Mutex::new(Vec::new()));
    struct Record(Arc<Mutex<Vec<String>>>);
    impl Watcher for Record {
        fn before(&self, change: &Change<'_>) -> io::Result<usize> {
            self.0.lock().unwrap().push(match change {
                Change::Write { path, offset: 0, bytes: b"FS30" } if is_at(path, "Data.fs") => "unfence".into(),
                Change::Sync { path } if is_at(path, "Data.fs") => "sync".into(),
                Change::SyncDirectory { path } if is_at(path, ".znap") => "sync .znap".into(),
                Change::Rename { to, .. } if is_at(to, "last-restore") => "end".into(),
                _ => return Ok(usize::MAX),
            });
            Ok(usize::MAX)
        }
    }
    let disk = Disk::watched(Arc::new(Record(Arc::clone(&written))));
    let mut repository = Repository::open_to_finish_on(&disk, &bench.place, &Silent).unwrap();
    assert!(undisturbed(|| finish(&mut repository, Way::Forward, &Silent)).unwrap().unwrap().restored);
    assert_eq!(*written.lock().unwrap(), ["sync .znap", "unfence", "sync", "end", "sync .znap"]);
}

#[test]
fn p5_a_fence_without_a_journal_is_not_called_nothing_to_do() {
    let bench = two();
    restore_on(&Story::killed(cuts_the_database), &bench, "a").unwrap_err();
    let journal = bench.place.root.join("restore-journal");
    let kept = fs::read(&journal).unwrap();
    fs::remove_file(&journal).unwrap();
    for way in [Way::Forward, Way::Back] {
        let error = to_finish(&bench, way).unwrap_err();
        assert!(error.to_string().contains("knows of no unfinished restore"), "{error}");
        assert!(error.hint_text().unwrap().contains("--to DIR"), "{error:?}");
    }
    // With numbers that no restore has written.
    let text = String::from_utf8(kept.clone()).unwrap();
    let (json, _) = text.split_once('\n').unwrap();
    let document: serde_json::Value = serde_json::from_str(json).unwrap();
    for keep in [0, 3, 1_000_000_000_u64] {
        let mut changed = document.clone();
        changed["databases"][0]["keep"] = keep.into();
        let json = changed.to_string();
        fs::write(&journal, format!("{json}\n{}\n", Hash::of(json.as_bytes()))).unwrap();
        let left = bench.bytes();
        for way in [Way::Forward, Way::Back] {
            assert_eq!(to_finish(&bench, way).unwrap_err().kind(), Kind::Damaged, "{keep}");
            assert!(bench.bytes() == left);
        }
    }
    fs::write(&journal, kept).unwrap();
    assert!(to_finish(&bench, Way::Back).unwrap().is_some());
}

/// Does something when checking begins.
struct Meanwhile(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Monitor for Meanwhile {
    fn begin(&self, phase: &str, _bytes: u64) {
        if phase.starts_with("checking")
            && let Some(what) = self.0.lock().unwrap().take()
        {
            what();
        }
    }
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn notice(&self, _text: &str) {}
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Hours may pass between the plan and the first change: whoever puts another file there, or links it, takes no lock.
#[test]
fn p5_a_file_that_is_replaced_or_linked_meanwhile_is_not_touched() {
    let changes: [fn(&Path); 3] = [
        |path| {
            fs::rename(path, path.with_file_name("kept")).unwrap();
            fs::copy(path.with_file_name("kept"), path).unwrap();
        },
        |path| fs::hard_link(path, path.with_file_name("backup")).unwrap(),
        commit,
    ];
    for change in changes {
        let bench = two();
        let path = bench.data_fs();
        let monitor = Meanwhile(Mutex::new(Some(Box::new(move || change(&path)))));
        let mut repository = bench.write();
        let restored = undisturbed(|| restore(&mut repository, "a", &RestoreOptions::default(), &monitor));
        let error = restored.unwrap_err();
        assert!(error.to_string().contains("changed or replaced meanwhile"), "{error}");
        assert_eq!(bench.read().unfinished_restore().unwrap(), None);
        for entry in fs::read_dir(bench.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if ["Data.fs", "kept", "backup"].contains(&path.file_name().unwrap().to_str().unwrap()) {
                assert!(fs::metadata(&path).unwrap().len() > 400_000, "{}: cut", path.display());
                DataFile::open(&path).unwrap();
            }
        }
    }
}

/// Somebody who only reads, and so takes no lock, opens it at the last moment.
#[test]
fn p7_a_reader_that_comes_at_the_last_moment_keeps_the_database_from_being_changed() {
    let bench = two();
    let before = state(&bench);
    let reader: Arc<Mutex<Option<Child>>> = Arc::default();
    let (path, started) = (bench.data_fs(), Arc::clone(&reader));
    let disk = Story::meanwhile(
        |change| matches!(change, Change::Create { path } if is_at(path, "RESTORE-UNFINISHED.txt")),
        move || {
            let file = File::open(path).unwrap();
            // Nobody else starts anything meanwhile.
            let child = Command::new("sleep").arg("600").stdin(Stdio::from(file)).spawn().unwrap();
            *started.lock().unwrap() = Some(child);
        },
    );
    let error = restore_on(&disk, &bench, "a").unwrap_err();
    let mut reader = reader.lock().unwrap().take().unwrap();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(!error.to_string().contains("unfinished"), "{error}");
    assert!(state(&bench) == before && !notice_path(&bench.data_fs()).exists());
    assert_eq!(bench.read().unfinished_restore().unwrap(), None);
    reader.kill().unwrap();
    reader.wait().unwrap();
    restore_on(&Disk::default(), &bench, "a").unwrap();
}

/// What was told to be dropped doesn't come back, and nobody is told that it did.
#[test]
fn p5_taking_back_a_restore_that_dropped_something_says_so() {
    let bench = two();
    bench.grow(5, 5000);
    let disk = Story::killed(cuts_the_database);
    let mut repository = Repository::open_to_write_on(&disk, &bench.place, &Silent).unwrap();
    let options = RestoreOptions { discard: true, ..RestoreOptions::default() };
    let error: Error = undisturbed(|| restore(&mut repository, "a", &options, &Silent)).unwrap_err();
    assert!(error.to_string().contains("unfinished"), "{error}");
    drop(repository);
    let finished = to_finish(&bench, Way::Back).unwrap().unwrap();
    assert!(finished.dropped && !finished.restored);
}

/// All databases come back together or not at all, one of them with other names: killed at each change, and finished either way.
#[test]
fn p5_several_databases_come_back_together_or_not_at_all() {
    let make = || {
        let names = ["Data.fs", "catalog.fs"];
        let bench = Bench::over(&names, |_| ());
        for id in ["a", "b"] {
            for name in names {
                commit(&bench.folder.path().join(name));
            }
            bench.save(id);
        }
        fs::hard_link(bench.folder.path().join("catalog.fs"), bench.folder.path().join("other")).unwrap();
        bench
    };
    let both = |bench: &Bench| ["Data.fs", "catalog.fs"].map(|name| fs::read(bench.folder.path().join(name)).unwrap());
    let (mut forward, mut back) = (0, 0);
    for change in 0.. {
        let bench = make();
        let before = both(&bench);
        if restore_on(&Disk::watched(Kill::at(change)), &bench, "a").is_ok() {
            break;
        }
        let way = if change % 2 == 0 { Way::Forward } else { Way::Back };
        let finished = to_finish(&bench, way);
        let now = both(&bench);
        let reference = make();
        restore_on(&Disk::default(), &reference, "a").unwrap();
        let after = both(&reference);
        match finished {
            Ok(Some(finished)) if finished.restored => {
                assert!(now == after, "P5: change {change}");
                forward += 1;
            }
            Ok(Some(_)) => {
                assert!(now == before, "P5: change {change}");
                back += 1;
            }
            Ok(None) => assert!(now == before || now == after, "P5: change {change}"),
            Err(error) => {
                assert!(error.to_string().contains("too late"), "{error}");
                to_finish(&bench, Way::Forward).unwrap();
                assert!(both(&bench) == after, "P5: change {change}");
            }
        }
    }
    assert!(forward > 5 && back > 5, "{forward} {back}");
}
