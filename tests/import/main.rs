//! Import of what repozo and znap2 have made: every sound state comes back, byte for byte; what isn't sound is named. (P4, P5, P6, P8)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod compared;
mod reading;
mod repozo;
mod znap2;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Sandbox, Zodb, assert_same_file};
use serde_json::Value;

/// A database whose states are backed up, day by day.
struct Site {
    sandbox: Sandbox,
    /// The name of each backup, and the copy of the database that it is of.
    states: Vec<(String, PathBuf)>,
}

impl Site {
    fn new(seed: u64, transactions: u32, profile: &str) -> Self {
        let sandbox = Sandbox::with_database(seed, transactions, profile);
        fs::create_dir(sandbox.file("backups")).unwrap();
        Site { sandbox, states: Vec::new() }
    }

    /// Backs it up at noon of that day of May 2026; returns the name of the new file.
    fn back_up(&mut self, day: u32, options: &str) -> String {
        let before = self.backups();
        let repository = self.sandbox.file("backups");
        let at = format!("2026-05-{day:02}T12:00:00");
        let args = ["--repository", repository.to_str().unwrap(), "--at", &at, "--options", options];
        self.sandbox.zodb("back-up", &args);
        let name = self.backups().into_iter().find(|name| !before.contains(name)).unwrap();
        let copy = self.sandbox.file(format!("state-{day}.fs"));
        fs::copy(self.sandbox.data_fs(), &copy).unwrap();
        self.states.push((name.clone(), copy));
        name
    }

    /// The names of all backups.
    fn backups(&self) -> Vec<String> {
        let names = fs::read_dir(self.sandbox.file("backups")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.contains("fs")).collect();
        names.sort();
        names
    }

    fn backup(&self, name: &str) -> PathBuf {
        self.sandbox.file("backups").join(name)
    }

    fn import(&self, code: i32) -> Value {
        imported(&self.sandbox, &["repozo", "backups"], code)
    }
}

fn imported(sandbox: &Sandbox, args: &[&str], code: i32) -> Value {
    let output = sandbox.znap(&[&["import", "--json", "--from"], args].concat());
    assert_eq!(output.code, code, "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

/// The sources in a list of a report.
fn sources(report: &Value, list: &str) -> Vec<String> {
    report[list].as_array().unwrap().iter().map(|one| one["source"].as_str().unwrap().into()).collect()
}

/// The id of the snapshot that was made of something.
fn id_of(report: &Value, source: &str) -> String {
    let all = report["imported"].as_array().unwrap();
    all.iter().find(|one| one["source"] == source).unwrap()["id"].as_str().unwrap().into()
}

/// Each comes back as it was, with the index that ZODB has for it.
fn all_come_back(sandbox: &Sandbox, report: &Value, states: &[(String, PathBuf)]) {
    let mut python = Zodb::start();
    for (source, state) in states {
        let id = id_of(report, source);
        sandbox.znap_ok(&["restore", &id, "--to", "copy"]);
        let copy = sandbox.file("copy/data/Data.fs");
        assert_same_file(&copy, state);
        python.run(&["check", copy.to_str().unwrap(), "--expect-index"]);
        fs::remove_dir_all(sandbox.file("copy")).unwrap();
    }
}

fn object_bytes(sandbox: &Sandbox) -> u64 {
    let objects = fs::read_dir(sandbox.file(".znap/objects")).unwrap();
    objects.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn edit(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_makes_no_sense_is_refused_in_a_line() {
    let sandbox = Sandbox::with_database(1150, 3, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    fs::create_dir(sandbox.file("empty")).unwrap();
    for (args, code, words) in [
        (&["--from", "repozo"][..], 2, "PATH"),
        (&["--from", "archive"], 2, "PATH"),
        (&["--from", "something", "x"], 2, "something"),
        (&["--from", "repozo", "empty"], 1, "no backups of repozo"),
        (&["--from", "repozo", "nowhere"], 1, "nowhere"),
        (&["--from", "archive", "nowhere"], 5, "nowhere"),
        (&["--from", "archive", "Data.fs"], 1, "no whole archive of znap"),
        (&["--from", "repozo", "empty", "--database", "other"], 5, "other"),
        (&["--from", "znap2"], 1, ".znap2"),
    ] {
        let output = sandbox.znap(&[&["import"], args].concat());
        assert!(output.code == code && output.stderr.contains(words), "{args:?}: {output:?}");
    }
}

/// What an archive brings back needs nothing that only the archive has.
#[test]
fn p5_an_archive_brings_back_what_only_it_has() {
    let sandbox = Sandbox::with_database(88, 60, "large");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "s1"]);
    let whole = fs::read(sandbox.data_fs()).unwrap();
    sandbox.znap_ok(&["export", "s1", "s1.tar.zst"]);
    let pack = || common::zodb(&["pack", sandbox.data_fs().to_str().unwrap()]);
    pack();
    sandbox.znap_ok(&["save", "s2"]);
    sandbox.znap_ok(&["delete", "s1"]);
    sandbox.grow(89, 3, "small");
    pack();
    sandbox.znap_ok(&["save", "s3"]);
    sandbox.znap_ok(&["gc"]);
    sandbox.znap_ok(&["import", "--from", "archive", "s1.tar.zst"]);
    fs::remove_file(sandbox.file("s1.tar.zst")).unwrap();
    sandbox.znap_ok(&["gc"]);
    sandbox.znap_ok(&["restore", "s1"]);
    assert!(fs::read(sandbox.data_fs()).unwrap() == whole);
}

/// A database that is as an import has it is known by that alone, until it is saved.
#[test]
fn p5_an_import_that_the_database_is_known_by_is_not_deleted() {
    let sandbox = Sandbox::with_database(90, 60, "large");
    sandbox.znap_ok(&["-R", "one", "init", "Data.fs"]);
    sandbox.znap_ok(&["-R", "one", "save", "s1"]);
    sandbox.znap_ok(&["-R", "one", "export", "s1", "s1.tar.zst"]);
    sandbox.grow(91, 5, "small");
    sandbox.znap_ok(&["-R", "two", "init", "Data.fs"]);
    sandbox.znap_ok(&["-R", "two", "save", "now"]);
    sandbox.znap_ok(&["-R", "two", "import", "--from", "archive", "s1.tar.zst"]);
    sandbox.znap_ok(&["-R", "two", "restore", "s1"]);
    sandbox.grow(92, 5, "small");
    let refused = sandbox.znap(&["-R", "two", "delete", "s1"]);
    assert!(refused.code == 1 && refused.stderr.contains("znap save first"), "{refused:?}");
    sandbox.znap_ok(&["-R", "two", "save", "grown"]);
    sandbox.znap_ok(&["-R", "two", "delete", "s1"]);
    sandbox.znap_ok(&["-R", "two", "gc"]);
    sandbox.grow(93, 5, "small");
    sandbox.znap_ok(&["-R", "two", "save", "more"]);
    sandbox.znap_ok(&["-R", "two", "restore", "now"]);
    sandbox.znap_ok(&["-R", "two", "restore", "more"]);
    sandbox.check();
}
