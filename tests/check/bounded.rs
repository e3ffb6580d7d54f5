//! Damage costs neither memory nor time: the real program, with little memory, does something sensible with what claims to be huge.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::common::{Bench, spawn};
use crate::{assert_clean, small};

/// How many kilobytes of addresses the program may use: a few of the largest frames that there may be.
const MEMORY: u32 = 400_000;
/// Far more than any of the commands takes on the slowest machine.
const LONGEST: Duration = Duration::from_secs(300);

/// Runs a command; returns its exit code, which is none for a panic or the end of the memory.
fn run(bench: &Bench, args: &[&str], what: &str) -> i32 {
    let output = tempfile::tempfile().unwrap();
    let script = format!("ulimit -v {MEMORY} && exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.current_dir(bench.folder.path()).args(["-c", &script, env!("CARGO_BIN_EXE_znap")]).args(args);
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

/// Runs the commands that read everything. What is written is right, or nothing is.
fn commands(bench: &Bench, good: &[u8], what: &str) {
    for args in [&["check", "--data", "--databases"][..], &["repair", "--dry-run"], &["list"], &["show", "d"]] {
        run(bench, args, what);
    }
    let to = bench.folder.path().join("copy");
    if run(bench, &["restore", "d", "--to", "copy"], what) == 0 {
        assert!(fs::read(to.join("data/Data.fs")).unwrap() == good, "P6: {what}: it comes back wrong");
    }
    let _ = fs::remove_dir_all(to);
}

#[test]
fn p6_damage_costs_neither_memory_nor_time() {
    let bench = small();
    let good = bench.bytes();
    let mut paths = bench.objects();
    paths.push(bench.place.root.join("catalog.db"));
    let mut tried = 0;
    for path in paths {
        let whole = fs::read(&path).unwrap();
        let mut attack = |bytes: &[u8], what: String| {
            fs::write(&path, bytes).unwrap();
            commands(&bench, &good, &what);
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
    println!("{tried} damaged files");
    assert!(tried > 150, "{tried}");
    assert_clean(&bench, "putting everything back");
}

/// As somebody might who gives a repository away: every number in the catalog, as large, or as small, as can be.
#[test]
fn p6_no_number_in_the_catalog_costs_memory_or_time() {
    let bench = small();
    let good = bench.bytes();
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
    let mut tried = 0;
    for (table, column) in columns {
        for number in [i64::MAX, 1 << 40, -1] {
            // In one row at least, where no two may have the same.
            let change = format!(
                "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
                 UPDATE OR IGNORE {table} SET {column} = {number}"
            );
            bench.sql().execute_batch(&change).unwrap();
            commands(&bench, &good, &format!("{table}.{column} is {number}"));
            tried += 1;
            restore(&catalog, &whole);
        }
    }
    println!("{tried} damaged catalogs");
    assert!(tried > 80, "{tried}");
    assert_clean(&bench, "putting everything back");
}

fn restore(catalog: &Path, whole: &[u8]) {
    fs::write(catalog, whole).unwrap();
    let _ = fs::remove_file(catalog.with_extension("db-journal"));
}
