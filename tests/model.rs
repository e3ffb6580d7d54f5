//! Any order of growing, saving, restoring, deleting and collecting, against a plain model: a map from
//! snapshot ids to whole files. Failing sequences shrink.
//!
//! P1 and P2 are checked along the way by counting bytes and rows; P4 and P8 by comparing whole files.

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use znap::filestorage::{Oid, write::Writer};
use znap::monitor::Silent;
use znap::repository::chunk_writer::Compression;
use znap::repository::chunker;
use znap::snapshot::{
    GcOptions, InitOptions, LogOptions, Place, RepairOptions, Repository, RestoreOptions, RestoreReport, SaveOptions,
    copy_out, delete, gc, gc_dry_run, init, list, log, repair, restore, save, status, undo, undo_dry_run,
};

/// A few hundred steps; `PROPTEST_CASES=1000 cargo test --test model` for a long run.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

/// What can be done to a database and its repository.
#[derive(Clone, Debug)]
enum Step {
    /// Commit so many transactions, each with a few objects of about this size.
    Grow {
        transactions: u8,
        size: u32,
        seed: u64,
    },
    /// Leave something behind the last transaction.
    Tear {
        voted: bool,
    },
    Save,
    /// Restore the n-th snapshot; what isn't saved is dropped or not.
    Restore {
        which: usize,
        discard: bool,
        verify: bool,
    },
    /// Take the last restore back.
    Undo,
    /// Write the n-th snapshot elsewhere.
    CopyOut {
        which: usize,
    },
    Delete {
        which: usize,
    },
    Gc {
        all: bool,
    },
    /// Lose the index beside the database.
    LoseIndex,
    /// Lose the catalog, and have it made again.
    LoseCatalog,
}

/// The model: what the file is now, and what every snapshot must give back.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Snapshots in order: how many there were when it was made tells its id.
    snapshots: Vec<usize>,
    made: usize,
    big_base: bool,
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        any::<bool>().prop_map(|big_base| Model { big_base, ..Model::default() }).boxed()
    }

    fn transitions(state: &Self) -> BoxedStrategy<Step> {
        let grow = (1..6u8, prop_oneof![1..2000u32, 20_000..150_000u32], any::<u64>())
            .prop_map(|(transactions, size, seed)| Step::Grow { transactions, size, seed });
        let always = prop_oneof![
            6 => grow,
            1 => any::<bool>().prop_map(|voted| Step::Tear { voted }),
            5 => Just(Step::Save),
            2 => any::<bool>().prop_map(|all| Step::Gc { all }),
            1 => Just(Step::LoseIndex),
            1 => Just(Step::LoseCatalog),
            1 => Just(Step::Undo),
        ];
        if state.snapshots.is_empty() {
            return always.boxed();
        }
        let count = state.snapshots.len();
        prop_oneof![
            6 => always,
            5 => (0..count, prop::bool::weighted(0.7), any::<bool>())
                .prop_map(|(which, discard, verify)| Step::Restore { which, discard, verify }),
            1 => (0..count).prop_map(|which| Step::CopyOut { which }),
            2 => (0..count).prop_map(|which| Step::Delete { which }),
        ]
        .boxed()
    }

    fn preconditions(state: &Self, step: &Step) -> bool {
        match step {
            Step::Restore { which, .. } | Step::CopyOut { which } | Step::Delete { which } => {
                *which < state.snapshots.len()
            }
            _ => true,
        }
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        match step {
            Step::Save => {
                state.snapshots.push(state.made);
                state.made += 1;
            }
            Step::Delete { which } => {
                state.snapshots.remove(*which);
            }
            _ => {}
        }
        state
    }
}

/// The real thing, with copies of every file that a snapshot was made of.
struct Real {
    folder: tempfile::TempDir,
    data_fs: PathBuf,
    place: Place,
    /// Snapshot id to the committed part of the file and the index of it.
    expected: BTreeMap<String, (Vec<u8>, Vec<u8>)>,
    ids: Vec<String>,
    /// Those that restores made.
    kept: Vec<String>,
    /// What snapshots held that were deleted.
    deleted: Vec<Vec<u8>>,
    /// What was there before the last restore, if it kept that.
    before_last: Option<Vec<u8>>,
    made: usize,
    /// Committed bytes of the file now.
    now: Vec<u8>,
    clock: u64,
}

