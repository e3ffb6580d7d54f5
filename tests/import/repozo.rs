//! Backups of real repozo.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use serde_json::Value;
use znap::disk::Disk;
use znap::monitor::Silent;
use znap::snapshot::{ImportOptions, Origin, Place, Repository, import};

use crate::common::{Kill, Sandbox, assert_same_file, zodb};
use crate::{Site, all_come_back, edit, id_of, imported, object_bytes, sources};

/// A new full one after a pack, gzip, quick mode: all that repozo does.
fn site() -> Site {
    let mut site = Site::new(910, 30, "mixed");
    site.back_up(1, "F");
    for (day, options) in [(2, "Q"), (3, "Qz"), (4, "z")] {
        site.sandbox.grow(900 + u64::from(day), 4, "mixed");
        site.back_up(day, options);
    }
    zodb(&["pack", site.sandbox.data_fs().to_str().unwrap()]);
    site.back_up(5, "Qz");
    for day in 6..9 {
        site.sandbox.grow(900 + u64::from(day), 3, "mixed");
        site.back_up(day, "Q");
    }
    let names = site.backups();
    let ends = |end: &str| names.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!([ends(".fs"), ends(".fsz"), ends(".deltafs"), ends(".deltafsz")], [1, 1, 4, 2], "{names:?}");
    site
}

#[test]
fn p5_all_backups_of_repozo_come_back() {
    let site = site();
    let sandbox = &site.sandbox;
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "own"]);
    let dry = imported(sandbox, &["repozo", "backups", "--dry-run"], 0);
    assert_eq!(sources(&dry, "imported"), site.backups());
    assert_eq!(sandbox.znap_ok(&["list"]).lines().count(), 2);
    let report = site.import(0);
    assert_eq!(sources(&report, "imported"), site.backups());
    assert!(sources(&report, "refused").is_empty());
    assert_eq!(report["imported"][0]["created"], "2026-05-01T12:00:00Z");
    assert_eq!(report["imported"][0]["id"], "2026-05-01_12-00-00");
    all_come_back(sandbox, &report, &site.states);
    // repozo's own recovery agrees.
    for (name, _) in &site.states {
        let out = sandbox.file("recovered.fs");
        let repository = sandbox.file("backups");
        let args =
            ["recover", out.to_str().unwrap(), "--repository", repository.to_str().unwrap(), "--date", &name[..19]];
        zodb(&args);
        sandbox.znap_ok(&["restore", &id_of(&report, name), "--to", "copy"]);
        assert_same_file(sandbox.file("copy/data/Data.fs"), &out);
        fs::remove_dir_all(sandbox.file("copy")).unwrap();
    }
    let list: Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    let list = list.as_array().unwrap();
    assert!(list[..8].iter().all(|one| one["kind"] == "import"), "{list:?}");
    // All but the one that is what init found.
    assert!(list[..7].iter().all(|one| one["complete"] == true), "{list:?}");
    assert_eq!(list[8]["id"], "own", "by time");
    let latest: Value = serde_json::from_str(&sandbox.znap_ok(&["show", "latest", "--json"])).unwrap();
    assert_eq!(latest["id"], "own");
    // Again: nothing is taken twice.
    let bytes = object_bytes(sandbox);
    let again = site.import(0);
    assert!(sources(&again, "imported").is_empty());
    assert_eq!(sources(&again, "present"), site.backups());
    assert_eq!(object_bytes(sandbox), bytes);
    // In place, over the pack, there and back.
    for (name, state) in [7, 0, 5, 3].map(|number| &site.states[number]) {
        sandbox.znap_ok(&["restore", &id_of(&report, name)]);
        assert_same_file(sandbox.data_fs(), state);
        sandbox.check();
    }
    // And on from there.
    sandbox.grow(950, 3, "mixed");
    fs::copy(sandbox.data_fs(), sandbox.file("grown.fs")).unwrap();
    sandbox.znap_ok(&["save", "grown"]);
    sandbox.znap_ok(&["restore", "own"]);
    assert_same_file(sandbox.data_fs(), &site.states[7].1);
    sandbox.znap_ok(&["restore", "latest"]);
    assert_same_file(sandbox.data_fs(), sandbox.file("grown.fs"));
    sandbox.znap_ok(&["gc", "--all"]);
    sandbox.znap_ok(&["check", "--data", "--databases"]);
    all_come_back(sandbox, &report, &site.states);
    fs::remove_file(sandbox.file(".znap/catalog.db")).unwrap();
    sandbox.znap_ok(&["repair"]);
    all_come_back(sandbox, &report, &site.states);
    sandbox.znap_ok(&["check", "--data", "--databases"]);
}

