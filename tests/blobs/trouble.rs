//! Blobs that are missing or damaged, killed restores, live writers, and what restores leave alone.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use znap::disk::{Change, Disk, Watcher};
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, RestoreOptions, Way, restore};

use crate::common::{Kill, finish_on, restore_on, undisturbed, zodb};
use crate::site::{Site, State, state, tree};

fn path_of_some_blob(site: &Site) -> PathBuf {
    let folder = site.sandbox.file("blobstorage");
    let current = zodb(&["blobs-current", site.sandbox.data_fs().to_str().unwrap()]);
    folder.join(current["paths"][0].as_str().unwrap())
}

#[test]
fn a_blob_that_is_missing_is_named_until_it_is_there() {
    for mode in ["link", "copy"] {
        let mut site = Site::new("bushy", mode);
        let blob = path_of_some_blob(&site);
        let aside = site.sandbox.file("aside");
        fs::rename(&blob, &aside).unwrap();
        for (id, more, code) in [("a", None, 6), ("b", None, 6), ("c", Some("--allow-missing-blobs"), 0)] {
            let args: Vec<&str> = ["save", id].into_iter().chain(more).collect();
            let output = site.sandbox.znap(&args);
            assert_eq!(output.code, code, "{output:?}");
            assert!(output.stderr.contains(blob.file_name().unwrap().to_str().unwrap()), "{output:?}");
            site.grow(3);
        }
        fs::rename(&aside, &blob).unwrap();
        site.save("whole");
        fs::remove_file(&blob).unwrap();
        site.restores("whole");
        assert!(blob.exists());
        assert_eq!(site.sandbox.znap(&["save", "again"]).code, 0);
        // What never was there isn't put there; what is known to be one of the site's isn't taken away.
        site.sandbox.znap_ok(&["restore", "a"]);
        site.sandbox.znap_ok(&["restore", "whole"]);
        site.is("whole");
        site.sandbox.znap_ok(&["gc", "--all"]);
        fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
        site.sandbox.znap_ok(&["repair"]);
        site.restores("whole");
        site.sandbox.znap_ok(&["check", "--data"]);
    }
}

