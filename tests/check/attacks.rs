//! Whatever makes a restore fail is found.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use znap::error::Kind;
use znap::filestorage::{Oid, Writer};
use znap::monitor::Silent;
use znap::snapshot::{Place, Repository, RestoreOptions, Subject, check, copy_out, list, restore};

use crate::common::{Bench, simulated_disk, undisturbed};
use crate::{DATA, QUICK, assert_clean, run, small};

/// Of so many bytes one is changed.
const STEP: usize = 197;

/// Files by their paths, or whatever the files of a snapshot are called.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// The files of a folder, and those in its folders.
fn files_in(folder: &Path) -> Files {
    let mut files = Files::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// The same, by what their paths are called in this folder.
fn relative(files: Files, folder: &Path) -> Files {
    files.into_iter().map(|(path, bytes)| (path.strip_prefix(folder).unwrap().into(), bytes)).collect()
}

/// Every snapshot, written elsewhere; or why not.
fn written(place: &Place, ids: &[String]) -> Result<BTreeMap<String, Files>, String> {
    let mut all = BTreeMap::new();
    let repository = Repository::open(place).map_err(|error| error.to_string())?;
    for id in ids {
        all.insert(id.clone(), copied(&repository, id).map_err(|error| error.to_string())?);
    }
    Ok(all)
}

/// A snapshot, written elsewhere.
fn copied(repository: &Repository, id: &str) -> znap::error::Result<Files> {
    let to = simulated_disk();
    let copy = to.path().join("copy");
    copy_out(repository, id, &copy, &Silent)?;
    Ok(relative(files_in(&copy), &copy))
}

/// Every snapshot, restored in a copy of everything; or why not. Named as [`written`] does it.
fn restored(bench: &Bench, ids: &[String]) -> Result<BTreeMap<String, Files>, String> {
    let to = simulated_disk();
    let folder = bench.folder.path();
    for (path, bytes) in relative(files_in(folder), folder) {
        let path = to.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let place = Place { root: to.path().join(".znap"), trusted: Vec::new() };
    let options = RestoreOptions { discard: true, verify: true, ..RestoreOptions::default() };
    let mut all = BTreeMap::new();
    for id in ids {
        let again = || -> znap::error::Result<()> {
            let mut repository = Repository::open_to_write(&place, &Silent)?;
            restore(&mut repository, id, &options, &Silent).map(|_| ())
        };
        undisturbed(again).map_err(|error| error.to_string())?;
        let mut files = Files::new();
        for (path, bytes) in relative(files_in(to.path()), to.path()) {
            let name = path.file_name().unwrap().to_str().unwrap();
            if let Some((stem, "" | ".index")) = name.split_once(".fs") {
                files.insert(Path::new(&stem.to_lowercase()).join(name), bytes);
            }
        }
        all.insert(id.clone(), files);
    }
    Ok(all)
}

/// What there is to attack, and what must come of it.
struct Target<'b> {
    bench: &'b Bench,
    ids: Vec<String>,
    good: BTreeMap<String, Files>,
    /// Whether each byte is tried, and not only a sample.
    all: bool,
    /// What catalogs said that were tried: most bytes of a catalog are in use by nothing.
    said: HashSet<Vec<u8>>,
    tried: Tried,
}

/// How many damaged files there were, in how many of these nothing was found, and of how many of those all snapshots were restored.
#[derive(Debug, Default)]
struct Tried {
    files: usize,
    not_found: usize,
    restored: usize,
    /// Where something was found: how many snapshots were written elsewhere all the same, as they were, and how many were refused.
    right: usize,
    refused: usize,
}

/// All that a catalog says, its header included; `None` if it can't be read.
fn said(bench: &Bench) -> Option<Vec<u8>> {
    let all = || -> rusqlite::Result<String> {
        let sql = bench.sql();
        let mut select = sql.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")?;
        let tables: Vec<String> = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let mut text = String::new();
        for table in tables {
            let mut select = sql.prepare(&format!("SELECT * FROM {table}"))?;
            let columns = select.column_count();
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                for column in 0..columns {
                    text.push_str(&format!("{:?} ", row.get_ref(column)?));
                }
            }
        }
        Ok(text)
    };
    let mut said = all().ok()?.into_bytes();
    said.extend(fs::read(bench.place.root.join("catalog.db")).ok()?.into_iter().take(100));
    Some(said)
}

