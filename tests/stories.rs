//! The failures of others, each as a test: what happened to users of repozo, znap2, restic, borg, kopia and others must not
//! happen here. Stories that have their tests elsewhere: a catalog copied back from yesterday, the same chunk twice in
//! one object file (tests/regressions.rs, tests/gc.rs), gc killed between forgetting and unlinking, disk full during gc (tests/attacks),
//! restore under a running server (tests/cli/busy.rs).

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use common::{Bench, Sandbox, assert_same_file, output, python, spawn, undisturbed};
use jiff::tz::TimeZone;
use znap::filestorage::Writer;
use znap::monitor::Silent;
use znap::snapshot::{RestoreOptions, SaveOptions, list, restore, save};

/// znap2 truncates to the base's length that it noted once. After a pack the file is shorter, `truncate` makes it longer, and the
/// database ends in zeros.
#[test]
fn p6_a_packed_database_is_never_filled_with_zeros() {
    let sandbox = Sandbox::with_database(3, 60, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.grow(4, 5, "mixed");
    sandbox.znap_ok(&["save", "a"]);
    let before = fs::read(sandbox.data_fs()).unwrap();
    sandbox.zodb("pack", &[]);
    let packed = fs::read(sandbox.data_fs()).unwrap();
    fs::rename(sandbox.file("Data.fs.old"), sandbox.file("kept")).unwrap();
    fs::rename(sandbox.file(".znap/bases"), sandbox.file("second-names")).unwrap();
    for args in [&["restore", "a"][..], &["restore", "a", "--discard"]] {
        let output = sandbox.znap(args);
        assert_eq!(output.code, 1, "{output:?}");
        assert!(output.stderr.contains("packed"), "{output:?}");
        assert!(fs::read(sandbox.data_fs()).unwrap() == packed);
    }
    fs::rename(sandbox.file("kept"), sandbox.file("Data.fs.old")).unwrap();
    sandbox.znap_ok(&["restore", "a"]);
    assert!(fs::read(sandbox.data_fs()).unwrap() == before);
    sandbox.check();
}

/// znap2's `delete ..` removes the directory above its snapshots.
#[test]
fn no_id_becomes_a_path() {
    let sandbox = Sandbox::with_database(3, 5, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    for id in ["..", ".", "../a", "/", "a/../a", "objects", "%2e%2e"] {
        let output = sandbox.znap(&["delete", id]);
        assert!(output.code == 2 || output.code == 5, "{id}: {output:?}");
    }
    assert!(sandbox.znap_ok(&["list"]).contains('a') && sandbox.data_fs().exists());
}

/// restic#1450 and many others: whoever held the lock was killed, and the lock stayed.
#[test]
fn a_lock_is_never_stale() {
    let sandbox = Sandbox::with_database(3, 5, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(4, 5, "small");
    sandbox.znap_ok(&["save", "b"]);
    sandbox.znap_ok(&["delete", "b"]);
    // A gc that has the repository's lock, and can't go on because somebody reads.
    let gate = File::open(sandbox.file(".znap/gate")).unwrap();
    gate.lock_shared().unwrap();
    let mut gc = spawn(sandbox.znap_command().arg("gc").stdout(Stdio::null()).stderr(Stdio::null()));
    let lock = sandbox.file(".znap/lock");
    let holder = format!("znap (pid {},", gc.id());
    while !fs::read_to_string(&lock).unwrap().starts_with(&holder) {
        assert!(gc.try_wait().unwrap().is_none(), "it waits for the gate");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(File::open(&lock).unwrap().try_lock(), Err(TryLockError::WouldBlock)));
    gc.kill().unwrap();
    assert_eq!(gc.wait().unwrap().signal(), Some(9));
    undisturbed(|| drop(gate));
    assert!(fs::read_to_string(&lock).unwrap().starts_with(&holder), "it is still said to hold it");
    sandbox.znap_ok(&["save", "c"]);
    // And a server that has ZODB's lock.
    let server = common::ZodbProcess::hold(&sandbox.data_fs(), false);
    let pid = server.id().to_string();
    assert_eq!(sandbox.znap(&["restore", "a"]).code, 4);
    server.kill();
    assert_eq!(fs::read_to_string(sandbox.file("Data.fs.lock")).unwrap().trim(), pid, "it is still said to hold it");
    sandbox.znap_ok(&["restore", "a"]);
}

/// repozo names its files by the second: of two backups in one, the second replaces the first.
#[test]
fn two_saves_in_one_second_are_two_snapshots() {
    let bench = Bench::new();
    let mut ids = Vec::new();
    for seed in 0..5 {
        bench.grow(2 * seed + 1, 1000);
        let options = SaveOptions::new(None, "", TimeZone::UTC);
        ids.push(save(&mut bench.write(), &options, &Silent).unwrap().id);
    }
    let listed: Vec<String> = list(&bench.read()).unwrap().into_iter().map(|info| info.id).collect();
    assert_eq!(listed, ids);
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(sorted, ids, "ids made from the time sort by it");
}

/// A clock that was set back: what is newest isn't what has the latest time.
#[test]
#[cfg(target_os = "linux")]
fn the_newest_snapshot_is_the_last_one_whatever_the_clock_says() {
    let sandbox = Sandbox::with_database(3, 5, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let library = clock(&sandbox);
    let tomorrow = |args: &[&str]| {
        let output = output(sandbox.znap_command().env("LD_PRELOAD", &library).env("DAYS", "1").args(args));
        assert_eq!(output.code, 0, "{output:?}");
    };
    tomorrow(&["save", "made-tomorrow"]);
    tomorrow(&["save"]);
    sandbox.grow(4, 5, "small");
    sandbox.znap_ok(&["save", "made-today"]);
    let listed: serde_json::Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    let time = |row: usize| listed[row]["created"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time(0) > time(2), "the clock was set back: {listed}");
    assert!(sandbox.znap_ok(&["show", "latest"]).starts_with("made-today\n"));
    let now = fs::read(sandbox.data_fs()).unwrap();
    sandbox.grow(5, 5, "small");
    // What this saves has the time of the clock, too, and so has the journal.
    tomorrow(&["restore", "made-tomorrow"]);
    sandbox.znap_ok(&["undo"]);
    sandbox.znap_ok(&["restore", "made-today"]);
    assert!(fs::read(sandbox.data_fs()).unwrap() == now);
    sandbox.znap_ok(&["gc", "--all"]);
    sandbox.znap_ok(&["check", "--data"]);
    sandbox.znap_ok(&["restore", "made-tomorrow"]);
    sandbox.grow(6, 5, "small");
    sandbox.znap_ok(&["save", "last"]);
    assert!(sandbox.znap_ok(&["show", "latest"]).starts_with("last\n"));
    sandbox.check();
}

/// A library that puts the clock of a program that loads it on by so many `DAYS`.
#[cfg(target_os = "linux")]
fn clock(sandbox: &Sandbox) -> std::path::PathBuf {
    let (source, library) = (sandbox.file("clock.c"), sandbox.file("clock.so"));
    let code = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <time.h>
        int clock_gettime(clockid_t clock, struct timespec *time) {
            int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
            int result = real(clock, time);
            if (clock == CLOCK_REALTIME && getenv("DAYS")) time->tv_sec += 86400 * atol(getenv("DAYS"));
            return result;
        }
    "#;
    fs::write(&source, code).unwrap();
    // SQLite was compiled with it, too.
    let made = output(sandbox.command_of("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl"));
    assert_eq!(made.code, 0, "{made:?}");
    library
}

/// What was a file is something else now: no tool may follow, wait or write there.
#[test]
fn a_database_that_became_something_else_is_refused() {
    let sandbox = Sandbox::with_database(3, 5, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    let (path, aside) = (sandbox.data_fs(), sandbox.file("aside"));
    fs::rename(&path, &aside).unwrap();
    let refuse = |what: &str, code: i32| {
        for args in [&["save"][..], &["restore", "a"], &["restore", "a", "--discard"]] {
            let output = sandbox.znap(args);
            assert_eq!(output.code, code, "{what}: {args:?}: {output:?}");
            assert!(output.stderr.contains("Data.fs"), "{what}: {output:?}");
        }
    };
    refuse("nothing", 5);
    fs::create_dir(&path).unwrap();
    refuse("a directory", 1);
    fs::remove_dir(&path).unwrap();
    let made = output(sandbox.command_of("mkfifo").arg(&path));
    assert_eq!(made.code, 0, "{made:?}");
    refuse("a pipe", 1);
    fs::remove_file(&path).unwrap();
    symlink("/dev/zero", &path).unwrap();
    refuse("a device", 1);
    fs::remove_file(&path).unwrap();
    // A link to the same file is the same database; the link stays one.
    symlink("aside", &path).unwrap();
    sandbox.znap_ok(&["save", "b"]);
    sandbox.znap_ok(&["restore", "a"]);
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
    sandbox.check();
}

/// `cp -al` of the directory before an upgrade: the copy must not change with the database.
#[test]
fn p5_a_file_with_other_names_keeps_them_as_they_are() {
    let bench = Bench::new();
    bench.grow(1, 300_000);
    bench.save("a");
    let a = bench.bytes();
    bench.grow(3, 300_000);
    bench.save("b");
    let b = bench.bytes();
    let other = bench.folder.path().join("copy-of-yesterday");
    fs::hard_link(bench.data_fs(), &other).unwrap();
    let options = RestoreOptions::default();
    restore(&mut bench.write(), "a", &options, &Silent).unwrap();
    assert!(bench.bytes() == a);
    assert!(fs::read(&other).unwrap() == b, "the other name's file was changed");
    assert_eq!(fs::metadata(bench.data_fs()).unwrap().nlink(), 1);
    restore(&mut bench.write(), "b", &options, &Silent).unwrap();
    assert!(bench.bytes() == b);
}

/// A commit after the plan and before the lock was lost without a word. Here the lock comes first: a server that starts in between
/// can't.
#[test]
fn p7_nobody_commits_between_plan_and_restore() {
    let sandbox = Sandbox::with_database(3, 5, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(4, 3, "small");
    let mut writer = common::ZodbProcess::writer(&sandbox.data_fs(), &["--mode", "commit"]);
    for _ in 0..5 {
        let output = sandbox.znap(&["restore", "a"]);
        assert_eq!(output.code, 4, "{output:?}");
        assert!(writer.is_running());
    }
    let report = writer.stop();
    let before = fs::read(sandbox.data_fs()).unwrap();
    sandbox.znap_ok(&["restore", "a"]);
    sandbox.znap_ok(&["undo"]);
    assert!(fs::read(sandbox.data_fs()).unwrap() == before, "P5: a commit was lost: {report}");
}

/// A repozo series beside znap stays valid, and what repozo recovers is what was there.
#[test]
fn a_series_of_repozo_beside_it_stays_valid() {
    let sandbox = Sandbox::with_database(3, 20, "mixed");
    fs::create_dir(sandbox.file("backups")).unwrap();
    let repozo = python().parent().unwrap().join("repozo");
    let run = |args: &[&str]| {
        let output = output(sandbox.command_of(repozo.to_str().unwrap()).args(args));
        assert_eq!(output.code, 0, "{output:?}");
    };
    sandbox.znap_ok(&["init", "Data.fs"]);
    run(&["-BvQ", "-r", "backups", "-f", "Data.fs"]);
    for seed in 4..7 {
        sandbox.grow(seed, 5, "mixed");
        sandbox.znap_ok(&["save", &format!("s{seed}")]);
        // repozo's names have seconds.
        std::thread::sleep(Duration::from_millis(1100));
        run(&["-BvQ", "-r", "backups", "-f", "Data.fs"]);
    }
    // Back, and on: repozo notices by itself that its last increment isn't the beginning of this any more.
    sandbox.znap_ok(&["restore", "s5"]);
    sandbox.grow(9, 8, "mixed");
    std::thread::sleep(Duration::from_millis(1100));
    run(&["-Bv", "-r", "backups", "-f", "Data.fs"]);
    run(&["-V", "-r", "backups"]);
    run(&["-Rv", "-r", "backups", "-o", "recovered.fs"]);
    assert_same_file(sandbox.file("recovered.fs"), sandbox.data_fs());
}

/// litestream#781: a database that was restored, and then saved again, has to go on as a series.
#[test]
fn a_restored_database_is_saved_on() {
    let bench = Bench::new();
    for seed in [1, 3, 5] {
        bench.grow(seed, 100_000);
        bench.save(&format!("s{seed}"));
    }
    bench.restore("s1");
    bench.grow(7, 100_000);
    bench.save("fork");
    let fork = bench.bytes();
    bench.restore("s5");
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    writer.transaction().data(znap::filestorage::Oid(1), vec![1; 100]).commit().unwrap();
    bench.save("on");
    bench.restore("fork");
    assert!(bench.bytes() == fork);
    bench.gc(true);
    bench.restore("on");
}
