//! Bases that are kept, so that snapshots need nothing but the repository; and what is said where they aren't.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use znap::disk::Disk;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, drop_bases, keep_bases};

use super::{Kill, Sandbox, Site, inode, two_lives, zodb};

/// Without the database and what a pack left of it, every snapshot comes back.
fn needs_nothing_else(site: &Site) {
    let files = ["Data.fs", "Data.fs.old", "Data.fs.index", ".znap/bases"];
    let there: Vec<&str> = files.into_iter().filter(|name| site.sandbox.file(name).exists()).collect();
    let aside = |name: &str| site.sandbox.file(format!("aside-{}", name.replace('/', "-")));
    for name in &there {
        fs::rename(site.sandbox.file(name), aside(name)).unwrap();
    }
    site.all_come_back();
    for name in &there {
        fs::rename(aside(name), site.sandbox.file(name)).unwrap();
    }
}

fn complete(site: &Site) -> Vec<bool> {
    let list = site.json(&["list", "--json"]);
    list.as_array().unwrap().iter().map(|snapshot| snapshot["complete"].as_bool().unwrap()).collect()
}

#[test]
fn p5_with_the_bases_kept_nothing_but_the_repository_is_needed() {
    let mut site = Site::new(91);
    fs::remove_dir_all(site.sandbox.file(".znap")).unwrap();
    let said = site.sandbox.znap_ok(&["init", "Data.fs", "--base"]);
    assert!(said.contains("will be stored with the first snapshot: about "), "{said}");
    let said = site.save("a");
    assert!(said.contains("of the file are stored now"), "{said}");
    assert_eq!(complete(&site), [true]);
    // What is stored needs no second name.
    assert!(site.second_names().is_empty());
    needs_nothing_else(&site);
    for (seed, id) in [(92, "b"), (93, "c")] {
        for _ in 0..2 {
            site.sandbox.grow(seed, 5, "mixed");
            site.pack();
        }
        site.save(id);
        site.sandbox.grow(seed + 10, 5, "mixed");
        site.save(&format!("{id}-and-on"));
    }
    assert_eq!(complete(&site), [true; 5]);
    assert!(!site.sandbox.znap_ok(&["list"]).contains("needs"));
    needs_nothing_else(&site);
    for id in ["b", "c-and-on", "a", "c"] {
        site.restores(id);
    }
    site.sandbox.znap_ok(&["gc", "--all"]);
    needs_nothing_else(&site);
    let catalog = rusqlite::Connection::open(site.sandbox.file(".znap/catalog.db")).unwrap();
    let view: (bool, bool) = catalog
        .query_row("SELECT complete, keep_base FROM databases", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(view, (true, true));
    drop(catalog);
    // A catalog that is made anew knows the setting.
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    site.sandbox.grow(99, 5, "mixed");
    site.pack();
    site.save("last");
    needs_nothing_else(&site);
    assert_eq!(site.bases(), 4);
    let list = site.json(&["list", "--json"]);
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|snapshot| snapshot["id"].as_str().unwrap()).collect();
    site.sandbox.znap_ok(&[&["delete"], &ids[..]].concat());
    site.sandbox.znap_ok(&["gc"]);
    assert_eq!(site.bases(), 1, "the one of the present file is kept");
}