#[test]
fn p6_a_linked_blob_that_was_changed_is_found_and_not_put_back() {
    let mut site = Site::new("bushy", "link");
    site.save("a");
    site.grow(10);
    site.save("b");
    site.restores("a");
    // One that only b has: its only file is the repository's now.
    let of_a = &site.held["a"].blobs;
    let (_, (_, bytes)) = site.held["b"].blobs.iter().find(|(place, _)| !of_a.contains_key(*place)).unwrap();
    let name = blake3::hash(bytes).to_hex().to_string();
    let object = site.sandbox.file(format!(".znap/objects/blobs/{}/{name}", &name[..2]));
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = fs::read(&object).unwrap();
    bytes[0] ^= 1;
    fs::write(&object, &bytes).unwrap();
    assert_eq!(site.sandbox.znap(&["check"]).code, 0, "its length is right");
    let check = site.sandbox.znap(&["check", "--data"]);
    assert_eq!(check.code, 3, "{check:?}");
    assert!(check.stdout.contains("changed in place") && check.stdout.contains(&name[..8]), "{check:?}");
    let refused = site.sandbox.znap(&["restore", "b"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    site.is("a");
    // Nobody has it any more, but for a copy.
    let copy = site.sandbox.copy();
    fs::create_dir_all(copy.file(".znap/objects/blobs").join(&name[..2])).unwrap();
    let in_copy = copy.file(format!(".znap/objects/blobs/{}/{name}", &name[..2]));
    fs::write(&in_copy, blake3_preimage(&site, &name)).unwrap();
    assert_eq!(site.sandbox.znap(&["repair"]).code, 6);
    assert!(!object.exists() && site.sandbox.file(".znap/damaged").join(&name).exists());
    assert_eq!(site.sandbox.znap(&["check"]).code, 3);
    let from = copy.file(".znap");
    let repaired = site.sandbox.znap_ok(&["repair", "--from", from.to_str().unwrap()]);
    assert!(repaired.contains("(blob): it is missing; nothing that is needed is lost"), "{repaired}");
    site.restores("b");
    // This one the site has, too.
    fs::remove_file(&object).unwrap();
    assert_eq!(site.sandbox.znap(&["check"]).code, 3);
    site.sandbox.znap_ok(&["repair"]);
    site.sandbox.znap_ok(&["check", "--data"]);
    site.restores("a");
    fs::remove_file(&object).unwrap();
    assert_eq!(site.sandbox.znap(&["check"]).code, 3);
    assert_eq!(site.sandbox.znap(&["restore", "b", "--to", "out"]).code, 3);
    assert_eq!(site.sandbox.znap(&["restore", "b"]).code, 3);
    site.is("a");
    site.sandbox.znap_ok(&["restore", "a", "--to", "a"]);
}

/// The bytes of a blob that has this hash.
fn blake3_preimage(site: &Site, name: &str) -> Vec<u8> {
    let mut all = site.held.values().flat_map(|held| held.blobs.values());
    all.find(|(_, bytes)| blake3::hash(bytes).to_hex().as_str() == name).unwrap().1.clone()
}

#[test]
fn p5_what_a_restore_takes_away_undo_brings_back() {
    let mut site = Site::new("lawn", "link");
    site.save("a");
    site.grow(20);
    let unsaved = state(site.sandbox.path());
    site.sandbox.znap_ok(&["restore", "a"]);
    site.is("a");
    site.sandbox.znap_ok(&["undo"]);
    assert!(state(site.sandbox.path()) == unsaved, "P5");
    zodb(&["blobs-check", &site.data()]);
}

/// What isn't a blob of the database stays as it is, and so does everything with `skip`.
#[test]
fn strangers_in_the_directory_are_left_alone() {
    let mut site = Site::new("bushy", "copy");
    site.save("a");
    let folder = site.sandbox.file("blobstorage");
    let strangers = ["tmp/BLOB.tmp", "stray", "0x00/0x00/0x00/0x00/0x00/0x00/0x00/0x01/0x0000000000000001.blob"];
    for name in strangers {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), name).unwrap();
    }
    site.grow(10);
    site.save("b");
    site.sandbox.znap_ok(&["restore", "a"]);
    for name in strangers {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), name);
        site.held.values_mut().for_each(|held| {
            held.blobs.insert(name.into(), (0o644, name.into()));
        });
    }
    site.is("a");
    site.restores("b");
    site.set_mode("skip");
    let before = tree(&folder);
    site.grow(5);
    let after = tree(&folder);
    assert!(before != after);
    let saved = site.save("c");
    assert!(saved["databases"][0]["blobs"].is_null());
    site.sandbox.znap_ok(&["restore", "a"]);
    assert!(tree(&folder) == after);
    // Back again: of c's blobs nothing is known, and those of what follows are found.
    site.set_mode("link");
    site.sandbox.znap_ok(&["restore", "c"]);
    assert!(tree(&folder) == after);
    site.grow(5);
    let saved = site.save("d");
    assert_eq!(saved["databases"][0]["parent"], "b", "the nearest whose blobs are known");
    site.restores("a");
    site.restores("d");
    site.sandbox.znap_ok(&["check", "--data"]);
    site.sandbox.znap_ok(&["delete", "b", "c"]);
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.restores("a");
    site.restores("d");
}

