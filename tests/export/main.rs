//! Export: an archive that plain tar unpacks, that ZODB opens, and that import takes in. (P4, P5, P6)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod blobs;
#[path = "../common/mod.rs"]
mod common;
#[path = "../blobs/site.rs"]
#[allow(dead_code)]
mod site;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Kill, Sandbox, assert_same_file, output, zodb};
use znap::disk::Disk;
use znap::monitor::Silent;
use znap::snapshot::{ImportOptions, Origin, Place, Repository, export, import};

/// Snapshots `a` and `b`, of a database that isn't kept whole.
fn site(seed: u64) -> Sandbox {
    let sandbox = Sandbox::with_database(seed, 60, "large");
    assert!(fs::metadata(sandbox.data_fs()).unwrap().len() > znap::snapshot::KEPT_WHOLE);
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.grow(seed + 1, 10, "mixed");
    sandbox.znap_ok(&["save", "a", "-m", "the first"]);
    fs::copy(sandbox.data_fs(), sandbox.file("a.fs")).unwrap();
    fs::copy(sandbox.index(), sandbox.file("a.fs.index")).unwrap();
    sandbox.grow(seed + 2, 10, "mixed");
    sandbox.znap_ok(&["save", "b"]);
    sandbox
}

/// The members of an archive: their names, the bytes of each.
fn members(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(zstd::Decoder::new(fs::File::open(path).unwrap()).unwrap());
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry: tar::Entry<'_, zstd::Decoder<'_, _>> = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().to_str().unwrap().to_string(), bytes)
    };
    archive.entries().unwrap().map(read).collect()
}

/// An archive of these members, with the sums that they have.
fn archive_of(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut sums = String::new();
    let mut builder = tar::Builder::new(zstd::Encoder::new(fs::File::create(path).unwrap(), 1).unwrap().auto_finish());
    let mut append = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        let name_bytes = name.as_bytes();
        // As it is, whatever it is.
        header.as_old_mut().name[..name_bytes.len()].copy_from_slice(name_bytes);
        header.set_mode(0o444);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    };
    for (name, bytes) in members.iter().filter(|(name, _)| name != "BLAKE3SUMS") {
        append(name, bytes);
        sums.push_str(&format!("{}  {name}\n", blake3::hash(bytes).to_hex()));
    }
    append("BLAKE3SUMS", sums.as_bytes());
}

/// A member as it is in an archive.
fn member_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    let mut all = [header.as_bytes().as_slice(), bytes].concat();
    all.resize(all.len().next_multiple_of(512), 0);
    all
}

fn with_edited(
    members: &[(String, Vec<u8>)],
    name: &str,
    edit: impl Fn(&mut String, &mut Vec<u8>),
) -> Vec<(String, Vec<u8>)> {
    let mut members = members.to_vec();
    let (name, bytes) = members.iter_mut().find(|(other, _)| other == name).unwrap();
    edit(name, bytes);
    members
}

