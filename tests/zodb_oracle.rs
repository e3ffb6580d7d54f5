//! The oracle itself: that real ZODB behaves as the tests take for granted, and that what it makes has in it
//! what the tests are about.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Sandbox, Zodb, ZodbProcess, assert_same_bytes, assert_same_file, boundaries, try_zodb};
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"))
}

#[test]
fn the_same_seed_makes_the_same_bytes() {
    let (one, two, other) = (Sandbox::new(), Sandbox::new(), Sandbox::new());
    for sandbox in [&one, &two] {
        sandbox.make(5, 40, "small");
        sandbox.grow(6, 20, "small");
    }
    other.make(7, 40, "small");
    assert_same_file(one.data_fs(), two.data_fs());
    assert_same_file(one.index(), two.index());
    assert_ne!(fs::read(one.data_fs()).unwrap(), fs::read(other.data_fs()).unwrap());
}

#[test]
fn a_made_database_has_everything_in_it() {
    let sandbox = Sandbox::new();
    let made = sandbox.make(1, 60, "mixed");
    let found = sandbox.zodb("features", &[]);
    assert_eq!(number(&found, "transactions"), 60);
    assert_eq!(number(&made, "transactions"), 60);
    for name in ["backpointers", "gone", "empty", "rewritten", "twice_in_transaction"] {
        assert!(number(&found, name) > 0, "{name} in {found}");
    }
    assert!(number(&found, "records") > 1000);
    assert!(number(&found, "largest_record") > 2_000_000);
    assert_eq!(number(&found, "longest_user"), 65534);
    assert_eq!(number(&found, "longest_description"), 65535);
    assert!(number(&found, "longest_extension") > 60_000);

    let checked = sandbox.check();
    assert!(number(&checked, "objects") > 500);
    assert!(number(&checked, "deleted") > 0);
    assert_eq!(checked["last_tid"], made["last_tid"]);
}

#[test]
fn every_profile_makes_a_sound_database() {
    for profile in ["small", "mixed", "large", "plone"] {
        let sandbox = Sandbox::with_database(2, 40, profile);
        sandbox.check();
        sandbox.grow(3, 10, profile);
        sandbox.check();
    }
}

#[test]
fn the_index_made_from_the_file_is_the_one_zodb_wrote_while_it_grew() {
    let sandbox = Sandbox::with_database(3, 50, "small");
    let length = fs::metadata(sandbox.data_fs()).unwrap().len();
    let early = fs::read(sandbox.index()).unwrap();
    let out = sandbox.file("out.index");
    let out_name = out.to_str().unwrap();
    sandbox.zodb("index", &[out_name]);
    assert_same_file(&out, sandbox.index());

    // Of the first bytes only, when the file has grown.
    sandbox.grow(4, 30, "small");
    sandbox.zodb("index", &["--length", &length.to_string(), out_name]);
    assert_same_bytes(&fs::read(&out).unwrap(), &early, "the index then and now");

    // After a pack, and after growing from there.
    let packed = sandbox.zodb("pack", &[]);
    assert!(number(&packed, "size") < number(&packed, "size_before"));
    sandbox.zodb("index", &[out_name]);
    assert_same_file(&out, sandbox.index());
    sandbox.grow(5, 30, "small");
    sandbox.zodb("index", &[out_name]);
    assert_same_file(&out, sandbox.index());
    let found = sandbox.zodb("features", &[]);
    assert!(number(&found, "status p") > 0 && number(&found, "status  ") > 0, "{found}");
    sandbox.check();
}

#[test]
fn an_index_can_be_made_for_every_boundary_and_for_nothing_else() {
    let sandbox = Sandbox::with_database(3, 10, "small");
    let path = sandbox.data_fs();
    let ends = boundaries(&path);
    assert_eq!(ends.len(), 10);
    assert_eq!(ends.last().unwrap().0, fs::metadata(&path).unwrap().len());
    assert!(ends.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1));

    let out = sandbox.file("out.index");
    let args = |length: u64| {
        ["index", path.to_str().unwrap(), "--length", &length.to_string(), out.to_str().unwrap()].map(str::to_owned)
    };
    let mut zodb = Zodb::start();
    let mut index = |length: u64| {
        let args = args(length);
        zodb.try_run(&args.each_ref().map(String::as_str))
    };
    // A database without a transaction has an index too: PROTO 3, the number 4, None.
    index(4).unwrap();
    assert_eq!(fs::read(&out).unwrap(), b"\x80\x03K\x04.\x80\x03N.");
    for (end, _) in ends {
        assert_eq!(number(&index(end).unwrap(), "position"), end);
        assert!(index(end - 1).unwrap_err().contains("no transaction ends at"));
    }
}

