//! What repair says.

use std::fs;
use std::path::PathBuf;

use snapbox::{assert_data_eq, str};

use crate::site::Site;

fn objects(site: &Site, kind: u8) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.sandbox.file(".znap/objects")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| fs::read(path).unwrap()[9] == kind).collect()
}

#[test]
fn repair_of_what_is_whole() {
    let site = Site::with_snapshots();
    assert_data_eq!(site.shown(&["repair"]), str![]);
    assert_data_eq!(site.shown(&["repair", "--dry-run"]), str![]);
    assert_data_eq!(site.shown(&["-q", "repair"]), str![]);
}

#[test]
fn repair_without_a_catalog() {
    let site = Site::with_snapshots();
    let catalog = site.sandbox.file(".znap/catalog.db");
    fs::remove_file(&catalog).unwrap();
    assert_data_eq!(site.shown(&["repair", "--dry-run"]), str![]);
    assert!(!catalog.exists());
    assert_data_eq!(site.shown(&["repair"]), str![]);
    assert_data_eq!(site.shown(&["list"]), str![]);
    fs::write(&catalog, "no database at all, but long enough to be taken for one".repeat(100)).unwrap();
    assert_data_eq!(site.shown(&["repair"]), str![]);
    let site = Site::started();
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.refuses(&["repair"], 3, "name no database");
    site.refuses(&["repair", "--from", "none"], 5, "there is no file or directory none");
}

#[test]
fn repair_sets_aside_what_nobody_has_and_brings_it_back() {
    let site = Site::with_snapshots();
    fs::copy(site.sandbox.data_fs(), site.sandbox.file("copy.fs")).unwrap();
    site.znap_ok(&["restore", "one"]);
    for path in objects(&site, 1) {
        fs::remove_file(path).unwrap();
    }
    assert_data_eq!(site.shown(&["repair", "--dry-run"]), str![]);
    assert_data_eq!(site.shown(&["repair"]), str![]);
    assert_data_eq!(site.shown(&["list"]), str![]);
    site.refuses(&["restore", "two"], 3, "snapshot two is damaged: nobody has");
    site.refuses(&["restore", "two", "--to", "x"], 3, "snapshot two is damaged: nobody has");
    assert_eq!(site.znap(&["-q", "repair"]).code, 6);
    assert_data_eq!(site.shown(&["repair", "--from", "copy.fs"]), str![]);
    site.znap_ok(&["restore", "two"]);
}
