//! gc: what it must never do, each from a way in which other tools have lost data (P10), and what delete means.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::Bench;
use std::fs;
use std::path::{Path, PathBuf};

use znap::error::Kind;
use znap::filestorage::{Oid, write::Writer};
use znap::monitor::{Monitor, Silent};
use znap::snapshot::{GcOptions, Repository, RestoreOptions, copy_out, delete, gc, list, restore};

#[test]
fn p10_space_comes_back_at_once_and_only_what_nothing_needs() {
    let bench = Bench::new();
    bench.grow(1, 400_000);
    bench.save("a");
    let a = bench.bytes();
    bench.grow(2, 3_000_000);
    bench.save("b");
    bench.grow(3, 400_000);
    bench.save("c");
    bench.restore("a");
    let full = bench.object_bytes();
    bench.delete("c");
    let after_c = bench.gc(true);
    assert!(after_c.bytes_before - after_c.bytes_after > 250_000, "{after_c:?}");
    bench.delete("b");
    // Deleting alone frees nothing.
    assert!(bench.object_bytes() > full - 600_000);
    let report = bench.gc(true);
    assert!(report.bytes_before - report.bytes_after > 2_900_000, "{report:?}");
    assert!(bench.object_bytes() < 500_000);
    assert_eq!(report.deleted_still_needed, 0);
    bench.restore("a");
    assert!(bench.bytes() == a);
    // Config, one manifest, one data file: no tombstone outlives its manifest.
    assert_eq!(bench.objects().len(), 3);
}

#[test]
fn p10_a_catalog_from_yesterday_is_not_trusted() {
    let bench = Bench::new();
    bench.grow(1, 100_000);
    bench.save("monday");
    let catalog = bench.place.root.join("catalog.db");
    let yesterday = fs::read(&catalog).unwrap();
    bench.grow(2, 100_000);
    bench.save("tuesday");
    let tuesday = bench.bytes();
    let today = fs::read(&catalog).unwrap();
    let objects = bench.objects();

    fs::write(&catalog, &yesterday).unwrap();
    let error = gc(&mut bench.write(), GcOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("older") && error.to_string().contains("tuesday"), "{error}");
    assert_eq!(bench.objects(), objects, "nothing was removed");

    fs::write(&catalog, &today).unwrap();
    bench.gc(true);
    bench.grow(3, 1000);
    bench.restore("tuesday");
    assert!(bench.bytes() == tuesday);

    // The other way: files that yesterday's catalog names were rewritten since.
    fs::write(&catalog, &yesterday).unwrap();
    let error = gc(&mut bench.write(), GcOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
}

#[test]
fn p10_without_its_catalog_nothing_is_made_up() {
    let bench = Bench::new();
    bench.grow(1, 1000);
    bench.save("a");
    let objects = bench.objects();
    fs::remove_file(bench.place.root.join("catalog.db")).unwrap();
    for error in
        [Repository::open(&bench.place).err().unwrap(), Repository::open_to_write(&bench.place, &Silent).err().unwrap()]
    {
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.hint_text().unwrap().contains("repair"));
    }
    assert_eq!(bench.objects(), objects);
    assert!(!bench.place.root.join("catalog.db").exists(), "only init and repair create a catalog");
}

#[test]
fn p10_a_rewrite_that_gives_the_same_file_keeps_it() {
    let bench = Bench::new();
    bench.grow(1, 300_000);
    bench.save("a");
    bench.grow(2, 300_000);
    bench.save("b");
    let a_and_b = bench.bytes();
    bench.gc(true);
    let files = bench.objects();
    // As if every file were wasteful: the chunks are the same, so are the new files.
    bench.save("c");
    bench.delete("c");
    bench.gc(true);
    assert_eq!(bench.objects().len(), files.len());
    bench.restore("b");
    assert!(bench.bytes() == a_and_b);
}

