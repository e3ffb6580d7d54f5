//! Databases that real ZODB makes and reads: what is saved comes back byte for byte, index included, and ZODB opens it
//! with that index, without a warning, and finds every object as it was.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Sandbox, ZodbProcess, assert_same_bytes, assert_same_file, boundaries, zodb};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A state that a snapshot was made of.
struct State {
    id: String,
    data: Vec<u8>,
    index: Vec<u8>,
    checked: Value,
}

impl State {
    fn save(sandbox: &Sandbox, id: &str) -> Self {
        sandbox.znap_ok(&["save", id]);
        State {
            id: id.into(),
            data: fs::read(sandbox.data_fs()).unwrap(),
            index: index_by_zodb(sandbox, &sandbox.data_fs()),
            checked: sandbox.check(),
        }
    }

    /// Restores it and has ZODB look at it.
    fn restore(&self, sandbox: &Sandbox) {
        sandbox.znap_ok(&["restore", "--verify", &self.id]);
        assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &self.data, &self.id);
        assert_same_bytes(&fs::read(sandbox.index()).unwrap(), &self.index, &format!("the index of {}", self.id));
        assert_eq!(sandbox.check(), self.checked, "{}", self.id);
        assert!(!sandbox.file("Data.fs.tr0").exists());
    }
}

/// The index that ZODB makes by reading all of a file.
fn index_by_zodb(sandbox: &Sandbox, path: &Path) -> Vec<u8> {
    let out = sandbox.file("oracle.index");
    zodb(&["index", path.to_str().unwrap(), out.to_str().unwrap()]);
    fs::read(out).unwrap()
}

/// Back, forward and sideways through states of one database.
fn there_and_back(sandbox: &Sandbox, profile: &str) {
    sandbox.znap_ok(&["init", "Data.fs"]);
    let a = State::save(sandbox, "a");
    sandbox.grow(11, 12, profile);
    let b = State::save(sandbox, "b");
    sandbox.grow(12, 12, profile);
    let c = State::save(sandbox, "c");
    a.restore(sandbox);
    // Another future.
    sandbox.grow(13, 12, profile);
    let d = State::save(sandbox, "d");
    for state in [&c, &b, &d, &a, &d] {
        state.restore(sandbox);
    }
    sandbox.znap_ok(&["delete", "b"]);
    sandbox.znap_ok(&["gc"]);
    for state in [&c, &a, &d] {
        state.restore(sandbox);
    }
    sandbox.znap_ok(&["restore", "--to", "copies", "c"]);
    let copy = sandbox.file("copies/data/Data.fs");
    assert_same_bytes(&fs::read(&copy).unwrap(), &c.data, "the copy");
    let checked = zodb(&["check", copy.to_str().unwrap(), "--expect-index"]);
    assert_eq!(checked["objects"], c.checked["objects"]);
}

#[test]
fn p4_p6_a_mixed_database_comes_back() {
    there_and_back(&Sandbox::with_database(21, 30, "mixed"), "mixed");
}

#[test]
fn p4_p6_many_small_records_come_back() {
    there_and_back(&Sandbox::with_database(22, 60, "small"), "small");
}

#[test]
fn p4_p6_a_database_like_plone_that_was_packed_comes_back() {
    let sandbox = Sandbox::with_database(23, 40, "plone");
    sandbox.zodb("pack", &[]);
    sandbox.grow(24, 10, "plone");
    there_and_back(&sandbox, "plone");
}

#[test]
fn p4_p6_large_records_come_back_without_an_index_to_begin_with() {
    let sandbox = Sandbox::with_database(25, 10, "large");
    fs::remove_file(sandbox.index()).unwrap();
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "first"]);
    let data = fs::read(sandbox.data_fs()).unwrap();
    sandbox.grow(26, 4, "large");
    sandbox.znap_ok(&["restore", "--discard", "first"]);
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &data, "the database");
    sandbox.check();
}

#[test]
fn p4_an_index_that_is_behind_is_brought_up_to_date() {
    let sandbox = Sandbox::with_database(27, 80, "mixed");
    let old_index = fs::read(sandbox.index()).unwrap();
    sandbox.grow(28, 15, "mixed");
    let now = index_by_zodb(&sandbox, &sandbox.data_fs());
    fs::write(sandbox.index(), &old_index).unwrap();
    let said = sandbox.znap_ok(&["init", "Data.fs"]);
    assert!(!said.contains("read the whole"), "{said}");
    sandbox.znap_ok(&["save", "first"]);
    sandbox.znap_ok(&["restore", "first"]);
    assert_same_bytes(&fs::read(sandbox.index()).unwrap(), &now, "the index");
    sandbox.check();
}

