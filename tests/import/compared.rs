//! What comes back of an import is what it checked, whatever the repository and the database's file have in its place. (P6)

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Sandbox, assert_same_file, zodb};
use crate::{Site, all_come_back, edit, id_of, imported, sources};

/// Changes a byte somewhere in a file: neither at its end nor in its middle, by which a file is recognised.
fn rot(path: &Path) {
    edit(path, |bytes| {
        let place = bytes.len() / 3;
        bytes[place] ^= 1;
    });
}

/// The same in a full backup, and makes its line in the list right.
fn rot_backup(site: &Site, name: &str) {
    let path = site.backup(name);
    rot(&path);
    let bytes = fs::read(&path).unwrap();
    let sum = crate::repozo::md5_of(&bytes);
    fs::write(path.with_extension("dat"), format!("{} 0 {} {sum}\n", path.display(), bytes.len())).unwrap();
}

/// It comes back byte for byte in another place.
fn comes_back_elsewhere(sandbox: &Sandbox, id: &str, state: &Path) {
    sandbox.znap_ok(&["restore", id, "--to", "copy"]);
    assert_same_file(sandbox.file("copy/data/Data.fs"), state);
    fs::remove_dir_all(sandbox.file("copy")).unwrap();
}

/// It also comes back in the database's place.
fn comes_back(sandbox: &Sandbox, id: &str, state: &Path) {
    comes_back_elsewhere(sandbox, id, state);
    sandbox.znap_ok(&["restore", id]);
    assert_same_file(sandbox.data_fs(), state);
}

#[test]
fn p6_a_backup_of_a_file_that_has_rotted_since_comes_back_as_it_was() {
    let mut site = Site::new(1300, 40, "large");
    site.back_up(1, "F");
    for base in [&[][..], &["--base"]] {
        let world = site.sandbox.copy();
        rot(&world.data_fs());
        world.znap_ok(&[&["init", "Data.fs"], base].concat());
        world.znap_ok(&["save", "own"]);
        fs::copy(world.data_fs(), world.file("rotten.fs")).unwrap();
        let report = imported(&world, &["repozo", "backups"], 0);
        all_come_back(&world, &report, &site.states);
        comes_back(&world, &id_of(&report, &site.states[0].0), &site.states[0].1);
        comes_back_elsewhere(&world, "own", &world.file("rotten.fs"));
        assert!(sources(&imported(&world, &["repozo", "backups"], 0), "imported").is_empty());
        world.znap_ok(&["check", "--data"]);
    }
}

/// A disk that gives nothing back: a loop of links stands for it.
#[test]
fn p5_a_backup_comes_back_whose_database_cannot_be_read_any_more() {
    let mut site = Site::new(1320, 40, "large");
    site.back_up(1, "F");
    let world = &site.sandbox;
    world.znap_ok(&["init", "Data.fs"]);
    world.znap_ok(&["save", "own"]);
    fs::remove_dir_all(world.file(".znap/bases")).unwrap();
    fs::rename(world.data_fs(), world.file("aside")).unwrap();
    symlink(world.data_fs(), world.data_fs()).unwrap();
    let report = imported(world, &["repozo", "backups"], 0);
    all_come_back(world, &report, &site.states);
    fs::remove_file(world.data_fs()).unwrap();
    fs::rename(world.file("aside"), world.data_fs()).unwrap();
    comes_back(world, &id_of(&report, &site.states[0].0), &site.states[0].1);
    world.znap_ok(&["check", "--data"]);
}

#[test]
fn p6_a_good_backup_after_a_rotten_one_comes_back_good() {
    let mut site = Site::new(1310, 40, "large");
    let first = site.back_up(1, "F");
    let second = site.back_up(2, "F");
    rot_backup(&site, &first);
    let sandbox = &site.sandbox;
    // Of another file, and of one in whose tail they are.
    fs::create_dir(sandbox.file("other")).unwrap();
    let other = sandbox.file("other/Data.fs");
    zodb(&["make", other.to_str().unwrap(), "--seed", "1", "--transactions", "3", "--profile", "small"]);
    for order in [[&first, &second], [&second, &first]] {
        let world = sandbox.copy();
        world.znap_ok(&["init", "other/Data.fs"]);
        if order[0] == &second {
            // A snapshot of just these bytes is there before the rotten one comes.
            fs::create_dir(world.file("one")).unwrap();
            for end in ["fs", "dat"] {
                let name = Path::new(&second).with_extension(end);
                fs::copy(world.file("backups").join(&name), world.file("one").join(&name)).unwrap();
            }
            imported(&world, &["repozo", "one"], 0);
        }
        let report = imported(&world, &["repozo", "backups"], 0);
        let ids: Value = serde_json::from_str(&world.znap_ok(&["list", "--json"])).unwrap();
        assert_eq!(ids.as_array().unwrap().len(), 2, "{report}");
        for (name, id) in [(&first, "2026-05-01"), (&second, "2026-05-02")] {
            comes_back_elsewhere(&world, id, &world.file("backups").join(name));
        }
    }
}

