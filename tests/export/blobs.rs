//! Archives with blobs.

use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::tz::TimeZone;
use znap::disk::Disk;
use znap::monitor::Silent;
use znap::snapshot::{ImportOptions, Origin, Place, Repository, import};

use crate::common::{Kill, Sandbox, output, zodb};
use crate::site::{Site, state};
use crate::{archive_of, members, with_edited};

/// Snapshots `a` and `b`, each in an archive.
fn site(layout: &str, mode: &str, transactions: u32) -> Site {
    let mut site = Site::small(layout, mode);
    site.save("a");
    site.grow(transactions);
    site.save("b");
    for id in ["a", "b"] {
        site.sandbox.znap_ok(&["export", id, &format!("{id}.tar.zst")]);
    }
    site
}

/// A repository of another site, of the same name and layout, that has a snapshot.
fn other(layout: &str, mode: &str) -> Site {
    let mut other = Site::small(layout, mode);
    other.grow(3);
    other.save("own");
    other
}

fn unpack(archive: &Path, folder: &Path) {
    fs::create_dir(folder).unwrap();
    let plain = folder.with_extension("tar");
    fs::write(&plain, zstd::decode_all(fs::File::open(archive).unwrap()).unwrap()).unwrap();
    let done = output(Command::new("tar").arg("-xpf").arg(&plain).arg("-C").arg(folder));
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
}

#[test]
fn p4_blobs_are_in_the_archive_where_zodb_looks_for_them() {
    for (layout, mode) in [("bushy", "link"), ("lawn", "copy")] {
        let site = site(layout, mode, 20);
        for id in ["a", "b"] {
            let folder = site.sandbox.file(id);
            unpack(&site.sandbox.file(format!("{id}.tar.zst")), &folder);
            let unpacked = state(&folder.join("data"));
            assert!(unpacked.file == site.held[id].file && unpacked.index == site.held[id].index, "P6: {id}");
            let names = |tree: &crate::site::Tree| tree.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&unpacked.blobs), names(&site.held[id].blobs), "{id}");
            let marker = Path::new(".layout");
            let same = unpacked.blobs.iter().filter(|(name, _)| *name != marker);
            assert!(same.eq(site.held[id].blobs.iter().filter(|(name, _)| *name != marker)), "P6: {id}");
            zodb(&["blobs-check", folder.join("data/Data.fs").to_str().unwrap()]);
        }
        site.sandbox.znap_ok(&["export", "a", "without.tar.zst", "--no-blobs"]);
        let names: Vec<String> =
            members(&site.sandbox.file("without.tar.zst")).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["znap.json", "data/Data.fs", "data/Data.fs.index", "BLAKE3SUMS"]);
    }
}

#[test]
fn p6_of_a_damaged_blob_there_is_no_archive() {
    for mode in ["link", "copy"] {
        let site = site("bushy", mode, 10);
        let mut refused = 0;
        let mut folders = vec![site.sandbox.file(".znap/objects")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                    continue;
                }
                let bytes = fs::read(&entry).unwrap();
                let mut damaged = bytes.clone();
                let Some(byte) = damaged.get_mut(bytes.len() / 2) else { continue };
                *byte ^= 8;
                fs::remove_file(&entry).unwrap();
                fs::write(&entry, damaged).unwrap();
                let output = site.sandbox.znap(&["export", "b", "damaged.tar.zst"]);
                let is_there = site.sandbox.file("damaged.tar.zst").exists();
                assert_eq!(output.code == 0, is_there, "{output:?}");
                if is_there {
                    fs::remove_file(site.sandbox.file("damaged.tar.zst")).unwrap();
                } else {
                    assert_eq!(output.code, 3, "{output:?}");
                    refused += 1;
                }
                fs::write(&entry, bytes).unwrap();
            }
        }
        assert!(refused >= 2, "{refused}");
    }
}

#[test]
fn p6_blobs_come_back_in_another_repository() {
    for (layout, mode, there) in [("bushy", "link", "copy"), ("lawn", "copy", "link"), ("bushy", "copy", "skip")] {
        let site = site(layout, mode, 15);
        let mut other = other(layout, there);
        for id in ["b", "a"] {
            let path = site.sandbox.file(format!("{id}.tar.zst"));
            let args = ["import", "--from", "archive", path.to_str().unwrap()];
            other.sandbox.znap_ok(&[&args[..], &["--dry-run"]].concat());
            other.sandbox.znap_ok(&args);
            assert!(!other.sandbox.file(".znap/import").exists());
            other.held.insert(id.into(), state_of(&site, id));
        }
        other.sandbox.znap_ok(&["check", "--data", "--databases"]);
        if there == "skip" {
            // Nothing is done with blobs there.
            let blobs = state(other.sandbox.path()).blobs;
            other.sandbox.znap_ok(&["restore", "a"]);
            assert!(state(other.sandbox.path()).blobs == blobs);
            continue;
        }
        for id in ["a", "b", "own", "b", "a"] {
            other.restores(id);
        }
        other.grow(4);
        other.save("on");
        other.restores("b");
        other.restores("on");
        other.sandbox.znap_ok(&["gc", "--all"]);
        other.sandbox.znap_ok(&["check", "--data"]);
        other.restores("a");
        // Exported once more, they are the same.
        other.sandbox.znap_ok(&["export", "b", "again.tar.zst"]);
        let blobs = |path: &Path| {
            let mut all = members(path);
            all.retain(|(name, _)| name.contains("blobstorage"));
            all.sort();
            all
        };
        assert!(blobs(&other.sandbox.file("again.tar.zst")) == blobs(&site.sandbox.file("b.tar.zst")));
    }
}