#[test]
fn fs21_databases_come_back_too() {
    let sandbox = Sandbox::new();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/fs21.fs");
    fs::copy(&fixture, sandbox.data_fs()).unwrap();
    let original = fs::read(&fixture).unwrap();
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "old"]);
    // Half of it, up to a boundary, as if it had been put back from somewhere else.
    let ends = boundaries(&fixture);
    let middle = ends[ends.len() / 2].0 as usize;
    fs::write(sandbox.data_fs(), &original[..middle]).unwrap();
    sandbox.znap_ok(&["save", "half"]);
    sandbox.znap_ok(&["restore", "old"]);
    assert_same_file(sandbox.data_fs(), &fixture);
    let index = fs::read(sandbox.index()).unwrap();
    assert_same_bytes(&index, &index_by_zodb(&sandbox, &fixture), "the index");
}

/// Saves twenty times while a process writes; every snapshot has to be a beginning of the final file (P3).
fn beside_a_writer(mode: &str) {
    let sandbox = Sandbox::with_database(31, 40, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    let mut writer = ZodbProcess::writer(&sandbox.data_fs(), &["--mode", mode, "--seed", "5"]);
    for number in 0..20 {
        sandbox.znap_ok(&["save", &format!("live-{number}")]);
    }
    assert!(writer.is_running());
    writer.stop();
    let final_file = fs::read(sandbox.data_fs()).unwrap();
    let ends = boundaries(&sandbox.data_fs());
    let list: Value = serde_json::from_str(&sandbox.znap_ok(&["list", "--json"])).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 20);
    for number in [0, 7, 13, 19] {
        let id = format!("live-{number}");
        sandbox.znap_ok(&["restore", "--to", &id, &id]);
        let copy = sandbox.file(format!("{id}/data/Data.fs"));
        let bytes = fs::read(&copy).unwrap();
        assert!(final_file.starts_with(&bytes), "{id} is no beginning of the final file");
        zodb(&["check", copy.to_str().unwrap(), "--expect-index"]);
    }
    for (number, snapshot) in list.as_array().unwrap().iter().enumerate() {
        let cut = snapshot["databases"][0]["cut"].as_u64().unwrap();
        let end = ends.iter().find(|(offset, _)| *offset == cut);
        let (_, tid) = end.unwrap_or_else(|| panic!("P3: snapshot {number} ends at {cut}, inside a transaction"));
        let expected = format!("0x{tid:016x}");
        assert_eq!(snapshot["databases"][0]["tid"].as_str().unwrap(), expected);
    }
}

#[test]
fn p3_p7_a_live_writer_is_not_disturbed_and_every_cut_is_a_boundary() {
    beside_a_writer("commit");
}

#[test]
fn p3_a_writer_that_votes_and_aborts_leaves_no_trace() {
    beside_a_writer("abort");
}

#[test]
fn p3_a_writer_that_does_both() {
    beside_a_writer("mixed");
}

#[test]
fn p3_torn_tails_are_left_out_and_said_so() {
    for kind in ["garbage10", "partial100", "voted", "zeros4096"] {
        let sandbox = Sandbox::with_database(41, 20, "small");
        sandbox.znap_ok(&["init", "Data.fs"]);
        sandbox.grow(42, 5, "small");
        let whole = fs::read(sandbox.data_fs()).unwrap();
        zodb(&["torn", kind, sandbox.data_fs().to_str().unwrap()]);
        assert!(fs::metadata(sandbox.data_fs()).unwrap().len() > whole.len() as u64);
        let output = sandbox.znap(&["save", "torn"]);
        assert_eq!(output.code, 0, "{kind}: {output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(said.matches("left out").count(), 1, "{kind}: {said}");
        sandbox.znap_ok(&["restore", "torn"]);
        assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &whole, kind);
        sandbox.check();
    }
}

