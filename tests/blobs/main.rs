//! Blobs: saved once, consistent with the cut, and put back with the database. (P1, P2, P4, P5, P6, P8)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod lost;
mod site;
mod trouble;

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use common::{python, script};
use site::{Site, state, tree};

fn blobs_of(report: &Value) -> &Value {
    &report["databases"][0]["blobs"]
}

/// Every snapshot comes back in place, forward, backward and from anywhere; in both layouts, linked and copied, over a pack.
#[test]
fn p4_p6_sites_come_back_with_their_blobs() {
    for (layout, mode) in [("bushy", "link"), ("lawn", "copy"), ("bushy", "copy"), ("lawn", "link")] {
        let mut site = Site::new(layout, mode);
        site.save("a");
        site.grow(15);
        site.save("b");
        site.grow(15);
        site.pack();
        site.save("c");
        site.grow(10);
        site.save("d");
        for id in ["a", "d", "b", "c", "b", "a", "c", "d"] {
            site.restores(id);
        }
        site.sandbox.znap_ok(&["check", "--data"]);
        site.sandbox.znap_ok(&["delete", "b", "c"]);
        site.sandbox.znap_ok(&["gc", "--all"]);
        for id in ["a", "d"] {
            site.restores(id);
        }
        // Without its catalog, too.
        fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
        site.sandbox.znap_ok(&["repair"]);
        for id in ["a", "d"] {
            site.restores(id);
        }
        site.sandbox.znap_ok(&["check", "--data"]);
        site.grow(5);
        let report = site.save("e");
        assert_eq!(report["databases"][0]["parent"], "d");
        site.restores("a");
        site.restores("e");
    }
}

/// P9: a program that was written from docs/format.md alone reads the blobs, too.
#[test]
fn p9_the_document_is_enough_to_read_blobs() {
    for (layout, mode) in [("bushy", "copy"), ("lawn", "link")] {
        let mut site = Site::new(layout, mode);
        site.save("a");
        site.grow(15);
        site.save("b");
        site.grow(5);
        site.save("c");
        site.sandbox.znap_ok(&["delete", "b"]);
        site.sandbox.znap_ok(&["gc"]);
        fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
        let folders = [site.sandbox.file(".znap"), site.sandbox.file("read")];
        let read = Command::new(python()).arg(script("reader.py")).args(folders).output().unwrap();
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        for id in ["a", "c"] {
            let found = state(&site.sandbox.file(format!("read/{id}/data")));
            let held = &site.held[id];
            assert!(found.file == held.file && found.index == held.index && found.blobs == held.blobs, "P9: {id}");
        }
    }
}

/// P1: what is known is not read, and makes no rows.
#[test]
fn p1_a_save_reads_only_new_blobs() {
    let mut site = Site::new("bushy", "link");
    let first = site.save("a");
    assert_eq!(blobs_of(&first)["read"], blobs_of(&first)["count"]);
    assert_eq!(blobs_of(&first)["linked"], blobs_of(&first)["count"]);
    let second = site.save("b");
    assert_eq!((&blobs_of(&second)["read"], &blobs_of(&second)["new"]), (&0.into(), &0.into()));
    assert!(second["counts"]["rows"].as_u64().unwrap() < 10, "{second}");
    assert!(second["counts"]["object_bytes_written"].as_u64().unwrap() < 2000, "{second}");
    site.grow(5);
    let third = site.save("c");
    let (new, read) = (blobs_of(&third)["new"].as_u64().unwrap(), blobs_of(&third)["read"].as_u64().unwrap());
    assert!(new == read && new > 0 && new < 30, "{third}");
    // After a pack every blob is listed anew, and none is read.
    site.pack();
    let packed = site.save("d");
    assert_eq!(blobs_of(&packed)["read"], 0);
    assert!(blobs_of(&packed)["count"].as_u64().unwrap() > 10);
}

/// Linked blobs take no room; the same bytes are stored once.
#[test]
fn p8_linked_blobs_are_the_same_files() {
    let mut site = Site::new("bushy", "link");
    site.save("a");
    let of_blobs: HashSet<u64> = files(&site.sandbox.file("blobstorage"));
    let stored: HashSet<u64> = files(&site.sandbox.file(".znap/objects/blobs"));
    assert!(!stored.is_empty() && stored.is_subset(&of_blobs));
}

fn files(folder: &Path) -> HashSet<u64> {
    let names = tree(folder).into_keys();
    names.map(|name| fs::metadata(folder.join(name)).unwrap().ino()).collect()
}