fn bytes_of(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 & 0x1f
        })
        .collect()
}

impl Real {
    fn start(big_base: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_fs = folder.path().join("Data.fs");
        let mut writer = Writer::create(&data_fs).unwrap();
        let count = if big_base { 40 } else { 2 };
        for number in 0..count {
            let data = bytes_of(number, 50_000);
            writer.transaction().user("admin").data(Oid(number % 7), data).commit().unwrap();
        }
        writer.save_index().unwrap();
        let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
        let report = init(
            &InitOptions {
                root: place.root.clone(),
                databases: vec![PathBuf::from("Data.fs").into()],
                current: folder.path().to_path_buf(),
                share_with_group: false,
            },
            &Silent,
        )
        .unwrap();
        assert_eq!(report.databases[0].complete, !big_base);
        let now = fs::read(&data_fs).unwrap();
        Real {
            folder,
            data_fs,
            place,
            expected: BTreeMap::new(),
            ids: Vec::new(),
            kept: Vec::new(),
            deleted: Vec::new(),
            before_last: None,
            made: 0,
            now,
            clock: 0,
        }
    }

    fn read(&self) -> Repository {
        Repository::open(&self.place).unwrap()
    }

    fn write(&self) -> Repository {
        Repository::open_to_write(&self.place, &Silent).unwrap()
    }

    fn grow(&mut self, transactions: u8, size: u32, seed: u64) {
        let mut writer = Writer::open(&self.data_fs).unwrap();
        for number in 0..u64::from(transactions) {
            self.clock += 1;
            let mut transaction = writer.transaction().user("editor").description(format!("/news/{}", self.clock));
            for object in 0..1 + seed % 4 {
                // Often near-copies of earlier states, as ZODB makes them.
                let mut data = bytes_of(object, size as usize);
                data.extend((seed ^ number ^ self.clock).to_be_bytes());
                transaction = transaction.data(Oid((seed.wrapping_add(object)) % 23), data);
            }
            transaction.commit().unwrap();
        }
        drop(writer);
        self.now = fs::read(&self.data_fs).unwrap();
        // What a torn tail left was cut off by the writer.
    }

    /// The index of a file as a writer that reads all of it makes it.
    fn index_of(&self, bytes: &[u8]) -> Vec<u8> {
        let path = self.folder.path().join("oracle.fs");
        fs::write(&path, bytes).unwrap();
        Writer::open(&path).unwrap().save_index().unwrap();
        let index = fs::read(self.folder.path().join("oracle.fs.index")).unwrap();
        fs::remove_file(&path).unwrap();
        index
    }

    fn save(&mut self) {
        let id = format!("s{}", self.made);
        self.made += 1;
        let mut options = SaveOptions::new(Some(id.clone()), "", TimeZone::UTC);
        options.compression = Compression { level: 1, frame: 300_000, ..Compression::FAST };
        let mut repository = self.write();
        let before = repository.counts();
        let report = save(&mut repository, &options, &Silent).unwrap();
        let new_bytes = report.databases[0].new_bytes;
        let nearest = self
            .expected
            .values()
            .map(|(bytes, _)| bytes.len())
            .filter(|&length| {
                self.expected.values().any(|(bytes, _)| bytes.len() == length && self.now.starts_with(bytes))
            })
            .max();
        if let Some(nearest) = nearest {
            // P1: a save reads what is new, and a bounded amount to recognise the file and finish a chunk.
            assert_eq!(new_bytes, (self.now.len() - nearest) as u64, "P1: not the nearest snapshot");
            let recognise = 4 * chunker::MAX as u64 + 64 * 1024 + 64 * 1024;
            let refuted = 8192 * self.expected.len() as u64;
            let most = 2 * new_bytes + recognise + refuted;
            assert!(
                report.counts.database_bytes_read <= most,
                "P1: read {} for {new_bytes} new",
                report.counts.database_bytes_read
            );
            let chunks = new_bytes / chunker::MIN as u64 + 4;
            let rows = report.counts.rows - before.rows;
            assert!(rows <= 2 * chunks + 20, "P1: {rows} rows for {new_bytes} new bytes");
        }
        assert_eq!(report.databases[0].cut, self.now.len() as u64, "P3: the cut is not the last boundary");
        assert!(report.counts.fsyncs - before.fsyncs <= 4, "P1: {} syncs", report.counts.fsyncs);
        assert_eq!(report.counts.commits - before.commits, 1);
        self.expected.insert(id.clone(), (self.now.clone(), self.index_of(&self.now)));
        self.ids.push(id);
    }

