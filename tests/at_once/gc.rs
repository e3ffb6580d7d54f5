//! A gc that is stopped in the middle, and what others do then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use znap::disk::{Change, Disk, Watcher};
use znap::monitor::Silent;
use znap::snapshot::{GcOptions, Repository, gc};

use crate::common::{Bench, Sandbox, output, spawn};
use crate::{assert_whole, elsewhere};

/// kopia#1949, duplicacy#323: a laptop sleeps in the middle of a collection, and a save comes in between.
#[test]
fn p10_a_gc_that_is_stopped_in_the_middle_and_goes_on() {
    let made = Sandbox::with_database(5, 30, "large");
    made.znap_ok(&["init", "Data.fs"]);
    let mut expected = Vec::new();
    for seed in 0..6 {
        made.grow(seed, 10, "large");
        made.znap_ok(&["save", &format!("s{seed}")]);
        expected.push(fs::read(made.data_fs()).unwrap());
    }
    for seed in [1, 3] {
        made.znap_ok(&["delete", &format!("s{seed}")]);
    }
    let names = |sandbox: &Sandbox| -> Vec<_> {
        let files = fs::read_dir(sandbox.file(".znap/objects")).unwrap();
        files.map(|file| file.unwrap().file_name()).collect()
    };
    let before = names(&made);
    for _ in 0..20 {
        let sandbox = made.copy();
        let mut gc = spawn(sandbox.znap_command().args(["gc", "--all", "-q"]).stdin(Stdio::null()));
        let signal = |name: &str| {
            let sent = Command::new("kill").args([name, &gc.id().to_string()]).status().unwrap();
            assert!(sent.success());
        };
        // It writes new files.
        let limit = Instant::now() + Duration::from_secs(60);
        while names(&sandbox).iter().all(|name| before.contains(name)) && Instant::now() < limit {
            std::thread::sleep(Duration::from_micros(200));
        }
        signal("-STOP");
        // Where it holds what keeps readers away, which it does for moments, or is over, it is stopped elsewhere.
        let gate = File::open(sandbox.file(".znap/gate")).unwrap();
        let lock = File::open(sandbox.file(".znap/lock")).unwrap();
        let catalog = rusqlite::Connection::open(sandbox.file(".znap/catalog.db")).unwrap();
        let commits = catalog.query_row("SELECT count(*) FROM snapshot", [], |_| Ok(())).is_err();
        let is_in_the_middle = gate.try_lock_shared().is_ok() && lock.try_lock_shared().is_err() && !commits;
        drop((gate, lock, catalog));
        if !is_in_the_middle {
            signal("-CONT");
            assert!(gc.wait().unwrap().success());
            continue;
        }
        sandbox.znap_ok(&["list"]);
        elsewhere(&sandbox, "s2", |copy| assert!(*copy == expected[2], "P6"));
        assert_whole(&sandbox);
        assert_eq!(sandbox.znap(&["save", "meanwhile"]).code, 4);
        signal("-CONT");
        assert!(gc.wait().unwrap().success());
        for seed in [0, 2, 4, 5] {
            sandbox.znap_ok(&["restore", &format!("s{seed}")]);
            assert!(fs::read(sandbox.data_fs()).unwrap() == expected[seed], "P6: s{seed}");
        }
        assert_whole(&sandbox);
        sandbox.check();
        return;
    }
    panic!("gc was never stopped in the middle");
}

/// Waits before one of the changes, until it is told to go on.
struct Pause {
    at: Mutex<Option<usize>>,
    reached: Sender<()>,
    go_on: Mutex<Receiver<()>>,
}

