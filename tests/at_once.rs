//! Many at once: saves, lists, checks, deletions, collections, copies and restores, while ZODB commits and packs; a gc that is stopped in
//! the middle and goes on; a series of repozo. In the end every snapshot is exactly what some moment of the database was, and
//! nothing is damaged. (P3, P5, P6, P7, P10)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::Scope;
use std::time::{Duration, Instant};

use common::{Bench, Output, Sandbox, ZodbProcess, assert_same_bytes, assert_same_file, output, python, spawn};
use znap::disk::{Change, Disk, Watcher};
use znap::monitor::Silent;
use znap::snapshot::{GcOptions, Repository, gc};

/// Seconds; ZNAP_AT_ONCE has it go on longer.
fn seconds() -> u64 {
    std::env::var("ZNAP_AT_ONCE").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

fn list(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let list: serde_json::Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    list.as_array().unwrap().clone()
}

fn ids(sandbox: &Sandbox) -> Vec<String> {
    list(sandbox).iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

/// Refused because somebody else is at it, or what was named is gone: nothing else may go wrong.
fn fine(output: &Output, args: &[&str]) {
    assert!(matches!(output.code, 0 | 4 | 5), "{args:?} beside others: {output:?}");
}

/// Nothing is damaged, and every list, hash and byte was looked at.
fn assert_whole(sandbox: &Sandbox) {
    let output = sandbox.znap(&["check", "--data", "--databases"]);
    assert_eq!(output.code, 0, "P6: {output:?}");
}

/// Writes a snapshot elsewhere, and gives it to `look`.
fn elsewhere(sandbox: &Sandbox, id: &str, look: impl FnOnce(&[u8])) {
    sandbox.znap_ok(&["restore", id, "--to", "elsewhere"]);
    look(&fs::read(sandbox.file("elsewhere/data/Data.fs")).unwrap());
    fs::remove_dir_all(sandbox.file("elsewhere")).unwrap();
}

/// Several threads that each do something again and again, for some seconds.
struct Crowd {
    end: Instant,
    done: AtomicUsize,
}

impl Crowd {
    fn new(seconds: u64) -> Self {
        Crowd { end: Instant::now() + Duration::from_secs(seconds), done: AtomicUsize::new(0) }
    }

    fn add<'s>(&'s self, scope: &'s Scope<'s, '_>, act: impl Fn(usize) + Send + 's) {
        scope.spawn(move || {
            for number in 0.. {
                if Instant::now() > self.end {
                    break;
                }
                act(number);
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

#[test]
fn p3_p6_p10_anything_at_once_beside_a_live_writer() {
    let sandbox = &Sandbox::with_database(3, 20, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "first"]);
    sandbox.grow(4, 3, "mixed");
    // There is something for undo to take back.
    sandbox.znap_ok(&["restore", "first"]);
    let writer = ZodbProcess::writer(&sandbox.data_fs(), &["--mode", "mixed"]);
    let (saved, crowd) = (&AtomicUsize::new(0), Crowd::new(seconds()));
    std::thread::scope(|scope| {
        for saver in 0..2 {
            crowd.add(scope, move |number| {
                let id = format!("s{saver}-{number}");
                let output = sandbox.znap(&["save", &id]);
                fine(&output, &["save"]);
                saved.fetch_add(usize::from(output.code == 0), Ordering::Relaxed);
            });
        }
        crowd.add(scope, |number| {
            let readers: [&[&str]; 6] = [
                &["list"],
                &["status"],
                &["show", "latest"],
                &["log", "-n", "3"],
                &["restore", "first", "--dry-run"],
                &["undo", "--dry-run"],
            ];
            let args = readers[number % readers.len()];
            fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let args: &[&str] = [&["check"][..], &["check", "--data", "--databases"]][number % 2];
            // No false alarm: whatever is half-done isn't damage.
            fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let all = ids(sandbox);
            // Neither the first, nor what undo takes back.
            let mut others = all.iter().filter(|id| id.starts_with('s'));
            if all.len() > 6 {
                fine(&sandbox.znap(&["delete", others.nth(number % 5).unwrap()]), &["delete"]);
            }
            let args: &[&str] = if number % 3 == 0 { &["gc", "--all"] } else { &["gc"] };
            fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let all = ids(sandbox);
            let id = &all[number * 7 % all.len()];
            let to = format!("copy-{number}");
            fine(&sandbox.znap(&["restore", id, "--to", &to]), &["restore", "--to"]);
            let _ = fs::remove_dir_all(sandbox.file(&to));
            // The server runs: never.
            for args in [&["restore", "first"][..], &["undo"]] {
                assert_eq!(sandbox.znap(args).code, 4, "P7: {args:?}");
            }
        });
    });
    writer.stop();
    assert_whole(sandbox);
    let whole = fs::read(sandbox.data_fs()).unwrap();
    let all = ids(sandbox);
    println!(
        "{} commands, {} saves, {} snapshots left",
        crowd.done.into_inner(),
        saved.load(Ordering::Relaxed),
        all.len()
    );
    for id in all.iter().filter(|id| !id.starts_with("undo-")) {
        elsewhere(sandbox, id, |copy| assert!(whole.starts_with(copy), "P6: {id} was never there"));
    }
    sandbox.znap_ok(&["restore", "first"]);
    sandbox.check();
    sandbox.znap_ok(&["undo"]);
    assert!(fs::read(sandbox.data_fs()).unwrap() == whole, "P5");
    assert_whole(sandbox);
}

/// Nobody serves the database: it is restored, all the time.
#[test]
fn p5_p6_restores_beside_everything_else() {
    let sandbox = &Sandbox::with_database(5, 10, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let mut states = BTreeMap::new();
    for (seed, id, from) in [(1, "a", None), (2, "b", None), (3, "c", Some("a")), (4, "d", Some("b"))] {
        if let Some(from) = from {
            sandbox.znap_ok(&["restore", from]);
        }
        sandbox.grow(seed, 10, "mixed");
        sandbox.znap_ok(&["save", id]);
        states.insert(id, fs::read(sandbox.data_fs()).unwrap());
    }
    let names: Vec<&str> = states.keys().copied().collect();
    let (restored, crowd) = (&AtomicUsize::new(0), Crowd::new(seconds()));
    std::thread::scope(|scope| {
        let (names, states) = (&names, &states);
        for step in [1, 3] {
            crowd.add(scope, move |number| {
                let args: &[&str] = match number % 5 {
                    0 => &["undo"],
                    _ => &["restore", names[number * step % names.len()]],
                };
                let output = sandbox.znap(args);
                fine(&output, args);
                restored.fetch_add(usize::from(output.code == 0), Ordering::Relaxed);
            });
        }
        crowd.add(scope, |number| fine(&sandbox.znap(&["save", &format!("s{number}")]), &["save"]));
        crowd.add(scope, |number| {
            if let Some(id) = ids(sandbox).iter().filter(|id| id.starts_with('s')).nth(2) {
                fine(&sandbox.znap(&["delete", id]), &["delete"]);
            }
            let args: &[&str] = if number % 3 == 0 { &["gc", "--all"] } else { &["gc"] };
            fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let args: &[&str] = [&["check", "--data", "--databases"][..], &["list"], &["status"]][number % 3];
            fine(&sandbox.znap(args), args);
            let id = names[number % names.len()];
            elsewhere(sandbox, id, |copy| assert!(copy == states[id], "P6: {id}"));
        });
    });
    let restored = restored.load(Ordering::Relaxed);
    println!("{} commands, {restored} of them restores that were done", crowd.done.into_inner());
    assert!(restored > 0);
    assert!(states.values().any(|state| *state == fs::read(sandbox.data_fs()).unwrap()), "P6: it never was like this");
    assert_whole(sandbox);
    sandbox.check();
    for id in ids(sandbox) {
        elsewhere(sandbox, &id, |copy| assert!(states.values().any(|state| state == copy), "P6: {id}"));
    }
}

/// ZODB packs while it commits, in the middle of everything. What was saved before stays what it was, or is refused; nothing is called
/// damaged that isn't.
fn packed_meanwhile(transactions: u32) {
    let sandbox = &Sandbox::with_database(6, transactions, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "first"]);
    let complete = list(sandbox)[0]["complete"] == true;
    // Small files are kept whole: their snapshots need nothing but the repository.
    assert_eq!(complete, transactions < 10);
    let mut writer = ZodbProcess::writer(&sandbox.data_fs(), &["--mode", "commit", "--packed"]);
    let (saved, refused) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    let crowd = Crowd::new(seconds().div_ceil(2));
    // Done, or as `fine` has it; or refused because of the pack, in words.
    let fine_or_packed = |output: &Output, args: &[&str]| {
        let is_refused = output.code == 1 && output.stderr.contains(" was packed since znap first saw it");
        assert!(is_refused || matches!(output.code, 0 | 4 | 5), "{args:?} beside a pack: {output:?}");
        is_refused
    };
    std::thread::scope(|scope| {
        crowd.add(scope, |number| {
            let output = sandbox.znap(&["save", &format!("s{number}")]);
            let is_refused = fine_or_packed(&output, &["save"]);
            refused.fetch_add(usize::from(is_refused), Ordering::Relaxed);
            // A pack takes nothing back.
            assert!(output.code != 0 || refused.load(Ordering::Relaxed) == 0);
            saved.fetch_add(usize::from(output.code == 0), Ordering::Relaxed);
        });
        crowd.add(scope, |number| {
            let readers: [&[&str]; 3] = [&["list"], &["status"], &["show", "latest"]];
            sandbox.znap_ok(readers[number % readers.len()]);
            let all = ids(sandbox);
            if all.len() > 5 {
                fine(&sandbox.znap(&["delete", &all[2]]), &["delete"]);
            }
            fine(&sandbox.znap(&["gc", "--all"]), &["gc"]);
        });
        crowd.add(scope, |number| {
            let all = ids(sandbox);
            let id = &all[number * 7 % all.len()];
            let to = format!("copy-{number}");
            let copied = sandbox.znap(&["restore", id, "--to", &to]);
            let is_refused = fine_or_packed(&copied, &["restore", "--to"]);
            assert!(!is_refused || (!complete && copied.stderr.contains("needs the first")), "{copied:?}");
            let _ = fs::remove_dir_all(sandbox.file(&to));
            fine_or_packed(&sandbox.znap(&["restore", "first", "--dry-run"]), &["restore", "--dry-run"]);
        });
        crowd.add(scope, |_| {
            let output = sandbox.znap(&["check", "--data", "--databases", "--json"]);
            if output.code != 3 {
                return fine(&output, &["check"]);
            }
            // What needs the beginning of the file can't be had without it.
            let report: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
            let findings = report["findings"].as_array().unwrap();
            assert!(!complete && !findings.is_empty(), "{output:?}");
            for finding in findings {
                let what = finding["what"].as_str().unwrap();
                assert!(what.contains("was packed since") && what.contains("snapshots need its first"), "{output:?}");
            }
        });
        std::thread::sleep(Duration::from_secs(1));
        let limit = Instant::now() + Duration::from_secs(60);
        while saved.load(Ordering::Relaxed) == 0 && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(10));
        }
        writer.pack();
    });
    let report = writer.stop();
    assert_eq!(report["packed"], 1, "{report}");
    println!(
        "{} commands, {} saves before the pack, {} refused after it",
        crowd.done.into_inner(),
        saved.load(Ordering::Relaxed),
        refused.load(Ordering::Relaxed)
    );
    assert!(saved.load(Ordering::Relaxed) > 0);

    let packed = fs::read(sandbox.data_fs()).unwrap();
    let old = fs::read(sandbox.file("Data.fs.old")).unwrap();
    for args in [&["save", "after"][..], &["restore", "first"], &["restore", "first", "--discard"]] {
        let output = sandbox.znap(args);
        assert!(fine_or_packed(&output, args) && output.stderr.contains("Data.fs.old"), "{output:?}");
    }
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &packed, "P5: the packed file");
    let was_there = |id: &str| {
        elsewhere(sandbox, id, |copy| assert!(old.starts_with(copy), "P6: {id} was never there"));
    };
    let all = ids(sandbox);
    if complete {
        all.iter().for_each(|id| was_there(id));
        assert_whole(sandbox);
        return;
    }
    for id in &all {
        let output = sandbox.znap(&["restore", id, "--to", "copy"]);
        assert!(fine_or_packed(&output, &["restore", "--to"]), "{id}: {output:?}");
        assert!(!sandbox.file("copy").exists());
    }
    assert_eq!(sandbox.znap(&["check", "--data", "--databases"]).code, 3);
    // As it is said: with the file before the pack everything is as before.
    fs::rename(sandbox.file("Data.fs.old"), sandbox.data_fs()).unwrap();
    all.iter().for_each(|id| was_there(id));
    assert_whole(sandbox);
    sandbox.znap_ok(&["restore", "first"]);
    sandbox.check();
    sandbox.znap_ok(&["undo"]);
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &old, "P5: the file before the pack");
}

#[test]
fn p6_a_pack_beside_everything_else_where_the_beginning_is_stored() {
    packed_meanwhile(4);
}

#[test]
fn p6_a_pack_beside_everything_else_where_the_beginning_is_in_the_file() {
    packed_meanwhile(60);
}

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
        let is_in_the_middle = gate.try_lock_shared().is_ok() && lock.try_lock_shared().is_err();
        drop((gate, lock));
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

#[test]
fn p5_two_restores_at_once_are_one_after_the_other_or_one() {
    let sandbox = Sandbox::with_database(5, 10, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let mut states = Vec::new();
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        sandbox.grow(seed, 10, "mixed");
        sandbox.znap_ok(&["save", id]);
        states.push(fs::read(sandbox.data_fs()).unwrap());
    }
    for _ in 0..10 {
        let codes = std::thread::scope(|scope| {
            let threads = ["a", "b", "c"].map(|id| scope.spawn(|| sandbox.znap(&["restore", id, "-q"]).code));
            threads.map(|thread| thread.join().unwrap())
        });
        assert!(codes.iter().all(|code| matches!(code, 0 | 4)) && codes.contains(&0), "{codes:?}");
        let now = fs::read(sandbox.data_fs()).unwrap();
        assert!(states.contains(&now), "P6");
    }
    assert_whole(&sandbox);
    sandbox.check();
}

/// With -Q repozo looks at nothing but the last piece of its series: a restore puts other bytes there, and undo the same again.
#[test]
fn a_quick_series_of_repozo_beside_it_stays_valid() {
    let sandbox = Sandbox::with_database(3, 20, "small");
    fs::create_dir(sandbox.file("backups")).unwrap();
    let repozo = python().parent().unwrap().join("repozo");
    let run = |args: &[&str]| {
        let output = output(sandbox.command_of(repozo.to_str().unwrap()).args(args));
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
    };
    let series = || -> usize {
        let files = fs::read_dir(sandbox.file("backups")).unwrap();
        let is_full = |path: &Path| path.extension().is_some_and(|extension| extension == "fs");
        files.filter(|file| is_full(&file.as_ref().unwrap().path())).count()
    };
    // Returns how many times all of it was backed up so far.
    let back_up = || {
        // repozo's names have seconds.
        std::thread::sleep(Duration::from_millis(1100));
        run(&["-BvQ", "-r", "backups", "-f", "Data.fs"]);
        run(&["-V", "-r", "backups"]);
        run(&["-Rv", "-r", "backups", "-o", "recovered.fs"]);
        assert_same_file(sandbox.file("recovered.fs"), sandbox.data_fs());
        series()
    };
    sandbox.znap_ok(&["init", "Data.fs"]);
    assert_eq!(back_up(), 1);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(4, 5, "small");
    assert_eq!(back_up(), 1, "an increment");
    sandbox.znap_ok(&["save", "b"]);
    sandbox.grow(5, 3, "small");
    sandbox.znap_ok(&["restore", "a"]);
    // What repozo has is gone: it notices.
    assert_eq!(back_up(), 2);
    sandbox.znap_ok(&["undo"]);
    assert_eq!(back_up(), 2, "the same, and more");
    sandbox.znap_ok(&["restore", "a"]);
    // Other commits, that reach further than what repozo has.
    sandbox.grow(6, 12, "small");
    assert_eq!(back_up(), 3);
    sandbox.grow(7, 2, "small");
    assert_eq!(back_up(), 3, "an increment");
    assert_whole(&sandbox);
    sandbox.check();
}