/// Whole sites, with blobs, elsewhere; nothing in there is the repository's own file.
#[test]
fn p4_a_copy_elsewhere_is_a_whole_site() {
    for (layout, mode) in [("bushy", "link"), ("lawn", "copy")] {
        let mut site = Site::new(layout, mode);
        site.save("a");
        site.grow(10);
        site.save("b");
        for id in ["a", "b"] {
            site.sandbox.znap_ok(&["restore", id, "--to", id]);
            let copy = site.sandbox.file(id).join("data");
            let (found, held) = (state(&copy), &site.held[id]);
            assert!(found.file == held.file && found.index == held.index, "{id}");
            assert!(found.blobs == held.blobs, "{id}");
            for file in tree(&copy.join("blobstorage")).into_keys() {
                use std::os::unix::fs::MetadataExt;
                assert_eq!(fs::metadata(copy.join("blobstorage").join(file)).unwrap().nlink(), 1);
            }
            zodb(&["blobs-check", copy.join("Data.fs").to_str().unwrap()]);
        }
    }
}

/// Backward, where blobs are removed; and forward, where they are put there.
#[test]
fn p5_a_restore_of_blobs_may_be_killed_anywhere() {
    for (mode, forward) in [("copy", false), ("link", true), ("copy", true)] {
        let mut site = Site::small("bushy", mode);
        site.save("a");
        site.grow(4);
        site.save("b");
        if forward {
            site.sandbox.znap_ok(&["restore", "a"]);
            // Not as it should be: it is put back, or isn't, and nothing is worse.
            let some = site.held["a"].blobs.keys().find(|name| name.extension().is_some()).unwrap();
            fs::remove_file(site.sandbox.file("blobstorage").join(some)).unwrap();
        } else {
            site.grow(2);
        }
        killed_anywhere(&site, if forward { "b" } else { "a" });
    }
}

fn killed_anywhere(site: &Site, id: &str) {
    let before = state(site.sandbox.path());
    let (mut finished, mut back) = (0, 0);
    for change in (0..).step_by(3) {
        let world = site.sandbox.copy();
        if restore_on(&Disk::watched(Kill::at(change)), &world, id).is_ok() {
            break;
        }
        let expected = &site.held[id];
        if !world.file(".znap/restore-journal").exists() {
            // Nothing was changed; what was made beside goes.
            world.znap_ok(&["restore", "--abort"]);
            let now = state(world.path());
            assert!(now == before || now == *expected, "P5: change {change}");
            continue;
        }
        let other = world.copy();
        if change % 2 == 0 {
            let _ = finish_on(&Disk::watched(Kill::at(change % 50)), &world, Way::Forward);
        }
        world.znap_ok(&["restore", "--resume"]);
        assert!(state(world.path()) == *expected, "P5: change {change}, resumed");
        world.znap_ok(&["undo"]);
        let undone = state(world.path());
        assert!(undone.file == before.file && contains(&undone, &before), "P5: change {change}, undone");
        finished += 1;
        let aborted = other.znap(&["restore", "--abort"]);
        if aborted.code == 0 {
            let found = state(other.path());
            assert!(found.file == before.file && contains(&found, &before), "P5: change {change}, aborted");
            back += 1;
        } else {
            assert!(aborted.stderr.contains("too late"), "{aborted:?}");
        }
    }
    assert!(finished > 5 && back > 3, "{finished} {back}");
}

/// Whether all blobs of one are in the other, which may have one more: that which was missing before.
fn contains(one: &State, other: &State) -> bool {
    one.blobs.len() <= other.blobs.len() + 1 && other.blobs.iter().all(|(name, held)| one.blobs.get(name) == Some(held))
}

/// What happens to a blob directory, and to the database.
#[derive(Default)]
struct Order(Mutex<Vec<&'static str>>);

impl Watcher for Order {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        let is_made = |path: &Path| path.iter().any(|name| name == ".znap-restore");
        let what = match *change {
            Change::Write { path, .. } if is_made(path) => "make",
            Change::Sync { path } if is_made(path) => "sync one",
            Change::SyncFileSystem { .. } => "sync all",
            Change::Rename { from, .. } if is_made(from) => "put",
            Change::Write { path, .. } | Change::SetLength { path, .. } if path.ends_with("Data.fs") => "database",
            _ => return Ok(usize::MAX),
        };
        let mut order = self.0.lock().unwrap();
        if order.last() != Some(&what) {
            order.push(what);
        }
        Ok(usize::MAX)
    }
}