#[test]
fn p6_a_backup_of_the_same_time_and_end_that_differs_is_not_there_already() {
    let mut site = Site::new(1320, 40, "large");
    let name = site.back_up(1, "F");
    let sandbox = &site.sandbox;
    sandbox.znap_ok(&["init", "Data.fs"]);
    site.import(0);
    rot_backup(&site, &name);
    let report = site.import(0);
    assert_eq!(sources(&report, "imported"), std::slice::from_ref(&name));
    comes_back(sandbox, &id_of(&report, &name), &site.backup(&name));
    comes_back_elsewhere(sandbox, "2026-05-01_12-00-00", &site.states[0].1);
    assert_eq!(sources(&site.import(0), "present"), [name]);
}

/// A snapshot `s1` that needs the file before a pack, of which there is a backup.
fn packed(seed: u64) -> (Site, String, PathBuf) {
    let mut site = Site::new(seed, 40, "large");
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    site.sandbox.grow(seed + 1, 3, "small");
    let name = site.back_up(1, "F");
    site.sandbox.znap_ok(&["save", "s1"]);
    zodb(&["pack", site.sandbox.data_fs().to_str().unwrap()]);
    let state = site.states[0].1.clone();
    (site, name, state)
}

fn is_complete(sandbox: &Sandbox, id: &str) -> bool {
    let list: Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    let found = list.as_array().unwrap().iter().find(|one| one["id"] == id).unwrap().clone();
    found["complete"] == true
}

#[test]
fn p6_an_import_is_never_taken_for_what_snapshots_need_unless_it_was_compared() {
    // The file before the pack is gone: nobody can tell whether the backup has what it had.
    let (site, name, _) = packed(1330);
    let sandbox = &site.sandbox;
    fs::remove_file(sandbox.file("Data.fs.old")).unwrap();
    fs::remove_dir_all(sandbox.file(".znap/bases")).unwrap();
    rot_backup(&site, &name);
    let report = site.import(0);
    assert!(!is_complete(sandbox, "s1"));
    assert_ne!(sandbox.znap(&["restore", "s1", "--to", "copy"]).code, 0);
    comes_back(sandbox, &id_of(&report, &name), &site.backup(&name));

    // It is there: a backup that differs isn't of that life, and a good one is.
    let (site, name, state) = packed(1340);
    let sandbox = &site.sandbox;
    let good = site.sandbox.copy();
    rot_backup(&site, &name);
    let report = site.import(0);
    comes_back(sandbox, &id_of(&report, &name), &site.backup(&name));
    comes_back_elsewhere(sandbox, "s1", &state);
    let report = imported(&good, &["repozo", "backups"], 0);
    assert!(is_complete(&good, "s1"));
    fs::remove_file(good.file("Data.fs.old")).unwrap();
    comes_back(&good, &id_of(&report, &name), &state);
    comes_back(&good, "s1", &state);
}

/// An index is sampled only; one that lies beside what is imported is never used.
#[test]
fn p4_a_wrong_index_beside_what_is_imported_is_not_used() {
    let mut site = Site::new(1350, 40, "large");
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    let name = site.back_up(1, "F");
    let mut index = fs::read(site.sandbox.index()).unwrap();
    // Its end, a bucket's prefix, how long the bucket is. Of several hundred objects each sixth or so is looked at, and the last ones.
    assert_eq!((index[2], index[10], index[18]), (0x4a, 0x43, 0x42));
    let count = u32::from_le_bytes(index[19..23].try_into().unwrap()) as usize / 8;
    assert!(count > 600, "{count}");
    let size = fs::metadata(site.sandbox.data_fs()).unwrap().len();
    let place = |number: usize| 23 + count * 2 + number * 6;
    let is_early = |number: usize| {
        let offset =
            index[place(number)..place(number + 1)].iter().fold(0, |offset, byte| offset << 8 | u64::from(*byte));
        offset < size / 2
    };
    let step = count.div_ceil(200);
    let one = (1..count).find(|one| one % step == 1 && is_early(*one) && is_early(one + 1)).unwrap();
    let (one, other) = index[place(one)..place(one + 2)].split_at_mut(6);
    one.swap_with_slice(other);
    let mut path = site.backup(&name).into_os_string();
    path.push(".index");
    fs::write(path, index).unwrap();
    let report = site.import(0);
    all_come_back(&site.sandbox, &report, &site.states);
}

#[test]
fn p8_a_full_backup_of_what_is_there_stores_next_to_nothing() {
    let mut site = Site::new(1360, 40, "large");
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    site.sandbox.grow(1361, 5, "mixed");
    site.sandbox.znap_ok(&["save", "own"]);
    site.back_up(1, "F");
    site.back_up(2, "Fz");
    for report in [site.import(0), site.import(0)] {
        for one in report["imported"].as_array().unwrap() {
            assert_eq!(one["stored_bytes"], 0, "{one}");
        }
    }
    comes_back(&site.sandbox, "2026-05-02", &site.states[1].1);
    site.sandbox.check();
}