#[test]
fn p10_a_base_is_dropped_only_where_the_file_has_it() {
    let mut site = two_lives();
    site.save("packed");
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    assert_eq!((site.bases(), complete(&site)), (1, vec![true, true, false]));
    assert!(site.sandbox.znap_ok(&["base", "keep"]).contains("kept from now on"));
    assert_eq!((site.bases(), complete(&site)), (2, vec![true; 3]));
    site.sandbox.znap_ok(&["base", "keep", "data"]);
    assert_eq!(site.bases(), 2);
    needs_nothing_else(&site);
    let unknown = site.sandbox.znap(&["base", "drop", "nothing"]);
    assert!(unknown.code == 5 && unknown.stderr.contains("those there are: data"), "{unknown:?}");
    assert_eq!(site.sandbox.znap(&["base", "forget"]).code, 2);
    // A byte in the middle of what is taken for granted, where a file isn't looked at to be recognised.
    let whole = fs::read(site.sandbox.data_fs()).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 4] ^= 1;
    fs::write(site.sandbox.data_fs(), changed).unwrap();
    let refused = site.sandbox.znap(&["base", "drop"]);
    assert!(refused.code == 1 && refused.stderr.contains("differs at offset"), "{refused:?}");
    assert_eq!(complete(&site), [true; 3]);
    fs::write(site.sandbox.data_fs(), whole).unwrap();
    assert!(site.sandbox.znap_ok(&["base", "drop"]).contains("isn't kept any more"));
    // The one of the file that is gone stays: other snapshots need it.
    assert_eq!((site.bases(), complete(&site)), (1, vec![true, true, false]));
    site.has_its_second_name();
    let bytes = |site: &Site| site.json(&["status", "--json"])["repository_bytes"].as_u64().unwrap();
    let before = bytes(&site);
    site.sandbox.znap_ok(&["gc"]);
    assert!(bytes(&site) < before, "P10");
    site.all_come_back();
    for id in ["a", "packed", "b"] {
        site.restores(id);
    }
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
}

#[test]
fn p5_keeping_and_dropping_may_be_killed_anywhere() {
    let mut site = two_lives();
    site.save("packed");
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    for keep in [true, false] {
        let mut kills = 0;
        for change in 0.. {
            let world = site.sandbox.copy();
            let place = Place { root: world.file(".znap"), trusted: Vec::new() };
            let done = Repository::open_to_write_on(&Disk::watched(Kill::at(change)), &place, &Silent).and_then(
                |mut repository| match keep {
                    true => keep_bases(&mut repository, &[], &Silent).map(drop),
                    false => drop_bases(&mut repository, &[], &Silent).map(drop),
                },
            );
            if done.is_ok() {
                break;
            }
            kills += 1;
            world.znap_ok(&["gc"]);
            world.znap_ok(&["check", "--data"]);
            for id in ["a", "packed"] {
                world.znap_ok(&["restore", id, "--to", "copy"]);
                let copy = fs::read(world.file("copy/data/Data.fs")).unwrap();
                assert!(copy == site.held[id].0, "P6: change {change}, {id}");
                fs::remove_dir_all(world.file("copy")).unwrap();
            }
            world.znap_ok(&["base", if keep { "keep" } else { "drop" }]);
        }
        println!("{kills} kills of base {}", if keep { "keep" } else { "drop" });
        assert!(kills > 3, "{keep}: {kills}");
        site.sandbox.znap_ok(&["base", if keep { "keep" } else { "drop" }]);
    }
}

#[test]
fn what_snapshots_need_and_what_would_lose_it_is_said() {
    let mut site = Site::new(94);
    let at_risk = |site: &Site| site.json(&["status", "--json"])["databases"][0]["at_risk"].as_bool().unwrap();
    let said = site.save("a");
    assert!(said.contains("hint: snapshots need the first ") && said.contains("znap base keep"), "{said}");
    site.sandbox.grow(95, 5, "mixed");
    assert!(!site.save("b").contains("hint:"), "it is said once");
    assert!(!at_risk(&site));
    site.without_second_names();
    assert!(at_risk(&site));
    assert!(site.sandbox.znap_ok(&["status"]).contains("two packs without a save between would lose"));
    assert!(site.sandbox.znap_ok(&["list"]).contains("needs Data.fs"));
    site.pack();
    assert!(at_risk(&site), "the next pack takes Data.fs.old away");
    site.pack();
    assert!(!at_risk(&site), "it is too late");
    site.save("packed");
    let list = site.sandbox.znap_ok(&["list"]);
    assert_eq!(list.lines().filter(|line| line.contains("needs the file before the pack of 20")).count(), 2, "{list}");
    let json = site.json(&["list", "--json"]);
    assert!(json[0]["databases"][0]["needs_before"].is_string() && json[2]["databases"][0]["needs_before"].is_null());
    assert!(site.sandbox.znap_ok(&["show", "a"]).contains("as it was before the pack of 20"));
    site.has_its_second_name();
}