/// kopia, rustic and duplicacy lost data here: content that gc has dropped is saved again.
#[test]
fn p10_what_gc_dropped_can_be_saved_again() {
    let bench = Bench::new();
    bench.grow(1, 200_000);
    bench.save("a");
    bench.grow(2, 200_000);
    bench.save("b");
    let b = bench.bytes();
    let data_of_b = bench.objects();
    bench.delete("b");
    bench.gc(true);
    bench.save("b");
    // The same chunks in the same order make the same data file.
    assert!(bench.objects().iter().filter(|path| data_of_b.contains(path)).count() >= 2);
    bench.gc(false);
    bench.restore("a");
    bench.restore("b");
    assert!(bench.bytes() == b);
}

/// rustic 392: the same chunk twice in one data file.
#[test]
fn p8_p10_the_same_bytes_twice_in_one_save_are_stored_once() {
    let bench = Bench::new();
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    // One record of zeros: all its chunks but the first and last are the same.
    writer.transaction().data(Oid(1), vec![0; 5_000_000]).commit().unwrap();
    drop(writer);
    bench.save("a");
    let catalog = rusqlite::Connection::open(bench.place.root.join("catalog.db")).unwrap();
    let count = |sql: &str| -> i64 { catalog.query_row(sql, [], |row| row.get(0)).unwrap() };
    assert!(count("SELECT count(*) FROM snapshot_chunks") > 50);
    assert!(count("SELECT count(*) FROM chunks") < 6);
    let bytes = bench.bytes();
    bench.gc(true);
    bench.grow(2, 10);
    bench.restore("a");
    assert!(bench.bytes() == bytes);
}

/// A monitor that lets a gc run in the middle of a copy.
struct GcInTheMiddle<'a> {
    bench: &'a Bench,
    done: std::sync::atomic::AtomicBool,
}

impl Monitor for GcInTheMiddle<'_> {
    fn begin(&self, _: &str, _: u64) {
        if !self.done.swap(true, std::sync::atomic::Ordering::Relaxed) {
            self.bench.delete("b");
            let report = self.bench.gc(true);
            assert!(report.files_removed + report.files_rewritten > 0);
        }
    }
    fn advance(&self, _: u64) {}
    fn end(&self) {}
    fn notice(&self, _: &str) {}
    fn check(&self) -> znap::error::Result<()> {
        Ok(())
    }
}

#[test]
fn p10_a_reader_in_the_middle_of_a_gc_reads_to_its_end() {
    let bench = Bench::new();
    for (number, id) in ["a", "b", "c"].into_iter().enumerate() {
        bench.grow(number as u64, 500_000);
        bench.save(id);
    }
    let c = bench.bytes();
    bench.restore("a");
    bench.grow(9, 500_000);
    bench.save("d");
    let reader = Repository::open(&bench.place).unwrap();
    let monitor = GcInTheMiddle { bench: &bench, done: Default::default() };
    let to = bench.folder.path().join("copy");
    copy_out(&reader, "c", &to, &monitor).unwrap();
    assert!(monitor.done.into_inner());
    assert!(fs::read(to.join("data/Data.fs")).unwrap() == c);
}

#[test]
fn p10_what_killed_commands_leave_is_removed_and_foreign_files_are_not() {
    let bench = Bench::new();
    bench.grow(1, 100_000);
    bench.save("a");
    let before = bench.objects();
    let objects = bench.place.root.join("objects");
    // Unfinished, finished but unused, and somebody's.
    fs::write(objects.join(".tmp-0123"), b"half").unwrap();
    let unused = Bench::new();
    unused.grow(7, 5000);
    unused.save("x");
    let data = |path: &PathBuf| fs::read(path).unwrap()[9] == 1;
    let orphan = unused.objects().into_iter().find(data).unwrap();
    fs::copy(&orphan, objects.join(orphan.file_name().unwrap())).unwrap();
    fs::write(objects.join("notes.txt"), b"mine").unwrap();
    let report = bench.gc(false);
    assert_eq!(report.files_removed, 2);
    assert_eq!(report.unknown_files, ["notes.txt"]);
    fs::remove_file(objects.join("notes.txt")).unwrap();
    assert_eq!(bench.objects(), before);
}

#[test]
fn a_manifest_that_a_killed_save_left_is_not_taken_for_a_snapshot() {
    let bench = Bench::new();
    bench.grow(1, 1000);
    bench.save("a");
    let objects = bench.objects();
    bench.grow(2, 1000);
    let manifest = bench.save_killed_before_its_commit("b");
    bench.gc(false);
    assert!(!manifest.exists());
    assert_eq!(bench.objects(), objects);
    bench.save("b");
    let ids: Vec<String> = list(&bench.write()).unwrap().into_iter().map(|info| info.id).collect();
    assert_eq!(ids, ["a", "b"]);
}

