//! Import of what repozo and znap2 have made: every sound state comes back, byte for byte; what isn't sound is named. (P4, P5, P6, P8)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use common::{Kill, Output, Sandbox, assert_same_file, boundaries, output, python, script, zodb};
use jiff::tz::TimeZone;
use serde_json::Value;
use znap::disk::Disk;
use znap::filestorage::index_path;
use znap::monitor::Silent;
use znap::snapshot::{ImportOptions, Origin, Place, Repository, import};

/// A database whose states are backed up, day by day.
struct Site {
    sandbox: Sandbox,
    /// The name of each backup, and the copy of the database that it is of.
    states: Vec<(String, PathBuf)>,
}

impl Site {
    fn new(seed: u64, transactions: u32, profile: &str) -> Self {
        let sandbox = Sandbox::with_database(seed, transactions, profile);
        fs::create_dir(sandbox.file("backups")).unwrap();
        Site { sandbox, states: Vec::new() }
    }

    /// Backs it up at noon of that day of May 2026; returns the name of the new file.
    fn back_up(&mut self, day: u32, options: &str) -> String {
        let before = self.backups();
        let repository = self.sandbox.file("backups");
        let at = format!("2026-05-{day:02}T12:00:00");
        let args = ["--repository", repository.to_str().unwrap(), "--at", &at, "--options", options];
        self.sandbox.zodb("back-up", &args);
        let name = self.backups().into_iter().find(|name| !before.contains(name)).unwrap();
        let copy = self.sandbox.file(format!("state-{day}.fs"));
        fs::copy(self.sandbox.data_fs(), &copy).unwrap();
        self.states.push((name.clone(), copy));
        name
    }

    /// The names of all backups.
    fn backups(&self) -> Vec<String> {
        let names = fs::read_dir(self.sandbox.file("backups")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.contains("fs")).collect();
        names.sort();
        names
    }

    fn backup(&self, name: &str) -> PathBuf {
        self.sandbox.file("backups").join(name)
    }

    fn import(&self, code: i32) -> Value {
        imported(&self.sandbox, &["repozo", "backups"], code)
    }
}

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

fn imported(sandbox: &Sandbox, args: &[&str], code: i32) -> Value {
    let output = sandbox.znap(&[&["import", "--json", "--from"], args].concat());
    assert_eq!(output.code, code, "{output:?}");
    serde_json::from_str(&output.stdout).unwrap()
}

/// The sources in a list of a report.
fn sources(report: &Value, list: &str) -> Vec<String> {
    report[list].as_array().unwrap().iter().map(|one| one["source"].as_str().unwrap().into()).collect()
}

/// The id of the snapshot that was made of something.
fn id_of(report: &Value, source: &str) -> String {
    let all = report["imported"].as_array().unwrap();
    all.iter().find(|one| one["source"] == source).unwrap()["id"].as_str().unwrap().into()
}

/// Each comes back as it was, with the index that ZODB has for it.
fn all_come_back(sandbox: &Sandbox, report: &Value, states: &[(String, PathBuf)]) {
    for (source, state) in states {
        let id = id_of(report, source);
        sandbox.znap_ok(&["restore", &id, "--to", "copy"]);
        let copy = sandbox.file("copy/data/Data.fs");
        assert_same_file(&copy, state);
        zodb(&["check", copy.to_str().unwrap(), "--expect-index"]);
        fs::remove_dir_all(sandbox.file("copy")).unwrap();
    }
}

fn object_bytes(sandbox: &Sandbox) -> u64 {
    let objects = fs::read_dir(sandbox.file(".znap/objects")).unwrap();
    objects.map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
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

fn edit(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
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

fn md5_of(bytes: &[u8]) -> String {
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

fn znap2(sandbox: &Sandbox, args: &[&str]) -> Output {
    output(sandbox.command_of(python().to_str().unwrap()).arg("-I").arg(script("znap2.py")).args(args))
}

fn znap2_ok(sandbox: &Sandbox, args: &[&str]) {
    let output = znap2(sandbox, args);
    assert_eq!(output.code, 0, "{args:?}: {output:?}");
}

/// `a` and `b` one behind the other, `other side` of another branch; and the copies of all.
fn of_znap2(seed: u64, transactions: u32, profile: &str) -> Site {
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

#[test]
fn what_makes_no_sense_is_refused_in_a_line() {
    let sandbox = Sandbox::with_database(1150, 3, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    fs::create_dir(sandbox.file("empty")).unwrap();
    for (args, code, words) in [
        (&["--from", "repozo"][..], 2, "PATH"),
        (&["--from", "archive"], 2, "PATH"),
        (&["--from", "something", "x"], 2, "something"),
        (&["--from", "repozo", "empty"], 1, "no backups of repozo"),
        (&["--from", "repozo", "nowhere"], 1, "nowhere"),
        (&["--from", "archive", "nowhere"], 5, "nowhere"),
        (&["--from", "archive", "Data.fs"], 1, "no whole archive of znap"),
        (&["--from", "repozo", "empty", "--database", "other"], 5, "other"),
        (&["--from", "znap2"], 1, ".znap2"),
    ] {
        let output = sandbox.znap(&[&["import"], args].concat());
        assert!(output.code == code && output.stderr.contains(words), "{args:?}: {output:?}");
    }
}
