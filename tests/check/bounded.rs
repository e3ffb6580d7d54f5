//! Damage costs neither memory nor time: the real program, with little memory, does something sensible with what claims to be huge.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Bench, simulated_disk, spawn};
use crate::{assert_clean, small};

/// How many kilobytes of addresses the program may use: a few of the largest frames that there may be.
const MEMORY: u32 = 400_000;
/// Far more than any of the commands takes on the slowest machine.
const LONGEST: Duration = Duration::from_secs(300);

/// Runs a command; returns its exit code, which is none for a panic or the end of the memory.
fn run(folder: &Path, args: &[&str], what: &str) -> i32 {
    let output = tempfile::tempfile().unwrap();
    let script = format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.current_dir(folder).args(["-c", &script, env!("CARGO_BIN_EXE_znap")]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output.try_clone().unwrap());
    let mut child = spawn(&mut command);
    let deadline = Instant::now() + LONGEST;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{what}: {args:?} hangs");
        }
        sleep(Duration::from_millis(2));
    };
    let said = said(output);
    let code = status.code().unwrap_or_else(|| panic!("{what}: {args:?}: {status}: {said}"));
    assert!(code < 7, "{what}: {args:?}: {code}: {said}");
    assert!(code == 0 || said.contains("znap: error: ") || [3, 6].contains(&code), "{what}: {args:?}: {code}: {said}");
    code
}

fn said(mut output: File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    output.rewind().unwrap();
    output.read_to_string(&mut text).unwrap();
    text
}

/// A database and its index.
type State = (Vec<u8>, Option<Vec<u8>>);

fn state_of(data_fs: &Path) -> State {
    (fs::read(data_fs).unwrap(), fs::read(data_fs.with_extension("fs.index")).ok())
}

/// What each snapshot holds.
fn all_good(bench: &Bench) -> BTreeMap<String, State> {
    let good = ["a", "c", "d"].map(|id| (id.to_string(), copied(bench.folder.path(), id, "all is good").unwrap()));
    assert!(good[2].1.0 == bench.bytes());
    good.into()
}

/// A snapshot, written elsewhere by the real program; `None` if that is refused.
fn copied(folder: &Path, id: &str, what: &str) -> Option<State> {
    let data_fs = folder.join("copy/data/Data.fs");
    let is_done = run(folder, &["restore", id, "--to", "copy"], what) == 0;
    assert!(!is_done || data_fs.exists(), "P6: {what}: {id} is said to be written, and isn't");
    let state = is_done.then(|| state_of(&data_fs));
    let _ = fs::remove_dir_all(folder.join("copy"));
    state
}

/// Runs the commands that read everything. What is written is right, or nothing is; and nothing if check finds nothing.
fn commands(bench: &Bench, good: &BTreeMap<String, State>, what: &str) {
    let folder = bench.folder.path();
    let found = run(folder, &["check", "--data", "--databases"], what);
    for args in [&["repair", "--dry-run"][..], &["list"], &["show", "d"], &["status"], &["log"]] {
        run(folder, args, what);
    }
    let copy = copied(folder, "d", what);
    assert!(copy.as_ref().is_none_or(|copy| *copy == good["d"]), "P6: {what}: it comes back wrong");
    assert!(found != 0 || copy.is_some(), "P6: {what}: a snapshot can't be written, and check says nothing");
}

/// Runs the commands that change something, in a copy of everything. What came back before a gc comes back after it, and what is
/// restored is right.
fn changes(bench: &Bench, good: &BTreeMap<String, State>, what: &str) -> Changed {
    let copy = simulated_disk();
    let folder = copy.path();
    copy_all(bench.folder.path(), folder);
    let ids = || good.keys().filter(|id| copied(folder, id, what).is_some_and(|copy| copy == good[*id]));
    let mut changed = Changed::default();
    let mut right: Vec<&String> = ids().collect();
    for commands in [&[&["gc"][..], &["gc", "--all"]][..], &[&["save", "e"], &["delete", "a"], &["gc"]]] {
        for args in commands {
            let is_done = run(folder, args, what) == 0;
            if is_done && args[0] == "delete" {
                right.retain(|id| *id != "a");
            }
            changed.collected += usize::from(is_done && args[0] == "gc");
        }
        let now: Vec<&String> = ids().collect();
        let lost: Vec<_> = right.iter().filter(|id| !now.contains(id)).collect();
        assert!(lost.is_empty(), "P10: {what}: after {commands:?} {lost:?} can't be restored any more");
    }
    for id in ["c", "d"] {
        let before = state_of(&folder.join("Data.fs")).0;
        let is_done = run(folder, &["restore", id], what) == 0;
        let state = state_of(&folder.join("Data.fs"));
        if is_done {
            assert!(state == good[id], "P6: {what}: {id} is restored, and wrong");
            changed.restored += 1;
        } else {
            let is_fenced = state.0.starts_with(b"ZNAP");
            assert!(is_fenced || state.0 == before, "P5: {what}: {id} isn't restored, and the database is another one");
        }
    }
    changed
}