#[test]
fn what_a_restore_right_after_a_pack_would_do_is_said_without_a_save() {
    let site = two_lives();
    let before = site.state();
    for lost in ["", "Data.fs.old"] {
        if !lost.is_empty() {
            fs::remove_file(site.sandbox.file(lost)).unwrap();
        }
        let plan = site.json(&["restore", "a", "--dry-run", "--json"]);
        let planned = &plan["databases"][0];
        assert_eq!((planned["new_life"].as_str(), planned["anew"].as_bool()), (Some("packed"), Some(true)), "{plan}");
        assert_eq!(planned["write"], site.held["a"].0.len() - 4);
        assert!(site.sandbox.znap_ok(&["restore", "a", "--dry-run"]).contains("is saved first"));
    }
    site.without_second_names();
    let refused = site.sandbox.znap(&["restore", "a", "--dry-run"]);
    assert!(refused.code == 1 && refused.stderr.contains("--base-from FILE"), "{refused:?}");
    assert!(site.state() == before);
    assert_eq!(site.json(&["list", "--json"]).as_array().unwrap().len(), 2);
}

#[test]
fn damage_to_a_stored_base_names_the_snapshots_that_need_it() {
    let mut site = two_lives();
    let objects = |site: &Site| -> Vec<_> {
        fs::read_dir(site.sandbox.file(".znap/objects")).unwrap().map(|file| file.unwrap().path()).collect()
    };
    site.save("packed");
    let new = objects(&site);
    let base = new.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let mut bytes = fs::read(base).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(base, bytes).unwrap();
    let check = site.sandbox.znap(&["check", "--data", "--json"]);
    assert_eq!(check.code, 3, "{check:?}");
    let check: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    assert_eq!(check["findings"][0]["snapshots"], serde_json::json!(["a", "b"]), "{check:#}");
    assert_eq!(check["damaged_snapshots"], serde_json::json!(["a", "b"]));
    assert_eq!((check["snapshots"].as_u64(), check["last_whole"].as_str()), (Some(3), Some("packed")));
}

#[test]
fn p10_a_dry_run_counts_bases_that_nothing_needs() {
    let mut site = two_lives();
    site.save("packed");
    site.sandbox.znap_ok(&["delete", "a", "b"]);
    let planned = site.json(&["gc", "--dry-run", "--json"]);
    assert_eq!(site.bases(), 1);
    let report = site.json(&["gc", "--json"]);
    assert_eq!(site.bases(), 0);
    assert_eq!(planned["chunks_dropped"], report["chunks_dropped"], "{planned:#} {report:#}");
    let freed =
        |report: &serde_json::Value| report["bytes_before"].as_u64().unwrap() - report["bytes_after"].as_u64().unwrap();
    assert!(freed(&planned) > freed(&report) / 2, "{planned:#} {report:#}");
}

#[test]
fn one_of_two_databases_is_kept() {
    let sandbox = Sandbox::with_database(96, 60, "large");
    let other = sandbox.file("other.fs");
    zodb(&["make", other.to_str().unwrap(), "--seed", "97", "--transactions", "60", "--profile", "large"]);
    sandbox.znap_ok(&["init", "Data.fs", "other.fs"]);
    sandbox.znap_ok(&["base", "keep", "other"]);
    sandbox.znap_ok(&["save", "a"]);
    let list = sandbox.znap_ok(&["list"]);
    assert!(list.contains("needs Data.fs") && !list.contains("other.fs"), "{list}");
    let names: Vec<_> = fs::read_dir(sandbox.file(".znap/bases")).unwrap().map(|name| name.unwrap().path()).collect();
    assert!(names.len() == 1 && inode(&names[0]) == inode(&sandbox.data_fs()), "{names:?}");
}

