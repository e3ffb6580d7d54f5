//! Every refusal: its exit code, its words, and what it tells the user to do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::common::{output, spawn};
use crate::site::Site;

#[test]
fn ids_that_are_none() {
    let site = Site::with_snapshots();
    let long = "x".repeat(129);
    for bad in ["", ".hidden", "a/b", "../one", "a b", "ä", "a\nb", &long] {
        site.refuses(&["save", bad], 2, "can't be a snapshot's id");
        site.refuses(&["show", bad], 2, "can't be a snapshot's id");
        site.refuses(&["restore", bad], 2, "can't be a snapshot's id");
        site.refuses(&["log", bad], 2, "can't be a snapshot's id");
        site.refuses(&["delete", bad], 2, "can't be a snapshot's id");
    }
    site.refuses(&["save", "--", "-x"], 2, "it begins with - or .");
    site.refuses(&["save", "latest"], 2, "\"latest\" can't be a snapshot's id");
    site.refuses(&["save", "one"], 1, "there is a snapshot one already");
}

#[test]
fn ids_that_are_unknown_or_ambiguous() {
    let site = Site::with_snapshots();
    for command in ["show", "restore", "log", "delete"] {
        site.refuses(&[command, "three"], 5, "there is no snapshot three");
    }
    site.znap_ok(&["save", "two-b"]);
    site.znap_ok(&["save", "three"]);
    // An exact match wins; the beginning of one id will do, of several not.
    assert!(site.znap_ok(&["show", "two"]).starts_with("two\n"));
    assert!(site.znap_ok(&["show", "o"]).starts_with("one\n"));
    assert!(site.znap_ok(&["show", "latest"]).starts_with("three\n"));
    site.refuses(&["show", "t"], 2, "t could be any of several snapshots: ");
    // delete takes whole ids, and deletes all or none.
    site.refuses(&["delete", "o"], 5, "there is no snapshot o");
    site.refuses(&["delete", "latest"], 5, "there is no snapshot latest");
    site.refuses(&["delete", "latest"], 5, "hint: delete takes whole ids");
    site.refuses(&["delete", "one", "four"], 5, "there is no snapshot four");
    assert!(site.znap_ok(&["list"]).contains("one"));
}

#[test]
fn latest_of_none() {
    let site = Site::started();
    site.refuses(&["restore", "latest"], 5, "there is no snapshot yet");
}

#[test]
fn a_second_init() {
    let site = Site::started();
    site.refuses(&["init", "Data.fs"], 1, "there is a repository already: .znap");
    let site = Site::new();
    fs::create_dir(site.sandbox.file(".znap")).unwrap();
    site.refuses(&["init", "Data.fs"], 1, "not a whole repository");
}

#[test]
fn no_database() {
    let site = Site::new();
    site.refuses(&["init", "None.fs"], 5, "None.fs");
    fs::write(site.sandbox.file("notes.txt"), "not a database").unwrap();
    site.refuses(&["init", "notes.txt"], 1, "notes.txt");
    site.refuses(&["init", "Data.fs", "./Data.fs"], 2, "are the same file");
    assert!(!site.sandbox.file(".znap").exists());

    let site = Site::with_snapshots();
    fs::rename(site.sandbox.data_fs(), site.sandbox.file("Away.fs")).unwrap();
    site.refuses(&["save"], 5, "Data.fs");
    site.refuses(&["restore", "one"], 5, "Data.fs");
    site.refuses(&["restore", "one", "--dry-run"], 5, "Data.fs");
    site.refuses(&["log"], 5, "Data.fs");
    for args in [&["save"][..], &["restore", "one"], &["restore", "one", "--dry-run"], &["log"]] {
        assert!(site.znap(args).stderr.contains("\nhint: put "), "{args:?}");
    }
    fs::write(site.sandbox.data_fs(), "").unwrap();
    site.refuses(&["save"], 1, "hint: put the database back");
    fs::remove_file(site.sandbox.data_fs()).unwrap();
    fs::create_dir(site.sandbox.data_fs()).unwrap();
    site.refuses(&["save"], 1, "hint: put the database itself there");

    let site = Site::new();
    site.grow(&"large ".repeat(100), 150);
    site.znap_ok(&["init", "Data.fs"]);
    site.znap_ok(&["save", "a"]);
    fs::rename(site.sandbox.data_fs(), site.sandbox.file("Away.fs")).unwrap();
    // Its second name is still there.
    site.znap_ok(&["restore", "a", "--to", "copy"]);
    fs::remove_dir_all(site.sandbox.file(".znap/bases")).unwrap();
    site.refuses(&["restore", "a", "--to", "other"], 5, "snapshot a needs the first 1.95 MB of Data.fs");
}