    /// Whether a snapshot holds exactly what is there now.
    fn is_held(&self) -> bool {
        self.expected.values().any(|(bytes, _)| *bytes == self.now)
    }

    fn restore(&mut self, which: usize, discard: bool, verify: bool) {
        let id = self.ids[which].clone();
        let options = RestoreOptions { discard, verify, ..RestoreOptions::default() };
        self.put_back(&id, discard, |repository| restore(repository, &id, &options, &Silent).unwrap());
    }

    /// Takes the last restore back, if it can be.
    fn undo(&mut self) {
        match (undo_dry_run(&self.read(), &Silent), self.before_last.clone()) {
            (Ok(plan), Some(before)) => {
                assert!(self.expected[&plan.id].0 == before, "P5: it is not what was there before");
                self.put_back(&plan.id, false, |repository| {
                    undo(repository, &RestoreOptions::default(), &Silent).unwrap()
                });
            }
            (Ok(_), None) => panic!("there was no restore that kept everything"),
            (Err(error), Some(before)) => {
                assert!(error.to_string().contains("was deleted"), "{error}");
                assert!(self.deleted.contains(&before));
            }
            (Err(_), None) => {}
        }
    }

    fn put_back(&mut self, id: &str, discard: bool, act: impl FnOnce(&mut Repository) -> RestoreReport) {
        let held = self.is_held();
        let mut repository = self.write();
        let before = fs::read(&self.data_fs).unwrap();
        let report = act(&mut repository);
        assert_eq!(report.kept.is_some(), !discard && !held, "P5: what no snapshot holds is kept");
        let known: Vec<&[u8]> = self.expected.values().map(|(bytes, _)| &bytes[..]).collect();
        let saved = held || known.iter().any(|bytes| bytes.starts_with(&self.now));
        let (bytes, index) = self.expected[id].clone();
        assert!(fs::read(&self.data_fs).unwrap() == bytes, "P6: {id} came back wrong");
        assert!(fs::read(self.folder.path().join("Data.fs.index")).unwrap() == index, "P4: the index of {id} is wrong");
        let common = before.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        // P2: going back writes nothing; otherwise what differs, known to the chunk and to what was saved.
        let plan = &report.plan.databases[0];
        if saved && before.starts_with(&bytes) {
            assert_eq!(plan.write, 0, "P2: a truncation wrote");
        }
        assert!(plan.keep as usize <= common);
        self.before_last = (held || !discard).then(|| self.now.clone());
        if let Some(kept) = report.kept {
            let index = self.index_of(&self.now);
            self.expected.insert(kept.clone(), (self.now.clone(), index));
            self.kept.push(kept);
        }
        self.now = bytes;
    }

    fn lose_catalog(&self) {
        let (catalog, away) = (self.place.root.join("catalog.db"), self.place.root.join("away"));
        fs::rename(&catalog, &away).unwrap();
        match repair(&self.place, &RepairOptions::default(), &Silent) {
            Ok(report) => assert!(report.is_whole() && report.catalog_rebuilt, "P9: {report:?}"),
            Err(error) => {
                assert!(self.expected.is_empty(), "P9: {error}");
                fs::copy(&away, &catalog).unwrap();
            }
        }
        fs::remove_file(away).unwrap();
    }

    fn check_everything(&self) {
        let repository = self.read();
        let (kept, saved): (Vec<_>, Vec<_>) =
            list(&repository).unwrap().into_iter().partition(|info| info.kind == "undo");
        assert_eq!(saved.into_iter().map(|info| info.id).collect::<Vec<_>>(), self.ids);
        assert_eq!(kept.into_iter().map(|info| info.id).collect::<Vec<_>>(), self.kept);
        let status = status(&repository, &Silent).unwrap();
        assert_eq!(status.databases[0].problem, None);
        let catalog = rusqlite::Connection::open(self.place.root.join("catalog.db")).unwrap();
        let broken: i64 =
            catalog.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| row.get(0)).unwrap();
        assert_eq!(broken, 0);
        let dangling: i64 = catalog
            .query_row(
                "SELECT (SELECT count(*) FROM stream_chunk WHERE chunk NOT IN (SELECT id FROM chunk))
                      + (SELECT count(*) FROM index_chunk WHERE chunk NOT IN (SELECT id FROM chunk))
                      + (SELECT count(*) FROM chunk WHERE frame NOT IN (SELECT id FROM frame))
                      + (SELECT count(*) FROM (SELECT 1 FROM chunk GROUP BY hash HAVING count(*) > 1))",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(dangling, 0, "P8: a chunk is missing, or stored twice");
    }