fn state_of(site: &Site, id: &str) -> crate::site::State {
    let held = &site.held[id];
    crate::site::State { file: held.file.clone(), index: held.index.clone(), blobs: held.blobs.clone() }
}

#[test]
fn a_database_without_a_blob_directory_gets_them_elsewhere() {
    let site = site("bushy", "link", 5);
    let other = Sandbox::with_database(1, 3, "small");
    other.znap_ok(&["init", "Data.fs"]);
    other.znap_ok(&["import", "--from", "archive", site.sandbox.file("b.tar.zst").to_str().unwrap()]);
    other.znap_ok(&["restore", "b", "--to", "copy"]);
    let copy = state(&other.file("copy/data"));
    assert!(copy.file == site.held["b"].file);
    let blobs = |state: &crate::site::State| {
        let mut blobs = state.blobs.clone();
        blobs.retain(|name, _| name.extension().is_some_and(|end| end == "blob"));
        blobs
    };
    assert!(blobs(&copy) == blobs(&site.held["b"]));
}

#[test]
fn p6_hostile_blobs_change_nothing() {
    let site = site("bushy", "copy", 5);
    site.sandbox.znap_ok(&["delete", "a"]);
    let good = members(&site.sandbox.file("a.tar.zst"));
    let is_blob = |name: &str| name.ends_with(".blob");
    let blob = good.iter().find(|(name, _)| is_blob(name)).unwrap().0.clone();
    let bad = site.sandbox.file("bad.tar.zst");
    let list = site.sandbox.znap_ok(&["list", "--json"]);
    let refused = |what: &str| {
        let output = site.sandbox.znap(&["import", "--from", "archive", "bad.tar.zst"]);
        assert!(output.code == 1 && output.stderr.lines().count() <= 2, "{what}: {output:?}");
        assert!(!site.sandbox.file(".znap/import").exists() && !site.sandbox.file("evil").exists());
        assert_eq!(site.sandbox.znap_ok(&["list", "--json"]), list);
    };
    let tid = blob.rsplit('/').next().unwrap();
    for name in [
        format!("data/blobstorage/../../evil/{tid}"),
        format!("data/blobstorage/0x01/{tid}"),
        format!("data/blobstorage/{}", "0x00/".repeat(8)),
        "data/blobstorage/evil".into(),
        "data/blobstorage/.layout".into(),
        format!("/evil/{tid}"),
        format!("data/evil/{tid}"),
    ] {
        archive_of(&bad, &with_edited(&good, &blob, |old, _| *old = name.clone()));
        refused(&name);
    }
    let mut fewer = good.clone();
    fewer.retain(|(name, _)| *name != blob);
    archive_of(&bad, &fewer);
    refused("one is missing");
    fewer.retain(|(name, _)| !is_blob(name) && !name.ends_with(".layout"));
    archive_of(&bad, &fewer);
    refused("all are missing");
    let mut twice = good.clone();
    twice.insert(5, good.iter().find(|(name, _)| *name == blob).unwrap().clone());
    archive_of(&bad, &twice);
    refused("one is there twice");
    archive_of(&bad, &with_edited(&good, &blob, |_, bytes| bytes.push(1)));
    refused("one is longer");
    archive_of(&bad, &with_edited(&good, "data/blobstorage/.layout", |_, bytes| *bytes = b"lawn".to_vec()));
    refused("laid out in another way");
    archive_of(
        &bad,
        &with_edited(&good, "znap.json", |_, bytes| {
            *bytes = String::from_utf8(bytes.clone()).unwrap().replace("bushy", "garden").into_bytes();
        }),
    );
    refused("laid out in no way");
    archive_of(&bad, &good);
    site.sandbox.znap_ok(&["import", "--from", "archive", "bad.tar.zst"]);
    site.restores("b");
}

#[test]
fn p5_an_import_of_blobs_that_is_killed_leaves_nothing_behind() {
    let site = site("bushy", "link", 3);
    site.sandbox.znap_ok(&["delete", "a"]);
    let (mut kills, mut left) = (0, 0);
    for change in (0..).step_by(2) {
        let world = site.sandbox.copy();
        let place = Place { root: world.file(".znap"), trusted: Vec::new() };
        let options = ImportOptions {
            origin: Origin::Archive,
            path: world.file("a.tar.zst"),
            database: None,
            dry_run: false,
            zone: TimeZone::UTC,
        };
        let disk = Disk::watched(Kill::at(change));
        let done = Repository::open_to_write_on(&disk, &place, &Silent)
            .and_then(|mut repository| import(&mut repository, &options, &Silent));
        if done.is_ok() {
            break;
        }
        kills += 1;
        left += usize::from(world.file(".znap/import").exists());
        world.znap_ok(&["gc"]);
        assert!(!world.file(".znap/import").exists());
        world.znap_ok(&["import", "--from", "archive", "a.tar.zst"]);
        world.znap_ok(&["restore", "a", "--to", "copy"]);
        assert!(state(&world.file("copy/data")).file == site.held["a"].file);
        zodb(&["blobs-check", world.file("copy/data/Data.fs").to_str().unwrap()]);
        world.znap_ok(&["check", "--data"]);
    }
    println!("{kills} kills, {left} of them with blobs left");
    assert!(kills > 8 && left > 3, "{kills} {left}");
}