#[test]
fn no_repository() {
    let site = Site::new();
    for args in [
        &["save"][..],
        &["list"],
        &["show", "a"],
        &["status"],
        &["log"],
        &["restore", "a"],
        &["restore", "a", "--to", "x"],
        &["delete", "a"],
        &["gc"],
        &["check"],
    ] {
        site.refuses(args, 5, "there is no .znap in");
    }
    site.refuses(&["-R", "none", "list"], 5, "there is no repository at none");
    site.refuses(&["-R", "Data.fs", "list"], 5, "Data.fs is not a repository");
    // A directory is named that holds one, or none.
    site.refuses(&["-R", ".", "save"], 5, "is not a repository");
    site.znap_ok(&["init", "Data.fs", "-R", "elsewhere.znap"]);
    site.znap_ok(&["init", "Data.fs"]);
    site.refuses(&["-R", ".", "list"], 5, "/.znap\n");
    assert!(site.znap(&["-R", ".", "list"]).stderr.contains("hint: name the repository itself: -R "));
}

#[test]
fn a_repository_without_its_catalog() {
    let site = Site::with_snapshots();
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    for args in [&["save"][..], &["list"], &["status"], &["restore", "one"], &["delete", "one"], &["gc"], &["check"]] {
        site.refuses(args, 3, "catalog.db is missing");
    }
    assert!(!site.sandbox.file(".znap/catalog.db").exists());
}

#[test]
fn a_repository_without_its_objects() {
    let site = Site::with_snapshots();
    fs::remove_dir_all(site.sandbox.file(".znap/objects")).unwrap();
    for args in [&["save"][..], &["list"], &["status"], &["restore", "one"], &["delete", "one"], &["gc"], &["check"]] {
        site.refuses(args, 3, ".znap/objects is missing");
    }
}

#[test]
fn a_repository_that_cannot_be_read() {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let site = Site::with_snapshots();
    for path in [".znap", ".znap/catalog.db"] {
        let path = site.sandbox.file(path);
        let mode = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        for args in [&["save"][..], &["list"], &["status"], &["restore", "one"], &["delete", "one"], &["gc"]] {
            site.refuses(args, 1, "Permission denied");
            assert!(site.znap(args).stderr.contains("hint: run znap as "));
        }
        fs::set_permissions(&path, mode).unwrap();
    }
    site.znap_ok(&["list"]);
}

#[test]
fn a_full_output() {
    let site = Site::with_snapshots();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str]| output_to(&site, args, full());
    let stderr = run(&["save", "three"]);
    assert!(stderr.contains("snapshot three was taken, but: cannot write to standard output"), "{stderr}");
    assert!(site.znap_ok(&["list"]).contains("three"));
    let stderr = run(&["restore", "one"]);
    assert!(stderr.contains("*.zec") && stderr.contains("snapshot one was restored, but: cannot write"), "{stderr}");
    let stderr = run(&["list"]);
    assert!(stderr.contains("error: cannot write to standard output") && !stderr.contains("gc"), "{stderr}");
}

