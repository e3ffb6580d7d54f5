//! Repair: the catalog is expendable (P9); what is damaged is taken again from where it still is; what nobody has is set aside
//! and named (P6); and nothing is made worse.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Bench, file_views, views};
use std::fs;
use std::path::{Path, PathBuf};

use znap::error::Kind;
use znap::filestorage::Writer;
use znap::monitor::Silent;
use znap::snapshot::{
    RepairOptions, RepairReport, Repository, RestoreOptions, Way, copy_out, delete, finish, list, log, repair, restore,
    show, undo,
};

/// A database and its index.
type State = (Vec<u8>, Vec<u8>);

fn repaired(bench: &Bench) -> RepairReport {
    repaired_from(bench, &[])
}

/// What a dry run says is what is done, and then there is nothing left to do.
fn repaired_from(bench: &Bench, from: &[PathBuf]) -> RepairReport {
    let options = |dry_run| RepairOptions { dry_run, from: from.to_vec() };
    let before = everything(&bench.place.root);
    let planned = repair(&bench.place, &options(true), &Silent).unwrap();
    let after: Vec<_> = everything(&bench.place.root).into_iter().filter(|(path, _)| !path.ends_with("lock")).collect();
    assert!(after == before.into_iter().filter(|(path, _)| !path.ends_with("lock")).collect::<Vec<_>>());
    let mut report = repair(&bench.place, &options(false), &Silent).unwrap();
    let (counts, kept) = (report.counts, report.catalog_kept.take());
    report.counts = planned.counts;
    assert_eq!(serde_json::to_value(&report).unwrap(), serde_json::to_value(&planned).unwrap());
    (report.counts, report.catalog_kept) = (counts, kept);
    let again = repair(&bench.place, &options(false), &Silent).unwrap();
    assert!(!again.is_change(), "{again:?}");
    assert_eq!(again.set_aside.len(), report.set_aside.len());
    report
}

/// All files of a folder and what is in them.
fn everything(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

fn catalog(bench: &Bench) -> PathBuf {
    bench.place.root.join("catalog.db")
}

/// The bytes of a snapshot and of its index, written elsewhere.
fn elsewhere(bench: &Bench, id: &str) -> (Vec<u8>, Vec<u8>) {
    let to = tempfile::tempdir().unwrap();
    let to = to.path().join("copy");
    copy_out(&bench.read(), id, &to, &Silent).unwrap();
    (fs::read(to.join("data/Data.fs")).unwrap(), fs::read(to.join("data/Data.fs.index")).unwrap())
}

/// Snapshots a, b and c, each 300 kB longer than the one before, and what they hold.
fn three() -> (Bench, Vec<State>) {
    let bench = Bench::new();
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.grow(seed, 300_000);
        bench.grow(seed + 10, 1000);
        bench.save(id);
    }
    let held = ["a", "b", "c"].map(|id| elsewhere(&bench, id)).into();
    (bench, held)
}

fn ids(bench: &Bench) -> Vec<String> {
    list(&bench.read()).unwrap().into_iter().map(|info| info.id).collect()
}

/// The object files of this kind (1 data, 2 manifest, 3 tombstone, 4 config), by the time of their making.
fn objects(bench: &Bench, kind: u8) -> Vec<PathBuf> {
    let mut files = bench.objects();
    files.retain(|path| fs::read(path).unwrap().get(9) == Some(&kind));
    files
}

/// The data files that snapshot `id` alone needs, or those of its index too.
fn own_data(bench: &Bench, id: &str) -> PathBuf {
    let sql = bench.sql();
    let name: String = sql
        .query_row(
            "SELECT c.object_file FROM snapshot_chunks c WHERE c.snapshot = ?1 ORDER BY c.offset DESC LIMIT 1",
            [id],
            |row| row.get(0),
        )
        .unwrap();
    bench.place.root.join("objects").join(name)
}

fn manifest_of(bench: &Bench, id: &str) -> PathBuf {
    bench.place.root.join("objects").join(show(&bench.read(), id).unwrap().manifest)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x55;
    fs::write(path, bytes).unwrap();
}