/// What can't be looked at may be what is needed: a loop of links stands for it.
#[test]
fn p5_a_file_from_before_a_pack_that_cannot_be_read_is_not_called_lost() {
    let mut site = two_lives();
    site.without_second_names();
    let (old, kept) = (site.sandbox.file("Data.fs.old"), site.sandbox.file("kept"));
    fs::rename(&old, &kept).unwrap();
    let world = site.sandbox.copy();
    for old in [&old, &world.file("Data.fs.old")] {
        symlink(old, old).unwrap();
    }
    let saved = site.sandbox.znap(&["save", "packed"]);
    site.held.insert("packed".into(), site.state());
    assert!(saved.code == 6 && saved.stderr.contains("Data.fs.old"), "{saved:?}");
    assert!(!saved.stderr.contains("nowhere to be found"), "{saved:?}");
    assert_eq!(site.json(&["status", "--json"])["lost"], serde_json::json!([]));
    let check = site.sandbox.znap(&["check", "--databases", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    let finding = &found["findings"][0];
    assert!(check.code == 3 && finding["what"].as_str().unwrap().contains("Data.fs.old"), "P6: {check:?}");
    assert_eq!((&finding["subject"], &finding["snapshots"]), (&"database".into(), &["a", "b"][..].into()), "{check:?}");
    let refused = site.sandbox.znap(&["restore", "a"]);
    assert!(refused.code == 1 && refused.stderr.contains("Data.fs.old"), "{refused:?}");
    assert!(refused.stderr.contains("--base-from FILE"), "{refused:?}");
    // A copy helps whatever lies there.
    site.sandbox.znap_ok(&["restore", "a", "--to", "elsewhere", "--base-from", "kept"]);
    assert!(fs::read(site.sandbox.file("elsewhere/data/Data.fs")).unwrap() == site.held["a"].0, "P6");
    world.znap_ok(&["restore", "a", "--base-from", "kept"]);
    assert!(fs::read(world.data_fs()).unwrap() == site.held["a"].0, "P6");
    fs::remove_file(&old).unwrap();
    fs::rename(&kept, &old).unwrap();
    site.save("later");
    fs::remove_file(&old).unwrap();
    site.all_come_back();
    site.restores("b");
}

#[test]
fn p6_a_copy_that_is_named_comes_before_the_file_itself() {
    let mut site = Site::new(96);
    site.save("a");
    fs::copy(site.sandbox.data_fs(), site.sandbox.file("good.fs")).unwrap();
    let mut bytes = site.held["a"].0.clone();
    // In its middle, where nobody looks to recognise it.
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(site.sandbox.data_fs(), &bytes).unwrap();
    let mode = |name: &str, mode| fs::set_permissions(site.sandbox.file(name), Permissions::from_mode(mode)).unwrap();
    mode("good.fs", 0o400);
    mode("Data.fs", 0o664);
    site.sandbox.znap_ok(&["restore", "a", "--to", "copy", "--base-from", "good.fs"]);
    let copy = site.sandbox.file("copy/data/Data.fs");
    assert!(fs::read(&copy).unwrap() == site.held["a"].0, "P6");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o664, "P12");
    // Where it isn't one, nothing else is taken for it.
    mode("good.fs", 0o600);
    fs::write(site.sandbox.file("good.fs"), &bytes[..bytes.len() / 2]).unwrap();
    let refused = site.sandbox.znap(&["restore", "a", "--to", "other", "--base-from", "good.fs"]);
    assert!(refused.code == 1 && refused.stderr.contains("good.fs isn't Data.fs as it was"), "{refused:?}");
    assert!(!site.sandbox.file("other").exists());
}
