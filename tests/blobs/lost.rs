//! What is lost of blobs stays a loss of those: nothing else goes with it, and what the site still has is taken again. (P5, P6, P10)

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::common::zodb;
use crate::site::{Site, tree};

fn object_files(site: &Site) -> BTreeSet<PathBuf> {
    let folder = fs::read_dir(site.sandbox.file(".znap/objects")).unwrap();
    folder.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

fn blobs_stored(site: &Site) -> BTreeSet<PathBuf> {
    let folder = site.sandbox.file(".znap/objects/blobs");
    if !folder.exists() {
        return BTreeSet::new();
    }
    tree(&folder).into_keys().map(|name| folder.join(name)).collect()
}

fn sql(site: &Site, statement: &str) {
    let catalog = rusqlite::Connection::open(site.sandbox.file(".znap/catalog.db")).unwrap();
    catalog.pragma_update(None, "foreign_keys", false).unwrap();
    assert!(catalog.execute(statement, []).unwrap() > 0, "{statement}");
}

#[test]
fn p6_pieces_of_copied_blobs_that_are_lost_are_taken_again() {
    let mut site = Site::new("bushy", "copy");
    site.save("a");
    let before = object_files(&site);
    site.grow(20);
    site.save("b");
    // The data file of b's save, which has its blobs.
    let new: Vec<PathBuf> = object_files(&site).difference(&before).cloned().collect();
    let data = new.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(data, &bytes).unwrap();
    assert_eq!(site.sandbox.znap(&["check", "--data"]).code, 3);
    let repair = site.sandbox.znap(&["repair"]);
    assert!(repair.code == 6 && repair.stderr.contains("lost"), "{repair:?}");
    site.sandbox.znap_ok(&["check", "--data"]);
    // What is nowhere else isn't removed: b's blobs are still in the directory.
    site.restores_but_for_blobs("a");
    site.sandbox.znap_ok(&["undo"]);
    site.is("b");
    site.save("c");
    site.restores("a");
    site.restores("c");
    site.restores("b");
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.sandbox.znap_ok(&["check", "--data"]);
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    site.restores("a");
    site.restores("c");
}

#[test]
fn p5_a_restore_never_removes_the_last_copy() {
    let mut site = Site::new("bushy", "link");
    site.save("a");
    let of_a = blobs_stored(&site);
    site.grow(20);
    site.save("b");
    for lost in blobs_stored(&site).difference(&of_a) {
        fs::remove_file(lost).unwrap();
    }
    site.sandbox.znap_ok(&["restore", "a"]);
    site.sandbox.znap_ok(&["restore", "b"]);
    site.is("b");
    site.sandbox.znap_ok(&["repair"]);
    site.restores("a");
    site.restores("b");
    site.sandbox.znap_ok(&["check", "--data"]);
}

/// The disk doesn't say whether the repository has a blob: a loop of links stands for it.
#[test]
fn p5_a_restore_that_cannot_look_at_stored_blobs_does_nothing() {
    let mut site = Site::new("bushy", "link");
    site.save("a");
    site.grow(20);
    site.save("b");
    let folder = site.sandbox.file(".znap/objects/blobs");
    let aside = folder.with_file_name("aside");
    fs::rename(&folder, &aside).unwrap();
    symlink(&folder, &folder).unwrap();
    let output = site.sandbox.znap(&["restore", "a"]);
    let said = output.stderr;
    assert!(output.code == 1 && said.contains("look at") && said.contains("objects/blobs"), "{said}");
    site.is("b");
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    site.restores("a");
    site.restores("b");
}

#[test]
fn p5_a_blob_that_another_save_found_belongs_to_the_snapshot_that_missed_it() {
    let mut site = Site::new("bushy", "link");
    let current = zodb(&["blobs-current", &site.data()]);
    let blob = site.sandbox.file("blobstorage").join(current["paths"][0].as_str().unwrap());
    let aside = site.sandbox.file("aside");
    fs::rename(&blob, &aside).unwrap();
    assert_eq!(site.sandbox.znap(&["save", "a"]).code, 6);
    fs::rename(&aside, &blob).unwrap();
    site.grow(10);
    site.save("b");
    site.sandbox.znap_ok(&["restore", "a"]);
    zodb(&["blobs-check", &site.data()]);
    fs::remove_file(&blob).unwrap();
    site.sandbox.znap_ok(&["restore", "a", "--to", "out"]);
    zodb(&["blobs-check", site.sandbox.file("out/data/Data.fs").to_str().unwrap()]);
    site.sandbox.znap_ok(&["restore", "a"]);
    zodb(&["blobs-check", &site.data()]);
    // A blob whose creation was undone while it was missing isn't missed any more.
    let mut site = Site::new("bushy", "copy");
    site.save("a");
    let before = tree(&site.sandbox.file("blobstorage"));
    zodb(&["blobs-put", &site.data(), "--from", site.data().as_str()]);
    let after = tree(&site.sandbox.file("blobstorage"));
    let new = after.keys().find(|name| !before.contains_key(*name)).unwrap();
    fs::remove_file(site.sandbox.file("blobstorage").join(new)).unwrap();
    assert_eq!(site.sandbox.znap(&["save", "b"]).code, 6);
    zodb(&["undo-last", &site.data()]);
    assert_eq!(site.sandbox.znap(&["save", "c"]).code, 0);
}

/// Who has no blob directory is told that the site lacks its blobs.
#[test]
fn blobs_that_can_be_put_nowhere_are_named() {
    let mut site = Site::small("bushy", "copy");
    site.save("a");
    site.sandbox.znap_ok(&["export", "a", "a.tar.zst"]);
    site.sandbox.znap_ok(&["-R", "other", "init", "Data.fs"]);
    site.sandbox.znap_ok(&["-R", "other", "import", "--from", "archive", "a.tar.zst"]);
    let restored = site.sandbox.znap(&["-R", "other", "restore", "a"]);
    assert!(restored.code == 0 && restored.stderr.contains("no blob directory"), "{restored:?}");
    site.sandbox.znap_ok(&["-R", "other", "track", "data", "--blobs", "blobstorage"]);
    fs::remove_dir_all(site.sandbox.file("blobstorage")).unwrap();
    site.sandbox.znap_ok(&["-R", "other", "restore", "a"]);
    site.is("a");
}

#[test]
fn p10_gc_refuses_a_catalog_that_lost_where_blobs_are() {
    for (mode, statement) in [
        ("copy", "DELETE FROM blob_chunk WHERE blob = (SELECT max(blob) FROM blob_chunk)"),
        ("copy", "DELETE FROM stream_blob WHERE offset = (SELECT max(offset) FROM stream_blob)"),
        ("link", "DELETE FROM object_file WHERE kind = 5"),
        ("link", "UPDATE blob SET object_file = (SELECT max(object_file) FROM blob) WHERE id = 1"),
        ("link", "UPDATE blob SET size = size + 1 WHERE id = 2"),
    ] {
        let mut site = Site::small("bushy", mode);
        site.save("a");
        site.grow(5);
        site.save("b");
        let stored = (object_files(&site), blobs_stored(&site));
        sql(&site, statement);
        assert_eq!(site.sandbox.znap(&["check"]).code, 3, "{statement}");
        assert_eq!(site.sandbox.znap(&["gc", "--all"]).code, 3, "{statement}");
        assert!(stored == (object_files(&site), blobs_stored(&site)), "{statement}");
        site.sandbox.znap_ok(&["repair"]);
        site.restores("a");
        site.restores("b");
    }
}

#[test]
fn p4_blobs_come_back_into_an_empty_directory() {
    for layout in ["bushy", "lawn"] {
        let mut site = Site::small(layout, "copy");
        site.save("a");
        for make in [false, true] {
            fs::remove_dir_all(site.sandbox.file("blobstorage")).unwrap();
            if make {
                fs::create_dir(site.sandbox.file("blobstorage")).unwrap();
            }
            site.restores("a");
        }
    }
}

#[test]
fn p9_a_blob_may_hold_anything_also_what_is_in_the_repository() {
    let mut site = Site::small("bushy", "link");
    site.save("a");
    site.save("deleted");
    for file in object_files(&site) {
        zodb(&["blobs-put", &site.data(), "--from", file.to_str().unwrap()]);
    }
    site.save("b");
    site.sandbox.znap_ok(&["delete", "deleted"]);
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.sandbox.znap_ok(&["check", "--data"]);
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    assert!(!site.sandbox.znap_ok(&["list"]).contains("deleted"));
    site.restores("a");
    site.restores("b");
}

/// A blob of tomorrow is compared when it is listed anew: what has its name has to be a file, as where it is read.
#[test]
fn p6_a_link_in_the_place_of_a_blob_that_is_compared_is_refused() {
    let mut site = Site::small("bushy", "link");
    site.grow(10);
    let folder = site.sandbox.file("blobstorage");
    let before = tree(&folder);
    zodb(&["blobs-put", &site.data(), "--from", site.data().as_str(), "--tomorrow"]);
    let blob = folder.join(tree(&folder).into_keys().find(|name| !before.contains_key(name)).unwrap());
    site.save("a");
    site.pack();
    let aside = site.sandbox.file("aside");
    fs::rename(&blob, &aside).unwrap();
    symlink(site.data(), &blob).unwrap();
    let refused = site.sandbox.znap(&["save", "b"]);
    assert!(refused.code == 1 && refused.stderr.contains("is no regular file"), "{refused:?}");
    fs::remove_file(&blob).unwrap();
    fs::rename(&aside, &blob).unwrap();
    site.save("b");
    site.restores("a");
    site.restores("b");
}

/// A server whose clock is behind gives the same transaction id again after a restore.
#[test]
fn p6_another_blob_of_the_same_name_is_refused() {
    let mut site = Site::small("bushy", "link");
    // The last transaction is of tomorrow.
    zodb(&["blobs-put", &site.data(), "--from", site.data().as_str(), "--tomorrow"]);
    site.save("a");
    let (one, other) = (site.sandbox.file("one"), site.sandbox.file("other"));
    fs::write(&one, "one").unwrap();
    fs::write(&other, "two").unwrap();
    zodb(&["blobs-put", &site.data(), "--from", one.to_str().unwrap()]);
    site.save("b");
    site.sandbox.znap_ok(&["restore", "a"]);
    zodb(&["blobs-put", &site.data(), "--from", other.to_str().unwrap()]);
    let refused = site.sandbox.znap(&["save", "c"]);
    assert!(refused.code == 1 && refused.stderr.contains("another file"), "{refused:?}");
    assert_eq!(site.sandbox.znap(&["restore", "a"]).code, 1);
    zodb(&["blobs-check", &site.data()]);
}
