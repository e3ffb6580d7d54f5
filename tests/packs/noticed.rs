//! What packs make of files is told from what isn't a pack's, and what nobody has any more is said.

use std::fs;
use std::path::Path;

use znap::disk::Disk;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, drop_bases};

use super::{Kill, Sandbox, Site, boundaries, zodb};

/// A database so small that all of it is in its snapshots.
fn small_site(seed: u64) -> Site {
    let sandbox = Sandbox::with_database(seed, 30, "small");
    assert!(fs::metadata(sandbox.data_fs()).unwrap().len() < znap::snapshot::KEPT_WHOLE);
    sandbox.znap_ok(&["init", "Data.fs"]);
    Site { sandbox, held: Default::default() }
}

/// Another file takes its place.
fn put_file(site: &Site, bytes: &[u8]) {
    let other = site.sandbox.file("other");
    fs::write(&other, bytes).unwrap();
    fs::rename(&other, site.sandbox.data_fs()).unwrap();
}

/// Damages a file where a transaction in its middle begins.
fn damage(path: &Path) {
    let all = boundaries(path);
    let at = all[all.len() / 2].0 as usize;
    let mut bytes = fs::read(path).unwrap();
    bytes[at..at + 40].fill(0);
    fs::write(path, bytes).unwrap();
}

fn refuses(sandbox: &Sandbox, args: &[&str], words: &str) {
    let output = sandbox.znap(args);
    assert!(output.code == 1 && output.stderr.contains(words), "{output:?}");
}

/// Its last transaction was about objects that are gone: the file ends with an earlier one.
#[test]
fn p5_a_pack_may_drop_the_last_transaction() {
    let sandbox = Sandbox::new();
    let path = sandbox.data_fs();
    let data = path.to_str().unwrap();
    zodb(&["make", data, "--seed", "1", "--transactions", "40", "--profile", "large"]);
    sandbox.znap_ok(&["init", "Data.fs"]);
    let mut site = Site { sandbox, held: Default::default() };
    site.save("a");
    let last = || boundaries(&path).last().unwrap().1;
    let before = last();
    site.pack();
    assert!(last() < before, "the last transaction is still there");
    assert!(site.save("packed").contains("packed"));
    site.restores("a");
    site.restores("packed");
}

/// A catalog that is made anew doesn't know which life a file was in: it is found out.
#[test]
fn p5_a_pack_may_follow_a_repair() {
    let mut site = Site::new(133);
    site.sandbox.znap_ok(&["base", "keep"]);
    site.save("a");
    site.sandbox.grow(134, 6, "mixed");
    site.pack();
    site.save("packed");
    site.restores("a");
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    site.pack();
    // What lay beside could tell it, too.
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    assert!(site.save("again").contains("packed"));
    for id in ["packed", "a", "again"] {
        site.restores(id);
    }
}

/// What ends earlier than the file did is no pack of it: not a part of it, cut where a transaction ends or within one, and not an older
/// copy. What has no snapshot yet is still there, under the second name.
#[test]
fn p5_a_part_or_an_older_copy_is_not_taken_for_a_packed_file() {
    let mut site = Site::new(146);
    let data = site.sandbox.data_fs();
    site.pack();
    let older = fs::read(&data).unwrap();
    site.sandbox.grow(147, 4, "mixed");
    site.pack();
    // As znap meets most sites: packed before.
    fs::remove_dir_all(site.sandbox.file(".znap")).unwrap();
    fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
    site.sandbox.znap_ok(&["init", "Data.fs"]);
    site.save("a");
    site.sandbox.grow(148, 3, "mixed");
    let all = fs::read(&data).unwrap();
    let ends = boundaries(&data);
    let end = ends[ends.len() / 2].0 as usize;
    let name = |site: &Site| site.second_names()[0].0.clone();
    for (what, bytes) in [("a part", &all[..end]), ("cut within", &all[..end + 50]), ("older", &older[..])] {
        put_file(&site, bytes);
        let saved = site.sandbox.znap(&["save", "no"]);
        assert!(saved.code == 1 && saved.stderr.contains("shorter"), "{what}: {saved:?}");
        assert!(fs::read(name(&site)).unwrap() == all, "P5: {what}: what no snapshot holds is gone");
    }
    put_file(&site, &all);
    site.save("b");
    site.restores("a");
    site.restores("b");
}