impl Watcher for Pause {
    fn before(&self, _: &Change<'_>) -> std::io::Result<usize> {
        let mut at = self.at.lock().unwrap();
        let is_here = *at == Some(0);
        *at = at.and_then(|at| at.checked_sub(1));
        drop(at);
        if is_here {
            self.reached.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        Ok(usize::MAX)
    }
}

/// What changes a gc makes, in words.
#[derive(Default)]
struct Record(Mutex<Vec<&'static str>>);

impl Watcher for Record {
    fn before(&self, change: &Change<'_>) -> std::io::Result<usize> {
        self.0.lock().unwrap().push(match change {
            Change::Remove { .. } => "remove",
            Change::Commit { .. } => "commit",
            Change::Rename { .. } => "rename",
            _ => "other",
        });
        Ok(usize::MAX)
    }
}

/// Where others use the repository while gc waits: before its first, middle and last removal, commit and new name.
fn places(changes: &[&str]) -> Vec<usize> {
    let mut places = Vec::new();
    for kind in ["remove", "commit", "rename"] {
        let all: Vec<usize> = (0..changes.len()).filter(|at| changes[*at] == kind).collect();
        assert!(all.len() >= 3, "{kind}: {changes:?}");
        places.extend([all[0], all[all.len() / 2], all[all.len() - 1]]);
    }
    places
}

#[test]
fn p10_others_come_in_wherever_a_gc_is() {
    let make = || {
        let bench = Bench::new();
        let mut expected = BTreeMap::new();
        for number in 0..8 {
            bench.grow(number, 150_000);
            bench.save(&format!("s{number}"));
            expected.insert(format!("s{number}"), bench.bytes());
        }
        for number in [1, 3, 4] {
            bench.delete(&format!("s{number}"));
            expected.remove(&format!("s{number}"));
        }
        // What no snapshot has yet.
        bench.grow(9, 50_000);
        (bench, expected)
    };
    let collect = |bench: &Bench, watcher: Arc<dyn Watcher>| {
        let mut repository = Repository::open_to_write_on(&Disk::watched(watcher), &bench.place, &Silent).unwrap();
        gc(&mut repository, GcOptions { all: true }, &Silent).unwrap();
    };
    let record = Arc::new(Record::default());
    collect(&make().0, record.clone());
    let places = places(&record.0.lock().unwrap());
    let mut kept_away = 0;
    for place in places {
        let (bench, mut expected) = make();
        let folder = bench.folder.path();
        let znap = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_znap"));
            command.args(args).current_dir(folder).env_remove("ZNAP_DIR").env("TZ", "UTC").stdin(Stdio::null());
            command
        };
        let copied = |id: &str, to: &str| fs::read(folder.join(to).join("data/Data.fs")).unwrap() == expected[id];
        let (reached, is_reached) = channel();
        let (go_on, gone_on) = channel();
        let pause = Pause { at: Mutex::new(Some(place)), reached, go_on: Mutex::new(gone_on) };
        let saved = std::thread::scope(|scope| {
            let gc = scope.spawn(|| collect(&bench, Arc::new(pause)));
            is_reached.recv().unwrap();
            assert_eq!(output(&mut znap(&["list"])).code, 0);
            let is_open = File::open(bench.place.root.join("gate")).unwrap().try_lock_shared().is_ok();
            if is_open {
                assert_eq!(output(&mut znap(&["restore", "s2", "--to", "one"])).code, 0, "change {place}");
                assert!(copied("s2", "one"), "P6: change {place}");
                let check = output(&mut znap(&["check", "--data"]));
                assert_eq!(check.code, 0, "change {place}: {check:?}");
            }
            kept_away += usize::from(!is_open);
            // These wait for it.
            let mut reader = spawn(&mut znap(&["restore", "s5", "--to", "two", "-q"]));
            let mut saver = spawn(znap(&["save", "meanwhile"]).stdout(Stdio::null()).stderr(Stdio::piped()));
            let mut stderr = saver.stderr.take().unwrap();
            let mut words = [0; 13];
            stderr.read_exact(&mut words).unwrap();
            assert_eq!(&words, b"znap: waiting", "change {place}: it is at it");
            go_on.send(()).unwrap();
            gc.join().unwrap();
            let mut rest = String::new();
            stderr.read_to_string(&mut rest).unwrap();
            let codes = [reader.wait().unwrap().code(), saver.wait().unwrap().code()];
            assert_eq!(codes[0], Some(0), "change {place}");
            assert!(copied("s5", "two"), "P6: change {place}");
            // Unless gc took longer than it waits.
            assert!(matches!(codes[1], Some(0 | 4)), "change {place}: {rest}");
            codes[1] == Some(0)
        });
        if saved {
            expected.insert("meanwhile".into(), bench.bytes());
        }
        let check = output(&mut znap(&["check", "--data", "--databases"]));
        assert_eq!(check.code, 0, "change {place}: {check:?}");
        bench.gc(false);
        for (id, bytes) in &expected {
            bench.restore(id);
            assert!(bench.bytes() == *bytes, "P6: change {place}: {id}");
        }
    }
    assert!(kept_away > 0, "it removes files only when nobody is about to open them");
}