#[test]
fn a_repository_may_have_nothing_but_what_was_imported() {
    let site = site();
    let sandbox = &site.sandbox;
    sandbox.znap_ok(&["init", "Data.fs"]);
    // As it was typed, and with a space in it: that is too much for repozo itself.
    for list in ["2026-05-01-12-00-00.dat", "2026-05-05-12-00-00.dat"] {
        let text = fs::read_to_string(site.backup(list)).unwrap();
        fs::write(site.backup(list), text.replace("backups/", "my back ups/")).unwrap();
    }
    let report = site.import(0);
    let latest: Value = serde_json::from_str(&sandbox.znap_ok(&["show", "latest", "--json"])).unwrap();
    assert_eq!(latest["id"], "2026-05-08_12-00-00");
    fs::remove_file(sandbox.file(".znap/catalog.db")).unwrap();
    sandbox.znap_ok(&["repair"]);
    all_come_back(sandbox, &report, &site.states);
    sandbox.znap_ok(&["save", "own"]);
    sandbox.znap_ok(&["restore", "2026-05-01"]);
    assert_same_file(sandbox.data_fs(), &site.states[0].1);
    sandbox.znap_ok(&["restore", "latest"]);
    assert_same_file(sandbox.data_fs(), &site.states[7].1);
    sandbox.check();
}

/// It is older than all that was known of the file, and begins with nothing of it.
#[test]
fn p5_what_was_imported_and_restored_may_be_packed() {
    let mut site = Site::new(930, 40, "large");
    site.back_up(1, "F");
    site.sandbox.grow(931, 20, "large");
    let sandbox = &site.sandbox;
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "own"]);
    fs::copy(sandbox.data_fs(), sandbox.file("own.fs")).unwrap();
    let report = site.import(0);
    sandbox.znap_ok(&["restore", "2026-05-01"]);
    zodb(&["pack", sandbox.data_fs().to_str().unwrap()]);
    fs::copy(sandbox.data_fs(), sandbox.file("packed.fs")).unwrap();
    assert!(sandbox.znap_ok(&["status"]).contains("packed"));
    sandbox.znap_ok(&["save", "packed"]);
    for (id, file) in
        [("own", "own.fs"), ("packed", "packed.fs"), ("2026-05-01", "state-1.fs"), ("packed", "packed.fs")]
    {
        sandbox.znap_ok(&["restore", id]);
        assert_same_file(sandbox.data_fs(), sandbox.file(file));
        sandbox.check();
    }
    all_come_back(sandbox, &report, &site.states);
    sandbox.znap_ok(&["check", "--data", "--databases"]);
}

