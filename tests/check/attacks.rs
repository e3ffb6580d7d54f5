//! Whatever makes a restore fail is found.

use std::collections::BTreeMap;
use std::fs;

use znap::error::Kind;
use znap::filestorage::index_path;
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, Subject, check, copy_out, list};

use crate::common::Bench;
use crate::{DATA, QUICK, assert_clean, small};

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
    // Each byte, and each 64th as an end; or a sample of them.
    let all = std::env::var_os("ZNAP_ATTACKS").is_some_and(|value| value == "all");
    let mut tried = 0;
    for path in &paths {
        let whole = fs::read(path).unwrap();
        let is_object = path.starts_with(root.join("objects"));
        let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
        for (number, at) in (0..whole.len()).step_by(if all { 1 } else { 97 }).enumerate() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (number % 8);
            cases.push((format!("bit {} of byte {at}", number % 8), bytes));
        }
        let ends = [0, 1, 15, 16, 99, whole.len() / 2, whole.len().saturating_sub(64), whole.len().saturating_sub(1)];
        let lengths: Vec<usize> = if all { (0..whole.len()).step_by(64).chain(ends).collect() } else { ends.to_vec() };
        for length in lengths.into_iter().filter(|length| *length < whole.len()) {
            cases.push((format!("cut to {length} bytes"), whole[..length].to_vec()));
        }
        tried += cases.len();
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
    println!("{tried} damaged files");
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
