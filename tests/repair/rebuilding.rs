//! The catalog is made anew of the object files alone.

use super::*;

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
        "DROP VIEW chunks",
        "DROP INDEX chunk_by_hash",
        "PRAGMA user_version = 0",
        "UPDATE repository SET sequence = 0",
        "UPDATE database SET path = CAST('elsewhere/Data.fs' AS BLOB)",
        "UPDATE database SET name = 'other'",
        "UPDATE object_file SET bytes = 5 WHERE kind = 1",
        "UPDATE snapshot SET tombstone = NULL",
        "UPDATE repository SET config = (SELECT min(id) FROM object_file WHERE kind = 2)",
        "UPDATE frame SET codec = 9",
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