/// znap2's `delete ..` emptied the working directory. Ids never become paths.
#[test]
fn delete_takes_ids_only() {
    let bench = Bench::new();
    bench.grow(1, 1000);
    bench.save("abc");
    for (id, kind) in [
        ("..", Kind::Usage),
        ("", Kind::Usage),
        ("../Data.fs", Kind::Usage),
        ("ab", Kind::NotFound),
        ("latest", Kind::NotFound),
    ] {
        let error = delete(&mut bench.write(), &["abc".into(), id.into()], &Silent).unwrap_err();
        assert_eq!(error.kind(), kind, "{id:?}: {error}");
    }
    assert!(Path::new(&bench.data_fs()).exists());
    assert_eq!(list(&bench.write()).unwrap().len(), 1, "all or none");
}

#[test]
fn p6_damage_is_found_named_and_contained() {
    let bench = Bench::new();
    bench.grow(1, 300_000);
    bench.save("a");
    let a = bench.bytes();
    let first = bench.objects();
    bench.grow(2, 300_000);
    bench.save("b");
    bench.grow(3, 300_000);
    let now = bench.bytes();
    let damaged =
        bench.objects().into_iter().find(|path| !first.contains(path) && fs::read(path).unwrap()[9] == 1).unwrap();
    let good = fs::read(&damaged).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    bench.save("c");
    bench.restore("a");
    fs::write(&damaged, &bad).unwrap();
    for id in ["b", "c"] {
        let error = restore(
            &mut bench.write(),
            id,
            &RestoreOptions { discard: true, verify: false, ..RestoreOptions::default() },
            &Silent,
        )
        .unwrap_err();
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        let name = damaged.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(&name[..12]), "{error}");
        assert!(bench.bytes() == a, "nothing was changed");
    }
    // gc reads it, and refuses to go on rather than lose what is good in it.
    let error = gc(&mut bench.write(), GcOptions { all: true }, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(damaged.exists());
    fs::write(&damaged, &good).unwrap();
    bench.restore("c");
    assert!(bench.bytes() == now);
}

#[test]
fn a_row_that_was_changed_in_the_catalog_is_found() {
    let bench = Bench::new();
    bench.grow(1, 300_000);
    bench.save("a");
    bench.grow(2, 300_000);
    bench.save("b");
    let b = bench.bytes();
    bench.restore("a");
    let a = bench.bytes();
    let path = bench.place.root.join("catalog.db");
    let good = fs::read(&path).unwrap();
    for damage in [
        "UPDATE stream_chunk SET chunk = (SELECT min(chunk) FROM stream_chunk) WHERE stream = 2",
        "DELETE FROM stream_chunk WHERE stream = 2 AND offset = (SELECT max(offset) FROM stream_chunk WHERE stream = 2)",
        "UPDATE stream SET list_hash = zeroblob(32) WHERE id = 2",
        "UPDATE stream SET kept_length = kept_length + 60000 WHERE id = 2",
        "UPDATE chunk SET start = start + 1 WHERE id > 5",
        "UPDATE frame SET raw = 4000000000",
        "UPDATE frame SET stored = stored - 5",
        "UPDATE index_part SET entries = entries + 1",
        "DELETE FROM index_part",
    ] {
        let catalog = rusqlite::Connection::open(&path).unwrap();
        assert!(catalog.execute(damage, []).unwrap() > 0, "{damage}");
        drop(catalog);
        let error = restore(
            &mut bench.write(),
            "b",
            &RestoreOptions { discard: true, verify: false, ..RestoreOptions::default() },
            &Silent,
        )
        .expect_err(damage);
        assert_eq!(error.kind(), Kind::Damaged, "{damage}: {error}");
        assert!(bench.bytes() == a, "P6: {damage}: the database was changed");
        fs::write(&path, &good).unwrap();
    }
    bench.restore("b");
    assert!(bench.bytes() == b);
}
