//! Archives with blobs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use jiff::tz::TimeZone;
use znap::disk::Disk;
use znap::monitor::Silent;
use znap::snapshot::{ImportOptions, Origin, Place, Repository, import};

use crate::common::{Kill, Sandbox, output, zodb};
use crate::site::{Site, State, Tree, state, tree};
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
            let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&unpacked.blobs), names(&site.held[id].blobs), "{id}");
            let marker = Path::new(".layout");
            let same = unpacked.blobs.iter().filter(|(name, _)| *name != marker);
            assert!(same.eq(site.held[id].blobs.iter().filter(|(name, _)| *name != marker)), "P6: {id}");
            zodb(&["blobs-check", folder.join("data/Data.fs").to_str().unwrap()]);
        }
        let said = site.sandbox.znap_ok(&["export", "a", "without.tar.zst", "--no-blobs"]);
        assert!(said.lines().any(|line| line == "not written: the blobs of data"), "{said}");
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

fn state_of(site: &Site, id: &str) -> State {
    let held = &site.held[id];
    State { file: held.file.clone(), index: held.index.clone(), blobs: held.blobs.clone() }
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
    assert!(blobs(&copy) == blobs(&site.held["b"]));
}

/// Without the marker.
fn blobs(state: &State) -> Tree {
    let mut blobs = state.blobs.clone();
    blobs.retain(|name, _| is_blob(name));
    blobs
}