#[test]
fn p5_what_lies_behind_the_last_transaction_is_kept_as_zodb_keeps_it() {
    for kind in ["garbage10", "partial100", "voted", "zeros4096", "broken length"] {
        let sandbox = Sandbox::with_database(43, 20, "small");
        sandbox.znap_ok(&["init", "Data.fs"]);
        sandbox.znap_ok(&["save", "a"]);
        let saved = fs::read(sandbox.data_fs()).unwrap();
        sandbox.grow(44, 5, "small");
        if kind == "broken length" {
            // Of the first transaction since: whole ones follow it.
            let mut bytes = fs::read(sandbox.data_fs()).unwrap();
            bytes[saved.len() + 8] ^= 1;
            fs::write(sandbox.data_fs(), bytes).unwrap();
        } else {
            zodb(&["torn", kind, sandbox.data_fs().to_str().unwrap()]);
        }
        let (copy, copied) = (sandbox.file("copy.fs"), sandbox.file("copy.fs.tr0"));
        fs::copy(sandbox.data_fs(), &copy).unwrap();
        zodb(&["open", copy.to_str().unwrap()]);
        let (kept, other) = (sandbox.file("Data.fs.tr0"), sandbox.file("Data.fs.tr1"));
        let plan = |discard: &[&str]| sandbox.znap_ok(&[&["restore", "a", "--dry-run"], discard].concat());
        assert!(plan(&[]).contains("left out") && plan(&["--discard"]).contains("dropped"), "{kind}");
        // A name that is taken.
        fs::write(&kept, "something else").unwrap();
        let said = sandbox.znap_ok(&["restore", "a"]);
        assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &saved, kind);
        assert_eq!(fs::read(&kept).unwrap(), b"something else");
        assert_eq!(other.exists(), kind != "garbage10", "{kind}: ZODB drops what is shorter than a header, too");
        assert_eq!(said.contains("Data.fs.tr1"), other.exists(), "{kind}: {said}");
        assert_eq!(fs::read(&other).ok(), fs::read(&copied).ok(), "{kind}");
    }
}

#[test]
fn undo_can_drop_what_came_after_the_restore() {
    let sandbox = Sandbox::with_database(45, 20, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(46, 5, "small");
    let grown = fs::read(sandbox.data_fs()).unwrap();
    sandbox.znap_ok(&["restore", "a"]);
    sandbox.grow(47, 3, "small");
    let plan = sandbox.znap_ok(&["undo", "--discard", "--dry-run"]);
    assert!(plan.contains("dropped for good, because no snapshot holds them: 3 transactions"), "{plan}");
    let said = sandbox.znap_ok(&["undo", "--discard"]);
    assert!(said.contains("dropped for good, because no snapshot held them: 3 transactions"), "{said}");
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &grown, "undone");
    assert_eq!(sandbox.znap_ok(&["list"]).matches("undo-").count(), 1);
    let output = sandbox.znap(&["undo"]);
    assert!(output.code == 1 && output.stderr.contains("told to drop"), "{output:?}");
    sandbox.check();
}

#[test]
fn p7_restore_refuses_while_anything_has_the_database_open() {
    let sandbox = Sandbox::with_database(51, 20, "small");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    for read_only in [false, true] {
        let holder = ZodbProcess::hold(&sandbox.data_fs(), read_only);
        let before = fs::read(sandbox.data_fs()).unwrap();
        let output = sandbox.znap(&["restore", "a"]);
        assert_eq!(output.code, 4, "{output:?}");
        assert!(output.stderr.contains(&holder.id().to_string()), "the holder isn't named: {}", output.stderr);
        assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &before, "the database");
        // Saving and looking go on.
        sandbox.znap_ok(&["save", if read_only { "b" } else { "c" }]);
        sandbox.znap_ok(&["status"]);
        holder.stop();
    }
    sandbox.znap_ok(&["restore", "a"]);
}

#[test]
fn what_is_no_longer_the_same_file_is_recognised_by_content() {
    let sandbox = Sandbox::with_database(61, 60, "mixed");
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    let original = fs::read(sandbox.data_fs()).unwrap();
    let refused = |sandbox: &Sandbox, what: &str, word: &str| {
        for command in [&["save", "b"][..], &["restore", "a"], &["restore", "--discard", "a"]] {
            let output = sandbox.znap(command);
            assert_eq!(output.code, 1, "{what}: {output:?}");
            assert!(output.stderr.contains(word), "{what}: {}", output.stderr);
            assert!(output.stderr.contains("hint:"), "{what}: {}", output.stderr);
        }
        assert!(sandbox.znap_ok(&["status"]).contains(word), "{what}");
    };
    // A copy of the same content is the same database, whatever its inode and time stamp.
    fs::remove_file(sandbox.data_fs()).unwrap();
    fs::write(sandbox.data_fs(), &original).unwrap();
    sandbox.znap_ok(&["save", "copy"]);

    // What ZODB has made of it is the same database, in another life: see tests/packs.
    let mut converted = original.clone();
    converted[..4].copy_from_slice(b"FS21");
    let copy = sandbox.copy();
    fs::write(copy.data_fs(), &converted).unwrap();
    assert!(copy.znap_ok(&["status"]).contains("converted"));
    copy.znap_ok(&["save", "converted"]);
    for (id, bytes) in [("a", &original), ("converted", &converted)] {
        copy.znap_ok(&["restore", id]);
        assert_same_bytes(&fs::read(copy.data_fs()).unwrap(), bytes, id);
    }

    fs::write(sandbox.data_fs(), &original[..boundaries_of(&original)]).unwrap();
    refused(&sandbox, "shortened", "shorter");

    let other = Sandbox::with_database(62, 90, "mixed");
    fs::copy(other.data_fs(), sandbox.data_fs()).unwrap();
    refused(&sandbox, "another one", "replaced");

    fs::remove_file(sandbox.data_fs()).unwrap();
    for command in [&["save", "b"][..], &["restore", "a"]] {
        assert_eq!(sandbox.znap(command).code, 5, "missing");
    }
    fs::write(sandbox.data_fs(), &original).unwrap();
    sandbox.znap_ok(&["restore", "a"]);
    sandbox.check();
}