#[test]
fn p4_plain_tar_unpacks_it_and_zodb_opens_it() {
    let sandbox = site(810);
    let said = sandbox.znap(&["export", "a", "a.tar.zst"]);
    assert!(said.code == 0 && said.stderr.contains("password"), "{said:?}");
    let archive = sandbox.file("a.tar.zst");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o7777, 0o600);
    fs::create_dir(sandbox.file("out")).unwrap();
    let unzipped = zstd::decode_all(fs::File::open(&archive).unwrap()).unwrap();
    fs::write(sandbox.file("a.tar"), unzipped).unwrap();
    let untarred = output(Command::new("tar").args(["-xf", "../a.tar"]).current_dir(sandbox.file("out")));
    assert_eq!((untarred.code, untarred.stderr.as_str()), (0, ""));
    let data = sandbox.file("out/data/Data.fs");
    assert_same_file(&data, sandbox.file("a.fs"));
    assert_same_file(sandbox.file("out/data/Data.fs.index"), sandbox.file("a.fs.index"));
    zodb(&["check", data.to_str().unwrap(), "--expect-index"]);
    // Its sums are in the form of b3sum.
    let sums = fs::read_to_string(sandbox.file("out/BLAKE3SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 3);
    for line in sums.lines() {
        let (sum, name) = line.split_once("  ").unwrap();
        assert_eq!(sum, blake3::hash(&fs::read(sandbox.file("out").join(name)).unwrap()).to_hex().as_str(), "{name}");
    }
    // It never takes the place of another file.
    let again = sandbox.znap(&["export", "b", "a.tar.zst"]);
    assert!(again.code == 1 && again.stderr.contains("exists already"), "{again:?}");
    assert_eq!(members(&archive)[1].1, fs::read(sandbox.file("a.fs")).unwrap());
}

#[test]
fn p6_of_a_damaged_snapshot_there_is_no_archive() {
    let sandbox = site(820);
    let objects: Vec<_> =
        fs::read_dir(sandbox.file(".znap/objects")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut refused = 0;
    for object in objects.iter().filter(|object| fs::read(object).unwrap()[9] == 1) {
        let bytes = fs::read(object).unwrap();
        let mut damaged = bytes.clone();
        damaged[bytes.len() / 3] ^= 4;
        fs::write(object, damaged).unwrap();
        for id in ["a", "b"] {
            let output = sandbox.znap(&["export", id, "damaged.tar.zst"]);
            if output.code == 0 {
                fs::remove_file(sandbox.file("damaged.tar.zst")).unwrap();
            } else {
                assert_eq!(output.code, 3, "{output:?}");
                refused += 1;
            }
        }
        fs::write(object, bytes).unwrap();
    }
    assert!(refused >= 2, "{refused}");
    // What the file has before the tail has no hashes; but it is parsed.
    let mut bytes = fs::read(sandbox.data_fs()).unwrap();
    bytes[12..16].fill(0xff);
    fs::write(sandbox.data_fs(), bytes).unwrap();
    let output = sandbox.znap(&["export", "a", "damaged.tar.zst"]);
    assert!(output.code == 1 && output.stderr.contains("Data.fs is damaged at offset "), "{output:?}");
    let left = fs::read_dir(sandbox.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<String> = left.filter(|name| name.contains("tar")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn p5_an_export_that_is_killed_leaves_no_archive() {
    let sandbox = site(830);
    let place = Place { root: sandbox.file(".znap"), trusted: Vec::new() };
    let target = sandbox.file("killed.tar.zst");
    let mut change = 0;
    loop {
        let disk = Disk::watched(Kill::at(change));
        let done = Repository::open_to_write_on(&disk, &place, &Silent)
            .and_then(|repository| export(&repository, "a", &target, true, &Silent));
        if done.is_ok() {
            break;
        }
        // The last change is only a sync of the directory.
        if target.exists() {
            assert_eq!(members(&target)[1].1, fs::read(sandbox.file("a.fs")).unwrap());
            fs::remove_file(&target).unwrap();
        }
        change += 1;
    }
    println!("{change} kills");
    assert!(change >= 4, "{change}");
}

#[test]
fn p6_an_archive_comes_back_in_another_repository() {
    let sandbox = site(840);
    for id in ["a", "b"] {
        sandbox.znap_ok(&["export", id, &format!("{id}.tar.zst")]);
    }
    // In its own repository it is there already.
    let there = sandbox.znap_ok(&["import", "--from", "archive", "a.tar.zst"]);
    assert!(there.contains("there already: a.tar.zst, as a"), "{there}");
    let other = Sandbox::with_database(849, 3, "small");
    other.znap_ok(&["init", "Data.fs"]);
    other.znap_ok(&["save", "own"]);
    let path = |name: &str| sandbox.file(name).to_str().unwrap().to_string();
    let dry = other.znap_ok(&["import", "--from", "archive", &path("b.tar.zst"), "--dry-run"]);
    assert!(dry.contains("nothing was changed") && !other.znap_ok(&["list"]).contains("b.tar"), "{dry}");
    for id in ["b", "a"] {
        other.znap_ok(&["import", "--from", "archive", &path(&format!("{id}.tar.zst"))]);
    }
    let list: serde_json::Value = serde_json::from_str(&other.znap_ok(&["list", "--json"])).unwrap();
    let ids: Vec<&str> = list.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b", "own"], "by time");
    assert_eq!((&list[0]["kind"], &list[0]["message"]), (&"import".into(), &"the first".into()));
    assert_eq!(list[0]["complete"], true);
    let show: serde_json::Value = serde_json::from_str(&other.znap_ok(&["show", "latest", "--json"])).unwrap();
    assert_eq!(show["id"], "own");
    other.znap_ok(&["check", "--data"]);
    other.znap_ok(&["restore", "a"]);
    assert_same_file(other.data_fs(), sandbox.file("a.fs"));
    assert_same_file(other.index(), sandbox.file("a.fs.index"));
    other.check();
    other.znap_ok(&["restore", "b"]);
    assert_same_file(other.data_fs(), sandbox.data_fs());
    assert_same_file(other.index(), sandbox.index());
    other.znap_ok(&["undo"]);
    assert_same_file(other.data_fs(), sandbox.file("a.fs"));
    // An archive of what was imported, once more.
    other.znap_ok(&["export", "b", "again.tar.zst"]);
    assert_eq!(members(&other.file("again.tar.zst"))[1].1, fs::read(sandbox.data_fs()).unwrap());
}

#[test]
fn p6_hostile_archives_change_nothing() {
    let sandbox = site(850);
    sandbox.znap_ok(&["export", "a", "a.tar.zst"]);
    sandbox.znap_ok(&["delete", "a"]);
    let good = members(&sandbox.file("a.tar.zst"));
    let names: Vec<&str> = good.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["znap.json", "data/Data.fs", "data/Data.fs.index", "BLAKE3SUMS"]);
    let before = snapshot_of(&sandbox);
    let bad = sandbox.file("bad.tar.zst");
    let refused = |what: &str| {
        let output = sandbox.znap(&["import", "--from", "archive", "bad.tar.zst"]);
        assert!(matches!(output.code, 1 | 5), "{what}: {output:?}");
        let errors = output.stderr.lines().filter(|line| line.contains("error:")).count();
        assert!(errors == 1 && output.stderr.len() < 600, "{what}: {output:?}");
        assert!(snapshot_of(&sandbox) == before, "{what}");
    };
    let renamed = |from: &str, to: &str| with_edited(&good, from, |name, _| *name = to.into());
    for (from, to) in [
        ("data/Data.fs", "../Data.fs"),
        ("data/Data.fs", "/tmp/Data.fs"),
        ("data/Data.fs.index", "data/../../x"),
        ("znap.json", "other.json"),
        ("data/Data.fs.index", "data/Data.fs"),
    ] {
        archive_of(&bad, &renamed(from, to));
        refused(to);
    }
    let described = |find: &str, put: &str| {
        with_edited(&good, "znap.json", |_, bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.contains(find), "{text}");
            *bytes = text.replace(find, put).into_bytes();
        })
    };
    for (find, put) in [
        ("\"data\"", "\"unknown\""),
        ("\"format\": 1", "\"format\": 99"),
        ("\"bytes\": ", "\"bytes\": 1"),
        ("\"databases\"", "\"nothing\""),
        ("data/Data.fs", "../../../etc/passwd"),
    ] {
        archive_of(&bad, &described(find, put));
        refused(put);
    }
    // The database itself: with sums that are right, and with others.
    let torn = with_edited(&good, "data/Data.fs", |_, bytes| bytes[200] ^= 1);
    archive_of(&bad, &with_edited(&torn, "data/Data.fs", |_, bytes| bytes[5..20].fill(0xff)));
    refused("damaged");
    archive_of(&bad, &good[..1]);
    refused("without the database");
    let bytes = fs::read(sandbox.file("a.tar.zst")).unwrap();
    for length in [0, 3, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&bad, &bytes[..length]).unwrap();
        refused("truncated");
    }
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    fs::write(&bad, flipped).unwrap();
    refused("a bit");
    // Members of other kinds, and of made-up sizes.
    let kinds = [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::GNULongName, tar::EntryType::XHeader];
    for (kind, size) in kinds.into_iter().map(|kind| (kind, 0)).chain([(tar::EntryType::Regular, u64::MAX / 2)]) {
        let mut header = tar::Header::new_gnu();
        header.set_path("data/Data.fs").unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        let mut out = zstd::Encoder::new(fs::File::create(&bad).unwrap(), 1).unwrap();
        out.write_all(&member_of("znap.json", &good[0].1)).unwrap();
        out.write_all(header.as_bytes()).unwrap();
        out.finish().unwrap();
        refused(&format!("{kind:?}"));
    }
    // One whose description claims the same.
    let claimed = 1u64 << 60;
    let length = fs::metadata(sandbox.file("a.fs")).unwrap().len();
    let mut header = tar::Header::new_gnu();
    header.set_path("data/Data.fs").unwrap();
    header.set_size(claimed);
    header.set_cksum();
    let text = &described(&length.to_string(), &claimed.to_string())[0].1;
    let mut out = zstd::Encoder::new(fs::File::create(&bad).unwrap(), 1).unwrap();
    out.write_all(&member_of("znap.json", text)).unwrap();
    out.write_all(header.as_bytes()).unwrap();
    out.finish().unwrap();
    refused("more than any disk has");
    // A sum that isn't that of its member.
    let mut wrong = good.clone();
    wrong[3].1[0] = if wrong[3].1[0] == b'0' { b'1' } else { b'0' };
    let mut builder = tar::Builder::new(zstd::Encoder::new(fs::File::create(&bad).unwrap(), 1).unwrap().auto_finish());
    for (name, bytes) in &wrong {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    drop(builder);
    refused("a wrong sum");
    sandbox.znap_ok(&["import", "--from", "archive", "a.tar.zst"]);
    sandbox.znap_ok(&["restore", "a"]);
    assert_same_file(sandbox.data_fs(), sandbox.file("a.fs"));
}

/// The database, and what the list says.
fn snapshot_of(sandbox: &Sandbox) -> (Vec<u8>, String) {
    (fs::read(sandbox.data_fs()).unwrap(), sandbox.znap_ok(&["list", "--json"]))
}

#[test]
fn p5_an_import_of_an_archive_may_be_killed_anywhere() {
    let sandbox = site(860);
    sandbox.znap_ok(&["export", "a", "a.tar.zst"]);
    sandbox.znap_ok(&["delete", "a"]);
    let options = |world: &Sandbox| ImportOptions {
        origin: Origin::Archive,
        path: world.file("a.tar.zst"),
        database: None,
        dry_run: false,
        zone: jiff::tz::TimeZone::UTC,
    };
    let mut kills = 0;
    for change in (0..).step_by(3) {
        let world = sandbox.copy();
        let place = Place { root: world.file(".znap"), trusted: Vec::new() };
        let disk = Disk::watched(Kill::at(change));
        let done = Repository::open_to_write_on(&disk, &place, &Silent)
            .and_then(|mut repository| import(&mut repository, &options(&world), &Silent));
        if done.is_ok() {
            break;
        }
        kills += 1;
        world.znap_ok(&["check", "--data", "--databases"]);
        world.znap_ok(&["import", "--from", "archive", "a.tar.zst"]);
        world.znap_ok(&["restore", "a", "--to", "copy"]);
        assert_same_file(world.file("copy/data/Data.fs"), world.file("a.fs"));
        world.znap_ok(&["gc"]);
        world.znap_ok(&["check", "--data"]);
    }
    println!("{kills} kills");
    assert!(kills > 8, "{kills}");
}

/// Any change of its bytes, before they were compressed: it is refused, or it changes nothing that matters.
#[test]
fn p6_a_changed_archive_is_refused_or_the_same() {
    let sandbox = Sandbox::with_database(870, 3, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.znap_ok(&["export", "a", "a.tar.zst"]);
    let bytes = zstd::decode_all(fs::File::open(sandbox.file("a.tar.zst")).unwrap()).unwrap();
    let place = Place { root: sandbox.file(".znap"), trusted: Vec::new() };
    let mut repository = Repository::open_to_write(&place, &Silent).unwrap();
    let bad = sandbox.file("bad.tar.zst");
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let (mut refused, mut same) = (0, 0);
    for number in 0..600 {
        let mut bytes = bytes.clone();
        // Half of them in the headers and the description.
        let at = if number % 2 == 0 { random(bytes.len()) } else { random(2000) };
        match random(4) {
            0 => bytes[at] ^= 1 << random(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.splice(at..at, vec![random(256) as u8; 1 + random(600)])),
            _ => drop(bytes.drain(at..(at + 1 + random(600)).min(bytes.len()))),
        }
        fs::write(&bad, zstd::encode_all(bytes.as_slice(), 1).unwrap()).unwrap();
        let options = ImportOptions {
            origin: Origin::Archive,
            path: bad.clone(),
            database: None,
            dry_run: true,
            zone: jiff::tz::TimeZone::UTC,
        };
        match import(&mut repository, &options, &Silent) {
            Err(error) => {
                assert!(error.hint_text().is_some() && error.to_string().len() < 500, "{error}");
                refused += 1;
            }
            Ok(report) => {
                assert_eq!(report.present.len(), 1, "{report:?}");
                same += 1;
            }
        }
    }
    println!("{refused} refused, {same} the same");
    assert!(refused > 400, "{refused}");
}

/// In tar's plainest form no name is longer than 100 bytes.
#[test]
fn a_file_of_any_name_can_be_exported() {
    let sandbox = Sandbox::with_database(880, 3, "small");
    let name = format!("{}.fs", "n".repeat(200));
    fs::rename(sandbox.data_fs(), sandbox.file(&name)).unwrap();
    sandbox.znap_ok(&["init", &name]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.znap_ok(&["export", "a", "a.tar.zst"]);
    let bytes = fs::read(sandbox.file(&name)).unwrap();
    let found = members(&sandbox.file("a.tar.zst"));
    assert!(found[1].0.ends_with("/Data.fs") && found[1].1 == bytes, "{}", found[1].0);
    let unzipped = zstd::decode_all(fs::File::open(sandbox.file("a.tar.zst")).unwrap()).unwrap();
    fs::write(sandbox.file("a.tar"), unzipped).unwrap();
    let untarred = output(Command::new("tar").args(["-xf", "a.tar"]).current_dir(sandbox.path()));
    assert_eq!((untarred.code, untarred.stderr.as_str()), (0, ""));
    assert_same_file(sandbox.file(&found[1].0), sandbox.file(&name));
    sandbox.znap_ok(&["delete", "a"]);
    sandbox.znap_ok(&["import", "--from", "archive", "a.tar.zst"]);
    sandbox.znap_ok(&["restore", "a"]);
    assert_same_file(sandbox.file(&name), sandbox.file(&found[1].0));
}