fn is_blob(name: &Path) -> bool {
    name.extension().is_some_and(|end| end == "blob")
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

fn described(members: &[(String, Vec<u8>)], change: impl Fn(&mut serde_json::Value)) -> Vec<(String, Vec<u8>)> {
    with_edited(members, "znap.json", |_, bytes| {
        let mut value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        *bytes = serde_json::to_vec(&value).unwrap();
    })
}

/// How many blobs there are in a folder.
fn blobs_in(folder: &Path) -> usize {
    blobs(&state(folder)).len()
}

fn imported(sandbox: &Sandbox, archive: &Path, more: &[&str], code: i32) -> serde_json::Value {
    let args = ["import", "--json", "--from", "archive", archive.to_str().unwrap()];
    let output = sandbox.znap(&[&args[..], more].concat());
    assert_eq!(output.code, code, "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

#[test]
fn p5_blobs_that_are_not_taken_or_missing_are_counted() {
    let site = site("bushy", "copy", 5);
    let archive = site.sandbox.file("a.tar.zst");
    let good = members(&archive);
    let all = good.iter().filter(|(name, _)| name.ends_with(".blob")).count();
    let skipping = other("bushy", "skip").sandbox;
    for more in [&["--dry-run"][..], &[]] {
        let report = imported(&skipping, &archive, more, 0);
        let database = &report["imported"][0]["databases"][0];
        assert_eq!((&database["blobs"]["count"], &database["blobs"]["taken"]), (&all.into(), &false.into()));
        let warning = database["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with(&format!("its {all} blobs are left out")), "{warning}");
    }
    // Without any, though the database names them: as a save of it would, it says so.
    let none = described(&good, |about| {
        let blobs = &mut about["databases"][0]["blobs"];
        (blobs["count"], blobs["bytes"]) = (0.into(), 0.into());
    });
    let none: Vec<_> = none.into_iter().filter(|(name, _)| !name.ends_with(".blob")).collect();
    let bad = site.sandbox.file("bad.tar.zst");
    archive_of(&bad, &none);
    let other = other("bushy", "copy").sandbox;
    let report = imported(&other, &bad, &[], 6);
    let missing = report["imported"][0]["databases"][0]["blobs"]["missing"].as_u64().unwrap();
    assert!(missing > 0, "{report}");
    // What has them isn't there already.
    let report = imported(&other, &archive, &[], 0);
    let id = report["imported"][0]["id"].as_str().unwrap();
    assert_eq!(report["imported"][0]["databases"][0]["blobs"]["missing"], 0);
    other.znap_ok(&["restore", id, "--to", "copy"]);
    assert_eq!(blobs_in(&other.file("copy/data")), all);
    zodb(&["blobs-check", other.file("copy/data/Data.fs").to_str().unwrap()]);
    let said = other.znap_ok(&["import", "--from", "archive", archive.to_str().unwrap()]);
    assert!(said.contains("there already"), "{said}");
}

#[test]
fn a_dry_run_says_of_blobs_what_the_import_does() {
    let site = site("bushy", "link", 5);
    site.sandbox.znap_ok(&["export", "a", "without.tar.zst", "--no-blobs"]);
    let other = other("bushy", "link").sandbox;
    imported(&other, &site.sandbox.file("without.tar.zst"), &[], 0);
    let archive = site.sandbox.file("a.tar.zst");
    let said = other.znap_ok(&["import", "--from", "archive", archive.to_str().unwrap(), "--dry-run"]);
    assert!(said.contains(" blobs (") && said.contains("1 snapshot would be made"), "{said}");
    for more in [&["--dry-run"][..], &[], &["--dry-run"], &[]].iter().enumerate() {
        let report = imported(&other, &archive, more.1, 0);
        let made = report["imported"].as_array().unwrap().len();
        assert_eq!(made, usize::from(more.0 < 2), "{more:?}: {report}");
    }
}

/// Whether there is a snapshot that the import could go on from, or not.
#[test]
fn p6_a_blob_that_differs_from_the_known_one_of_its_name_is_not_taken_for_it() {
    for (mode, is_deleted) in [("link", true), ("copy", true), ("link", false), ("copy", false)] {
        let site = site("bushy", mode, 5);
        if is_deleted {
            site.sandbox.znap_ok(&["delete", "a"]);
        }
        let good = members(&site.sandbox.file("a.tar.zst"));
        let is_blob = |(name, bytes): &&(String, Vec<u8>)| name.ends_with(".blob") && !bytes.is_empty();
        let blob = good.iter().find(is_blob).unwrap().0.clone();
        let bad = site.sandbox.file("bad.tar.zst");
        archive_of(&bad, &with_edited(&good, &blob, |_, bytes| bytes[0] ^= 1));
        let output = site.sandbox.znap(&["import", "--from", "archive", "bad.tar.zst"]);
        assert!(output.code == 1 && output.stderr.contains("isn't the one of that name"), "{output:?}");
        assert!(!site.sandbox.file(".znap/import").exists());
        let report = imported(&site.sandbox, &site.sandbox.file("a.tar.zst"), &[], 0);
        assert_eq!(report["imported"].as_array().unwrap().len(), usize::from(is_deleted), "{report}");
        site.restores("a");
    }
}

#[test]
fn p5_a_blob_that_was_lost_comes_back_with_an_archive() {
    let site = site("bushy", "link", 5);
    let world = site.sandbox.copy();
    let objects = world.file(".znap/objects/blobs");
    let folder = fs::read_dir(&objects).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()).unwrap();
    assert_eq!(world.znap(&["restore", "a", "--to", "before"]).code, 3);
    let report = imported(&world, &world.file("a.tar.zst"), &[], 0);
    let id = report["imported"][0]["id"].as_str().unwrap();
    for id in [id, "a"] {
        world.znap_ok(&["restore", id, "--to", id]);
        zodb(&["blobs-check", world.file(id).join("data/Data.fs").to_str().unwrap()]);
    }
}

/// What a save doesn't find, and isn't current, it doesn't list as missing either.
#[test]
fn p6_an_old_revision_that_only_the_archive_has_comes_back() {
    for mode in ["link", "copy"] {
        let mut site = Site::small("bushy", mode);
        site.grow(10);
        site.save("s1");
        site.sandbox.znap_ok(&["export", "s1", "s1.tar.zst"]);
        site.sandbox.znap_ok(&["delete", "s1"]);
        site.sandbox.znap_ok(&["gc"]);
        // The first of two of one object.
        let folder = site.sandbox.file("blobstorage");
        let names: Vec<_> = tree(&folder).into_keys().filter(|name| is_blob(name)).collect();
        let old = &names.windows(2).find(|pair| pair[0].parent() == pair[1].parent()).unwrap()[0];
        fs::remove_file(folder.join(old)).unwrap();
        site.save("s2");
        site.sandbox.znap_ok(&["export", "s2", "s2.tar.zst"]);
        // Nor does a snapshot of the same time stand for it.
        let of_s2: serde_json::Value = serde_json::from_slice(&members(&site.sandbox.file("s2.tar.zst"))[0].1).unwrap();
        let good = members(&site.sandbox.file("s1.tar.zst"));
        let same_time = site.sandbox.file("same-time.tar.zst");
        archive_of(&same_time, &described(&good, |about| about["created"] = of_s2["created"].clone()));
        let report = imported(&site.sandbox, &same_time, &["--dry-run"], 0);
        assert_eq!(report["imported"].as_array().unwrap().len(), 1, "{report}");
        imported(&site.sandbox, &site.sandbox.file("s1.tar.zst"), &[], 0);
        site.sandbox.znap_ok(&["restore", "s1", "--to", "copy"]);
        let copy = state(&site.sandbox.file("copy/data"));
        assert!(copy.file == site.held["s1"].file && blobs(&copy) == blobs(&site.held["s1"]), "P6");
        let report = imported(&site.sandbox, &site.sandbox.file("s1.tar.zst"), &[], 0);
        assert_eq!(report["present"].as_array().unwrap().len(), 1, "{report}");
        site.sandbox.znap_ok(&["check", "--data"]);
    }
}

/// Whether a snapshot has it, or the import would go on from what is stored.
#[test]
fn p6_a_stored_blob_that_was_changed_does_not_stand_for_that_of_an_archive() {
    for is_deleted in [true, false] {
        let site = site("bushy", "link", 5);
        if is_deleted {
            site.sandbox.znap_ok(&["delete", "a"]);
        }
        let held = blobs(&site.held["a"]);
        let mut bytes = held.values().map(|(_, bytes)| bytes.clone()).find(|bytes| !bytes.is_empty()).unwrap();
        let name = blake3::hash(&bytes).to_hex().to_string();
        let object = site.sandbox.file(format!(".znap/objects/blobs/{}/{name}", &name[..2]));
        fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
        bytes[0] ^= 1;
        fs::write(&object, &bytes).unwrap();
        let list = site.sandbox.znap_ok(&["list", "--json"]);
        let refused = site.sandbox.znap(&["import", "--from", "archive", "a.tar.zst"]);
        assert!(refused.code == 3 && refused.stderr.contains(&name[..12]), "{refused:?}");
        assert!(refused.stderr.contains("hint: ") && refused.stderr.contains("znap repair"), "{refused:?}");
        assert_eq!(site.sandbox.znap_ok(&["list", "--json"]), list);
        assert!(fs::read(&object).unwrap() == bytes && !site.sandbox.file(".znap/import").exists());
        // Where the blob file was linked, not cloned, nobody has it any more.
        let repaired = site.sandbox.znap(&["repair"]);
        assert!([0, 6].contains(&repaired.code), "{repaired:?}");
        imported(&site.sandbox, &site.sandbox.file("a.tar.zst"), &[], 0);
        site.sandbox.znap_ok(&["restore", "a", "--to", "copy"]);
        assert!(blobs(&state(&site.sandbox.file("copy/data"))) == held, "P6");
        site.sandbox.znap_ok(&["check", "--data"]);
    }
}

/// A blob that an old site lacks is lacking in each of its archives; they are stored as cheaply as others.
#[test]
fn p8_archives_that_lack_a_blob_go_on_from_each_other() {
    let mut site = site("bushy", "copy", 5);
    let current = zodb(&["blobs-current", &site.data()]);
    fs::remove_file(site.sandbox.file("blobstorage").join(current["paths"][0].as_str().unwrap())).unwrap();
    fs::remove_dir_all(site.sandbox.file(".znap")).unwrap();
    site.sandbox.znap_ok(&["init", "Data.fs", "--blobs", "blobstorage"]);
    let other = other("bushy", "copy").sandbox;
    for id in ["x", "y"] {
        site.grow_with(1, &[]);
        site.sandbox.znap_ok(&["save", id, "--allow-missing-blobs"]);
        let name = format!("{id}.tar.zst");
        let said = site.sandbox.znap_ok(&["export", id, &name]);
        assert!(
            said.contains("; 1 more that the database names were missing when it was saved, or are lost"),
            "{said}"
        );
        imported(&other, &site.sandbox.file(&name), &[], 6);
    }
    let shown: serde_json::Value = serde_json::from_str(&other.znap_ok(&["show", "y", "--json"])).unwrap();
    assert_eq!(shown["details"][0]["parent"], "x", "P8: {shown:#}");
}

/// What is there once in an archive can't come any number of times, of which each takes memory.
#[test]
fn p6_no_member_comes_twice() {
    let site = site("bushy", "copy", 5);
    site.sandbox.znap_ok(&["delete", "a"]);
    let good = members(&site.sandbox.file("a.tar.zst"));
    let bad = site.sandbox.file("bad.tar.zst");
    let refused = |what: &str, words: &str| {
        let output = site.sandbox.znap(&["import", "--from", "archive", "bad.tar.zst"]);
        assert!(output.code == 1 && output.stderr.contains(words), "{what}: {output:?}");
    };
    for (name, words) in [("data/Data.fs.index", "or twice"), ("data/blobstorage/.layout", "two markers")] {
        let member = good.iter().find(|(other, _)| other == name).unwrap();
        let mut twice = good.clone();
        twice.insert(4, member.clone());
        archive_of(&bad, &twice);
        refused(name, words);
    }
    let mut early = good.clone();
    early.swap(1, 2);
    assert_eq!(early[1].0, "data/Data.fs.index");
    archive_of(&bad, &early);
    refused("an index before its database", "before its database");
    let mut early = good.clone();
    let marker = early.iter().position(|(name, _)| name == "data/blobstorage/.layout").unwrap();
    early[1..=marker].rotate_right(1);
    archive_of(&bad, &early);
    refused("a blob directory before its database", "before its database");
    let more = described(&good, |about| about["databases"][0]["blobs"]["count"] = (1_u64 << 40).into());
    archive_of(&bad, &more);
    refused("more than there can be", "more blobs than its database can name");
    for (field, value, words) in [
        ("created", serde_json::Value::from("1969-12-31T23:59:59Z"), "no snapshot has such a time"),
        ("message", "x".repeat(200_000).into(), "such a long message"),
        ("id", "-x".into(), "can't be a snapshot's id"),
    ] {
        archive_of(&bad, &described(&good, |about| about[field] = value.clone()));
        refused(field, words);
    }
    archive_of(&bad, &described(&good, |about| about["message"] = "x".repeat(100_000).into()));
    imported(&site.sandbox, &bad, &[], 0);
}