fn keeps_all(bench: &Bench, held: &[State]) {
    for (id, state) in ["a", "b", "c"].iter().zip(held) {
        assert!(elsewhere(bench, id) == *state, "P6: {id} came back wrong");
    }
}

#[test]
fn p9_the_objects_alone_bring_every_snapshot_back_and_no_deleted_one() {
    let (bench, held) = three();
    bench.restore("a");
    bench.grow(7, 200_000);
    bench.save("d");
    bench.grow(8, 200_000);
    bench.save("gone");
    bench.delete("gone");
    bench.gc(false);
    // One whose beginning two others need stays in part.
    bench.delete("a");
    bench.gc(false);
    bench.grow(9, 1000);
    bench.save("also-gone");
    bench.delete("also-gone");
    let before = (views(&bench.place.root), file_views(&bench.place.root));
    let other = Bench::new();
    fs::remove_dir_all(&other.place.root).unwrap();
    fs::create_dir(&other.place.root).unwrap();
    fs::create_dir(other.place.root.join("objects")).unwrap();
    for path in bench.objects() {
        fs::copy(&path, other.place.root.join("objects").join(path.file_name().unwrap())).unwrap();
    }
    let report = repaired(&other);
    assert!(report.is_whole() && report.catalog_rebuilt, "{report:?}");
    assert_eq!(report.snapshots, 3);
    assert_eq!(ids(&other), ["b", "c", "d"]);
    assert_eq!((views(&other.place.root), file_views(&other.place.root)), before);
    assert!(elsewhere(&other, "c") == held[2]);
    // It is a repository like any other.
    other.gc(true);
    fs::copy(bench.data_fs(), other.data_fs()).unwrap();
    other.restore("b");
    assert!(other.bytes() == held[1].0);
    other.save("e");
    other.delete("b");
    other.gc(true);
    assert_eq!(ids(&other), ["c", "d", "e"]);
    let sequence: Vec<u64> = list(&other.read()).unwrap().iter().map(|info| info.sequence).collect();
    assert!(sequence.is_sorted() && sequence[2] > 6, "{sequence:?}");
}

#[test]
fn p9_without_any_snapshot_nobody_knows_the_databases() {
    let bench = Bench::new();
    fs::remove_file(catalog(&bench)).unwrap();
    let error = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("no database") && error.hint_text().unwrap().contains("init"), "{error}");
    assert!(!catalog(&bench).exists());
}

#[test]
fn p9_nothing_is_done_where_nothing_is_wrong() {
    let (bench, _) = three();
    bench.delete("b");
    let before = everything(&bench.place.root);
    let report = repaired(&bench);
    assert!(report.is_whole() && !report.is_change(), "{report:?}");
    let same = |files: Vec<(PathBuf, Vec<u8>)>| {
        files.into_iter().filter(|(path, _)| !path.ends_with("lock")).collect::<Vec<_>>()
    };
    assert!(same(everything(&bench.place.root)) == same(before));
}

#[test]
fn p9_a_catalog_from_yesterday_is_made_anew_and_kept() {
    let (bench, held) = three();
    let yesterday = fs::read(catalog(&bench)).unwrap();
    bench.grow(5, 100_000);
    bench.save("tuesday");
    bench.delete("a");
    bench.gc(true);
    let before = views(&bench.place.root);
    fs::write(catalog(&bench), &yesterday).unwrap();
    let report = repaired(&bench);
    assert!(report.catalog_problem.as_ref().unwrap().contains("older"), "{report:?}");
    assert_eq!(report.catalog_kept.as_deref(), Some("catalog.db.damaged-1"));
    assert!(fs::read(bench.place.root.join("catalog.db.damaged-1")).unwrap() == yesterday);
    assert_eq!(views(&bench.place.root), before);
    assert_eq!(ids(&bench), ["b", "c", "tuesday"]);
    assert!(elsewhere(&bench, "b") == held[1]);
    bench.gc(true);
    assert!(elsewhere(&bench, "c") == held[2]);
}