    fn copy_out(&self, which: usize) {
        let id = &self.ids[which];
        let to = self.folder.path().join("elsewhere");
        copy_out(&self.read(), id, &to, &Silent).unwrap();
        let (bytes, index) = &self.expected[id];
        assert!(fs::read(to.join("data/Data.fs")).unwrap() == *bytes);
        assert!(fs::read(to.join("data/Data.fs.index")).unwrap() == *index);
        let options = LogOptions { snapshot: Some(id.clone()), ..LogOptions::default() };
        let transactions = log(&self.read(), &options, &Silent).unwrap()[0].transactions.len();
        let there = znap::filestorage::Forwards::new(
            &znap::filestorage::DataFile::open(to.join("data/Data.fs")).unwrap(),
            4,
            bytes.len() as u64,
        )
        .count();
        assert_eq!(transactions, there);
        fs::remove_dir_all(to).unwrap();
    }
}

impl StateMachineTest for Real {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(model: &Model) -> Self {
        Real::start(model.big_base)
    }

    fn apply(mut real: Self, _: &Model, step: Step) -> Self {
        match step {
            Step::Grow { transactions, size, seed } => real.grow(transactions, size, seed),
            Step::Tear { voted } => {
                let mut writer = Writer::open(&real.data_fs).unwrap();
                let transaction = writer.transaction().data(Oid(1), vec![7; 5000]);
                if voted {
                    transaction.vote().unwrap();
                } else {
                    transaction.tear(3000).unwrap();
                }
            }
            Step::Save => real.save(),
            Step::Restore { which, discard, verify } => real.restore(which, discard, verify),
            Step::Undo => real.undo(),
            Step::CopyOut { which } => real.copy_out(which),
            Step::Delete { which } => {
                let id = real.ids.remove(which);
                real.deleted.extend(real.expected.remove(&id).map(|(bytes, _)| bytes));
                delete(&mut real.write(), &[id], &Silent).unwrap();
            }
            Step::Gc { all } => {
                let planned = gc_dry_run(&mut real.write(), GcOptions { all }).unwrap();
                let report = gc(&mut real.write(), GcOptions { all }, &Silent).unwrap();
                assert_eq!(planned.bytes_before, report.bytes_before);
                assert!(report.unknown_files.is_empty());
                // P10: exact: a second one finds nothing to unlink.
                let again = gc(&mut real.write(), GcOptions { all }, &Silent).unwrap();
                assert_eq!((again.files_removed, again.chunks_dropped), (0, 0), "P10");
                if all {
                    assert_eq!(again.unused_bytes_left, 0, "P10");
                }
            }
            Step::LoseCatalog => real.lose_catalog(),
            Step::LoseIndex => {
                let _ = fs::remove_file(real.folder.path().join("Data.fs.index"));
            }
        }
        real
    }

    fn check_invariants(real: &Self, _: &Model) {
        real.check_everything();
    }

    fn teardown(mut real: Self, _: Model) {
        for which in 0..real.ids.len() {
            real.restore(which, true, true);
        }
        for id in std::mem::take(&mut real.kept) {
            let options = RestoreOptions { discard: true, verify: true, ..RestoreOptions::default() };
            real.put_back(&id, true, |repository| restore(repository, &id, &options, &Silent).unwrap());
        }
    }
}

prop_state_machine! {
    #![proptest_config(Config { cases: cases(), failure_persistence: None, ..Config::default() })]

    /// P1, P2, P3, P4, P6, P8, P9, P10: any order of commands gives back exactly what was saved.
    #[test]
    fn any_order_of_commands_gives_back_what_was_saved(sequential 10..40 => Real);
}
