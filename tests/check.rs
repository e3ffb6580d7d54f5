//! check: nothing that was done right is damage, and whatever makes a restore fail is found, named and followed to what needs
//! it (P6).

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::Bench;
use znap::error::Kind;
use znap::filestorage::{Oid, Tid, Writer, index_path};
use znap::monitor::Silent;
use znap::repository::data::{Codec, read_table};
use znap::repository::hash::Hash;
use znap::repository::layout::Layout;
use znap::snapshot::{
    CheckOptions, CheckReport, InitOptions, Place, Repository, RestoreOptions, Subject, check, copy_out, init, list,
    undo,
};

const QUICK: CheckOptions = CheckOptions { data: false, limit: None, databases: false };
const DATA: CheckOptions = CheckOptions { data: true, limit: None, databases: false };
const DATABASES: CheckOptions = CheckOptions { data: false, limit: None, databases: true };
const ALL: CheckOptions = CheckOptions { data: true, limit: None, databases: true };
/// Each time as little as possible.
const BIT_BY_BIT: CheckOptions = CheckOptions { data: true, limit: Some(Duration::ZERO), databases: false };

fn run(bench: &Bench, options: &CheckOptions) -> CheckReport {
    check(&bench.read(), options, &Silent).unwrap()
}

fn assert_clean(bench: &Bench, after: &str) {
    for options in [QUICK, DATA, ALL] {
        let report = run(bench, &options);
        assert!(!report.is_damaged(), "after {after}: {:#?}", report.findings);
        assert_eq!(report.snapshots, list(&bench.read()).unwrap().len() as u64, "after {after}");
        assert_eq!(report.last_whole, list(&bench.read()).unwrap().pop().map(|info| info.id), "after {after}");
        let data = report.data.unwrap_or_default();
        assert_eq!((data.files_left, data.bytes_left, data.went_on), (0, 0, false));
        if options.data {
            assert_eq!(data.files, data_files(bench).len() as u64, "after {after}: each is read");
        }
        if options.data && !options.databases {
            assert_eq!(report.counts.object_bytes_read, data.bytes, "after {after}: and once");
        }
    }
}

/// As [`Bench::grow`], at a time of its own: two transactions with the same id are the same one, and those of two ways that a
/// database went never have that.
fn grow_later(bench: &Bench, seed: u64, size: usize) {
    let data: Vec<u8> = (0..size as u64).map(|at| ((at * at).wrapping_mul(seed * 31 + 7) >> 7) as u8).collect();
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    let tid = Tid(writer.end().tid.0 + (seed << 34));
    writer.transaction().tid(tid).data(Oid(seed % 50), data).commit().unwrap();
}

/// The data files that the catalog names.
fn data_files(bench: &Bench) -> Vec<PathBuf> {
    let sql = bench.sql();
    let mut select = sql.prepare("SELECT lower(hex(name)) FROM object_file WHERE kind = 1 ORDER BY name").unwrap();
    let names = select.query_map([], |row| row.get::<_, String>(0)).unwrap();
    names.map(|name| bench.place.root.join("objects").join(name.unwrap())).collect()
}

/// Flips a bit in the middle of a file.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The data file that a save adds.
fn data_file_of_save(bench: &Bench, id: &str) -> PathBuf {
    let before = data_files(bench);
    bench.save(id);
    data_files(bench).into_iter().find(|path| !before.contains(path)).unwrap()
}

#[test]
fn p6_every_command_leaves_a_repository_that_is_whole() {
    let bench = Bench::new();
    assert_clean(&bench, "init");
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.grow(seed, 300_000);
        bench.grow(seed + 10, 3000);
        bench.save(id);
        assert_clean(&bench, "save");
    }
    bench.save("d");
    assert_clean(&bench, "save of nothing new");
    bench.restore("a");
    assert_clean(&bench, "restore");
    grow_later(&bench, 7, 200_000);
    bench.save("e");
    assert_clean(&bench, "save of a fork");
    bench.restore("c");
    grow_later(&bench, 8, 1000);
    grow_later(&bench, 9, 200_000);
    znap::snapshot::restore(&mut bench.write(), "e", &RestoreOptions::default(), &Silent).unwrap();
    assert_clean(&bench, "restore that keeps what was there");
    undo(&mut bench.write(), &RestoreOptions::default(), &Silent).unwrap();
    assert_clean(&bench, "undo");
    for (id, all) in [("a", false), ("c", true), ("e", true)] {
        bench.delete(id);
        assert_clean(&bench, "delete");
        bench.gc(all);
        assert_clean(&bench, "gc");
    }
    grow_later(&bench, 20, 50_000);
    bench.save("f");
    assert_clean(&bench, "save after gc");
}

