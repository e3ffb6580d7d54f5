//! Manifests, tombstones and the config that are lost.

use super::*;

#[test]
fn p9_records_are_made_again_from_a_catalog_that_is_good() {
    for kinds in [[2, 3, 4], [3, 4, 2]] {
        records_are_made_again(kinds);
    }
}

fn records_are_made_again(kinds: [u8; 3]) {
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
    for kind in kinds {
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

#[test]
fn p9_a_deleted_snapshot_stays_deleted_whatever_becomes_of_its_tombstone() {
    let (bench, held) = three();
    bench.delete("c");
    // Each time it is written anew, and the catalog knows whose it is.
    for _ in 0..3 {
        let tombstones = objects(&bench, 3);
        assert_eq!(tombstones.len(), 1);
        flip(&tombstones[0], 40);
        let report = repaired(&bench);
        assert!(report.is_whole(), "{report:?}");
        assert_eq!(ids(&bench), ["a", "b"]);
    }
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert!(report.is_whole(), "{report:?}");
    fs::remove_file(&objects(&bench, 3)[0]).unwrap();
    repaired(&bench);
    assert_eq!(ids(&bench), ["a", "b"]);
    bench.gc(false);
    assert_eq!((objects(&bench, 2).len(), objects(&bench, 3).len()), (2, 0));
    assert!(elsewhere(&bench, "b") == held[1]);
    // Without both nobody knows, and it says so.
    bench.delete("b");
    flip(&objects(&bench, 3)[0], 40);
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert!(!report.is_whole(), "{report:?}");
    assert_eq!(ids(&bench), ["a", "b"]);
}

#[test]
fn p9_what_was_lost_comes_back_from_a_copy_that_turns_up_later_and_nothing_else() {
    let (bench, held) = three();
    bench.grow(4, 1000);
    bench.save("d");
    let copy = copied(&bench);
    // This one is made good.
    flip(&manifest_of(&bench, "d"), 60);
    assert!(repaired(&bench).is_whole());
    // And this one can't be.
    let manifest = manifest_of(&bench, "c");
    let mark = bench.place.root.join("damaged").join(format!("{}.lost", manifest.file_name().unwrap().display()));
    flip(&manifest, 60);
    fs::remove_file(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert!(!report.is_whole() && mark.exists(), "{report:?}");
    bench.delete("d");
    bench.gc(true);
    let report = repaired_from(&bench, std::slice::from_ref(&copy));
    assert!(report.is_whole() && !mark.exists(), "{report:?}");
    assert_eq!(ids(&bench), ["a", "b", "c"]);
    keeps_all(&bench, &held);
    // It may be deleted now like any other.
    bench.delete("c");
    bench.gc(true);
    let report = repaired_from(&bench, &[copy]);
    assert!(report.is_whole() && !report.is_change(), "{report:?}");
    assert_eq!(ids(&bench), ["a", "b"]);
}

#[test]
fn p6_what_a_good_catalog_alone_knows_is_not_forgotten() {
    // One that others build on is set aside with them.
    let (bench, held) = three();
    bench.restore("a");
    bench.grow(50, 100_000);
    let (data, manifest) = (own_data(&bench, "b"), manifest_of(&bench, "b"));
    fs::remove_file(data).unwrap();
    fs::remove_file(manifest).unwrap();
    let report = repaired(&bench);
    assert!(report.forgotten.is_empty() && report.from_catalog.is_empty(), "{report:?}");
    let aside: Vec<&str> = report.set_aside.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(aside, ["b", "c"]);
    assert!(elsewhere(&bench, "a") == held[0]);

    // One on which nothing builds may have been deleted. The catalog that knows it is kept.
    let (bench, _) = three();
    bench.restore("a");
    bench.grow(50, 100_000);
    let (data, manifest) = (own_data(&bench, "c"), manifest_of(&bench, "c"));
    fs::remove_file(data).unwrap();
    fs::remove_file(manifest).unwrap();
    let before = fs::read(catalog(&bench)).unwrap();
    let report = repaired(&bench);
    assert_eq!(report.forgotten, ["c"], "{report:?}");
    let kept = bench.place.root.join(report.catalog_kept.unwrap());
    assert!(fs::read(kept).unwrap() == before);
}

#[test]
fn p9_what_the_catalog_alone_brings_back_is_named() {
    let bench = Bench::new();
    bench.grow(1, 300_000);
    bench.save("a");
    bench.save("twin");
    let before = fs::read(catalog(&bench)).unwrap();
    bench.delete("twin");
    bench.gc(false);
    assert_eq!(objects(&bench, 2).len(), 1);
    fs::write(catalog(&bench), before).unwrap();
    let report = repaired(&bench);
    assert_eq!(report.from_catalog, ["twin"], "{report:?}");
    assert!(report.is_whole());
    assert!(elsewhere(&bench, "twin") == elsewhere(&bench, "a"));
}

#[test]
fn p6_a_manifest_that_cannot_be_keeps_nothing_from_being_repaired() {
    type Change = Box<dyn Fn(&mut Manifest)>;
    let changes: [Change; 12] = [
        Box::new(|manifest| manifest.sequence = u64::MAX),
        Box::new(|manifest| manifest.sequence = i64::MAX as u64),
        Box::new(|manifest| manifest.stored_bytes = u64::MAX),
        Box::new(|manifest| manifest.databases[0].cut.offset = 1 << 63),
        Box::new(|manifest| manifest.databases[0].cut.tid = u64::MAX),
        Box::new(|manifest| manifest.databases[0].stream.kept_length = u64::MAX),
        Box::new(|manifest| manifest.databases[0].stream.chunks.iter_mut().for_each(|chunk| chunk.length = u32::MAX)),
        Box::new(|manifest| manifest.databases.push(manifest.databases[0].clone())),
        Box::new(|manifest| manifest.databases[0].name = "other".into()),
        Box::new(|manifest| manifest.databases[0].generation.base_length += 1),
        Box::new(|manifest| manifest.id = "../x".into()),
        Box::new(|manifest| manifest.id = "x".repeat(10_000)),
    ];
    let (bench, held) = three();
    let good = everything(&bench.place.root);
    for (number, change) in changes.iter().enumerate() {
        for lose_catalog in [false, true] {
            written_anew(&bench, "c", |manifest| {
                manifest.uid = znap::repository::hash::Uid([number as u8; 16]);
                (manifest.sequence, manifest.id) = (77, "planted".into());
                change(manifest);
            });
            if lose_catalog {
                fs::remove_file(catalog(&bench)).unwrap();
            }
            let report = repaired(&bench);
            assert_eq!(report.damaged_files.len(), 1, "{number}: {report:?}");
            assert_eq!(ids(&bench), ["a", "b", "c"], "{number}");
            keeps_all(&bench, &held);
            fs::remove_dir_all(&bench.place.root).unwrap();
            for (path, bytes) in &good {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
        }
    }
}