/// What a command that fails says when its results go to this file.
fn output_to(site: &Site, args: &[&str], stdout: fs::File) -> String {
    let mut command = site.sandbox.znap_command();
    let child = spawn(command.args(args).stdout(stdout).stderr(std::process::Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_catalog_that_is_damaged_or_newer() {
    let site = Site::with_snapshots();
    let path = site.sandbox.file(".znap/catalog.db");
    let catalog = rusqlite::Connection::open(&path).unwrap();
    catalog.pragma_update(None, "user_version", 99).unwrap();
    drop(catalog);
    site.refuses(&["list"], 1, "was written by a newer znap");
    site.refuses(&["save"], 1, "was written by a newer znap");
    fs::write(&path, "no database at all, but long enough to be taken for one".repeat(100)).unwrap();
    site.refuses(&["list"], 3, "catalog.db");
}

#[test]
fn an_object_file_is_missing() {
    let site = Site::with_snapshots();
    site.znap_ok(&["restore", "one"]);
    for entry in fs::read_dir(site.sandbox.file(".znap/objects")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let before = site.data();
    site.refuses(&["restore", "two"], 3, "missing");
    site.refuses(&["gc"], 3, "missing");
    assert_eq!(site.data(), before);
}

#[test]
fn a_repository_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let site = Site::with_snapshots();
    let root = site.sandbox.file(".znap");
    chown(&root, Some(65534), Some(65534)).unwrap();
    site.refuses(&["list"], 1, "belongs to another user");
    site.refuses(&["save"], 1, "ZNAP_TRUST=");
    let trusting = |value: &str| output(site.sandbox.znap_command().env("ZNAP_TRUST", value).arg("list")).code;
    assert_eq!(trusting(root.to_str().unwrap()), 0);
    assert_eq!(trusting(&format!("/nowhere:{}", root.display())), 0);
    assert_eq!(trusting("/nowhere"), 1);
    assert_eq!(trusting(""), 1);
    assert_eq!(fs::metadata(&root).unwrap().uid(), 65534);
}

#[test]
fn a_database_that_is_another_one() {
    let site = Site::new();
    site.grow(&"large ".repeat(100), 150);
    site.znap_ok(&["init", "Data.fs"]);
    site.znap_ok(&["save", "a"]);
    fs::remove_file(site.sandbox.data_fs()).unwrap();
    site.grow("another", 3);
    let data = site.data();
    site.refuses(&["save"], 1, "is shorter than when znap first saw it");
    site.refuses(&["restore", "a"], 1, "is shorter than when znap first saw it");
    // Its second name still leads to the one that was there.
    site.znap_ok(&["restore", "a", "--to", "copy"]);
    fs::remove_dir_all(site.sandbox.file(".znap/bases")).unwrap();
    site.refuses(&["restore", "a", "--to", "other"], 1, "snapshot a needs the first 1.95 MB of Data.fs: ");
    let status = site.znap(&["status"]);
    assert!(status.code == 0 && status.stdout.contains("problem"), "{status:?}");
    assert_eq!(site.data(), data);
}

#[test]
fn usage() {
    let site = Site::with_snapshots();
    for args in [
        &[][..],
        &["frobnicate"],
        &["list", "--frobnicate"],
        &["init"],
        &["restore"],
        &["delete"],
        &["-q", "-v", "list"],
        &["--color", "sometimes", "list"],
        &["restore", "one", "--to", "x", "--discard"],
        &["log", "-n", "many"],
    ] {
        let output = site.znap(args);
        assert_eq!((output.code, &output.stdout[..]), (2, ""), "{args:?}: {output:?}");
        assert!(output.stderr.contains("--help") || output.stderr.contains("Usage"), "{output:?}");
    }
    site.refuses(&["log", "--since", "yesterday"], 2, "\"yesterday\" is no time");
    site.refuses(&["status", "--max-age", "soon"], 2, "\"soon\" is no age");
}