#[test]
fn p10_what_killed_commands_leave_is_no_damage() {
    let bench = Bench::new();
    bench.grow(1, 200_000);
    bench.save("a");
    bench.grow(2, 200_000);
    bench.save("b");
    let objects = bench.place.root.join("objects");
    fs::write(objects.join(".tmp-0123"), b"half").unwrap();
    fs::write(objects.join("notes.txt"), b"mine").unwrap();
    bench.grow(3, 100_000);
    // A manifest and a data file.
    let manifest = bench.save_killed_before_its_commit("c");
    let report = run(&bench, &ALL);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!((report.left_over_files, report.unknown_files), (3, vec!["notes.txt".to_string()]));
    // Announced, and not written to its end.
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    assert!(!run(&bench, &ALL).is_damaged());
    fs::write(&manifest, &whole).unwrap();

    // The same manifest that nobody has announced is a snapshot that the catalog doesn't know.
    let lock = bench.place.root.join("lock");
    let announcement = fs::read(&lock).unwrap();
    fs::write(&lock, "znap (pid 1, user nobody)\n").unwrap();
    let report = run(&bench, &QUICK);
    assert_eq!(report.findings.len(), 1, "{:#?}", report.findings);
    assert!(report.findings[0].what.contains("older than the object files: it does not know snapshot c"));
    assert_eq!((report.findings[0].subject, report.last_whole), (Subject::Catalog, None));
    fs::write(&lock, announcement).unwrap();

    // A delete, and a gc, killed before their commits.
    drop(bench.write());
    let catalog = bench.place.root.join("catalog.db");
    let before = fs::read(&catalog).unwrap();
    bench.delete("a");
    fs::write(&catalog, &before).unwrap();
    assert!(!run(&bench, &ALL).is_damaged());
    bench.delete("a");
    let before = fs::read(&catalog).unwrap();
    let kept = tempfile::tempdir().unwrap();
    for path in bench.objects() {
        fs::copy(&path, kept.path().join(path.file_name().unwrap())).unwrap();
    }
    bench.gc(true);
    for entry in fs::read_dir(kept.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), objects.join(entry.file_name())).unwrap();
    }
    fs::write(&catalog, &before).unwrap();
    let report = run(&bench, &ALL);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert!(report.left_over_files > 0);
}

/// Every snapshot, written elsewhere; or why not.
fn written(place: &Place, ids: &[String]) -> Result<BTreeMap<String, (Vec<u8>, Option<Vec<u8>>)>, String> {
    let mut all = BTreeMap::new();
    let repository = Repository::open(place).map_err(|error| error.to_string())?;
    for id in ids {
        let to = tempfile::tempdir().unwrap();
        copy_out(&repository, id, &to.path().join("copy"), &Silent).map_err(|error| error.to_string())?;
        let path = to.path().join("copy/data/Data.fs");
        let bytes = fs::read(&path).map_err(|error| error.to_string())?;
        all.insert(id.clone(), (bytes, fs::read(index_path(&path)).ok()));
    }
    Ok(all)
}

/// Tries a damaged file: returns whether it was found. It must be, if a snapshot can't be restored as it was.
fn attack(bench: &Bench, ids: &[String], good: &BTreeMap<String, (Vec<u8>, Option<Vec<u8>>)>, what: &str) -> bool {
    let found = match Repository::open(&bench.place) {
        Ok(repository) => match check(&repository, &DATA, &Silent) {
            Ok(report) => report.is_damaged(),
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Damaged | Kind::Failed | Kind::Busy), "{what}: {error}");
                true
            }
        },
        Err(_) => true,
    };
    if !found {
        match written(&bench.place, ids) {
            Ok(all) => assert!(all == *good, "P6: {what}: a snapshot comes back wrong, and check says nothing"),
            Err(error) => panic!("P6: {what}: a snapshot can't be restored, and check says nothing: {error}"),
        }
    }
    found
}

/// A small repository: two snapshots that share a list, a fork, and one that was deleted and is still needed.
fn small() -> Bench {
    let bench = Bench::new();
    bench.grow(1, 120_000);
    bench.save("a");
    bench.grow(2, 5000);
    bench.save("b");
    bench.grow(3, 2000);
    bench.save("c");
    bench.restore("b");
    grow_later(&bench, 4, 2000);
    bench.save("d");
    bench.delete("b");
    bench
}