/// A database may begin small, and be packed when it is large: then it is as with any other.
#[test]
fn p5_p8_a_pack_of_a_database_that_is_kept_whole_is_noticed() {
    let mut site = small_site(135);
    site.save("a");
    site.sandbox.grow(136, 40, "large");
    site.save("b");
    site.pack();
    assert!(site.sandbox.znap_ok(&["status"]).contains("packed"));
    assert!(site.sandbox.znap_ok(&["restore", "a", "--dry-run"]).contains("the whole file is written beside"));
    refuses(&site.sandbox, &["restore", "a", "--discard"], "was packed since the last snapshot");
    assert!(site.save("packed").contains("packed"));
    site.sandbox.grow(137, 4, "small");
    site.pack();
    assert!(site.save("twice").contains("packed"));
    for id in ["a", "twice", "b", "packed", "a", "packed", "twice"] {
        site.restores(id);
    }
    site.sandbox.znap_ok(&["check", "--data", "--databases"]);
    site.sandbox.znap_ok(&["base", "keep"]);
    fs::remove_file(site.sandbox.file(".znap/catalog.db")).unwrap();
    site.sandbox.znap_ok(&["repair"]);
    for id in ["b", "twice"] {
        site.restores(id);
    }
}

/// A small one stays small: packed twice, it is no damaged one; also where nobody could tell that it was.
#[test]
fn p6_a_small_database_that_was_packed_twice_is_as_it_should_be() {
    for (seed, old) in [(3, true), (3, false), (7, false)] {
        let sandbox = Sandbox::with_database(seed, 30, "small");
        zodb(&["pack", sandbox.data_fs().to_str().unwrap()]);
        sandbox.znap_ok(&["init", "Data.fs"]);
        let mut site = Site { sandbox, held: Default::default() };
        site.save("one");
        site.sandbox.grow(50 + seed, 6, "small");
        site.pack();
        if !old {
            fs::remove_file(site.sandbox.file("Data.fs.old")).unwrap();
        }
        assert_eq!(site.save("two").contains("packed"), old);
        site.sandbox.znap_ok(&["check", "--data", "--databases"]);
        for id in ["one", "two", "one"] {
            site.restores(id);
            site.sandbox.znap_ok(&["check", "--databases"]);
        }
    }
}

/// Damage in a small file, which was packed before znap knew it, is none of a pack's doing: it comes back in its place.
#[test]
fn p5_a_small_database_that_is_damaged_is_not_taken_for_a_packed_one() {
    let sandbox = Sandbox::with_database(4, 30, "small");
    zodb(&["pack", sandbox.data_fs().to_str().unwrap()]);
    sandbox.znap_ok(&["init", "Data.fs"]);
    let mut site = Site { sandbox, held: Default::default() };
    site.save("one");
    let mut bytes = site.held["one"].0.clone();
    let end = bytes.len();
    bytes[end - 400..end - 300].fill(0);
    fs::write(site.sandbox.data_fs(), bytes).unwrap();
    assert!(!site.sandbox.znap_ok(&["status"]).contains("packed"));
    site.sandbox.znap_ok(&["restore", "one", "--discard"]);
    site.is("one");
}