#[test]
fn the_last_transaction_can_be_undone_twice() {
    let sandbox = Sandbox::with_database(8, 30, "small");
    sandbox.grow(9, 1, "small");
    let before = sandbox.check();
    let ends = boundaries(&sandbox.data_fs()).len();
    sandbox.zodb("undo-last", &[]);
    sandbox.zodb("undo-last", &[]);
    let after = sandbox.check();
    assert_eq!(boundaries(&sandbox.data_fs()).len(), ends + 2);
    // The objects are there again, with other transaction ids.
    assert_eq!(before["objects"], after["objects"]);
    assert_ne!(before["objects_sha256"], after["objects_sha256"]);
}

/// What an opening does to a torn file: whether it opens, the size it leaves, and the size of the tail it saves.
struct Opened {
    ok: bool,
    size: u64,
    tail: Option<u64>,
    warnings: bool,
}

fn tear_and_open(kind: &str, read_only: bool) -> (Value, Value, Opened) {
    let sandbox = Sandbox::with_database(11, 20, "small");
    // Without the index, all of the file is read.
    fs::remove_file(sandbox.index()).unwrap();
    let path = sandbox.data_fs();
    let torn = common::zodb(&["torn", kind, path.to_str().unwrap()]);
    let opened = sandbox.zodb("open", if read_only { &["--read-only"] } else { &[] });
    let outcome = Opened {
        ok: opened["ok"] == true,
        size: number(&opened, "size"),
        tail: opened["tails"].get("Data.fs.tr0").map(|size| size.as_u64().unwrap()),
        warnings: opened["warnings"].as_array().is_some_and(|lines| !lines.is_empty()),
    };
    (torn, opened, outcome)
}

#[test]
fn torn_tails_are_cut_off_at_the_last_commit() {
    for kind in ["garbage10", "partial100", "voted", "zeros4096"] {
        let (torn, opened, outcome) = tear_and_open(kind, false);
        let (before, with_tail) = (number(&torn, "size_before"), number(&torn, "size"));
        assert!(outcome.ok && outcome.warnings, "{kind}: {opened}");
        assert_eq!(outcome.size, before, "{kind}: {opened}");
        // Less than a header is lost; anything longer is put aside.
        let expected = (kind != "garbage10").then_some(with_tail - before);
        assert_eq!(outcome.tail, expected, "{kind}: {opened}");

        let (torn, opened, outcome) = tear_and_open(kind, true);
        assert!(outcome.ok, "{kind}: {opened}");
        assert_eq!(outcome.size, number(&torn, "size"), "a read-only opening changes nothing");
        assert_eq!(outcome.tail, None);
        assert_eq!(number(&opened, "position"), before);
    }
}

#[test]
fn a_vote_in_the_middle_cuts_off_everything_after_it() {
    let (torn, opened, outcome) = tear_and_open("middlec", false);
    let (at, size) = (number(&torn, "at"), number(&torn, "size"));
    assert!(outcome.ok, "{opened}");
    assert_eq!((outcome.size, outcome.tail), (at, Some(size - at)), "{opened}");
}

#[test]
fn zodb_warns_of_these_and_goes_on() {
    for kind in ["reduction", "oddstatus", "wrongprev"] {
        let (torn, opened, outcome) = tear_and_open(kind, false);
        assert!(outcome.ok && outcome.warnings && outcome.tail.is_none(), "{kind}: {opened}");
        assert_eq!(outcome.size, number(&torn, "size"), "{kind}: {opened}");
    }
    let (torn, opened, outcome) = tear_and_open("undone", false);
    assert!(outcome.ok && outcome.tail.is_none(), "{opened}");
    assert_eq!(outcome.size, number(&torn, "size"), "{opened}");
}

