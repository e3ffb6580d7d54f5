//! check: nothing that was done right is damage, and whatever makes a restore fail is found, named and followed to what needs
//! it (P6).

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod attacks;
mod blame;
#[cfg(target_os = "linux")]
mod bounded;
mod clean;
mod databases;
mod left_behind;
mod limited;
mod meanwhile;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::Bench;
use znap::filestorage::{Oid, Tid, Writer};
use znap::monitor::Silent;
use znap::snapshot::{CheckOptions, CheckReport, check, list};

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