/// Tries a damaged file: returns whether it was found. It must be, if a snapshot can't be restored as it was.
fn attack(target: &mut Target<'_>, what: &str) -> bool {
    let Target { bench, ids, good, .. } = target;
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
    if found {
        // What doesn't need what is damaged may come back; never wrong.
        let Ok(repository) = Repository::open(&bench.place) else { return true };
        for id in ids.iter() {
            match copied(&repository, id) {
                Ok(files) => {
                    assert!(files == good[id], "P6: {what}: {id} is written elsewhere, and wrong");
                    target.tried.right += 1;
                }
                Err(_) => target.tried.refused += 1,
            }
        }
        return true;
    }
    target.tried.not_found += 1;
    // Of each byte, every so many'th is tried though nothing is said otherwise.
    let again = !target.all || target.tried.not_found.is_multiple_of(20);
    if said(bench).is_none_or(|said| target.said.insert(said)) || again {
        target.tried.restored += 1;
        for (how, all) in [("written elsewhere", written(&bench.place, ids)), ("restored", restored(bench, ids))] {
            match all {
                Ok(all) => {
                    assert!(all == *good, "P6: {what}: {how}, a snapshot comes back wrong, and check says nothing")
                }
                Err(error) => panic!("P6: {what}: a snapshot can't be {how}, and check says nothing: {error}"),
            }
        }
    }
    false
}

/// How a file is damaged.
#[derive(Debug, Clone, Copy)]
enum Case {
    Flip { bit: usize, at: usize },
    Cut(usize),
}

impl Case {
    fn of(self, whole: &[u8]) -> Vec<u8> {
        let mut bytes = whole.to_vec();
        match self {
            Case::Flip { bit, at } => bytes[at] ^= 1 << bit,
            Case::Cut(length) => bytes.truncate(length),
        }
        bytes
    }
}

/// Damages every file of a repository, in every way; or, unless `ZNAP_ATTACKS` is `all`, at every so many'th byte. Returns what it tried.
fn attack_every_file(bench: &Bench, ids: &[&str]) -> Tried {
    let ids: Vec<String> = ids.iter().map(|id| id.to_string()).collect();
    assert_eq!(list(&bench.read()).unwrap().into_iter().map(|info| info.id).collect::<Vec<_>>(), ids);
    let good = written(&bench.place, &ids).unwrap();
    assert!(restored(bench, &ids).unwrap() == good);
    let root = &bench.place.root;
    let mut paths = bench.objects();
    for name in ["catalog.db", "lock", "gate", "last-restore"] {
        paths.extend(Some(root.join(name)).filter(|path| path.exists()));
    }
    let catalog = root.join("catalog.db");
    // Each byte, and each 64th as an end; or a sample of them.
    let all = std::env::var_os("ZNAP_ATTACKS").is_some_and(|value| value == "all");
    let mut target = Target { bench, ids, good, all, said: HashSet::new(), tried: Tried::default() };
    for path in &paths {
        let whole = fs::read(path).unwrap();
        let is_object = path.starts_with(root.join("objects"));
        let ends = [0, 1, 15, 16, 99, whole.len() / 2, whole.len().saturating_sub(64), whole.len().saturating_sub(1)];
        let lengths: Vec<usize> = if all { (0..whole.len()).step_by(64).chain(ends).collect() } else { ends.to_vec() };
        let cuts = lengths.into_iter().filter(|length| *length < whole.len()).map(Case::Cut);
        let places = (0..whole.len()).step_by(if all { 1 } else { STEP }).enumerate();
        let flips = places.map(|(number, at)| Case::Flip { bit: number % 8, at });
        // One at a time: each is as large as the file.
        for case in flips.chain(cuts) {
            target.tried.files += 1;
            fs::write(path, case.of(&whole)).unwrap();
            let what = format!("{}: {case:?}", path.display());
            let found = attack(&mut target, &what);
            assert!(found || !is_object, "{what}: every object file is read, and has the hash that is its name");
            for suffix in ["-wal", "-shm", "-journal"] {
                let _ = fs::remove_file(root.join(format!("catalog.db{suffix}")));
            }
            fs::write(path, &whole).unwrap();
        }
        target.tried.files += 1;
        fs::remove_file(path).unwrap();
        let what = format!("{}: removed", path.display());
        let found = attack(&mut target, &what);
        assert!(found || !(is_object || *path == catalog), "{what}");
        fs::write(path, &whole).unwrap();
    }
    assert_clean(bench, "putting everything back");
    target.tried
}

