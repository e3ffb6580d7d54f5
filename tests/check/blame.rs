//! Damage is followed to snapshots, bytes and objects.

use std::fs;
use std::path::Path;

use znap::filestorage::Oid;
use znap::repository::data::{Codec, read_table};
use znap::repository::hash::Hash;
use znap::repository::layout::Layout;
use znap::snapshot::Subject;

use crate::common::Bench;
use crate::{DATA, QUICK, assert_clean, data_file_of_save, data_files, grow_later, run, small};

/// Where the bytes are, in the database's file, that can't be had from a damaged data file any more.
fn lost(bench: &Bench, path: &Path) -> (u64, u64) {
    let layout = Layout::open(&bench.place.root).unwrap();
    let name = Hash::from_hex(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let bytes = fs::read(path).unwrap();
    let (mut from, mut to) = (u64::MAX, 0);
    for frame in read_table(&layout, &name).unwrap() {
        let stored = &bytes[frame.offset as usize..][..frame.stored as usize];
        let raw = match frame.codec {
            Codec::Raw => stored.to_vec(),
            Codec::Zstd => zstd::bulk::decompress(stored, frame.raw as usize).unwrap_or_default(),
        };
        let mut start = 0;
        for (hash, length) in &frame.chunks {
            let end = start + *length as usize;
            if raw.get(start..end).is_none_or(|chunk| Hash::of(chunk) != *hash) {
                let sql = "SELECT min(offset) FROM snapshot_chunks WHERE hash = ?1";
                let place: u64 = bench.sql().query_row(sql, [hash.to_string()], |row| row.get(0)).unwrap();
                (from, to) = (from.min(place), to.max(place + u64::from(*length)));
            }
            start = end;
        }
    }
    (from, to)
}

#[test]
fn p6_damage_is_followed_to_snapshots_bytes_and_objects() {
    let bench = Bench::new();
    bench.grow(1, 300_000);
    bench.save("a");
    bench.grow(2, 300_000);
    bench.grow(4, 300_000);
    let path = data_file_of_save(&bench, "b");
    bench.grow(6, 300_000);
    bench.save("c");
    bench.restore("a");
    grow_later(&bench, 5, 300_000);
    bench.save("d");
    let whole = fs::read(&path).unwrap();

    // In the fork nothing of it is left: only the repository has it.
    let at = 16 + 150_000;
    let mut bytes = whole.clone();
    bytes[at] ^= 4;
    fs::write(&path, &bytes).unwrap();
    let expected = lost(&bench, &path);
    assert!(!run(&bench, &QUICK).is_damaged(), "only the data is damaged");
    let report = run(&bench, &DATA);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    let finding = &report.findings[0];
    let name = path.file_name().unwrap().to_str().unwrap();
    assert_eq!((finding.subject, finding.object_file.as_deref()), (Subject::Data, Some(name)));
    assert_eq!(finding.snapshots, ["b", "c"]);
    assert!(finding.prevents_restore);
    assert!(finding.what.contains("does not match its name"), "{finding:?}");
    assert_eq!((report.damaged_snapshots, report.last_whole), (vec!["b".into(), "c".into()], Some("d".into())));
    let affected = &finding.databases[0];
    assert_eq!((affected.name.as_str(), affected.index), ("data", false));
    let range = &affected.ranges[0];
    assert_eq!((affected.ranges.len(), range.start, range.end), (1, expected.0, expected.1));
    assert_eq!(affected.bytes, range.end - range.start);
    assert_eq!((range.in_database, range.transactions, range.records), (false, None, None));
    // All of it is inside of the one record of object 2.
    let first: u64 =
        bench.sql().query_row("SELECT offset FROM cuts WHERE snapshot = 'a'", [], |row| row.get(0)).unwrap();
    assert!(range.start > first && range.end < first + 300_000, "{range:?}");
    assert_eq!(affected.oids, [Oid(2).to_string()]);

    // Where the database has it, it says so.
    fs::write(&path, &whole).unwrap();
    bench.restore("c");
    fs::write(&path, &bytes).unwrap();
    let report = run(&bench, &DATA);
    let affected = &report.findings[0].databases[0];
    let range = &affected.ranges[0];
    assert_eq!((range.start, range.end), expected);
    assert_eq!((range.in_database, range.transactions, range.records), (true, Some(1), Some(1)));
    assert_eq!(affected.oids, [Oid(2).to_string()]);

    // Missing as a whole: also its part of the index.
    fs::remove_file(&path).unwrap();
    let report = run(&bench, &QUICK);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    let finding = &report.findings[0];
    assert!(finding.what.contains("it is missing"), "{}", finding.what);
    // The last bytes of a were cut anew when more followed, for b and for d alike.
    let sql = "SELECT max(offset + length) FROM snapshot_chunks WHERE snapshot = 'd' AND object_file = ?1";
    let shared: u64 = bench.sql().query_row(sql, [name], |row| row.get(0)).unwrap();
    assert!(shared <= first);
    assert_eq!(finding.snapshots, ["b", "c", "d"]);
    let affected = &finding.databases[0];
    assert!(affected.index && affected.bytes > 600_000, "{affected:?}");
    let range = &affected.ranges[0];
    assert!(range.in_database && range.transactions >= Some(2) && range.records >= Some(2), "{range:?}");
    assert!(affected.oids.contains(&Oid(2).to_string()) && affected.oids.contains(&Oid(4).to_string()));

    // What only a deleted snapshot needed matters to nobody.
    fs::write(&path, &bytes).unwrap();
    bench.delete("b");
    bench.delete("c");
    let report = run(&bench, &DATA);
    assert_eq!(report.findings.len(), 1);
    assert!(report.findings[0].snapshots.is_empty() && report.findings[0].databases.is_empty());
    assert_eq!(report.last_whole.as_deref(), Some("d"));
    fs::write(&path, &whole).unwrap();
    assert_clean(&bench, "putting it back");
}

#[test]
fn p6_other_snapshots_in_a_damaged_file_are_told_from_those_that_need_what_is_lost() {
    let bench = Bench::new();
    for (seed, id) in [(1, "a"), (4, "b"), (6, "c")] {
        bench.grow(seed, 400_000);
        bench.save(id);
    }
    // One frame, which zstd can't make smaller, so that a bit in it is a bit of one chunk.
    bench.gc(true);
    let path = data_files(&bench).into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let whole = fs::read(&path).unwrap();
    let sql = "SELECT max(offset + stored) FROM frame WHERE content = 1";
    let end: usize = bench.sql().query_row(sql, [], |row| row.get(0)).unwrap();
    let mut bytes = whole.clone();
    bytes[end - 2000] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = run(&bench, &DATA);
    let finding = &report.findings[0];
    assert_eq!((&finding.snapshots[..], finding.other_snapshots), (&["c".to_string()][..], 2), "{finding:#?}");
    assert_eq!(report.last_whole.as_deref(), Some("b"));
    // In the hash of its table: nothing that a restore needs.
    let mut bytes = whole.clone();
    let end = bytes.len();
    bytes[end - 30] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = run(&bench, &QUICK);
    let finding = &report.findings[0];
    assert!(finding.snapshots.is_empty() && finding.other_snapshots == 3, "{finding:#?}");
    assert!(finding.what.contains("can still be read"), "{}", finding.what);
}

#[test]
fn p6_a_manifest_that_is_gone_is_named() {
    let bench = small();
    let manifest: String = bench
        .sql()
        .query_row(
            "SELECT lower(hex(o.name)) FROM snapshot s JOIN object_file o ON o.id = s.manifest WHERE s.name = 'c'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    fs::remove_file(bench.place.root.join("objects").join(&manifest)).unwrap();
    let report = run(&bench, &QUICK);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    let finding = &report.findings[0];
    assert_eq!((finding.subject, finding.object_file.as_deref()), (Subject::Manifest, Some(manifest.as_str())));
    assert_eq!((&finding.snapshots[..], finding.prevents_restore), (&["c".to_string()][..], false));
    assert_eq!(report.last_whole.as_deref(), Some("d"), "all restore as long as the catalog is there");
}

#[test]
fn what_the_catalog_says_of_a_deleted_snapshot_is_not_about_one_with_its_id() {
    let bench = Bench::new();
    bench.saves(4, 50_000);
    // Others are built on them, so that they stay in part.
    bench.delete("s1");
    bench.delete("s2");
    bench.save("s1");
    bench.save("s2");
    let swap = "UPDATE snapshot SET tombstone = (SELECT sum(tombstone) FROM snapshot) - tombstone";
    bench.sql().execute(swap, []).unwrap();
    let report = run(&bench, &QUICK);
    assert_eq!(report.findings.len(), 2, "{:#?}", report.findings);
    for finding in &report.findings {
        assert!(finding.what.contains("was deleted, and it wasn't") && finding.snapshots.is_empty(), "{finding:#?}");
    }
    assert!(report.damaged_snapshots.is_empty());
}

#[test]
fn a_catalog_that_lists_the_same_bytes_again_and_again_is_read_once() {
    let bench = small();
    let again = "INSERT INTO frame (object_file, content, codec, offset, stored, raw)
                 SELECT object_file, content, codec, offset, stored, raw FROM frame, generate_series";
    let series = "CREATE TEMP TABLE generate_series AS
                  WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 500) SELECT i FROM n";
    let sql = bench.sql();
    sql.execute_batch(&format!("{series}; {again};")).unwrap();
    let report = run(&bench, &DATA);
    let data = report.data.as_ref().unwrap();
    assert!(report.is_damaged() && data.files_left == 0);
    assert!(report.counts.object_bytes_read <= 2 * data.bytes, "{:?}", report.counts);
}