/// How many of the commands that change something were done.
#[derive(Debug, Default)]
struct Changed {
    repositories: usize,
    collected: usize,
    restored: usize,
}

impl Changed {
    fn add(&mut self, other: &Changed) {
        self.repositories += 1;
        self.collected += other.collected;
        self.restored += other.restored;
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if entry.is_dir() {
            fs::create_dir(&to).unwrap();
            copy_all(&entry, &to);
        } else {
            fs::copy(entry, to).unwrap();
        }
    }
}

#[test]
fn p6_damage_costs_neither_memory_nor_time() {
    let bench = small();
    let good = all_good(&bench);
    let mut paths = bench.objects();
    paths.push(bench.place.root.join("catalog.db"));
    let (mut tried, mut changed) = (0, Changed::default());
    for path in paths {
        let whole = fs::read(&path).unwrap();
        let mut attack = |bytes: &[u8], what: String| {
            fs::write(&path, bytes).unwrap();
            commands(&bench, &good, &what);
            if tried % 5 == 0 {
                changed.add(&changes(&bench, &good, &what));
            }
            tried += 1;
        };
        // Headers, and the tables at the ends: there are the lengths.
        let length = whole.len();
        let ends = (9..length.min(32)).step_by(4).chain((length.saturating_sub(160)..length).step_by(11));
        for at in ends.chain((0..length).step_by(4999)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x80;
            attack(&bytes, format!("{}: the highest bit at {at}", path.display()));
        }
        attack(&whole[..length / 2], format!("{}: half", path.display()));
        fs::write(&path, &whole).unwrap();
    }
    println!("{tried} damaged files; {changed:?}");
    assert!(tried > 280 && changed.collected > 100 && changed.restored > 80, "{tried} {changed:?}");
    assert_clean(&bench, "putting everything back");
}

/// As somebody might who gives a repository away: every number in the catalog, as large, or as small, as can be.
#[test]
fn p6_no_number_in_the_catalog_costs_memory_or_time() {
    let bench = small();
    let good = all_good(&bench);
    let catalog = bench.place.root.join("catalog.db");
    let whole = fs::read(&catalog).unwrap();
    let columns: Vec<(String, String)> = {
        let sql = bench.sql();
        let mut select = sql
            .prepare(
                "SELECT t.name, c.name FROM sqlite_schema t, pragma_table_info(t.name) c
                 WHERE t.type = 'table' AND c.type = 'INTEGER' ORDER BY 1, 2",
            )
            .unwrap();
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(|row| row.unwrap()).collect()
    };
    assert!(columns.len() > 30, "{columns:?}");
    let all = std::env::var_os("ZNAP_ATTACKS").is_some_and(|value| value == "all");
    let (mut tried, mut changed) = (0, Changed::default());
    for (at, (table, column)) in columns.into_iter().enumerate() {
        for (turn, number) in [i64::MAX, 1 << 40, -1].into_iter().enumerate() {
            // In one row at least, where no two may have the same.
            let change = format!(
                "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
                 UPDATE OR IGNORE {table} SET \"{column}\" = {number}"
            );
            bench.sql().execute_batch(&change).unwrap();
            let what = format!("{table}.{column} is {number}");
            commands(&bench, &good, &what);
            // What changes something takes longest: with one of the numbers, in turn.
            if all || turn == at % 3 {
                changed.add(&changes(&bench, &good, &what));
            }
            tried += 1;
            restore(&catalog, &whole);
        }
    }
    println!("{tried} damaged catalogs; {changed:?}");
    assert!(tried > 180 && changed.collected > 100 && changed.restored > 60, "{tried} {changed:?}");
    assert_clean(&bench, "putting everything back");
}

fn restore(catalog: &Path, whole: &[u8]) {
    fs::write(catalog, whole).unwrap();
    let _ = fs::remove_file(catalog.with_extension("db-journal"));
}
