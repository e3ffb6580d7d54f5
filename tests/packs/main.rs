//! Packs: a snapshot from before one comes back after it, and the other way round, byte for byte. (P2, P4, P5, P6)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod bases;
mod noticed;
mod second_names;
mod side_by_side;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{Kill, Sandbox, boundaries, finish_on, restore_on, zodb};
use jiff::tz::TimeZone;
use serde_json::Value;
use znap::disk::Disk;
use znap::filestorage::index_path;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, SaveOptions, Way, save, store_bases};

/// A database and its index.
type State = (Vec<u8>, Option<Vec<u8>>);

/// A database that isn't kept whole, and what each of its snapshots holds.
struct Site {
    sandbox: Sandbox,
    held: BTreeMap<String, State>,
}

impl Site {
    fn new(seed: u64) -> Self {
        let sandbox = Sandbox::with_database(seed, 60, "large");
        assert!(fs::metadata(sandbox.data_fs()).unwrap().len() > znap::snapshot::KEPT_WHOLE);
        sandbox.znap_ok(&["init", "Data.fs"]);
        Site { sandbox, held: BTreeMap::new() }
    }

    fn state(&self) -> State {
        (fs::read(self.sandbox.data_fs()).unwrap(), fs::read(index_path(&self.sandbox.data_fs())).ok())
    }

    fn save(&mut self, id: &str) -> String {
        let output = self.sandbox.znap(&["save", id]);
        assert_eq!(output.code, 0, "{output:?}");
        self.held.insert(id.into(), self.state());
        output.stdout + &output.stderr
    }

    fn pack(&self) {
        zodb(&["pack", self.sandbox.data_fs().to_str().unwrap()]);
    }

    /// As on a file system without hard links.
    fn without_second_names(&self) {
        let _ = fs::remove_dir_all(self.sandbox.file(".znap/bases"));
    }

    /// The files that have a second name in the repository.
    fn second_names(&self) -> Vec<(PathBuf, u64)> {
        let Ok(entries) = fs::read_dir(self.sandbox.file(".znap/bases")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().path()).map(|path| (path.clone(), inode(&path))).collect()
    }

    /// The database's file has a second name, and no other file has one.
    fn has_its_second_name(&self) {
        let names = self.second_names();
        assert!(names.len() == 1 && names[0].1 == inode(&self.sandbox.data_fs()), "{names:?}");
    }

    fn is(&self, id: &str) {
        let (state, expected) = (self.state(), &self.held[id]);
        assert!(state.0 == expected.0, "P6: the file isn't as {id} was");
        assert!(state.1 == expected.1, "P4: the index isn't as {id} had it");
    }

    fn restores(&self, id: &str) {
        self.sandbox.znap_ok(&["restore", id]);
        self.is(id);
        self.sandbox.check();
    }

    /// What `--json` gives.
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.sandbox.znap_ok(args)).unwrap()
    }

    /// How many bases are stored.
    fn bases(&self) -> usize {
        let catalog = rusqlite::Connection::open(self.sandbox.file(".znap/catalog.db")).unwrap();
        let sql = "SELECT count(*) FROM snapshot WHERE kind = 'base' AND tombstone IS NULL";
        catalog.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn all_come_back(&self) {
        for id in self.held.keys() {
            self.sandbox.znap_ok(&["restore", id, "--to", "copy"]);
            let copy = self.sandbox.file("copy/data/Data.fs");
            assert!(fs::read(&copy).unwrap() == self.held[id].0, "P6: {id}");
            assert!(fs::read(index_path(&copy)).ok() == self.held[id].1, "P4: {id}");
            fs::remove_dir_all(self.sandbox.file("copy")).unwrap();
        }
    }
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).unwrap().ino()
}

fn two_lives() -> Site {
    let mut site = Site::new(71);
    site.save("a");
    site.sandbox.grow(72, 10, "mixed");
    site.save("b");
    site.pack();
    site
}

