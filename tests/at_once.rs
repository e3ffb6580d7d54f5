//! Many at once: saves, lists, deletions, collections, copies and restores, while ZODB commits; a gc that is stopped in
//! the middle and goes on. In the end every snapshot is exactly what some moment of the database was. (P3, P6, P7, P10)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Output, Sandbox, ZodbProcess, spawn};

/// Seconds; ZNAP_AT_ONCE has it go on longer.
fn seconds() -> u64 {
    std::env::var("ZNAP_AT_ONCE").ok().and_then(|text| text.parse().ok()).unwrap_or(6)
}

fn ids(sandbox: &Sandbox) -> Vec<String> {
    let list: serde_json::Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    list.as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

/// Refused because somebody else is at it, or what was named is gone: nothing else may go wrong.
fn fine(output: &Output, args: &[&str]) {
    assert!(matches!(output.code, 0 | 4 | 5), "{args:?} beside others: {output:?}");
}

#[test]
fn p3_p6_p10_anything_at_once_beside_a_live_writer() {
    let sandbox = Sandbox::with_database(3, 20, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "first"]);
    let writer = ZodbProcess::writer(&sandbox.data_fs(), &["--mode", "mixed"]);
    let end = Instant::now() + Duration::from_secs(seconds());
    let (saved, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let go_on = |act: &dyn Fn(usize)| {
        for number in 0.. {
            if Instant::now() > end {
                break;
            }
            act(number);
            done.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let go_on = &go_on;
        let sandbox = &sandbox;
        let saved = &saved;
        for saver in 0..2 {
            scope.spawn(move || {
                go_on(&|number| {
                    let id = format!("s{saver}-{number}");
                    let output = sandbox.znap(&["save", &id]);
                    fine(&output, &["save"]);
                    saved.fetch_add(usize::from(output.code == 0), Ordering::Relaxed);
                });
            });
        }
        scope.spawn(move || {
            go_on(&|number| {
                let args: &[&str] = [&["list"][..], &["status"], &["show", "latest"], &["log", "-n", "3"]][number % 4];
                fine(&sandbox.znap(args), args);
            });
        });
        scope.spawn(move || {
            go_on(&|number| {
                let all = ids(sandbox);
                if all.len() > 6 {
                    fine(&sandbox.znap(&["delete", &all[1 + number % 5]]), &["delete"]);
                }
                let args: &[&str] = if number % 3 == 0 { &["gc", "--all"] } else { &["gc"] };
                fine(&sandbox.znap(args), args);
            });
        });
        scope.spawn(move || {
            go_on(&|number| {
                let all = ids(sandbox);
                let id = &all[number * 7 % all.len()];
                let to = format!("copy-{number}");
                fine(&sandbox.znap(&["restore", id, "--to", &to]), &["restore", "--to"]);
                let _ = fs::remove_dir_all(sandbox.file(&to));
                // The server runs: never. (The first is the one that nobody deletes.)
                assert_eq!(sandbox.znap(&["restore", "first"]).code, 4, "P7");
            });
        });
    });
    writer.stop();
    let whole = fs::read(sandbox.data_fs()).unwrap();
    let all = ids(&sandbox);
    println!("{} commands, {} saves, {} snapshots left", done.into_inner(), saved.into_inner(), all.len());
    for id in &all {
        sandbox.znap_ok(&["restore", id, "--to", "copy"]);
        let copy = fs::read(sandbox.file("copy/data/Data.fs")).unwrap();
        assert!(whole.starts_with(&copy), "P6: {id} was never there");
        fs::remove_dir_all(sandbox.file("copy")).unwrap();
    }
    sandbox.znap_ok(&["restore", "first"]);
    sandbox.check();
    sandbox.znap_ok(&["undo"]);
    assert!(fs::read(sandbox.data_fs()).unwrap() == whole, "P5");
}

/// kopia#1949, duplicacy#323: a laptop sleeps in the middle of a collection, and a save comes in between.
#[test]
fn p10_a_gc_that_is_stopped_in_the_middle_and_goes_on() {
    let sandbox = Sandbox::with_database(5, 30, "large");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let mut expected = Vec::new();
    for seed in 0..8 {
        sandbox.grow(seed, 10, "large");
        sandbox.znap_ok(&["save", &format!("s{seed}")]);
        expected.push(fs::read(sandbox.data_fs()).unwrap());
    }
    for seed in [1, 3, 4] {
        sandbox.znap_ok(&["delete", &format!("s{seed}")]);
    }
    let mut gc = spawn(sandbox.znap_command().args(["gc", "--all", "-q"]).stdin(Stdio::null()).stderr(Stdio::null()));
    let signal = |name: &str| {
        let sent = Command::new("kill").args([name, &gc.id().to_string()]).status().unwrap();
        assert!(sent.success());
    };
    std::thread::sleep(Duration::from_millis(30));
    signal("-STOP");
    // Readers read, writers say who is at it, or gc was done already. In the middle of a commit, or while files are removed, which
    // takes milliseconds, nobody reads: then it is said, in ten seconds.
    let readers: [&[&str]; 2] = [&["list"], &["restore", "s2", "--to", "copy"]];
    let mut tries = 0;
    while readers.iter().any(|args| sandbox.znap(args).code != 0) {
        tries += 1;
        assert!(tries < 10);
        let _ = fs::remove_dir_all(sandbox.file("copy"));
        signal("-CONT");
        std::thread::sleep(Duration::from_millis(7));
        signal("-STOP");
    }
    assert!(fs::read(sandbox.file("copy/data/Data.fs")).unwrap() == expected[2]);
    let output = sandbox.znap(&["save", "meanwhile"]);
    assert!(output.code == 0 || output.code == 4, "{output:?}");
    signal("-CONT");
    assert!(gc.wait().unwrap().success());
    for (seed, bytes) in expected.iter().enumerate() {
        if ![1, 3, 4].contains(&seed) {
            sandbox.znap_ok(&["restore", &format!("s{seed}")]);
            assert!(fs::read(sandbox.data_fs()).unwrap() == *bytes, "P6: s{seed}");
        }
    }
    sandbox.check();
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
    sandbox.check();
}
