//! Repair: the catalog is expendable (P9); what is damaged is taken again from where it still is; what nobody has is set aside
//! and named (P6); and nothing is made worse.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod conflicts;
mod pieces;
mod rebuilding;
mod records;
mod strange;

use common::{Bench, file_views, views};
use std::fs;
use std::path::{Path, PathBuf};

use znap::error::Kind;
use znap::filestorage::Writer;
use znap::monitor::Silent;
use znap::repository::counters::Counters;
use znap::repository::hash::Hash;
use znap::repository::layout::Layout;
use znap::repository::manifest::Manifest;
use znap::repository::object::publish;
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

/// Writes another manifest beside that of a snapshot: the same, but for a change. Returns the path of the first.
fn written_anew(bench: &Bench, id: &str, change: impl FnOnce(&mut Manifest)) -> PathBuf {
    let path = manifest_of(bench, id);
    let (layout, counters) = (Layout::open(&bench.place.root).unwrap(), Counters::default());
    let name = Hash::from_hex(path.file_name().unwrap().to_str().unwrap()).unwrap();
    let mut manifest = Manifest::read(&layout, &name).unwrap();
    change(&mut manifest);
    let file = manifest.write(&layout).unwrap().finish(&counters).unwrap();
    publish(&layout, vec![file], &counters).unwrap();
    path
}

/// A copy of the repository as it is now.
fn copied(bench: &Bench) -> PathBuf {
    let copy = bench.folder.path().join("copy.znap");
    for (path, bytes) in everything(&bench.place.root) {
        let to = copy.join(path.strip_prefix(&bench.place.root).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
    copy
}
