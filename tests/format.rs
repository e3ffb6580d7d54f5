//! docs/format.md is enough: a Python program that was written from it alone, without znap and without the catalog,
//! restores every snapshot (groundwork for P9).

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Sandbox, assert_same_bytes, python, script, zodb};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the reader on the sandbox's repository.
fn read(sandbox: &Sandbox, to: &str) -> Output {
    Command::new(python())
        .arg(script("reader.py"))
        .args([sandbox.file(".znap"), sandbox.file(to)])
        .arg("--base")
        .arg(format!("big={}", sandbox.file("big.fs").display()))
        .output()
        .expect("python runs")
}

/// A repository with two databases, one of which needs its base, with forks, deletions and a gc; and what each
/// snapshot has to give back.
fn repository() -> (Sandbox, BTreeMap<String, Vec<u8>>) {
    let sandbox = Sandbox::new();
    let (big, small) = (sandbox.file("big.fs"), sandbox.file("small.fs"));
    let change = |command: &str, path: &Path, seed: &str, transactions: &str, profile: &str| {
        let path = path.to_str().unwrap();
        zodb(&[command, path, "--seed", seed, "--transactions", transactions, "--profile", profile]);
    };
    change("make", &big, "1", "40", "mixed");
    change("make", &small, "2", "30", "small");
    assert!(fs::metadata(&big).unwrap().len() > znap::snapshot::KEPT_WHOLE);
    sandbox.znap_ok(&["init", "big.fs", "small.fs"]);
    let mut expected = BTreeMap::new();
    let mut save = |id: &str| {
        sandbox.znap_ok(&["save", id]);
        for (name, path) in [("big", &big), ("small", &small)] {
            expected.insert(format!("{id}/{name}/Data.fs"), fs::read(path).unwrap());
            let mut index = path.clone().into_os_string();
            index.push(".index");
            expected.insert(format!("{id}/{name}/Data.fs.index"), fs::read(index).unwrap());
        }
    };
    save("a");
    change("grow", &big, "3", "25", "mixed");
    save("b");
    change("grow", &small, "4", "25", "small");
    save("c");
    sandbox.znap_ok(&["restore", "a"]);
    change("grow", &big, "5", "10", "plone");
    save("d");
    change("grow", &small, "6", "40", "small");
    save("e");
    sandbox.znap_ok(&["restore", "b"]);
    change("grow", &small, "7", "10", "mixed");
    save("f");
    for id in ["b", "e"] {
        sandbox.znap_ok(&["delete", id]);
        expected.retain(|path, _| !path.starts_with(&format!("{id}/")));
    }
    (sandbox, expected)
}

fn assert_reads(sandbox: &Sandbox, expected: &BTreeMap<String, Vec<u8>>, to: &str) {
    let output = read(sandbox, to);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), expected.len() / 2, "{lines}");
    for (path, bytes) in expected {
        assert_same_bytes(&fs::read(sandbox.file(to).join(path)).unwrap(), bytes, path);
    }
}

#[test]
fn p9_a_program_written_from_the_document_reads_every_snapshot() {
    let (sandbox, expected) = repository();
    assert_reads(&sandbox, &expected, "before gc");
    sandbox.znap_ok(&["gc", "--all"]);
    assert_reads(&sandbox, &expected, "after gc");
    sandbox.znap_ok(&["delete", "c"]);
    sandbox.znap_ok(&["gc"]);
    let expected: BTreeMap<_, _> = expected.into_iter().filter(|(path, _)| !path.starts_with("c/")).collect();
    fs::remove_file(sandbox.file(".znap/catalog.db")).unwrap();
    assert_reads(&sandbox, &expected, "without a catalog");
}

#[test]
fn the_reader_finds_damage_so_its_success_means_something() {
    let (sandbox, _) = repository();
    let objects: Vec<_> =
        fs::read_dir(sandbox.file(".znap/objects")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for object in objects {
        let good = fs::read(&object).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 4;
        fs::write(&object, bad).unwrap();
        assert!(!read(&sandbox, "damaged").status.success(), "{}", object.display());
        fs::write(&object, good).unwrap();
    }
}

#[test]
fn the_reader_is_short() {
    let lines = fs::read_to_string(script("reader.py")).unwrap().lines().count();
    assert!(lines <= 150, "{lines} lines");
}