/// repozo has no blobs: those that are there stay, and what is saved next has them again.
#[test]
fn p5_imports_leave_blobs_alone() {
    let mut site = Site { sandbox: Sandbox::new(), states: Vec::new() };
    let sandbox = &site.sandbox;
    fs::create_dir(sandbox.file("backups")).unwrap();
    let data = sandbox.data_fs().to_str().unwrap().to_string();
    let grow = |seed: &str| {
        zodb(&["blobs", &data, "--seed", seed, "--transactions", "8", "--size", "20000", "--undo"]);
    };
    grow("1");
    sandbox.znap_ok(&["init", "Data.fs", "--blobs", "blobstorage"]);
    sandbox.znap_ok(&["save", "a"]);
    grow("2");
    site.back_up(1, "F");
    let sandbox = &site.sandbox;
    grow("3");
    sandbox.znap_ok(&["save", "b"]);
    let all = || (fs::read(sandbox.data_fs()).unwrap(), tree(&sandbox.file("blobstorage")));
    let before = all();
    let report = site.import(0);
    let id = id_of(&report, &site.states[0].0);
    sandbox.znap_ok(&["restore", &id]);
    let now = all();
    assert!(now.0 == fs::read(&site.states[0].1).unwrap() && now.1 == before.1);
    zodb(&["blobs-check", &data]);
    grow("4");
    sandbox.znap_ok(&["save", "c"]);
    let later = all();
    sandbox.znap_ok(&["restore", "b"]);
    assert!(all().0 == before.0);
    zodb(&["blobs-check", &data]);
    sandbox.znap_ok(&["restore", "c"]);
    assert!(all().0 == later.0);
    zodb(&["blobs-check", &data]);
    sandbox.znap_ok(&["check", "--data", "--databases"]);
}

/// All files in a folder, by their paths.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn an_import_does_not_make_the_last_save_older() {
    let mut site = Site::new(940, 10, "small");
    site.back_up(1, "F");
    let sandbox = &site.sandbox;
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "own"]);
    site.import(0);
    let status = sandbox.znap(&["status", "--max-age", "1h"]);
    assert!(status.code == 0 && status.stdout.starts_with("znap: ok"), "{status:?}");
}

#[test]
fn p5_a_file_that_python_2_wrote_is_imported_beside_the_others() {
    let mut site = Site::new(945, 10, "small");
    site.back_up(1, "F");
    // repozo of ZODB 6 doesn't open such a file; that of its time wrote the same lists.
    let old = site.sandbox.file("old.fs");
    zodb(&["fs21", old.to_str().unwrap()]);
    let bytes = fs::read(&old).unwrap();
    fs::write(site.backup("2020-01-01-00-00-00.fs"), &bytes).unwrap();
    let line = format!("/srv/backups/2020-01-01-00-00-00.fs 0 {} {}\n", bytes.len(), md5_of(&bytes));
    fs::write(site.backup("2020-01-01-00-00-00.dat"), line).unwrap();
    site.states.push(("2020-01-01-00-00-00.fs".into(), old));
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let report = site.import(0);
    for (name, state) in &site.states {
        site.sandbox.znap_ok(&["restore", &id_of(&report, name), "--to", "copy"]);
        assert_same_file(site.sandbox.file("copy/data/Data.fs"), state);
        fs::remove_dir_all(site.sandbox.file("copy")).unwrap();
    }
    site.sandbox.znap_ok(&["check", "--data"]);
    site.sandbox.znap_ok(&["restore", "2020"]);
    assert_same_file(site.sandbox.data_fs(), site.sandbox.file("old.fs"));
    site.sandbox.check();
    site.sandbox.znap_ok(&["undo"]);
    assert_same_file(site.sandbox.data_fs(), &site.states[0].1);
}

#[test]
fn p8_ten_increments_cost_what_the_last_state_costs() {
    let mut site = Site::new(960, 40, "large");
    site.back_up(1, "F");
    for day in 2..12 {
        site.sandbox.grow(960 + u64::from(day), 3, "mixed");
        site.back_up(day, "Q");
    }
    let sandbox = &site.sandbox;
    // Of another file than what was backed up, so that all of it has to be stored.
    fs::create_dir(sandbox.file("other")).unwrap();
    let other = sandbox.file("other/Data.fs");
    zodb(&["make", other.to_str().unwrap(), "--seed", "1", "--transactions", "3", "--profile", "small"]);
    sandbox.znap_ok(&["init", "other/Data.fs"]);
    let last = sandbox.copy();
    let series = fs::read_dir(last.file("backups")).unwrap().map(|entry| entry.unwrap().path());
    series.for_each(|path| fs::remove_file(path).unwrap());
    let repository = last.file("backups");
    let args = ["--repository", repository.to_str().unwrap(), "--at", "2026-05-11T12:00:00", "--options", "F"];
    last.zodb("back-up", &args);
    imported(&last, &["repozo", "backups"], 0);
    let report = site.import(0);
    assert_eq!(report["imported"].as_array().unwrap().len(), 11);
    sandbox.znap_ok(&["gc"]);
    let (all, one) = (object_bytes(sandbox), object_bytes(&last));
    println!("{all} bytes for eleven states, {one} for the last of them");
    assert!(all < one * 115 / 100, "P8: {all} {one}");
    all_come_back(sandbox, &report, &site.states);
}