#[test]
fn p6_whatever_makes_a_restore_fail_is_found() {
    let bench = small();
    let ids: Vec<String> = list(&bench.read()).unwrap().into_iter().map(|info| info.id).collect();
    assert_eq!(ids, ["a", "c", "d"]);
    let good = written(&bench.place, &ids).unwrap();
    let root = &bench.place.root;
    let mut paths = bench.objects();
    for name in ["catalog.db", "lock", "gate", "last-restore"] {
        paths.push(root.join(name));
    }
    let catalog = root.join("catalog.db");
    for path in &paths {
        let whole = fs::read(path).unwrap();
        let is_object = path.starts_with(root.join("objects"));
        let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
        for (number, at) in (0..whole.len()).step_by(97).enumerate() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (number % 8);
            cases.push((format!("bit {} of byte {at}", number % 8), bytes));
        }
        for length in [0, 1, 15, 16, 99, whole.len() / 2, whole.len().saturating_sub(64), whole.len().saturating_sub(1)]
        {
            if length < whole.len() {
                cases.push((format!("cut to {length} bytes"), whole[..length].to_vec()));
            }
        }
        for (case, bytes) in cases {
            fs::write(path, &bytes).unwrap();
            let what = format!("{}: {case}", path.display());
            let found = attack(&bench, &ids, &good, &what);
            assert!(found || !is_object, "{what}: every object file is read, and has the hash that is its name");
            for suffix in ["-wal", "-shm", "-journal"] {
                let _ = fs::remove_file(root.join(format!("catalog.db{suffix}")));
            }
            fs::write(path, &whole).unwrap();
        }
        fs::remove_file(path).unwrap();
        let what = format!("{}: removed", path.display());
        let found = attack(&bench, &ids, &good, &what);
        assert!(found || !(is_object || *path == catalog), "{what}");
        fs::write(path, &whole).unwrap();
    }
    assert_clean(&bench, "putting everything back");
}

#[test]
fn p6_a_catalog_that_goes_round_is_found_and_hangs_nobody() {
    let bench = small();
    let catalog = bench.place.root.join("catalog.db");
    let whole = fs::read(&catalog).unwrap();
    for damage in [
        "UPDATE stream SET parent = 3 WHERE id = 2",
        "UPDATE stream SET parent = 2 WHERE id = 2",
        "UPDATE stream SET parent = 4 WHERE id = 3",
        "UPDATE stream SET kept_length = kept_length + 1 WHERE id = 3",
        "UPDATE stream SET offset = offset - 1 WHERE id = 1",
        "UPDATE snapshot SET name = 'other' WHERE id = 1",
        "UPDATE snapshot SET tombstone = NULL WHERE id = 2",
        "UPDATE generation SET base_length = 5",
        "UPDATE database SET name = 'other'",
        "UPDATE database SET path = CAST('other' AS BLOB)",
        "UPDATE object_file SET bytes = bytes + 1 WHERE kind = 2",
        "UPDATE object_file SET bytes = bytes + 1 WHERE kind = 1",
        "UPDATE object_file SET kind = 2 WHERE kind = 1",
        "UPDATE frame SET offset = offset + 1",
        "UPDATE chunk SET start = start + 1",
        "UPDATE repository SET sequence = 0",
        "DELETE FROM stream_chunk WHERE stream = 1",
        "DELETE FROM index_part WHERE stream = 1",
        "DELETE FROM chunk",
        "DELETE FROM frame",
        "DELETE FROM stream",
        "DELETE FROM repository",
        "DROP INDEX chunk_by_hash",
        "DROP VIEW chunks",
        "PRAGMA user_version = 0",
    ] {
        bench.sql().execute_batch(&format!("PRAGMA foreign_keys = OFF; {damage}")).unwrap();
        match Repository::open(&bench.place) {
            Ok(repository) => {
                let report = check(&repository, &QUICK, &Silent).unwrap();
                assert!(report.is_damaged(), "{damage}");
                assert!(
                    report.findings.iter().any(|finding| finding.subject == Subject::Catalog)
                        || damage.contains("kind = 1")
                        || damage.contains("frame")
                        || damage.contains("chunk"),
                    "{damage}: {:#?}",
                    report.findings
                );
                // Nobody hangs, or panics, whatever comes of it.
                let to = tempfile::tempdir().unwrap();
                let _ = copy_out(&repository, "d", &to.path().join("copy"), &Silent);
            }
            Err(error) => assert_eq!(error.kind(), Kind::Damaged, "{damage}: {error}"),
        }
        fs::write(&catalog, &whole).unwrap();
    }
    assert_clean(&bench, "putting the catalog back");
}

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
    assert_eq!(finding.snapshots, ["b", "c"]);
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
fn a_limited_check_goes_on_and_reads_everything_once() {
    let bench = Bench::new();
    for seed in 1..8 {
        bench.grow(seed, 50_000);
        bench.save(&format!("s{seed}"));
    }
    let files = data_files(&bench);
    let bytes: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    let progress = bench.place.root.join("check-progress");
    for round in 0..2 {
        let (mut read, mut read_bytes, mut left) = (0, 0, files.len() as u64);
        for turn in 0.. {
            let report = run(&bench, &BIT_BY_BIT);
            assert!(!report.is_damaged());
            let data = report.data.unwrap();
            assert_eq!(data.went_on, turn > 0, "round {round}, turn {turn}");
            assert_eq!((data.files, data.files_left), (1, left - 1));
            read += data.files;
            read_bytes += data.bytes;
            left = data.files_left;
            assert_eq!(read_bytes + data.bytes_left, bytes);
            assert_eq!(progress.exists(), left > 0);
            if left == 0 {
                break;
            }
        }
        assert_eq!((read, read_bytes), (files.len() as u64, bytes), "each once");
    }
    // Files come and go meanwhile.
    run(&bench, &BIT_BY_BIT);
    bench.grow(20, 50_000);
    bench.save("new");
    bench.delete("s3");
    bench.gc(true);
    while run(&bench, &BIT_BY_BIT).data.unwrap().files_left > 0 {}
    // What can't be read is forgotten.
    fs::write(&progress, "nonsense").unwrap();
    assert!(!run(&bench, &BIT_BY_BIT).data.unwrap().went_on);
    // A whole check reads everything, wherever a limited one has stopped.
    assert_clean(&bench, "limited checks");
    assert!(!progress.exists());
}

