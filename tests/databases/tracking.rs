//! Databases that come and go, and where their blobs are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::Site;
use crate::common::zodb;

/// The databases that are saved: name, blob directory, mode.
fn tracked(site: &Site) -> Vec<(String, Value, Value)> {
    let status = site.json(&["status"]);
    let databases = status["databases"].as_array().unwrap().iter();
    databases
        .map(|one| (one["name"].as_str().unwrap().into(), one["blobs"].clone(), one["blobs_mode"].clone()))
        .collect()
}

fn names(site: &Site) -> Vec<String> {
    tracked(site).into_iter().map(|(name, ..)| name).collect()
}

#[test]
fn a_database_that_is_tracked_later_is_in_later_snapshots() {
    let site = Site::new(3);
    site.ok(&["init", "main.fs"]);
    site.ok(&["save", "one"]);
    let one = site.states();
    assert!(site.ok(&["track", "catalog.fs"]).starts_with("added catalog: catalog.fs, "));
    assert!(site.ok(&["track", "index.fs", "--name", "words"]).starts_with("added words: index.fs, "));
    assert_eq!(names(&site), ["main", "catalog", "words"]);
    site.count(2);
    let said = site.ok(&["save", "three"]);
    assert!(said.starts_with("three: 3 databases"), "{said}");
    let three = site.states();
    // One from before isn't partial, and leaves the others alone.
    assert_eq!(site.json(&["list"])[0]["partial"], false);
    site.count(1);
    let after = site.states();
    assert!(site.ok(&["restore", "one"]).contains("left as they are: catalog, words"));
    assert!(site.states() == [one[0].clone(), after[1].clone(), after[2].clone()]);
    site.ok(&["undo"]);
    assert!(site.states() == after);
    site.ok(&["restore", "three"]);
    assert!(site.states() == three);
    site.refuses(&["track", "catalog"], 2, "database catalog is tracked already");
    site.refuses(&["track", "./catalog.fs"], 2, "database catalog is tracked already");
    site.refuses(&["track", "nothing.fs"], 5, "nothing.fs");
    fs::copy(site.file("main.fs"), site.file("other.fs")).unwrap();
    site.refuses(&["track", "other.fs", "--name", "main"], 2, "\"main\" is that of another database");
    site.refuses(&["track", "other.fs", "--name", "Ä/x"], 2, "\"Ä/x\" can't be a database's name");
    site.ok(&["check", "--data", "--databases"]);
}

#[test]
fn p5_a_large_one_that_is_tracked_later_has_its_second_name_at_once() {
    let site = Site::started(1);
    let path = site.file("large.fs");
    zodb(&["make", path.to_str().unwrap(), "--seed", "1", "--transactions", "60", "--profile", "large"]);
    let output = site.znap(&["track", "large.fs"]);
    assert!(output.code == 0 && output.stderr.contains("hint: znap base keep large stores that too"), "{output:?}");
    assert_eq!(fs::metadata(&path).unwrap().nlink(), 2);
    site.ok(&["save", "before"]);
    let before = fs::read(&path).unwrap();
    for _ in 0..2 {
        zodb(&["pack", path.to_str().unwrap()]);
        zodb(&["grow", path.to_str().unwrap(), "--seed", "2", "--transactions", "3", "--profile", "large"]);
    }
    site.ok(&["save", "after"]);
    site.ok(&["restore", "before", "--only", "large"]);
    assert!(fs::read(&path).unwrap() == before);
}

#[test]
fn p5_snapshots_of_a_database_that_is_not_tracked_any_more_still_restore_it() {
    let site = Site::started(3);
    site.ok(&["save", "all"]);
    let all = site.states();
    site.count(2);
    assert_eq!(site.ok(&["untrack", "catalog"]), "not tracked any more: catalog\n");
    assert_eq!(names(&site), ["main", "index"]);
    assert!(site.ok(&["status"]).ends_with("not tracked any more: catalog\n"));
    assert_eq!(site.json(&["status"])["untracked"], json!(["catalog"]));
    let report = site.json(&["save", "two"]);
    assert_eq!((&report["partial"], report["databases"].as_array().unwrap().len()), (&json!(false), 2));
    site.refuses(&["save", "--only", "catalog"], 1, "database catalog is not tracked any more");
    site.refuses(&["untrack", "catalog"], 1, "database catalog is not tracked any more");
    site.refuses(&["untrack", "nothing"], 5, "there is no database nothing");
    let after = site.states();
    // Restored with the others, and taken back with them: what no snapshot holds of it is saved first.
    site.ok(&["restore", "all"]);
    assert!(site.states() == all);
    site.ok(&["undo"]);
    assert!(site.states() == after);
    // A catalog made anew doesn't bring it back.
    fs::remove_file(site.file(".znap/catalog.db")).unwrap();
    site.ok(&["repair"]);
    assert_eq!(names(&site), ["main", "index"]);
    // Its file may be gone.
    fs::rename(site.file("catalog.fs"), site.file("gone.fs")).unwrap();
    site.ok(&["save", "three"]);
    site.ok(&["log"]);
    site.ok(&["check", "--databases"]);
    site.refuses(&["restore", "all"], 5, "there is no file");
    site.ok(&["restore", "all", "--only", "main", "--only", "index"]);
    assert!(site.state("main.fs") == all[0] && site.state("index.fs") == all[2]);
    site.refuses(&["track", "catalog"], 5, "catalog.fs");
    fs::rename(site.file("gone.fs"), site.file("catalog.fs")).unwrap();
    assert_eq!(site.ok(&["track", "catalog"]), "catalog is tracked again\n");
    assert_eq!(site.json(&["save", "four"])["databases"].as_array().unwrap().len(), 3);
    site.ok(&["untrack", "main", "catalog", "index"]);
    site.refuses(&["save"], 1, "no database is tracked any more");
}