#[test]
fn p8_what_the_tracked_file_continues_is_stored_once_and_goes_back_in_place() {
    let mut site = Site::new(970, 60, "large");
    // Large enough not to be kept whole.
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let size = fs::metadata(site.sandbox.data_fs()).unwrap().len();
    site.sandbox.grow(971, 5, "small");
    site.back_up(1, "F");
    site.sandbox.grow(972, 5, "small");
    site.back_up(2, "Q");
    site.sandbox.grow(973, 5, "small");
    let sandbox = &site.sandbox;
    sandbox.znap_ok(&["save", "now"]);
    let before = object_bytes(sandbox);
    let report = site.import(0);
    let added = object_bytes(sandbox) - before;
    assert!(added < size / 20, "P8: {added} of {size}");
    for (name, state) in site.states.iter().rev() {
        let plan = sandbox.znap_ok(&["restore", &id_of(&report, name), "--dry-run", "--json"]);
        let plan: Value = serde_json::from_str(&plan).unwrap();
        assert_eq!((&plan["databases"][0]["anew"], &plan["databases"][0]["write"]), (&false.into(), &0.into()), "P2");
        sandbox.znap_ok(&["restore", &id_of(&report, name)]);
        assert_same_file(sandbox.data_fs(), state);
        sandbox.check();
    }
    sandbox.znap_ok(&["restore", "now"]);
    sandbox.znap_ok(&["check", "--data", "--databases"]);
}