#[test]
fn p5_snapshots_from_before_a_pack_come_back_after_it_and_the_other_way_round() {
    let mut site = two_lives();
    let old = site.sandbox.file("Data.fs.old");
    assert!(old.exists());
    assert!(site.sandbox.znap_ok(&["status"]).contains("packed"));
    let said = site.save("packed");
    assert!(said.contains("packed"), "{said}");
    // From now on nothing but the repository is needed for what was before.
    fs::remove_file(&old).unwrap();
    site.sandbox.grow(73, 10, "mixed");
    site.save("after");
    site.all_come_back();
    for id in ["a", "after", "b", "packed", "b", "a", "packed", "after"] {
        site.restores(id);
    }
    site.sandbox.znap_ok(&["restore", "a"]);
    site.sandbox.znap_ok(&["undo"]);
    site.is("after");
    site.sandbox.znap_ok(&["gc", "--all"]);
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
    // A second pack.
    site.pack();
    fs::remove_file(&old).unwrap();
    site.save("packed-again");
    site.all_come_back();
    for id in ["a", "packed-again", "packed"] {
        site.restores(id);
    }
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    site.all_come_back();
    site.restores("b");
}

#[test]
fn p5_a_restore_right_after_a_pack_saves_the_packed_file_first() {
    let site = two_lives();
    let packed = site.state();
    let refused = site.sandbox.znap(&["restore", "a", "--discard"]);
    assert!(refused.code == 1 && refused.stderr.contains("packed"), "{refused:?}");
    assert!(site.state() == packed);
    site.restores("a");
    let undo = site.sandbox.znap_ok(&["undo"]);
    assert!(site.state() == packed, "{undo}");
    site.restores("b");
}

#[test]
fn what_an_older_snapshot_needs_may_come_from_any_copy() {
    let mut site = two_lives();
    fs::rename(site.sandbox.file("Data.fs.old"), site.sandbox.file("elsewhere")).unwrap();
    site.without_second_names();
    site.save("packed");
    let before = site.state();
    let list = site.sandbox.znap_ok(&["list"]);
    assert!(list.lines().filter(|line| line.contains("needs ")).count() == 3, "{list}");
    for args in [&["restore", "a"][..], &["restore", "a", "--to", "copy"], &["restore", "a", "--base-from", "Data.fs"]]
    {
        let refused = site.sandbox.znap(args);
        assert!(refused.code == 1 && refused.stderr.contains("packed"), "{args:?}: {refused:?}");
        assert!(refused.stderr.contains("--base-from FILE"), "{args:?}: {refused:?}");
        assert!(site.state() == before);
    }
    site.sandbox.znap_ok(&["restore", "a", "--base-from", "elsewhere"]);
    site.is("a");
    fs::remove_file(site.sandbox.file("elsewhere")).unwrap();
    // Both files' beginnings are stored by now.
    for id in ["packed", "b", "packed", "a"] {
        site.restores(id);
    }
    assert!(!site.sandbox.znap_ok(&["list"]).contains("needs "));
    // What nothing needs any more goes.
    site.sandbox.znap_ok(&["delete", "a", "b"]);
    site.sandbox.znap_ok(&["restore", "packed"]);
    for undo in site
        .sandbox
        .znap_ok(&["list"])
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|id| id.starts_with("undo-"))
    {
        site.sandbox.znap_ok(&["delete", undo]);
    }
    assert_eq!(site.bases(), 2);
    site.sandbox.znap_ok(&["gc"]);
    assert_eq!(site.bases(), 1, "P10: the one that the last snapshot needs is left");
    site.held.retain(|id, _| id == "packed");
    site.all_come_back();
}

#[test]
fn p5_a_restore_over_a_pack_may_be_killed_anywhere() {
    let mut site = two_lives();
    site.save("packed");
    site.sandbox.grow(74, 5, "small");
    let grown = site.state();
    let (id, expected) = ("b", &site.held["b"]);
    {
        let (mut forward, mut back, mut changes, mut twice) = (0, 0, 0, 0);
        for change in 0.. {
            let world = site.sandbox.copy();
            if restore_on(&Disk::watched(Kill::at(change)), &world, id).is_ok() {
                break;
            }
            changes += 1;
            let state =
                |world: &Sandbox| (fs::read(world.data_fs()).unwrap(), fs::read(index_path(&world.data_fs())).ok());
            if !world.file(".znap/restore-journal").exists() {
                let now = state(&world);
                assert!(now == grown || now == *expected, "change {change}");
                continue;
            }
            // What finishes it is killed, too, once in a while.
            if change % 4 == 0 {
                for second in (0..).step_by(9) {
                    let again = world.copy();
                    let way = if second % 2 == 0 { Way::Forward } else { Way::Back };
                    if finish_on(&Disk::watched(Kill::at(second)), &again, way).is_ok() {
                        break;
                    }
                    twice += 1;
                    finish_on(&Disk::default(), &again, Way::Forward).unwrap();
                    let now = state(&again);
                    assert!(now == *expected || now.0 == grown.0, "P5: changes {change} and {second}");
                }
            }
            let other = world.copy();
            world.znap_ok(&["restore", "--resume"]);
            assert!(state(&world) == *expected, "P5: change {change}, resumed");
            world.znap_ok(&["undo"]);
            assert!(state(&world) == grown, "P5: change {change}, undone");
            forward += 1;
            let aborted = other.znap(&["restore", "--abort"]);
            if aborted.code == 0 {
                let now = state(&other);
                // Without an index ZODB reads all of the file, and is right.
                assert!(now.0 == grown.0 && (now.1 == grown.1 || now.1.is_none()), "P5: change {change}, aborted");
                back += 1;
            } else {
                assert!(aborted.stderr.contains("too late"), "{aborted:?}");
            }
        }
        println!("{id}: {changes} kills, {forward} finished, {back} taken back; {twice} killed twice");
        assert!(forward > 10 && back > 5 && twice > 10, "{forward} {back}");
    }
}