#[test]
fn p6_damage_is_not_forgotten_by_the_rest_of_a_limited_check() {
    let bench = Bench::new();
    for seed in 1..6 {
        bench.grow(seed, 50_000);
        bench.save(&format!("s{seed}"));
    }
    let first = data_files(&bench).remove(0);
    let whole = fs::read(&first).unwrap();
    let mut bytes = whole.clone();
    bytes[100] ^= 1;
    fs::write(&first, &bytes).unwrap();
    for turn in 0..5 {
        let report = run(&bench, &BIT_BY_BIT);
        assert_eq!(report.findings.len(), 1, "turn {turn}");
        assert_eq!(report.data.unwrap().files_left, 4 - turn);
    }
    run(&bench, &BIT_BY_BIT);
    fs::write(&first, &whole).unwrap();
    assert!(!run(&bench, &BIT_BY_BIT).is_damaged(), "it was put back");
}

#[test]
fn databases_are_compared_with_the_snapshots_that_they_go_on_from() {
    let bench = Bench::new();
    for (seed, id) in [(1, "a"), (2, "b"), (3, "c")] {
        bench.grow(seed, 300_000);
        bench.save(id);
    }
    bench.grow(4, 1000);
    let look = |bench: &Bench| {
        let report = run(bench, &DATABASES);
        let database = report.databases.clone().unwrap().remove(0);
        (report, database)
    };
    let (report, database) = look(&bench);
    assert!(!report.is_damaged());
    assert_eq!((database.transactions, database.records, database.last_good.as_deref()), (4, 4, Some("c")));
    let whole = bench.bytes();
    let cut = |id: &str| -> usize {
        bench.sql().query_row("SELECT offset FROM cuts WHERE snapshot = ?1", [id], |row| row.get(0)).unwrap()
    };
    let (a, b, c) = (cut("a"), cut("b"), cut("c"));
    // In the data of the second transaction, of the third, in the last byte of a chunk list, and of the last transaction.
    for (at, good, damaged) in
        [(a + 1000, "a", true), (b + 200_000, "b", true), (c - 20, "b", true), (c + 200, "c", false)]
    {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(bench.data_fs(), &bytes).unwrap();
        let (report, database) = look(&bench);
        assert_eq!(report.is_damaged(), damaged, "{at}: {:#?}", report.findings);
        assert_eq!(database.last_good.as_deref(), Some(good), "{at}");
        assert_eq!(database.differs_at, damaged.then_some(at as u64));
        assert_eq!(database.damage, None, "the structure is as it was");
        assert!(report.findings.iter().all(|finding| finding.subject == Subject::Database));
        assert_eq!(report.last_whole.as_deref(), Some("c"), "no snapshot is affected");
    }
    // A length that is wrong.
    let mut bytes = whole.clone();
    bytes[b + 15] ^= 1;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let (report, database) = look(&bench);
    assert!(report.is_damaged() && database.damage.unwrap().contains("offset"));
    assert_eq!((database.damaged_at, database.last_good.as_deref()), (Some(b as u64), Some("b")));

    // Back, and on another way: that is no damage.
    fs::write(bench.data_fs(), &whole[..c]).unwrap();
    bench.restore("a");
    let (report, database) = look(&bench);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!(database.last_good.as_deref(), Some("a"));
    let mut writer = Writer::open(bench.data_fs()).unwrap();
    writer.transaction().data(Oid(9), vec![9; 10_000]).vote().unwrap();
    let (report, database) = look(&bench);
    assert!(!report.is_damaged() && database.left_out.is_some(), "{:#?}", report.findings);
    // As late as it would be: Bench's own clock gives the same ids again.
    let tid = Tid(writer.end().tid.0 + (77 << 32));
    writer.transaction().tid(tid).data(Oid(9), vec![9; 400_000]).commit().unwrap();
    let (report, database) = look(&bench);
    assert!(!report.is_damaged(), "{:#?}", report.findings);
    assert_eq!(database.last_good.as_deref(), Some("a"));
    // Gone: a snapshot needs nothing of it, but it was asked for.
    fs::remove_file(bench.data_fs()).unwrap();
    let (report, database) = look(&bench);
    assert!(report.is_damaged() && database.problem.is_some() && database.size.is_none());
    assert!(report.damaged_snapshots.is_empty());
}