#[test]
fn p9_what_was_done_with_an_old_catalog_is_kept_beside_the_rest() {
    let (bench, held) = three();
    let yesterday = fs::read(catalog(&bench)).unwrap();
    bench.grow(5, 100_000);
    bench.save("tuesday");
    let first = elsewhere(&bench, "tuesday");
    bench.restore("c");
    fs::write(catalog(&bench), &yesterday).unwrap();
    bench.grow(6, 100_000);
    bench.save("tuesday");
    let second = elsewhere(&bench, "tuesday");
    bench.grow(6, 100_000);
    bench.save("wednesday");
    let report = repaired(&bench);
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.renamed.len(), 1);
    assert_eq!(ids(&bench), ["a", "b", "c", &report.renamed[0], "tuesday", "wednesday"]);
    assert!(elsewhere(&bench, &report.renamed[0]) == first && elsewhere(&bench, "tuesday") == second);
    keeps_all(&bench, &held);
    bench.gc(true);
    keeps_all(&bench, &held);
    fs::remove_file(catalog(&bench)).unwrap();
    repaired(&bench);
    assert_eq!(ids(&bench).len(), 6);
}

#[test]
fn p9_a_catalog_that_is_garbage_or_wrong_is_made_anew() {
    let (bench, held) = three();
    bench.delete("a");
    let good = fs::read(catalog(&bench)).unwrap();
    let before = (views(&bench.place.root), file_views(&bench.place.root));
    let garbage: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![b'x'; 10_000],
        good[..good.len() / 2].to_vec(),
        good.iter().enumerate().map(|(at, byte)| if at / 4096 == 5 { 0xff } else { *byte }).collect(),
    ];
    for (number, bytes) in garbage.iter().enumerate() {
        fs::write(catalog(&bench), bytes).unwrap();
        // What SQLite would play into the new one.
        fs::write(bench.place.root.join("catalog.db-journal"), &good[..5000]).unwrap();
        let report = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap();
        assert!(report.catalog_rebuilt && report.is_whole(), "{number}: {report:?}");
        assert_eq!(report.catalog_kept, Some(format!("catalog.db.damaged-{}", number + 1)));
        assert_eq!((views(&bench.place.root), file_views(&bench.place.root)), before, "{number}");
        assert!(!bench.place.root.join("catalog.db-journal").exists());
    }
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
        "UPDATE snapshot SET name = 'z' WHERE name = 'b'",
        "UPDATE snapshot SET sequence = 1000 WHERE name = 'b'",
        "UPDATE generation SET base_check = zeroblob(32)",
        "UPDATE stream SET offset = offset + 1 WHERE id = 3",
        "DROP VIEW cuts; DROP TABLE index_part",
    ] {
        bench.sql().execute_batch(damage).unwrap();
        let report = repaired(&bench);
        assert!(report.catalog_rebuilt && report.is_whole(), "{damage}: {report:?}");
        assert_eq!((views(&bench.place.root), file_views(&bench.place.root)), before, "{damage}");
    }
    assert!(elsewhere(&bench, "b") == held[1]);
}

#[test]
fn p9_a_manifest_that_a_killed_save_left() {
    let (bench, _) = three();
    bench.grow(9, 1000);
    let manifest = bench.save_killed_before_its_commit("d");
    // As long as the catalog is there, it was never a snapshot.
    let copy = fs::read(catalog(&bench)).unwrap();
    let lock = fs::read(bench.place.root.join("lock")).unwrap();
    let report = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap();
    assert!(!report.is_change() && !manifest.exists(), "{report:?}");
    assert!(fs::read(catalog(&bench)).unwrap() == copy);
    // Without it nobody can tell, and it is whole.
    let manifest = bench.save_killed_before_its_commit("d");
    fs::remove_file(catalog(&bench)).unwrap();
    repaired(&bench);
    assert_eq!(ids(&bench), ["a", "b", "c", "d"]);
    assert!(manifest.exists());
    assert!(fs::read(bench.place.root.join("lock")).unwrap() != lock);
    bench.gc(true);
    assert_eq!(ids(&bench), ["a", "b", "c", "d"]);
}

