//! Pieces that are lost are taken again from where they still are; what nobody has is set aside.

use super::*;

type Damage = Box<dyn Fn(&Path)>;

#[test]
fn p6_damaged_files_are_made_good_from_what_is_left_and_from_the_database() {
    let (bench, held) = three();
    let damaged = own_data(&bench, "b");
    let length = fs::read(&damaged).unwrap().len();
    let bad: [Damage; 8] = [
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
    let copy = copied(&bench);
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
fn p5_an_unfinished_restore_comes_first_unless_something_is_damaged() {
    let (bench, held) = three();
    Writer::open(bench.data_fs()).unwrap().save_index().unwrap();
    let journal = bench.place.root.join("restore-journal");
    let stop = common::stop_in_restore(&bench, "a");
    assert!(stop && journal.exists());
    let error = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap_err();
    assert!(error.to_string().contains("unfinished") && error.hint_text().unwrap().contains("--resume"), "{error}");
    // What is damaged may be what keeps it from being finished.
    let manifest = manifest_of(&bench, "b");
    for damage in [manifest, catalog(&bench)] {
        fs::remove_file(damage).unwrap();
        let report = repair(&bench.place, &RepairOptions::default(), &Silent).unwrap();
        assert!(report.is_change() && report.is_whole(), "{report:?}");
        assert_eq!(report.unfinished_restore.as_deref(), Some("a"));
        assert!(journal.exists());
    }
    let mut repository = Repository::open_to_finish(&bench.place, &Silent).unwrap();
    assert!(finish(&mut repository, Way::Forward, &Silent).unwrap().unwrap().restored);
    drop(repository);
    assert!(bench.bytes() == held[0].0);
    let options = RestoreOptions::default();
    undo(&mut bench.write(), &options, &Silent).unwrap();
    assert!(bench.bytes() == held[2].0);
}

/// Where in which object file the frame is that this query finds, and how long it is.
fn frame(bench: &Bench, sql: &str) -> (PathBuf, usize, usize) {
    let sql = format!(
        "SELECT lower(hex(o.name)), f.offset, f.stored FROM frame f JOIN object_file o ON o.id = f.object_file {sql}"
    );
    let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
    let (name, offset, stored) = bench.sql().query_row(&sql, [], row).unwrap();
    (bench.place.root.join("objects").join(name), offset as usize, stored as usize)
}

#[test]
fn p6_what_builds_on_a_lost_index_gets_its_own() {
    let (bench, held) = three();
    let delta = frame(
        &bench,
        "JOIN chunk k ON k.frame = f.id JOIN index_chunk c ON c.chunk = k.id JOIN index_part p ON p.id = c.part
         JOIN stream t ON t.id = p.stream JOIN snapshot s ON s.id = t.snapshot WHERE s.name = 'b'",
    );
    let end = frame(
        &bench,
        "JOIN chunk k ON k.frame = f.id JOIN stream_chunk c ON c.chunk = k.id JOIN stream t ON t.id = c.stream
         JOIN snapshot s ON s.id = t.snapshot WHERE s.name = 'b' ORDER BY c.offset DESC LIMIT 1",
    );
    bench.restore("a");
    bench.grow(50, 100_000);
    flip(&delta.0, delta.1 + 1);
    // The last piece of b, which c doesn't share: what is behind it made it another one.
    flip(&end.0, end.1 + end.2 - 10);
    let report = repaired(&bench);
    let aside: Vec<&str> = report.set_aside.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(aside, ["b"], "{report:?}");
    assert!(elsewhere(&bench, "a") == held[0] && elsewhere(&bench, "c") == held[2]);
    bench.gc(true);
    assert!(elsewhere(&bench, "c") == held[2]);
    bench.delete("b");
    for all in [false, true] {
        bench.gc(all);
        assert!(elsewhere(&bench, "a") == held[0] && elsewhere(&bench, "c") == held[2]);
    }
}

#[test]
fn p10_gc_goes_on_where_repair_left_out_what_a_deleted_snapshot_builds_on() {
    // Of these lists one keeps nothing of the one before it: b nothing of a, or c nothing of b.
    for sizes in [[50_000, 150_000, 150_000], [30_000, 30_000, 100_000]] {
        let bench = Bench::new();
        for (seed, (size, id)) in sizes.into_iter().zip(["a", "b", "c"]).enumerate() {
            bench.grow(seed as u64 + 1, size);
            bench.save(id);
        }
        let held = elsewhere(&bench, "c");
        bench.delete("b");
        fs::remove_file(manifest_of(&bench, "a")).unwrap();
        fs::remove_file(catalog(&bench)).unwrap();
        let report = repaired(&bench);
        assert!(report.set_aside.is_empty(), "{report:?}");
        assert_eq!(ids(&bench), ["c"]);
        for all in [false, true] {
            bench.gc(all);
            assert!(elsewhere(&bench, "c") == held);
        }
        let report = repaired(&bench);
        assert!(!report.is_change(), "{report:?}");
    }
}