#[test]
fn zodb_does_not_open_these() {
    for (kind, error) in [
        ("wronglength", "CorruptedTransactionError"),
        ("wrongtloc", "CorruptedTransactionError"),
        ("zerohole", "CorruptedTransactionError"),
        ("version", "ValueError"),
    ] {
        let (torn, opened, outcome) = tear_and_open(kind, false);
        assert!(!outcome.ok, "{kind}: {opened}");
        assert_eq!(opened["error"], error, "{kind}: {opened}");
        assert_eq!((outcome.size, outcome.tail), (number(&torn, "size"), None), "{kind}: {opened}");
    }
}

#[test]
fn check_finds_what_is_wrong() {
    let path_of = |sandbox: &Sandbox| sandbox.data_fs().to_str().unwrap().to_owned();

    let sandbox = Sandbox::with_database(12, 20, "small");
    fs::remove_file(sandbox.index()).unwrap();
    let error = try_zodb(&["check", &path_of(&sandbox), "--expect-index"]).unwrap_err();
    assert!(error.contains("its index was not used"), "{error}");

    // An index that has everything, but not where it is.
    let sandbox = Sandbox::with_database(12, 20, "small");
    sandbox.grow(13, 1, "small");
    let behind = Sandbox::with_database(12, 20, "small");
    fs::copy(behind.index(), sandbox.index()).unwrap();
    let error = try_zodb(&["check", &path_of(&sandbox), "--expect-index"]).unwrap_err();
    assert!(error.contains("closing it wrote another index"), "{error}");

    let sandbox = Sandbox::with_database(12, 20, "small");
    common::zodb(&["torn", "voted", &path_of(&sandbox)]);
    let error = try_zodb(&["check", &path_of(&sandbox)]).unwrap_err();
    assert!(error.contains("Data.fs changed") && error.contains("Data.fs.tr0"), "{error}");

    let sandbox = Sandbox::with_database(12, 20, "small");
    common::zodb(&["torn", "reduction", &path_of(&sandbox)]);
    fs::remove_file(sandbox.index()).unwrap();
    let error = try_zodb(&["check", &path_of(&sandbox)]).unwrap_err();
    assert!(error.contains("fstest: ") && error.contains("time-stamp reduction"), "{error}");
}

#[test]
fn zodb_ignores_its_own_index_after_an_undo_of_several_transactions() {
    let sandbox = Sandbox::with_database(3, 6, "small");
    // Two more that change the same objects.
    sandbox.zodb("undo-last", &[]);
    sandbox.zodb("undo-last", &[]);
    assert_eq!(sandbox.check()["used_index"], 1);
    sandbox.zodb("undo-last", &["--number", "2"]);
    let index = fs::read(sandbox.index()).unwrap();
    let opened = sandbox.zodb("open", &[]);
    assert_eq!((&opened["ok"], &opened["used_index"]), (&Value::from(true), &Value::from(0)), "{opened}");
    assert!(opened["warnings"][0].as_str().unwrap().contains("Ignoring index"), "{opened}");
    assert_same_bytes(&fs::read(sandbox.index()).unwrap(), &index, "the index before and after");
    // `check` knows.
    assert_eq!(sandbox.check()["index_usable"], false);
}

#[test]
fn zodb_does_not_open_a_database_of_python_2_nor_take_its_index() {
    let sandbox = Sandbox::new();
    sandbox.zodb("fs21", &[]);
    let (file, old_index) = (fs::read(sandbox.data_fs()).unwrap(), fs::read(sandbox.index()).unwrap());
    let opened = sandbox.zodb("open", &[]);
    assert_eq!(opened["error"], "FileStorageFormatError", "{opened}");
    assert!(opened["warnings"][0].as_str().unwrap().contains("loading index"), "{opened}");

    // With the other magic allowed, everything else is as ever.
    let found = sandbox.zodb("features", &[]);
    assert_eq!(found["magic"], "FS21");
    for name in ["status p", "status  ", "backpointers", "gone", "empty", "rewritten"] {
        assert!(number(&found, name) > 0, "{name} in {found}");
    }
    assert_eq!(boundaries(&sandbox.data_fs()).last().unwrap().0, file.len() as u64);
    let out = sandbox.file("out.index");
    sandbox.zodb("index", &[out.to_str().unwrap()]);
    // The same but for the opcodes of byte strings, which are as long.
    let new_index = fs::read(&out).unwrap();
    let parts: Vec<_> = old_index.iter().zip(&new_index).filter(|(old, new)| old != new).collect();
    assert_eq!(old_index.len(), new_index.len());
    assert_eq!(parts, [(&b'U', &b'C'), (&b'T', &b'B')]);
    fs::copy(&out, sandbox.index()).unwrap();
    assert_eq!(number(&sandbox.check(), "objects"), 66);
    assert_same_bytes(&fs::read(sandbox.data_fs()).unwrap(), &file, "before and after");
}