/// A blob directory as ZODB makes one.
fn make_blobs(path: &Path) {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join(".layout"), "bushy").unwrap();
}

#[test]
fn blob_directories_are_recorded_and_survive_a_lost_catalog() {
    let site = Site::new(2);
    for name in ["blobs-a", "blobs-b", "cache"] {
        make_blobs(&site.file(name));
    }
    fs::write(site.file("cache/.layout"), "zeocache").unwrap();
    fs::create_dir_all(site.file("relstorage/17")).unwrap();
    let init = |blobs: &[&str]| -> Vec<String> {
        let blobs = blobs.iter().flat_map(|directory| ["--blobs", directory]);
        ["init", "main.fs", "catalog.fs"].into_iter().chain(blobs).map(String::from).collect()
    };
    for (blobs, code, words) in [
        (&["nowhere"][..], 5, "there is no directory"),
        (&["main.fs"], 1, "it is no directory"),
        (&["cache"], 1, "it is a cache, of a ZEO client or of RelStorage"),
        (&["relstorage"], 1, "it looks like a cache"),
        (&["."], 1, "it has no .layout"),
        (&["blobs-a", "./blobs-a"], 2, "is that of another database"),
        (&["blobs-a", "blobs-b", "cache"], 2, "more blob directories than databases"),
    ] {
        let args = init(blobs);
        site.refuses(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
        assert!(!site.file(".znap").exists());
    }
    site.refuses(&["init", "main.fs", "--blobs-mode", "copy"], 2, "--blobs-mode is given, but no blob directory");
    let args = init(&["blobs-a"]);
    let said = site.ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.contains("; blobs: blobs-a (link)\n"), "{said}");
    let expected = |second: Value, mode: Value| {
        vec![("main".into(), json!("blobs-a"), json!("link")), ("catalog".into(), second, mode)]
    };
    assert_eq!(tracked(&site), expected(Value::Null, Value::Null));
    site.refuses(&["track", "catalog", "--blobs-mode", "skip"], 2, "database catalog has no blob directory");
    site.refuses(&["track", "catalog", "--blobs", "blobs-a"], 2, "is that of another database");
    site.refuses(&["track", "catalog", "--blobs", "cache"], 1, "it is a cache");
    let said = site.ok(&["track", "catalog", "--blobs", "blobs-b", "--blobs-mode", "skip"]);
    assert_eq!(said, "catalog; blobs: blobs-b (skip)\n");
    assert_eq!(tracked(&site), expected(json!("blobs-b"), json!("skip")));
    site.ok(&["save", "one"]);
    fs::remove_file(site.file(".znap/catalog.db")).unwrap();
    site.ok(&["repair"]);
    assert_eq!(tracked(&site), expected(json!("blobs-b"), json!("skip")));
    site.ok(&["track", "catalog", "--blobs-mode", "copy"]);
    assert_eq!(tracked(&site), expected(json!("blobs-b"), json!("copy")));
    // Stored as seen from the directory that holds .znap.
    fs::create_dir(site.file("sub")).unwrap();
    let mut command = site.sandbox.znap_command();
    command.current_dir(site.file("sub")).args(["track", "catalog", "--blobs", "../blobs-b"]);
    assert_eq!(crate::common::output(&mut command).code, 0);
    let sql = rusqlite::Connection::open(site.file(".znap/catalog.db")).unwrap();
    let stored: String =
        sql.query_row("SELECT blobs FROM databases WHERE name = 'catalog'", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, "blobs-b");
}

#[test]
fn a_blob_directory_in_its_usual_place_is_pointed_out() {
    let site = Site::new(2);
    make_blobs(&site.file("blobstorage"));
    let output = site.znap(&["init", "main.fs"]);
    assert_eq!(output.code, 0, "{output:?}");
    let hint =
        "blobstorage looks like the blob directory of main: znap track main --blobs blobstorage has it saved, too";
    assert!(output.stderr.contains(hint), "{output:?}");
    site.ok(&["track", "main", "--blobs", "blobstorage"]);
    // It has its database now.
    let output = site.znap(&["track", "catalog.fs"]);
    assert!(output.code == 0 && !output.stderr.contains("looks like"), "{output:?}");
}

#[test]
fn a_zope_conf_names_the_blob_directories_too() {
    let site = Site::new(1);
    let text = "<zodb_db main>\n  mount-point /\n  <blobstorage>\n    blob-dir blobs\n    <filestorage>\n      path main.fs\n    </filestorage>\n  </blobstorage>\n</zodb_db>\n";
    fs::write(site.file("zope.conf"), format!("instancehome .\n{text}")).unwrap();
    site.refuses(&["init", "--zope-conf", "zope.conf"], 5, "zope.conf, line 2: there is no directory");
    // Real ZODB makes the directory.
    let opened = zodb(&["zope-conf", site.file("zope.conf").to_str().unwrap()]);
    assert_eq!(opened[0][2].as_str().unwrap(), site.file("blobs").to_str().unwrap());
    site.ok(&["init", "--zope-conf", "zope.conf", "--blobs-mode", "copy"]);
    assert_eq!(tracked(&site), [("main".into(), json!("blobs"), json!("copy"))]);
}
