//! When somebody else is at it.

use std::fs::File;

use crate::common::undisturbed;
use crate::site::Site;

/// Holds the repository's lock, as a znap that is writing does.
pub fn hold(site: &Site) -> File {
    let file = File::options().read(true).write(true).open(site.sandbox.file(".znap/lock")).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn another_znap_is_writing() {
    let site = Site::with_snapshots();
    let lock = hold(&site);
    let output = site.znap(&["save"]);
    crate::site::assert_refused(&output, 4, "is in use by znap (pid ");
    assert!(output.stderr.starts_with("znap: waiting for znap (pid "), "{output:?}");
    // Readers don't mind.
    for args in [&["list"][..], &["status"], &["log"], &["restore", "one", "--dry-run"], &["check", "--data"]] {
        site.znap_ok(args);
    }
    // A dry run of gc does: a save that is going on has files that nothing uses yet.
    crate::site::assert_refused(&site.znap(&["gc", "--dry-run"]), 4, "is in use by znap (pid ");
    undisturbed(|| drop(lock));
    site.znap_ok(&["save"]);
}

#[test]
fn a_database_is_open() {
    let site = Site::with_snapshots();
    // A reader, which takes no lock.
    let reader = File::open(site.sandbox.data_fs()).unwrap();
    let before = site.data();
    site.refuses(&["restore", "one"], 4, "Data.fs is open in process ");
    assert_eq!(site.data(), before);
    assert!(site.znap_ok(&["status"]).contains(&format!("process {}", std::process::id())));
    // Nothing else minds.
    site.znap_ok(&["restore", "one", "--dry-run"]);
    site.znap_ok(&["restore", "one", "--to", "copy"]);
    site.znap_ok(&["save"]);
    undisturbed(|| drop(reader));
    site.znap_ok(&["restore", "one"]);
}

#[test]
fn a_database_is_locked() {
    let site = Site::with_snapshots();
    let lock = File::create(site.sandbox.file("Data.fs.lock")).unwrap();
    lock.lock().unwrap();
    let before = site.data();
    site.refuses(&["restore", "one"], 4, "Data.fs is in use");
    assert_eq!(site.data(), before);
    site.znap_ok(&["save"]);
    undisturbed(|| drop(lock));
    site.znap_ok(&["restore", "one"]);
}
