//! Many at once: saves, lists, checks, deletions, collections, copies and restores, while ZODB commits and packs; a gc that is stopped in
//! the middle and goes on; a series of repozo. In the end every snapshot is exactly what some moment of the database was, and
//! nothing is damaged. (P3, P5, P6, P7, P10)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;
mod gc;
mod packed;
mod repozo;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use common::{Output, Sandbox, ZodbProcess};

/// Seconds; ZNAP_AT_ONCE has it go on longer.
fn seconds() -> u64 {
    std::env::var("ZNAP_AT_ONCE").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn list(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let list: serde_json::Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    list.as_array().unwrap().clone()
}

fn ids(sandbox: &Sandbox) -> Vec<String> {
    list(sandbox).iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
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

/// Several threads that each do something again and again, until it is over.
#[derive(Default)]
struct Crowd {
    over: AtomicBool,
    /// How many commands were done, by what they were: not those that were refused.
    done: Mutex<BTreeMap<String, usize>>,
}

impl Crowd {
    fn add<'s>(&'s self, scope: &'s Scope<'s, '_>, act: impl Fn(usize) + Send + 's) {
        scope.spawn(move || {
            // If one fails, the others needn't go on.
            let _end = End(self);
            for number in 0.. {
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
                act(number);
            }
        });
    }

    /// Refused because somebody else is at it, or what was named is gone: nothing else may go wrong.
    fn fine(&self, output: &Output, args: &[&str]) {
        assert!(matches!(output.code, 0 | 4 | 5), "{args:?} beside others: {output:?}");
        self.count(output, args);
    }

    /// Counts a command, if it was done, by its name and long options.
    fn count(&self, output: &Output, args: &[&str]) {
        if output.code == 0 {
            let options = args[1..].iter().filter(|word| word.starts_with("--"));
            let kind: Vec<&str> = args[..1].iter().chain(options).copied().collect();
            *self.done.lock().unwrap().entry(kind.join(" ")).or_default() += 1;
        }
    }

    /// How many commands were done.
    fn done(&self) -> usize {
        self.done.lock().unwrap().values().sum()
    }

    /// How many commands of a kind were done.
    fn done_of(&self, kind: &str) -> usize {
        self.done.lock().unwrap().get(kind).copied().unwrap_or(0)
    }

    /// Goes on until each of these kinds of commands was done, and then for the time that was asked for.
    fn end_after_all_of(&self, kinds: &[&str]) {
        let missing = || kinds.iter().filter(|kind| self.done_of(kind) == 0).collect::<Vec<_>>();
        self.wait_until(|| missing().is_empty());
        self.end_after(seconds());
        assert!(missing().is_empty(), "never done beside others: {:?}", missing());
        println!("{} commands: {:?}", self.done(), self.done.lock().unwrap());
    }

    /// Waits until something is so, or for a minute, or until one of the crowd fails.
    fn wait_until(&self, is_so: impl Fn() -> bool) {
        let limit = Instant::now() + Duration::from_secs(60);
        while !is_so() && Instant::now() < limit && !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Lets it go on for so many seconds.
    fn end_after(&self, seconds: u64) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !self.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Ends a crowd when it is dropped.
struct End<'s>(&'s Crowd);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
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
    let crowd = &Crowd::default();
    std::thread::scope(|scope| {
        for saver in 0..2 {
            crowd.add(scope, move |number| {
                crowd.fine(&sandbox.znap(&["save", &format!("s{saver}-{number}")]), &["save"]);
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
            crowd.fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let args: &[&str] = [&["check"][..], &["check", "--data", "--databases"]][number % 2];
            // No false alarm: whatever is half-done isn't damage.
            crowd.fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let all = ids(sandbox);
            // Neither the first, nor what undo takes back.
            let mut others = all.iter().filter(|id| id.starts_with('s'));
            if all.len() > 6 {
                crowd.fine(&sandbox.znap(&["delete", others.nth(number % 5).unwrap()]), &["delete"]);
            }
            let args: &[&str] = if number % 3 == 0 { &["gc", "--all"] } else { &["gc"] };
            crowd.fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let all = ids(sandbox);
            let id = &all[number * 7 % all.len()];
            let to = format!("copy-{number}");
            crowd.fine(&sandbox.znap(&["restore", id, "--to", &to]), &["restore", "--to"]);
            let _ = fs::remove_dir_all(sandbox.file(&to));
            // The server runs: never.
            for args in [&["restore", "first"][..], &["undo"]] {
                assert_eq!(sandbox.znap(args).code, 4, "P7: {args:?}");
            }
        });
        crowd.end_after_all_of(&[
            "save",
            "list",
            "status",
            "show",
            "log",
            "restore --dry-run",
            "undo --dry-run",
            "check",
            "check --data --databases",
            "delete",
            "gc",
            "gc --all",
            "restore --to",
        ]);
    });
    writer.stop();
    assert_whole(sandbox);
    let whole = fs::read(sandbox.data_fs()).unwrap();
    let all = ids(sandbox);
    println!("{} snapshots left", all.len());
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
    let crowd = &Crowd::default();
    std::thread::scope(|scope| {
        let (names, states) = (&names, &states);
        for step in [1, 3] {
            crowd.add(scope, move |number| {
                let args: &[&str] = match number % 5 {
                    0 => &["undo"],
                    _ => &["restore", names[number * step % names.len()]],
                };
                crowd.fine(&sandbox.znap(args), args);
            });
        }
        crowd.add(scope, |number| crowd.fine(&sandbox.znap(&["save", &format!("s{number}")]), &["save"]));
        crowd.add(scope, |number| {
            if let Some(id) = ids(sandbox).iter().filter(|id| id.starts_with('s')).nth(2) {
                crowd.fine(&sandbox.znap(&["delete", id]), &["delete"]);
            }
            let args: &[&str] = if number % 3 == 0 { &["gc", "--all"] } else { &["gc"] };
            crowd.fine(&sandbox.znap(args), args);
        });
        crowd.add(scope, |number| {
            let args: &[&str] = [&["check", "--data", "--databases"][..], &["list"], &["status"]][number % 3];
            crowd.fine(&sandbox.znap(args), args);
            let id = names[number % names.len()];
            elsewhere(sandbox, id, |copy| assert!(copy == states[id], "P6: {id}"));
        });
        let check = "check --data --databases";
        crowd.end_after_all_of(&["restore", "undo", "save", "delete", "gc", "gc --all", check, "list", "status"]);
    });
    assert!(states.values().any(|state| *state == fs::read(sandbox.data_fs()).unwrap()), "P6: it never was like this");
    assert_whole(sandbox);
    sandbox.check();
    for id in ids(sandbox) {
        elsewhere(sandbox, &id, |copy| assert!(states.values().any(|state| state == copy), "P6: {id}"));
    }
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