#[test]
fn what_only_looks_packed_is_refused() {
    let mut site = two_lives();
    site.save("packed");
    let packed = site.state().0;
    let refused = |bytes: &[u8], word: &str| {
        fs::write(site.sandbox.data_fs(), bytes).unwrap();
        let output = site.sandbox.znap(&["save", "no"]);
        assert!(output.code == 1 && output.stderr.contains(word), "{word}: {output:?}");
    };
    // Its first transaction says that it was packed; but it ends before what was saved, or was changed in a place.
    let boundaries = boundaries(&site.sandbox.data_fs());
    let end = boundaries[boundaries.len() / 2].0 as usize;
    refused(&packed[..end], "shorter");
    let mut changed = packed.clone();
    let at = changed.len() - 2000;
    changed[at] ^= 1;
    refused(&changed, "replaced");
    fs::write(site.sandbox.data_fs(), &packed).unwrap();
    site.restores("a");
}

#[test]
fn p5_a_base_that_was_set_aside_is_stored_again() {
    let mut site = two_lives();
    let old = site.sandbox.file("Data.fs.old");
    fs::copy(&old, site.sandbox.file("copy-of-old")).unwrap();
    site.save("packed");
    fs::remove_file(&old).unwrap();
    let objects = || fs::read_dir(site.sandbox.file(".znap/objects")).unwrap().map(|file| file.unwrap().path());
    let largest = objects().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    assert_eq!(site.sandbox.znap(&["check", "--data", "--databases"]).code, 3);
    assert_eq!(site.sandbox.znap(&["restore", "a", "--to", "copy"]).code, 3, "P6");
    site.sandbox.znap(&["repair"]);
    assert!(!site.sandbox.znap_ok(&["list"]).contains("base-"));
    site.sandbox.znap_ok(&["restore", "a", "--base-from", "copy-of-old"]);
    site.is("a");
    site.restores("packed");
    site.restores("b");
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
}

#[test]
fn p5_one_of_two_databases_is_packed() {
    let site = Site::new(75);
    let sandbox = &site.sandbox;
    let other = sandbox.file("other.fs");
    let second = ["--seed", "76", "--transactions", "60", "--profile", "large"];
    zodb(&[&["make", other.to_str().unwrap()], &second[..]].concat());
    fs::remove_dir_all(sandbox.file(".znap")).unwrap();
    sandbox.znap_ok(&["init", "Data.fs", "other.fs"]);
    let state =
        || [sandbox.data_fs(), other.clone()].map(|path| (fs::read(&path).unwrap(), fs::read(index_path(&path)).ok()));
    let mut held = Vec::new();
    let mut save = |id: &'static str| {
        sandbox.znap_ok(&["save", id]);
        held.push((id, state()));
    };
    save("a");
    sandbox.grow(77, 5, "small");
    save("b");
    zodb(&["pack", other.to_str().unwrap()]);
    save("packed");
    sandbox.grow(78, 5, "small");
    save("after");
    fs::remove_file(sandbox.file("other.fs.old")).unwrap();
    for at in [0, 3, 1, 2, 0, 2, 3] {
        sandbox.znap_ok(&["restore", held[at].0]);
        assert!(state() == held[at].1, "P5: {}", held[at].0);
    }
    sandbox.znap_ok(&["check", "--data", "--databases"]);
}

