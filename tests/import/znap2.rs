//! Snapshots of a transcription of znap2.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use znap::filestorage::index_path;

use crate::common::{Output, Sandbox, assert_same_file, boundaries, output, python, script, zodb};
use crate::{Site, all_come_back, edit, id_of, imported, object_bytes, sources};

fn znap2(sandbox: &Sandbox, args: &[&str]) -> Output {
    output(sandbox.command_of(python().to_str().unwrap()).arg("-I").arg(script("znap2.py")).args(args))
}

fn znap2_ok(sandbox: &Sandbox, args: &[&str]) {
    let output = znap2(sandbox, args);
    assert_eq!(output.code, 0, "{args:?}: {output:?}");
}

/// `a` and `b` one behind the other, `other side` of another branch; and the copies of all.
pub(crate) fn of_znap2(seed: u64, transactions: u32, profile: &str) -> Site {
    let mut site = Site::new(seed, transactions, profile);
    znap2_ok(&site.sandbox, &["init", "Data.fs"]);
    for (number, id) in ["a", "b", "other side"].into_iter().enumerate() {
        if number == 2 {
            znap2_ok(&site.sandbox, &["restore", "a"]);
        }
        site.sandbox.grow(seed + 1 + number as u64, 6, "mixed");
        znap2_ok(&site.sandbox, &["save", id]);
        let copy = site.sandbox.file(format!("state-{number}.fs"));
        fs::copy(site.sandbox.data_fs(), &copy).unwrap();
        site.states.push((id.into(), copy));
        // It tells their order by the times of the directories.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    site
}

#[test]
fn p5_all_snapshots_of_znap2_come_back() {
    for (seed, transactions, profile) in [(1100, 60, "large"), (1110, 10, "small")] {
        let site = of_znap2(seed, transactions, profile);
        let sandbox = &site.sandbox;
        sandbox.znap_ok(&["init", "Data.fs"]);
        sandbox.znap_ok(&["save", "own"]);
        let before = fs::read(sandbox.data_fs()).unwrap();
        let report = imported(sandbox, &["znap2"], 0);
        assert_eq!(sources(&report, "imported"), ["a", "b", "other side"]);
        assert_eq!(id_of(&report, "other side"), "other_side");
        let metadata = fs::metadata(sandbox.file(".znap2/b")).unwrap();
        let created: jiff::Timestamp = report["imported"][1]["created"].as_str().unwrap().parse().unwrap();
        assert_eq!(created.as_microsecond(), {
            let time = jiff::Timestamp::try_from(metadata.modified().unwrap()).unwrap();
            time.as_microsecond()
        });
        assert!(fs::read(sandbox.data_fs()).unwrap() == before);
        all_come_back(sandbox, &report, &site.states);
        let again = imported(sandbox, &["znap2", ".znap2"], 0);
        assert_eq!(sources(&again, "present"), ["a", "b", "other side"]);
        assert!(sources(&again, "imported").is_empty());
        for number in [1, 0, 2] {
            let (name, state) = &site.states[number];
            sandbox.znap_ok(&["restore", &id_of(&report, name)]);
            assert_same_file(sandbox.data_fs(), state);
            sandbox.check();
        }
        sandbox.znap_ok(&["check", "--data", "--databases"]);
    }
}

/// Two databases, `main.fs` and `other.fs`, with a snapshot of znap2 and the copies of both.
fn of_two() -> (Sandbox, [PathBuf; 2]) {
    let sandbox = Sandbox::new();
    let make = |command: &str, name: &str, seed: u32| {
        let path = sandbox.file(name);
        let seed = seed.to_string();
        zodb(&[command, path.to_str().unwrap(), "--seed", &seed, "--transactions", "8", "--profile", "small"]);
    };
    make("make", "main.fs", 1201);
    make("make", "other.fs", 1202);
    znap2_ok(&sandbox, &["init", "main.fs", "other.fs"]);
    make("grow", "main.fs", 1203);
    make("grow", "other.fs", 1204);
    znap2_ok(&sandbox, &["save", "both"]);
    let copies = ["main.fs", "other.fs"].map(|name| {
        let copy = sandbox.file(format!("both-{name}"));
        fs::copy(sandbox.file(name), &copy).unwrap();
        copy
    });
    make("grow", "main.fs", 1205);
    (sandbox, copies)
}

#[test]
fn p5_a_snapshot_of_several_databases_is_one() {
    let (sandbox, copies) = of_two();
    sandbox.znap_ok(&["init", "main.fs", "other.fs"]);
    let report = imported(&sandbox, &["znap2"], 0);
    assert_eq!(report["imported"][0]["databases"].as_array().unwrap().len(), 2);
    let list: Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    assert_eq!(list[0]["one_moment"], false, "it copied one after the other");
    let is_both = |folder: &str| {
        for (name, copy) in ["main.fs", "other.fs"].iter().zip(&copies) {
            assert_same_file(sandbox.file(folder).join(name), copy);
        }
    };
    sandbox.znap_ok(&["restore", "both"]);
    is_both(".");
    sandbox.znap_ok(&["undo"]);
    // And as an archive, into a repository of its own.
    sandbox.znap_ok(&["export", "both", "both.tar.zst"]);
    let one = Sandbox::new();
    fs::copy(sandbox.file("main.fs"), one.file("main.fs")).unwrap();
    one.znap_ok(&["init", "main.fs"]);
    let path = sandbox.file("both.tar.zst");
    let args = ["import", "--from", "archive", path.to_str().unwrap()];
    let refused = one.znap(&args);
    assert!(refused.code == 1 && refused.stderr.contains("znap track FILE --name other"), "{refused:?}");
    assert!(!refused.stderr.contains("--database"), "{refused:?}");
    fs::copy(sandbox.file("other.fs"), one.file("second.fs")).unwrap();
    one.znap_ok(&["track", "second.fs", "--name", "other"]);
    one.znap_ok(&args);
    fs::create_dir(sandbox.file("there")).unwrap();
    for name in ["main.fs", "other.fs"] {
        fs::copy(sandbox.file(name), sandbox.file("there").join(name)).unwrap();
    }
    sandbox.znap_ok(&["-R", "there/.znap", "init", "there/main.fs", "there/other.fs"]);
    sandbox.znap_ok(&["-R", "there/.znap", "import", "--from", "archive", "both.tar.zst"]);
    sandbox.znap_ok(&["-R", "there/.znap", "restore", "both"]);
    is_both("there");
    // Half of it is damaged.
    edit(&sandbox.file(".znap2/both/other.fs"), |bytes| bytes.truncate(bytes.len() - 3));
    sandbox.znap_ok(&["delete", "both"]);
    let report = imported(&sandbox, &["znap2"], 6);
    assert!(report["refused"][0]["reason"].as_str().unwrap().starts_with("other.fs: it is half made"), "{report}");
    // What can't be told.
    for (args, code) in [(&["repozo", "."][..], 2), (&["znap2", "--database", "main"], 2)] {
        let output = sandbox.znap(&[&["import", "--from"], args].concat());
        assert!(output.code == code && output.stderr.contains("main"), "{output:?}");
    }
}

#[test]
fn p5_what_is_of_one_database_leaves_the_others_alone() {
    let (sandbox, copies) = of_two();
    sandbox.znap_ok(&["init", "main.fs", "other.fs"]);
    sandbox.znap_ok(&["save", "own"]);
    let other = fs::read(sandbox.file("other.fs")).unwrap();
    fs::create_dir(sandbox.file("backups")).unwrap();
    let (copy, repository) = (copies[0].to_str().unwrap(), sandbox.file("backups"));
    zodb(&["back-up", copy, "--repository", repository.to_str().unwrap(), "--at", "2026-05-01T12:00:00"]);
    let report = imported(&sandbox, &["repozo", "backups", "--database", "main"], 0);
    let id = id_of(&report, "2026-05-01-12-00-00.fs");
    let list: Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    assert_eq!((&list[0]["id"], &list[0]["partial"]), (&Value::from(id.as_str()), &true.into()));
    sandbox.znap_ok(&["restore", &id]);
    assert_same_file(sandbox.file("main.fs"), &copies[0]);
    assert!(fs::read(sandbox.file("other.fs")).unwrap() == other);
    // The same with an archive, and an only one that is called otherwise there.
    let said = sandbox.znap_ok(&["export", &id, "one.tar.zst"]);
    assert!(said.lines().any(|line| line == "not written: other"), "{said}");
    sandbox.znap_ok(&["delete", &id]);
    sandbox.znap_ok(&["restore", "own"]);
    sandbox.znap_ok(&["import", "--from", "archive", "one.tar.zst"]);
    sandbox.znap_ok(&["restore", &id]);
    assert_same_file(sandbox.file("main.fs"), &copies[0]);
    assert!(fs::read(sandbox.file("other.fs")).unwrap() == other);
    let elsewhere = Sandbox::with_database(1209, 3, "small");
    elsewhere.znap_ok(&["init", "Data.fs"]);
    let path = sandbox.file("one.tar.zst");
    let args = ["import", "--from", "archive", path.to_str().unwrap()];
    let refused = elsewhere.znap(&args);
    assert!(refused.code == 1 && refused.stderr.contains("--database"), "{refused:?}");
    elsewhere.znap_ok(&[&args[..], &["--database", "data"]].concat());
    elsewhere.znap_ok(&["restore", &id]);
    assert_same_file(elsewhere.data_fs(), &copies[0]);
    elsewhere.check();
}

#[test]
fn p8_what_znap2_has_after_the_repository_began_is_stored_as_a_tail() {
    let sandbox = Sandbox::with_database(1120, 60, "large");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let size = fs::metadata(sandbox.data_fs()).unwrap().len();
    znap2_ok(&sandbox, &["init", "Data.fs"]);
    let mut states = Vec::new();
    for (number, id) in ["a", "b"].into_iter().enumerate() {
        sandbox.grow(1121 + number as u64, 5, "small");
        znap2_ok(&sandbox, &["save", id]);
        let copy = sandbox.file(format!("{id}.fs"));
        fs::copy(sandbox.data_fs(), &copy).unwrap();
        states.push((id.to_string(), copy));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let report = imported(&sandbox, &["znap2"], 0);
    assert!(object_bytes(&sandbox) < size / 10, "P8: {} of {size}", object_bytes(&sandbox));
    all_come_back(&sandbox, &report, &states);
    sandbox.znap_ok(&["restore", "a"]);
    assert_same_file(sandbox.data_fs(), &states[0].1);
    sandbox.check();
}

#[test]
fn p6_damaged_and_half_made_snapshots_of_znap2_are_named_and_not_taken() {
    let site = of_znap2(1130, 40, "mixed");
    let base = fs::read_to_string(site.sandbox.file(".znap2/config.ini")).unwrap();
    let base: usize = base.lines().find_map(|line| line.strip_prefix("offset = ")).unwrap().parse().unwrap();
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let refused = |reasons: &[(&str, &str)], damage: &dyn Fn(&Sandbox)| {
        let world = site.sandbox.copy();
        damage(&world);
        let report = imported(&world, &["znap2"], 6);
        let mut found: Vec<(String, String)> = report["refused"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["source"].as_str().unwrap().into(), one["reason"].as_str().unwrap().into()))
            .collect();
        found.sort();
        assert_eq!(found.len(), reasons.len(), "{found:?}");
        for ((source, reason), (expected, words)) in found.iter().zip(reasons) {
            assert!(source == expected && reason.contains(words), "{source}: {reason}, not {words}");
        }
        let is_refused = |name: &String| reasons.iter().any(|(refused, _)| refused == name);
        let sound: Vec<(String, PathBuf)> = site.states.iter().filter(|(name, _)| !is_refused(name)).cloned().collect();
        all_come_back(&world, &report, &sound);
        world.znap_ok(&["check", "--data"]);
    };
    let tail = |world: &Sandbox| world.file(".znap2/b/Data.fs");
    // Killed before the index, before the tail, within the tail.
    refused(&[("b", "its file is missing")], &|world| fs::remove_file(tail(world)).unwrap());
    refused(&[("b", "index is missing")], &|world| fs::remove_file(index_path(&tail(world))).unwrap());
    refused(&[("b", "half made")], &|world| edit(&tail(world), |bytes| bytes.truncate(bytes.len() - 9)));
    let ends = boundaries(&site.states[1].1);
    refused(&[("b", "its index says so")], &|world| {
        let end = ends[ends.len() - 3].0 as usize - base;
        edit(&tail(world), |bytes| bytes.truncate(end));
    });
    refused(&[("b", "damaged at offset")], &|world| edit(&tail(world), |bytes| bytes[8..16].fill(0)));
    refused(&[("b", "its index doesn't fit")], &|world| edit(&index_path(&tail(world)), |bytes| bytes.truncate(50)));
    refused(&[("b", "its index doesn't fit")], &|world| {
        // That of a file that became another one.
        fs::copy(world.file(".znap2/other side/Data.fs.index"), index_path(&tail(world))).unwrap();
    });
    // An empty directory; another one is no snapshot of znap2 either.
    refused(&[("new", "its file is missing")], &|world| fs::create_dir(world.file(".znap2/new")).unwrap());
    // The file was packed since: znap2 would make zeros of it, or a wrong file.
    let reasons = [("a", ""), ("b", ""), ("other side", "")];
    refused(&reasons, &|world| {
        zodb(&["pack", world.data_fs().to_str().unwrap()]);
    });
    refused(&reasons, &|world| {
        zodb(&["pack", world.data_fs().to_str().unwrap()]);
        world.grow(1139, 200, "mixed");
        assert!(fs::metadata(world.data_fs()).unwrap().len() as usize > base);
    });
    let refused = |path: &str, code: i32, words: &str| {
        let output = site.sandbox.znap(&["import", "--from", "znap2", path]);
        assert!(output.code == code && output.stderr.contains(words), "{output:?}");
    };
    refused("nowhere", 1, "config.ini");
    fs::create_dir(site.sandbox.file("empty")).unwrap();
    fs::write(site.sandbox.file("empty/config.ini"), "[Data.fs]\noffset = many\n").unwrap();
    refused("empty", 1, "offset");
    fs::write(site.sandbox.file("empty/config.ini"), "[elsewhere.fs]\noffset = 4\n").unwrap();
    refused("empty", 5, "--database");
}

#[test]
fn a_tail_that_ends_with_a_voted_transaction_ends_before_it() {
    let sandbox = Sandbox::with_database(1140, 10, "small");
    znap2_ok(&sandbox, &["init", "Data.fs"]);
    sandbox.grow(1141, 4, "small");
    let whole = fs::read(sandbox.data_fs()).unwrap();
    zodb(&["torn", "voted", sandbox.data_fs().to_str().unwrap()]);
    znap2_ok(&sandbox, &["save", "live"]);
    fs::write(sandbox.data_fs(), &whole).unwrap();
    sandbox.znap_ok(&["init", "Data.fs"]);
    let report = imported(&sandbox, &["znap2"], 0);
    assert!(report["imported"][0]["databases"][0]["left_out"].as_str().unwrap().contains("voted"), "{report}");
    sandbox.znap_ok(&["restore", "live", "--to", "copy"]);
    assert!(fs::read(sandbox.file("copy/data/Data.fs")).unwrap() == whole, "P3");
}