/// The end of the first transaction of a file.
fn boundaries_of(file: &[u8]) -> usize {
    let length = u64::from_be_bytes(file[12..20].try_into().unwrap());
    4 + length as usize + 8
}

/// What root makes outside `.znap` belongs to whom the database belongs.
#[test]
fn p12_files_stay_the_owners() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give files away: owner and group are not tested, modes are");
    }
    let sandbox = Sandbox::with_database(71, 20, "mixed");
    let (user, group) = if rustix::process::geteuid().is_root() { (12345, 23456) } else { owner(&sandbox.data_fs()) };
    for file in [sandbox.data_fs(), sandbox.index(), sandbox.file("Data.fs.lock")] {
        chown(&file, Some(user), Some(group)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::remove_file(sandbox.file("Data.fs.lock")).unwrap();
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "a"]);
    sandbox.grow(72, 5, "mixed");
    fs::remove_file(sandbox.file("Data.fs.lock")).unwrap();
    sandbox.znap_ok(&["save", "b"]);
    let check = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (user, group), "P12: {}", path.display());
        assert_eq!(metadata.mode() & 0o777, 0o640, "P12: {}", path.display());
    };
    sandbox.znap_ok(&["restore", "a"]);
    for file in [sandbox.data_fs(), sandbox.index(), sandbox.file("Data.fs.lock")] {
        check(&file);
    }
    // With another name the file is built anew beside, and the other name keeps what it had.
    fs::hard_link(sandbox.data_fs(), sandbox.file("other.fs")).unwrap();
    let before = fs::read(sandbox.data_fs()).unwrap();
    sandbox.znap_ok(&["restore", "b"]);
    check(&sandbox.data_fs());
    assert_same_bytes(&fs::read(sandbox.file("other.fs")).unwrap(), &before, "the other name");
    sandbox.znap_ok(&["restore", "--to", "copy", "a"]);
    check(&sandbox.file("copy/data/Data.fs"));
    check(&sandbox.file("copy/data/Data.fs.index"));
    let mut seen = 0;
    for entry in fs::read_dir(sandbox.file(".znap/objects")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600, "P12: objects are private");
        seen += 1;
    }
    assert!(seen > 3);
    assert_eq!(fs::metadata(sandbox.file(".znap")).unwrap().mode() & 0o777, 0o700);
}

fn owner(path: &Path) -> (u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// ZODB writes an index for a storage of only empty transactions, and then can't open it: none is restored.
#[test]
fn p4_a_database_without_objects_gets_no_index() {
    use znap::filestorage::{Oid, pickles, write::Writer};
    let sandbox = Sandbox::new();
    let mut writer = Writer::create(sandbox.data_fs()).unwrap();
    for _ in 0..5 {
        writer.transaction().user("nobody").commit().unwrap();
    }
    sandbox.znap_ok(&["init", "Data.fs"]);
    sandbox.znap_ok(&["save", "empty"]);
    writer.transaction().data(Oid(0), pickles::mapping([])).commit().unwrap();
    drop(writer);
    sandbox.znap_ok(&["save", "root"]);
    sandbox.znap_ok(&["restore", "empty"]);
    assert!(!sandbox.index().exists());
    assert_eq!(sandbox.zodb("open", &["--read-only"])["ok"], true);
    sandbox.znap_ok(&["restore", "root"]);
    assert!(sandbox.index().exists());
    assert_eq!(sandbox.zodb("open", &[])["ok"], true);
}