#[test]
fn p6_damaged_files_are_made_good_from_what_is_left_and_from_the_database() {
    let (bench, held) = three();
    let damaged = own_data(&bench, "b");
    let length = fs::read(&damaged).unwrap().len();
    let bad: [Box<dyn Fn(&Path)>; 8] = [
        Box::new(|path| flip(path, 100)),
        Box::new(move |path| flip(path, length / 2)),
        Box::new(move |path| flip(path, length - 100)),
        Box::new(move |path| flip(path, length - 5)),
        Box::new(|path| flip(path, 3)),
        Box::new(move |path| fs::write(path, &fs::read(path).unwrap()[..length / 2]).unwrap()),
        Box::new(|path| fs::write(path, b"").unwrap()),
        Box::new(|path| fs::remove_file(path).unwrap()),
    ];
    let good = everything(&bench.place.root);
    for lose_catalog in [false, true] {
        for (number, damage) in bad.iter().enumerate() {
            damage(&damaged);
            let was = fs::read(&damaged).ok();
            if lose_catalog {
                fs::remove_file(catalog(&bench)).unwrap();
            }
            let report = repaired(&bench);
            // Without its first bytes, its end and a catalog nobody can tell that it was no snapshot.
            let told = !(lose_catalog && number == 6);
            assert_eq!(report.is_whole(), told, "{number}: {report:?}");
            assert!(report.found.databases > 0 || report.found.damaged_files > 0, "{number}: {report:?}");
            keeps_all(&bench, &held);
            if let Some(was) = was {
                let kept = bench.place.root.join("damaged").join(damaged.file_name().unwrap());
                assert!(fs::read(kept).unwrap() == was, "{number}: the damaged file is not kept");
            }
            bench.gc(true);
            keeps_all(&bench, &held);
            fs::remove_dir_all(&bench.place.root).unwrap();
            for (path, bytes) in &good {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

/// Damages snapshot b so that only a copy of the database has what is missing; returns that copy.
fn past_help(bench: &Bench) -> PathBuf {
    let copy = bench.folder.path().join("copy.fs");
    fs::copy(bench.data_fs(), &copy).unwrap();
    bench.restore("a");
    bench.grow(50, 100_000);
    fs::remove_file(own_data(bench, "b")).unwrap();
    copy
}

#[test]
fn p6_snapshots_past_help_are_set_aside_and_brought_back_from_a_copy() {
    for lose_catalog in [false, true] {
        let (bench, held) = three();
        let copy = past_help(&bench);
        if lose_catalog {
            fs::remove_file(catalog(&bench)).unwrap();
        }
        let report = repaired(&bench);
        assert!(!report.is_whole() && report.chunks_lost > 0, "{report:?}");
        let aside: Vec<&str> = report.set_aside.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(aside, ["b", "c"], "{report:?}");
        assert!(report.set_aside[0].missing[0].contains("of data"), "{report:?}");
        assert!(elsewhere(&bench, "a") == held[0]);
        let kinds: Vec<String> = list(&bench.read()).unwrap().into_iter().map(|info| info.kind).collect();
        assert_eq!(kinds, ["save", "damaged", "damaged"]);
        show(&bench.read(), "b").unwrap();
        // Refused, with words, before anything is changed.
        let now = bench.bytes();
        let options = RestoreOptions { discard: true, ..RestoreOptions::default() };
        let refusals = [
            restore(&mut bench.write(), "b", &options, &Silent).unwrap_err(),
            copy_out(&bench.read(), "c", &bench.folder.path().join("x"), &Silent).unwrap_err(),
            log(
                &bench.read(),
                &znap::snapshot::LogOptions { snapshot: Some("b".into()), ..Default::default() },
                &Silent,
            )
            .unwrap_err(),
        ];
        for error in refusals {
            assert_eq!(error.kind(), Kind::Damaged, "{error}");
            assert!(error.to_string().contains("bytes ") && error.hint_text().unwrap().contains("--from"), "{error}");
        }
        assert!(bench.bytes() == now);
        // latest is the newest that is whole; life goes on.
        assert_eq!(bench.read().resolve("latest").unwrap().name, "a");
        bench.save("d");
        let d = elsewhere(&bench, "d");
        bench.delete("a");
        bench.gc(false);
        bench.gc(true);
        fs::remove_file(catalog(&bench)).unwrap();
        repaired(&bench);
        assert_eq!(ids(&bench), ["b", "c", "d"]);
        assert!(elsewhere(&bench, "d") == d);
        let report = repaired_from(&bench, &[copy]);
        assert!(report.is_whole() && report.found.copies > 0, "{report:?}");
        assert_eq!(report.brought_back, ["b", "c"]);
        assert!(elsewhere(&bench, "b") == held[1] && elsewhere(&bench, "c") == held[2]);
        assert!(elsewhere(&bench, "d") == d);
        bench.gc(true);
        bench.restore("c");
        assert!(bench.bytes() == held[2].0);
    }
}

#[test]
fn p6_what_is_set_aside_can_be_deleted() {
    let (bench, held) = three();
    past_help(&bench);
    repaired(&bench);
    bench.save("d");
    for all in [false, true] {
        bench.gc(all);
    }
    delete(&mut bench.write(), &["b".into()], &Silent).unwrap();
    bench.gc(false);
    delete(&mut bench.write(), &["c".into()], &Silent).unwrap();
    bench.gc(true);
    assert_eq!(ids(&bench), ["a", "d"]);
    assert!(elsewhere(&bench, "a") == held[0]);
    let report = repaired(&bench);
    assert!(report.is_whole() && !report.is_change(), "{report:?}");
}

#[test]
fn p6_a_copy_of_the_repository_has_whole_files() {
    let (bench, held) = three();
    let copy = bench.folder.path().join("copy.znap");
    for (path, bytes) in everything(&bench.place.root) {
        let to = copy.join(path.strip_prefix(&bench.place.root).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    let before = (views(&bench.place.root), file_views(&bench.place.root));
    bench.restore("a");
    let (data, manifest) = (own_data(&bench, "c"), manifest_of(&bench, "b"));
    for from in [copy.clone(), copy.join("objects")] {
        flip(&data, 50);
        fs::remove_file(&manifest).unwrap();
        let report = repaired_from(&bench, &[from]);
        assert!(report.is_whole(), "{report:?}");
        assert_eq!((views(&bench.place.root), file_views(&bench.place.root)), before);
        keeps_all(&bench, &held);
    }
    // What the catalog can't tell, the copy does: a damaged manifest has its name.
    flip(&manifest, 50);
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired_from(&bench, &[copy]);
    assert!(report.is_whole(), "{report:?}");
    keeps_all(&bench, &held);
    let error =
        repair(&bench.place, &RepairOptions { from: vec!["nowhere".into()], dry_run: false }, &Silent).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

#[test]
fn p9_records_are_made_again_from_a_catalog_that_is_good() {
    let (bench, held) = three();
    bench.restore("a");
    bench.grow(9, 100_000);
    bench.save("d");
    bench.delete("a");
    bench.gc(false);
    bench.save("gone");
    bench.delete("gone");
    let before = (views(&bench.place.root), file_views(&bench.place.root));
    let config = objects(&bench, 4).remove(0);
    for kind in [2, 3, 4] {
        for path in objects(&bench, kind) {
            for remove in [false, true] {
                if remove {
                    fs::remove_file(&path).unwrap();
                } else {
                    flip(&path, 40);
                }
                let report = repaired(&bench);
                assert!(report.is_whole(), "kind {kind}, {remove}: {report:?}");
                assert_eq!(ids(&bench), ["b", "c", "d"]);
                assert_eq!(views(&bench.place.root), before.0, "kind {kind}");
                assert!(config.exists(), "the config is what it was");
                assert!(elsewhere(&bench, "b") == held[1] && elsewhere(&bench, "c") == held[2]);
                if !path.exists() {
                    break;
                }
            }
        }
    }
    bench.gc(true);
    assert!(elsewhere(&bench, "b") == held[1] && elsewhere(&bench, "c") == held[2]);
}

#[test]
fn p6_a_manifest_that_nobody_knows_is_said_to_be_lost() {
    let (bench, held) = three();
    flip(&manifest_of(&bench, "c"), 60);
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert!(!report.is_whole(), "{report:?}");
    assert_eq!(report.damaged_files.len(), 1);
    assert_eq!(report.damaged_files[0].kind, Some("manifest"));
    assert_eq!(ids(&bench), ["a", "b"]);
    assert!(elsewhere(&bench, "b") == held[1]);

    // One that others build on: they can't be put together.
    let (bench, held) = three();
    flip(&manifest_of(&bench, "b"), 60);
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert_eq!(ids(&bench), ["a", "c"]);
    assert_eq!(report.set_aside.len(), 1, "{report:?}");
    assert!(elsewhere(&bench, "a") == held[0]);
    bench.gc(true);
    assert!(elsewhere(&bench, "a") == held[0]);
}

/// Stores indexes apart from tails, so that one can be lost without the other.
fn index_files(bench: &Bench) -> Vec<String> {
    let sql = bench.sql();
    let mut select = sql
        .prepare(
            "SELECT DISTINCT lower(hex(o.name)) FROM index_chunk c JOIN chunk k ON k.id = c.chunk
             JOIN frame f ON f.id = k.frame JOIN object_file o ON o.id = f.object_file",
        )
        .unwrap();
    select.query_map([], |row| row.get(0)).unwrap().map(|name| name.unwrap()).collect()
}

#[test]
fn p4_lost_indexes_are_made_again_from_the_transactions() {
    let (bench, held) = three();
    bench.restore("a");
    bench.grow(31, 50);
    bench.save("d");
    let d = elsewhere(&bench, "d");
    // Only the frames of indexes are damaged.
    let sql = bench.sql();
    let mut select = sql
        .prepare(
            "SELECT lower(hex(o.name)), f.offset FROM frame f JOIN object_file o ON o.id = f.object_file
             WHERE f.content IN (3, 4)",
        )
        .unwrap();
    let frames: Vec<(String, usize)> = select
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as usize)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    drop(select);
    drop(sql);
    assert!(frames.len() >= 4 && !index_files(&bench).is_empty());
    for (name, offset) in &frames {
        flip(&bench.place.root.join("objects").join(name), offset + 1);
    }
    let report = repaired(&bench);
    assert!(report.is_whole() && report.found.indexes > 0, "{report:?}");
    keeps_all(&bench, &held);
    assert!(elsewhere(&bench, "d") == d);
    bench.gc(true);
    keeps_all(&bench, &held);
}

#[test]
fn p5_an_unfinished_restore_comes_first_unless_the_catalog_is_gone() {
    let (bench, held) = three();
    Writer::open(bench.data_fs()).unwrap().save_index().unwrap();
    let journal = bench.place.root.join("restore-journal");
    let stop = common::stop_in_restore(&bench, "a");
    assert!(stop && journal.exists());
    let error = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap_err();
    assert!(error.to_string().contains("unfinished") && error.hint_text().unwrap().contains("--resume"), "{error}");
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap();
    assert_eq!(report.unfinished_restore.as_deref(), Some("a"));
    assert!(journal.exists());
    let mut repository = Repository::open_to_finish(&bench.place, &Silent).unwrap();
    assert!(finish(&mut repository, Way::Forward, &Silent).unwrap().unwrap().restored);
    drop(repository);
    assert!(bench.bytes() == held[0].0);
    let options = RestoreOptions::default();
    undo(&mut bench.write(), &options, &Silent).unwrap();
    assert!(bench.bytes() == held[2].0);
}