/// Few blobs are synced each by itself, many together; before ZODB can open the database in both cases.
#[test]
fn p5_blobs_are_on_the_disk_before_the_database_is_back() {
    let few = ["make", "sync one", "make", "sync one", "make", "sync one", "make", "sync one", "make", "sync one"];
    // It is fenced first.
    let many = ["make", "sync all", "database", "put", "sync all", "database"];
    for (mut site, expected) in [(Site::small("lawn", "copy"), &few[..]), (Site::new("bushy", "copy"), &many)] {
        site.save("a");
        site.grow(1);
        site.save("b");
        fs::remove_dir_all(site.sandbox.file("blobstorage")).unwrap();
        let order = Arc::new(Order::default());
        restore_on(&Disk::watched(order.clone()), &site.sandbox, "a").unwrap();
        assert_eq!(order.0.lock().unwrap()[..expected.len()], *expected);
        site.is("a");
    }
}

/// A disk from which no blob can be removed.
struct Keeps;

impl Watcher for Keeps {
    fn before(&self, change: &Change<'_>) -> io::Result<usize> {
        match change {
            Change::Remove { path } if path.extension().is_some_and(|end| end == "blob") => {
                Err(io::Error::from_raw_os_error(5))
            }
            _ => Ok(usize::MAX),
        }
    }
}

/// The databases are whole then, and may be in use: the restore is done, and says what it left.
#[test]
fn p5_blobs_that_cannot_be_removed_are_left_and_that_is_told() {
    let mut site = Site::small("bushy", "copy");
    site.save("a");
    site.grow(3);
    site.save("b");
    let place = Place { root: site.sandbox.file(".znap"), trusted: Vec::new() };
    let mut repository = Repository::open_to_write_on(&Disk::watched(Arc::new(Keeps)), &place, &Silent).unwrap();
    let report = undisturbed(|| restore(&mut repository, "a", &RestoreOptions::default(), &Silent)).unwrap();
    assert!(report.blobs_left);
    let (now, held) = (state(site.sandbox.path()), &site.held["a"]);
    let has_all = held.blobs.iter().all(|(name, held)| now.blobs.get(name) == Some(held));
    assert!(now.file == held.file && now.index == held.index && has_all && now.blobs.len() > held.blobs.len());
    drop(repository);
    zodb(&["blobs-check", &site.data()]);
    let mut repository = Repository::open_to_write(&place, &Silent).unwrap();
    let report = undisturbed(|| restore(&mut repository, "b", &RestoreOptions::default(), &Silent)).unwrap();
    assert!(!report.blobs_left);
    site.is("b");
}

/// A server that writes, undoes and deletes blobs, and packs, while snapshots are taken: each is whole.
#[test]
fn p3_snapshots_of_a_live_site_have_their_blobs() {
    let site = Site::new("bushy", "link");
    let data = site.data();
    let path = data.clone();
    let writer = std::thread::spawn(move || {
        zodb(&["blobs", &path, "--seed", "77", "--transactions", "150", "--size", "20000", "--undo", "--live"])
    });
    let mut ids = Vec::new();
    while !writer.is_finished() {
        let id = format!("live-{}", ids.len());
        let output = site.sandbox.znap(&["save", &id]);
        assert_eq!(output.code, 0, "{output:?}");
        ids.push(id);
    }
    assert_eq!(writer.join().unwrap()["packed"], 2);
    assert!(ids.len() >= 2, "{ids:?}");
    for id in &ids {
        site.sandbox.znap_ok(&["restore", id, "--to", id]);
        let copy = site.sandbox.file(id).join("data/Data.fs");
        zodb(&["blobs-check", copy.to_str().unwrap()]);
    }
    site.sandbox.znap_ok(&["restore", &ids[0]]);
    zodb(&["blobs-check", &data]);
}