/// Neither a second name nor `Data.fs.old` has what a snapshot needs: that is said, and a copy still helps, anywhere.
#[test]
fn p5_what_is_lost_is_said_and_a_copy_of_it_helps() {
    let mut site = Site::new(138);
    site.save("a");
    fs::copy(site.sandbox.data_fs(), site.sandbox.file("good.fs")).unwrap();
    fs::write(site.sandbox.file("wrong.fs"), zodb_file(139)).unwrap();
    site.without_second_names();
    site.pack();
    site.sandbox.grow(140, 5, "mixed");
    site.pack();
    let said = site.save("packed");
    let lost = "nowhere to be found: only znap restore ID --base-from FILE, with a copy of it, puts back a";
    assert!(said.contains(lost), "{said}");
    assert!(site.sandbox.znap_ok(&["status"]).contains(lost));
    assert_eq!(site.json(&["status", "--json"])["lost"], serde_json::json!(["a"]));
    let kept = site.sandbox.znap(&["base", "keep"]);
    assert!(kept.code == 0 && kept.stderr.contains(lost), "{kept:?}");
    assert!(!site.save("more").contains("nowhere"), "a save says it once");
    // A file that isn't it is named.
    for to in [&[][..], &["--to", "copy"]] {
        let args = [&["restore", "a", "--base-from", "wrong.fs"], to].concat();
        refuses(&site.sandbox, &args, "wrong.fs isn't Data.fs as it was before it was packed");
        assert!(!site.sandbox.file("copy").exists());
    }
    refuses(&site.sandbox, &["restore", "a", "--to", "copy"], "--base-from FILE");
    site.sandbox.znap_ok(&["restore", "a", "--to", "copy", "--base-from", "good.fs"]);
    assert!(fs::read(site.sandbox.file("copy/data/Data.fs")).unwrap() == site.held["a"].0, "P6");
    site.sandbox.znap_ok(&["restore", "a", "--base-from", "good.fs"]);
    site.is("a");
    assert_eq!(site.json(&["status", "--json"])["lost"], serde_json::json!([]));
    site.restores("packed");
}

fn zodb_file(seed: u64) -> Vec<u8> {
    fs::read(Sandbox::with_database(seed, 60, "large").data_fs()).unwrap()
}

/// A damaged copy is no reason to fail as long as there is a good one.
#[test]
fn p5_a_base_comes_from_whichever_copy_is_whole() {
    let mut site = Site::new(141);
    site.save("a");
    let data = site.sandbox.data_fs();
    fs::copy(&data, site.sandbox.file("good.fs")).unwrap();
    site.sandbox.grow(142, 5, "mixed");
    site.pack();
    // A copy of `.znap` has files of its own under these names.
    let second = site.second_names()[0].0.clone();
    let old = site.sandbox.file("Data.fs.old");
    fs::remove_file(&second).unwrap();
    fs::copy(&old, &second).unwrap();
    damage(&second);
    let world = site.sandbox.copy();
    assert!(site.save("packed").contains("are stored now"));
    site.restores("a");
    // Only the damaged one, and a copy that is named: it is told, and hinders nothing.
    fs::remove_dir_all(world.file(".znap/bases")).unwrap();
    damage(&world.file("Data.fs.old"));
    refuses(&world, &["restore", "a"], "Data.fs.old");
    world.znap_ok(&["restore", "a", "--base-from", "good.fs"]);
    assert!(fs::read(world.data_fs()).unwrap() == site.held["a"].0, "P6");
}

/// What isn't stored of the beginning has no hashes; but what isn't a database any more isn't written as one.
#[test]
fn p6_a_damaged_beginning_is_not_written_elsewhere() {
    let mut site = Site::new(143);
    site.save("a");
    damage(&site.sandbox.data_fs());
    refuses(&site.sandbox, &["restore", "a", "--to", "copy"], "Data.fs");
    assert!(!site.sandbox.file("copy/data/Data.fs").exists());
}

/// As soon as it isn't stored any more, a pack must not take it away; wherever that is killed.
#[test]
fn p5_a_base_that_is_dropped_has_its_second_name_before() {
    let mut site = Site::new(144);
    site.save("a");
    site.sandbox.znap_ok(&["base", "keep"]);
    assert!(site.second_names().is_empty() && site.bases() == 1);
    for change in 0.. {
        let world = Site { sandbox: site.sandbox.copy(), held: Default::default() };
        let place = Place { root: world.sandbox.file(".znap"), trusted: Vec::new() };
        let result = Repository::open_to_write_on(&Disk::watched(Kill::at(change)), &place, &Silent)
            .and_then(|mut repository| drop_bases(&mut repository, &[], &Silent));
        if result.is_ok() {
            assert!(change > 3 && world.bases() == 0, "{change}");
            world.has_its_second_name();
            break;
        }
        assert!(world.bases() == 1 || !world.second_names().is_empty(), "change {change}");
    }
}