#[test]
fn a_storage_that_is_held_cannot_be_opened_for_writing() {
    let sandbox = Sandbox::with_database(14, 5, "small");
    let holder = ZodbProcess::hold(&sandbox.data_fs(), false);
    let opened = sandbox.zodb("open", &[]);
    assert_eq!(opened["error"], "LockError", "{opened}");
    assert_eq!(sandbox.zodb("open", &["--read-only"])["ok"], true);
    // After the lock: " <pid>\n".
    assert_eq!(fs::read_to_string(sandbox.file("Data.fs.lock")).unwrap(), format!(" {}\n", holder.id()));
    holder.stop();
    assert_eq!(sandbox.zodb("open", &[])["ok"], true);

    // A reader locks nothing.
    let reader = ZodbProcess::hold(&sandbox.data_fs(), true);
    assert_eq!(sandbox.zodb("open", &[])["ok"], true);
    drop(reader);
}

#[test]
fn a_writer_commits_until_it_is_told_to_stop() {
    let sandbox = Sandbox::new();
    let path = sandbox.data_fs();
    let mut writer = ZodbProcess::writer(&path, &["--mode", "commit"]);
    let start = fs::metadata(&path).unwrap().len();
    wait_until(|| fs::metadata(&path).unwrap().len() > start + 400_000);
    assert!(writer.is_running());
    let report = writer.stop();
    assert!(number(&report, "committed") > 10, "{report}");
    assert_eq!(boundaries(&path).len() as u64, number(&report, "committed") + 2);
    assert_eq!(fs::metadata(&path).unwrap().len(), number(&report, "size"));
    sandbox.check();
}

#[test]
fn a_writer_that_aborts_leaves_the_file_as_it_was() {
    let sandbox = Sandbox::with_database(15, 20, "small");
    let path = sandbox.data_fs();
    let before = fs::read(&path).unwrap();
    let writer = ZodbProcess::writer(&path, &["--mode", "abort"]);
    // The file is seen to become longer than what is committed, again and again.
    let (mut times, mut was_longer) = (0, false);
    wait_until(|| {
        let is_longer = fs::metadata(&path).unwrap().len() > before.len() as u64;
        times += u32::from(is_longer && !was_longer);
        was_longer = is_longer;
        times >= 5
    });
    let report = writer.stop();
    assert!(number(&report, "aborted") >= 5, "{report}");
    assert_same_bytes(&fs::read(&path).unwrap(), &before, "before and after the aborted transactions");

    let mut writer = ZodbProcess::writer(&path, &["--mode", "mixed", "--transactions", "60"]);
    wait_until(|| !writer.is_running());
    let report = writer.stop();
    assert_eq!(number(&report, "committed") + number(&report, "aborted"), 60, "{report}");
    assert!(number(&report, "committed") > 0 && number(&report, "aborted") > 0, "{report}");
    assert_eq!(boundaries(&path).len() as u64, 20 + number(&report, "committed"));
    sandbox.check();
}

#[test]
fn a_killed_writer_leaves_an_index_that_is_behind() {
    let sandbox = Sandbox::with_database(16, 20, "small");
    let (path, index) = (sandbox.data_fs(), fs::read(sandbox.index()).unwrap());
    let writer = ZodbProcess::writer(&path, &["--mode", "commit"]);
    let start = fs::metadata(&path).unwrap().len();
    wait_until(|| fs::metadata(&path).unwrap().len() > start + 400_000);
    writer.kill();
    assert_same_bytes(&fs::read(sandbox.index()).unwrap(), &index, "the index before and after");
    let opened = sandbox.zodb("open", &[]);
    assert_eq!((&opened["ok"], &opened["used_index"]), (&Value::from(true), &Value::from(1)), "{opened}");
    sandbox.check();
}

fn wait_until(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}