#[test]
fn p5_a_save_after_a_pack_may_be_killed_anywhere() {
    let mut site = two_lives();
    // Only its second name leads to the file that was there; or rather, since this is a copy, to one like it.
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    let before = site.sandbox.copy();
    site.save("packed");
    let (mut kills, mut bases) = (0, 0);
    for change in (0..).step_by(2) {
        let world = before.copy();
        let place = Place { root: world.file(".znap"), trusted: Vec::new() };
        let disk = Disk::watched(Kill::at(change));
        let done = Repository::open_to_write_on(&disk, &place, &Silent).and_then(|mut repository| {
            save(&mut repository, &SaveOptions::new(Some("packed".into()), "", TimeZone::UTC), &Silent)?;
            bases += 1;
            store_bases(&mut repository, &Silent)
        });
        if done.is_ok() {
            break;
        }
        kills += 1;
        // The next save stores what this one didn't.
        world.znap_ok(&["save", "again"]);
        let names: Vec<_> = fs::read_dir(world.file(".znap/bases")).unwrap().map(|name| name.unwrap().path()).collect();
        assert!(names.len() == 1 && inode(&names[0]) == inode(&world.data_fs()), "change {change}: {names:?}");
        for id in ["a", "b", "again"] {
            world.znap_ok(&["restore", id, "--to", "copy"]);
            let copy = fs::read(world.file("copy/data/Data.fs")).unwrap();
            assert!(copy == site.held[if id == "again" { "packed" } else { id }].0, "P6: change {change}, {id}");
            fs::remove_dir_all(world.file("copy")).unwrap();
        }
        world.znap_ok(&["gc"]);
        world.znap_ok(&["check", "--data", "--databases"]);
    }
    println!("{kills} kills, {bases} of them while the base was stored");
    assert!(kills > 15 && bases > 5, "{kills} {bases}");
}

/// Tried, gone back, and tried again: a pack is told by comparing with the state that the file is in, not with the newest there was.
#[test]
fn a_pack_or_a_conversion_may_be_tried_again() {
    let mut site = two_lives();
    site.save("packed");
    site.restores("a");
    site.pack();
    site.save("packed-again");
    site.all_come_back();
    site.restores("b");
    site.sandbox.znap_ok(&["undo"]);
    site.is("packed-again");
    let mut site = Site::new(76);
    site.save("a");
    site.sandbox.grow(77, 10, "mixed");
    site.save("b");
    let convert = |site: &Site| {
        let mut bytes = fs::read(site.sandbox.data_fs()).unwrap();
        bytes[..4].copy_from_slice(b"FS21");
        fs::write(site.sandbox.data_fs(), bytes).unwrap();
    };
    convert(&site);
    site.save("converted");
    site.sandbox.znap_ok(&["restore", "a"]);
    site.is("a");
    convert(&site);
    site.save("once-more");
    for id in ["a", "once-more", "b", "converted"] {
        site.sandbox.znap_ok(&["restore", id]);
        site.is(id);
    }
}

/// What is stored is given out, whatever has become of the file's beginning.
#[test]
fn p6_a_kept_base_is_what_is_restored_elsewhere_and_verified() {
    let sandbox = Sandbox::with_database(78, 60, "large");
    sandbox.znap_ok(&["init", "Data.fs", "--base"]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(79, 3, "small");
    sandbox.znap_ok(&["save", "b"]);
    let whole = fs::read(sandbox.data_fs()).unwrap();
    let mut changed = whole.clone();
    let at = changed.len() / 3;
    changed[at..at + 8].copy_from_slice(b"damaged!");
    fs::write(sandbox.data_fs(), &changed).unwrap();
    sandbox.znap_ok(&["restore", "b", "--to", "out"]);
    assert!(fs::read(sandbox.file("out/data/Data.fs")).unwrap() == whole, "P6");
    let refused = sandbox.znap(&["restore", "a", "--verify"]);
    assert!(refused.code == 1 && refused.stderr.contains("differs from snapshot"), "{refused:?}");
    assert!(fs::read(sandbox.data_fs()).unwrap() == changed);
    fs::write(sandbox.data_fs(), &whole).unwrap();
    assert!(!sandbox.znap_ok(&["restore", "a", "--verify"]).contains("structure"));
}