/// Does something to a copy of the backups, and imports them: what is refused, for what reason, must be this.
fn with_damage(site: &Site, refused: &[(&str, &str)], damage: impl Fn(&Path)) {
    let world = site.sandbox.copy();
    damage(&world.file("backups"));
    let report = imported(&world, &["repozo", "backups"], 6);
    let found: Vec<(String, String)> = report["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["source"].as_str().unwrap().into(), one["reason"].as_str().unwrap().into()))
        .collect();
    assert_eq!(found.len(), refused.len(), "{found:?}");
    for ((source, reason), (expected, words)) in found.iter().zip(refused) {
        assert!(source == expected && reason.contains(words), "{source}: {reason}, not {expected}: {words}");
    }
    let is_refused = |name: &String| refused.iter().any(|(refused, _)| refused == name);
    let sound: Vec<(String, PathBuf)> = site.states.iter().filter(|(name, _)| !is_refused(name)).cloned().collect();
    assert_eq!(sources(&report, "imported").len(), sound.len());
    // What was taken is right, P6.
    all_come_back(&world, &report, &sound);
    world.znap_ok(&["check", "--data"]);
}

fn gunzipped(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

fn gzip(path: &Path, bytes: &[u8]) {
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(path).unwrap(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap();
}

#[test]
fn p6_damaged_and_missing_backups_are_named_and_the_sound_ones_taken() {
    let mut site = Site::new(980, 20, "small");
    site.back_up(1, "F");
    for (day, options) in [(2, "Q"), (3, "Qz"), (4, "Q")] {
        site.sandbox.grow(980 + u64::from(day), 4, "small");
        site.back_up(day, options);
    }
    site.back_up(5, "Fz");
    site.sandbox.grow(990, 4, "small");
    site.back_up(6, "Q");
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let names = site.backups();
    let [full, second, third, fourth, fifth, sixth] = <[String; 6]>::try_from(names).unwrap();
    let (full, second, third, fourth, fifth, sixth) = (&*full, &*second, &*third, &*fourth, &*fifth, &*sixth);
    let (first_list, second_list) = ("2026-05-01-12-00-00.dat", "2026-05-05-12-00-00.dat");
    const GAP: &str = "what was taken before it reaches to";

    // A byte; a truncated one; a longer one; one that is gone.
    with_damage(&site, &[(second, "MD5"), (third, GAP), (fourth, GAP)], |folder| {
        edit(&folder.join(second), |bytes| bytes[100] ^= 1);
    });
    with_damage(&site, &[(fourth, "bytes instead of")], |folder| {
        edit(&folder.join(fourth), |bytes| bytes.truncate(bytes.len() - 5));
    });
    with_damage(&site, &[(fourth, "bytes instead of")], |folder| {
        edit(&folder.join(fourth), |bytes| bytes.extend(b"more"));
    });
    with_damage(&site, &[(full, "missing"), (second, GAP), (third, GAP), (fourth, GAP)], |folder| {
        fs::remove_file(folder.join(full)).unwrap();
    });
    // Of gzip: cut short, a byte, its own sum, another content, more and less of it.
    let zipped = |what: &str, change: &dyn Fn(&Path)| {
        with_damage(&site, &[(third, what), (fourth, GAP)], |folder| change(&folder.join(third)));
        let five: &[(&str, &str)] = &[(fifth, what), (sixth, GAP)];
        with_damage(&site, five, |folder| change(&folder.join(fifth)));
    };
    zipped("can't be read", &|path| edit(path, |bytes| bytes.truncate(bytes.len() / 2)));
    zipped("can't be read", &|path| edit(path, |bytes| bytes.truncate(bytes.len() - 1)));
    zipped("can't be read", &|path| {
        edit(path, |bytes| {
            let at = bytes.len() - 6;
            bytes[at] ^= 1;
        })
    });
    zipped("MD5", &|path| {
        let mut bytes = gunzipped(path);
        bytes[60] ^= 1;
        gzip(path, &bytes);
    });
    zipped("more than", &|path| gzip(path, &[gunzipped(path), b"more".to_vec()].concat()));
    zipped("bytes instead of", &|path| gzip(path, &gunzipped(path)[1..]));
    zipped("too few", &|path| fs::write(path, b"").unwrap());
    // The lists: gone; a line gone, which leaves a gap; a line twice, which overlaps; nonsense; sums that are right of bytes that
    // are no transactions.
    let unlisted = "no .dat names it";
    let four = [full, second, third, fourth].map(|name| (name, unlisted));
    with_damage(&site, &four, |folder| fs::remove_file(folder.join(first_list)).unwrap());
    let lines = |folder: &Path, change: &dyn Fn(&mut Vec<String>)| {
        let text = fs::read_to_string(folder.join(first_list)).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
        change(&mut lines);
        fs::write(folder.join(first_list), lines.join("\n") + "\n").unwrap();
    };
    with_damage(&site, &[(second, unlisted), (third, GAP), (fourth, GAP)], |folder| {
        lines(folder, &|lines| drop(lines.remove(1)));
    });
    let garbled = [(first_list, "line 2"), (second, unlisted), (third, GAP), (fourth, GAP)];
    with_damage(&site, &garbled, |folder| lines(folder, &|lines| lines[1] = "what is this".into()));
    with_damage(&site, &[(second_list, "names no backup"), (fifth, unlisted), (sixth, unlisted)], |folder| {
        fs::write(folder.join(second_list), "").unwrap();
    });
    with_damage(&site, &[(fourth, "damaged at offset")], |folder| {
        let mut bytes = fs::read(folder.join(fourth)).unwrap();
        bytes[8..16].fill(0);
        fs::write(folder.join(fourth), &bytes).unwrap();
        let sum: String = md5_of(&bytes);
        lines(folder, &|lines| {
            let line = lines[3].rsplit_once(' ').unwrap().0.to_string();
            lines[3] = format!("{line} {sum}");
        });
    });
    with_damage(&site, &[(fourth, "it ends with")], |folder| {
        let mut bytes = fs::read(folder.join(fourth)).unwrap();
        bytes.truncate(bytes.len() - 5);
        fs::write(folder.join(fourth), &bytes).unwrap();
        let sum: String = md5_of(&bytes);
        lines(folder, &|lines| {
            let mut words = lines[3].rsplitn(3, ' ');
            let (_, end, rest) = (words.next(), words.next().unwrap(), words.next().unwrap());
            lines[3] = format!("{rest} {} {sum}", end.parse::<u64>().unwrap() - 5);
        });
    });
}

pub(crate) fn md5_of(bytes: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// repozo was killed between its data file and the line in the list: its next increment overlaps that file. Its own recovery puts
/// both into the database.
#[test]
fn p6_an_increment_that_was_never_listed_is_no_part_of_the_others() {
    let mut site = Site::new(1010, 20, "small");
    site.back_up(1, "F");
    site.sandbox.grow(1011, 4, "small");
    let lost = site.back_up(2, "Q");
    let list = site.backup("2026-05-01-12-00-00.dat");
    let text = fs::read_to_string(&list).unwrap();
    fs::write(&list, text.lines().next().unwrap().to_string() + "\n").unwrap();
    site.states.pop();
    site.sandbox.grow(1012, 4, "small");
    site.back_up(3, "Q");
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let report = site.import(6);
    assert_eq!(sources(&report, "refused"), [lost]);
    all_come_back(&site.sandbox, &report, &site.states);
    // A list in which both have a line.
    let world = site.sandbox.copy();
    fs::write(world.file("backups/2026-05-01-12-00-00.dat"), {
        let now = fs::read_to_string(&list).unwrap();
        let (first, last) = now.split_once('\n').unwrap();
        format!("{first}\n{}\n{last}", text.lines().nth(1).unwrap())
    })
    .unwrap();
    let output = world.znap(&["import", "--from", "repozo", "backups"]);
    assert!(output.code == 6 && output.stderr.contains("overlap"), "{output:?}");
}

#[test]
fn p5_an_import_from_repozo_may_be_killed_anywhere() {
    let mut site = Site::new(1020, 12, "small");
    site.back_up(1, "F");
    for day in 2..4 {
        site.sandbox.grow(1020 + u64::from(day), 3, "small");
        site.back_up(day, "Qz");
    }
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    site.sandbox.znap_ok(&["save", "own"]);
    let (mut kills, mut half) = (0, 0);
    for change in (0..).step_by(3) {
        let world = site.sandbox.copy();
        let place = Place { root: world.file(".znap"), trusted: Vec::new() };
        let disk = Disk::watched(Kill::at(change));
        let options = ImportOptions {
            origin: Origin::Repozo,
            path: world.file("backups"),
            database: None,
            dry_run: false,
            zone: TimeZone::UTC,
        };
        let done = Repository::open_to_write_on(&disk, &place, &Silent)
            .and_then(|mut repository| import(&mut repository, &options, &Silent));
        if done.is_ok() {
            break;
        }
        kills += 1;
        world.znap_ok(&["check", "--data", "--databases"]);
        let report = imported(&world, &["repozo", "backups"], 0);
        half += usize::from(!sources(&report, "present").is_empty());
        let list: Value = serde_json::from_str(&world.znap_ok(&["list", "--json"])).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 4);
        for (one, (_, state)) in list.as_array().unwrap().iter().zip(&site.states) {
            world.znap_ok(&["restore", one["id"].as_str().unwrap(), "--to", "copy"]);
            assert_same_file(world.file("copy/data/Data.fs"), state);
            fs::remove_dir_all(world.file("copy")).unwrap();
        }
        world.znap_ok(&["gc"]);
        world.znap_ok(&["check", "--data"]);
    }
    println!("{kills} kills, {half} of them after a snapshot was made");
    assert!(kills > 15 && half > 5, "{kills} {half}");
}