#[test]
fn p6_whatever_makes_a_restore_fail_is_found() {
    let tried = attack_every_file(&small(), &["a", "c", "d"]);
    println!("{tried:?}");
    assert!(tried.files > 1450 && tried.restored > 580 && tried.right > 550 && tried.refused > 1900, "{tried:?}");
}

/// A small repository of two databases.
fn small_of_two() -> Bench {
    let names = ["Data.fs", "Users.fs"];
    let bench = Bench::over(&names, |_| ());
    for (number, id) in ["a", "b"].into_iter().enumerate() {
        for (seed, name) in (number as u64 + 1..).zip(names) {
            let data: Vec<u8> = (0..30_000_u64).map(|at| (at.wrapping_mul(at * 5 + seed) >> 5) as u8).collect();
            let mut writer = Writer::open(bench.folder.path().join(name)).unwrap();
            writer.transaction().data(Oid(seed), data).commit().unwrap();
        }
        bench.save(id);
    }
    bench
}

#[test]
fn p6_whatever_makes_a_restore_of_two_databases_fail_is_found() {
    let tried = attack_every_file(&small_of_two(), &["a", "b"]);
    println!("{tried:?}");
    assert!(tried.files > 880 && tried.restored > 580 && tried.right > 270 && tried.refused > 210, "{tried:?}");
}

#[test]
fn p6_a_database_with_the_beginning_of_another_is_found() {
    let bench = small_of_two();
    let catalog = bench.place.root.join("catalog.db");
    let whole = fs::read(&catalog).unwrap();
    for damage in [
        "UPDATE database SET generation = 3 - id",
        "UPDATE database SET generation = 2 WHERE id = 1",
        "UPDATE database SET generation = NULL WHERE id = 2",
        "UPDATE generation SET database = 2, number = 7 WHERE id = 1",
        "UPDATE stream SET generation = 3 - generation",
    ] {
        bench.sql().execute_batch(&format!("PRAGMA foreign_keys = OFF; {damage}")).unwrap();
        let report = run(&bench, &QUICK);
        let is_found = report.findings.iter().any(|finding| finding.subject == Subject::Catalog);
        assert!(is_found, "{damage}: {:#?}", report.findings);
        fs::write(&catalog, &whole).unwrap();
    }
    assert_clean(&bench, "putting the catalog back");
}

#[test]
fn p5_p6_a_snapshot_that_lost_a_list_comes_back_whole_or_not_at_all() {
    let bench = small_of_two();
    let catalog = bench.place.root.join("catalog.db");
    let whole = fs::read(&catalog).unwrap();
    let databases = || ["Data.fs", "Users.fs"].map(|name| fs::read(bench.folder.path().join(name)).unwrap());
    let before = databases();
    for damage in [
        "UPDATE stream SET snapshot = 77 WHERE snapshot = 1 AND database = 2",
        "UPDATE stream SET snapshot = 77 WHERE snapshot = 1",
        "UPDATE snapshot SET id = 77 WHERE id = 1",
    ] {
        bench.sql().execute_batch(&format!("PRAGMA foreign_keys = OFF; {damage}")).unwrap();
        let error = copied(&bench.read(), "a").err().unwrap_or_else(|| panic!("{damage}: it is written elsewhere"));
        assert_eq!(error.kind(), Kind::Damaged, "{damage}: {error}");
        let restored = undisturbed(|| restore(&mut bench.write(), "a", &RestoreOptions::default(), &Silent));
        let error = restored.err().unwrap_or_else(|| panic!("{damage}: it is restored"));
        assert_eq!(error.kind(), Kind::Damaged, "{damage}: {error}");
        assert!(databases() == before, "{damage}");
        fs::write(&catalog, &whole).unwrap();
    }
    assert_clean(&bench, "putting the catalog back");
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
        "UPDATE database SET generation = NULL",
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
                let to = simulated_disk();
                let _ = copy_out(&repository, "d", &to.path().join("copy"), &Silent);
            }
            Err(error) => assert_eq!(error.kind(), Kind::Damaged, "{damage}: {error}"),
        }
        fs::write(&catalog, &whole).unwrap();
    }
    assert_clean(&bench, "putting the catalog back");
}