#[test]
fn a_base_that_is_damaged_affects_the_snapshots_that_need_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Data.fs");
    let mut writer = Writer::create(&path).unwrap();
    for number in 0..20 {
        writer.transaction().data(Oid(number), vec![number as u8; 100_000]).commit().unwrap();
    }
    writer.save_index().unwrap();
    drop(writer);
    let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
    let options = InitOptions {
        root: place.root.clone(),
        databases: vec![PathBuf::from("Data.fs")],
        current: folder.path().to_path_buf(),
        share_with_group: false,
    };
    assert!(!init(&options, &Silent).unwrap().databases[0].complete);
    let bench = Bench { folder, place };
    bench.grow(30, 50_000);
    bench.save("a");
    assert_clean(&bench, "save with a base");
    let whole = bench.bytes();
    // The length of the first transaction.
    let mut bytes = whole.clone();
    bytes[4 + 15] ^= 1;
    fs::write(bench.data_fs(), &bytes).unwrap();
    let report = run(&bench, &DATABASES);
    let database = &report.databases.as_ref().unwrap()[0];
    assert_eq!((database.damaged_at, report.damaged_snapshots), (Some(4), vec!["a".to_string()]));
    assert_eq!(report.last_whole, None);
    // Another file.
    fs::write(bench.data_fs(), &whole[..100_000]).unwrap();
    let report = run(&bench, &DATABASES);
    assert!(report.is_damaged());
    assert_eq!(report.damaged_snapshots, ["a"]);
    assert!(report.databases.unwrap()[0].problem.as_ref().unwrap().contains("shorter"));
    fs::write(bench.data_fs(), &whole).unwrap();
    assert_clean(&bench, "putting it back");
}

#[test]
fn nothing_is_changed_but_what_a_limited_check_remembers() {
    let bench = small();
    damage(&data_files(&bench)[0]);
    let state = || -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in [bench.folder.path().to_path_buf(), bench.place.root.clone(), bench.place.root.join("objects")] {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    files.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        files
    };
    let before = state();
    for options in [QUICK, DATA, ALL] {
        assert_eq!(run(&bench, &options).is_damaged(), options.data);
        assert!(state() == before);
    }
    run(&bench, &BIT_BY_BIT);
    let mut after = state();
    assert!(after.remove(&bench.place.root.join("check-progress")).is_some());
    assert!(after == before);
}
