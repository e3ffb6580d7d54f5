//! Any order of saving, restoring, tracking and the like of three databases, whole or in part, with kills in between, against a plain
//! model: what each snapshot has of each database. Failing sequences shrink. (P5, P6)

#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use common::Kill;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use znap::disk::Disk;
use znap::error::{Kind, Result};
use znap::filestorage::{Oid, Writer, index_path};
use znap::monitor::Silent;
use znap::snapshot::{
    CheckOptions, GcOptions, InitOptions, Place, RepairOptions, Repository, RestoreOptions, SaveOptions, TrackOptions,
    Way, check, copy_out, delete, finish, gc, init, list, repair, restore, save, show, status, track, undo, untrack,
};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Some of the databases, as bits; none for all.
type Some3 = u8;

#[derive(Clone, Debug)]
enum Step {
    Grow {
        which: usize,
        seed: u64,
    },
    Save {
        only: Some3,
    },
    Restore {
        which: usize,
        only: Some3,
        discard: bool,
    },
    /// Killed before this change of a file, and finished in one way.
    Killed {
        which: usize,
        only: Some3,
        change: usize,
        forward: bool,
    },
    Undo,
    Track {
        which: usize,
    },
    Untrack {
        which: usize,
    },
    Delete {
        which: usize,
    },
    Gc,
    LoseCatalog,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || prop_oneof![2 => Just(0), 3 => 1..8u8];
    let step = prop_oneof![
        8 => (0..3usize, any::<u64>()).prop_map(|(which, seed)| Step::Grow { which, seed }),
        5 => some().prop_map(|only| Step::Save { only }),
        4 => (any::<usize>(), some(), prop::bool::weighted(0.2))
            .prop_map(|(which, only, discard)| Step::Restore { which, only, discard }),
        4 => (any::<usize>(), some(), 0..90usize, any::<bool>())
            .prop_map(|(which, only, change, forward)| Step::Killed { which, only, change, forward }),
        3 => Just(Step::Undo),
        1 => (0..3usize).prop_map(|which| Step::Track { which }),
        1 => (0..3usize).prop_map(|which| Step::Untrack { which }),
        1 => any::<usize>().prop_map(|which| Step::Delete { which }),
        1 => Just(Step::Gc),
        1 => Just(Step::LoseCatalog),
    ];
    prop::collection::vec(step, 1..25)
}

/// A database and its index.
type State = (Vec<u8>, Option<Vec<u8>>);

/// What a snapshot has.
#[derive(Debug, Clone)]
struct Known {
    id: String,
    made_by_save: bool,
    partial: bool,
    states: BTreeMap<usize, State>,
}

/// What undo is to do.
#[derive(Debug, Clone)]
enum Last {
    Nothing,
    /// Whether it can't be told.
    Unknown,
    Restore(BTreeMap<usize, State>),
}

struct World {
    folder: tempfile::TempDir,
    place: Place,
    tracked: [bool; 3],
    known: Vec<Known>,
    last: Last,
    has_deleted: bool,
    made: usize,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { root: folder.path().join(".znap"), trusted: Vec::new() };
        for name in NAMES {
            let mut writer = Writer::create(folder.path().join(format!("{name}.fs"))).unwrap();
            writer.transaction().data(Oid(0), name).commit().unwrap();
            writer.save_index().unwrap();
        }
        let options = InitOptions {
            root: place.root.clone(),
            databases: NAMES.iter().map(|name| PathBuf::from(format!("{name}.fs")).into()).collect(),
            current: folder.path().to_path_buf(),
            share_with_group: false,
        };
        init(&options, &Silent).unwrap();
        let (known, last) = (Vec::new(), Last::Nothing);
        World { folder, place, tracked: [true; 3], known, last, has_deleted: false, made: 0 }
    }

    fn path(&self, which: usize) -> PathBuf {
        self.folder.path().join(format!("{}.fs", NAMES[which]))
    }

    fn states(&self) -> BTreeMap<usize, State> {
        let state = |which| {
            let path = self.path(which);
            (which, (fs::read(&path).unwrap(), fs::read(index_path(&path)).ok()))
        };
        (0..3).map(state).collect()
    }

    fn write(&self) -> Repository {
        Repository::open_to_write(&self.place, &Silent).unwrap()
    }

    fn read(&self) -> Repository {
        Repository::open(&self.place).unwrap()
    }

    fn all_tracked(&self) -> Vec<usize> {
        (0..3).filter(|which| self.tracked[*which]).collect()
    }

    /// Takes in the snapshots that a restore made: of these databases as they were.
    fn take_in(&mut self, before: &BTreeMap<usize, State>) {
        for info in list(&self.read()).unwrap() {
            if self.known.iter().all(|known| known.id != info.id) {
                assert_eq!(info.kind, "undo");
                let partial = self.all_tracked().iter().any(|which| !before.contains_key(which));
                self.known.push(Known { id: info.id, made_by_save: false, partial, states: before.clone() });
            }
        }
    }

    fn apply(&mut self, step: &Step) {
        let before = self.states();
        match *step {
            Step::Grow { which, seed } => {
                let mut writer = Writer::open(self.path(which)).unwrap();
                for number in 0..1 + seed % 3 {
                    let data = seed.wrapping_add(number).to_le_bytes().repeat(1 + (seed % 4000) as usize);
                    writer.transaction().data(Oid(seed % 7), data).commit().unwrap();
                }
                writer.save_index().unwrap();
                return;
            }
            Step::Save { only } => self.save(only),
            Step::Restore { which, only, discard } => self.restore(which, only, discard),
            Step::Killed { which, only, change, forward } => self.killed(which, only, change, forward),
            Step::Undo => self.undo(),
            Step::Track { which } => {
                let options = TrackOptions {
                    database: NAMES[which].into(),
                    name: None,
                    blobs: None,
                    mode: None,
                    current: self.folder.path().to_path_buf(),
                };
                let done = track(&mut self.write(), &options, &Silent);
                assert_eq!(done.is_ok(), !self.tracked[which]);
                self.tracked[which] = true;
            }
            Step::Untrack { which } => {
                let done = untrack(&mut self.write(), &[NAMES[which].into()]);
                assert_eq!(done.is_ok(), self.tracked[which]);
                self.tracked[which] = false;
            }
            Step::Delete { which } => {
                if !self.known.is_empty() {
                    let known = self.known.remove(which % self.known.len());
                    delete(&mut self.write(), &[known.id], &Silent).unwrap();
                    self.has_deleted = true;
                }
            }
            Step::Gc => {
                gc(&mut self.write(), GcOptions { all: false }, &Silent).unwrap();
            }
            Step::LoseCatalog => self.lose_catalog(),
        }
        if !matches!(step, Step::Restore { .. } | Step::Killed { .. } | Step::Undo) {
            assert!(self.states() == before, "{step:?} changed a database");
        }
    }

    fn save(&mut self, only: Some3) {
        let named = chosen(only);
        self.made += 1;
        let id = format!("s{}", self.made);
        let mut options = SaveOptions::new(Some(id.clone()), "", TimeZone::UTC);
        options.only = names(&named);
        let result = save(&mut self.write(), &options, &Silent);
        let (tracked, states) = (self.all_tracked(), self.states());
        if tracked.is_empty() || named.iter().any(|which| !self.tracked[*which]) {
            assert_eq!(result.unwrap_err().kind(), Kind::Failed);
            return;
        }
        let has = if named.is_empty() { tracked.clone() } else { named };
        let report = result.unwrap();
        assert_eq!(report.partial, has != tracked);
        assert!(report.one_moment);
        let states = has.iter().map(|which| (*which, states[which].clone())).collect();
        self.known.push(Known { id, made_by_save: true, partial: report.partial, states });
    }

    /// The databases that a restore is about, if that makes sense.
    fn aim(&self, which: usize, only: Some3) -> Option<(Known, Vec<usize>, Vec<String>)> {
        let known = self.known.get(which.checked_rem(self.known.len())?)?.clone();
        let named = chosen(only);
        let has = if named.is_empty() { known.states.keys().copied().collect() } else { named.clone() };
        Some((known, has, names(&named)))
    }

    fn restore(&mut self, which: usize, only: Some3, discard: bool) {
        let Some((known, aim, only)) = self.aim(which, only) else { return };
        let before = self.states();
        let options = RestoreOptions { discard, only, verify: true, ..RestoreOptions::default() };
        let result = restore(&mut self.write(), &known.id, &options, &Silent);
        if aim.iter().any(|which| !known.states.contains_key(which)) {
            assert_eq!(result.unwrap_err().kind(), Kind::NotFound);
            assert!(self.states() == before);
            return;
        }
        let report = result.unwrap();
        let untouched: Vec<&str> =
            self.all_tracked().into_iter().filter(|which| !aim.contains(which)).map(|which| NAMES[which]).collect();
        assert_eq!(sorted(report.plan.untouched), untouched);
        assert!(self.states() == merged(&before, &known.states, &aim));
        assert!(report.undoable || discard);
        let own = part(&before, &aim);
        self.take_in(&own);
        self.last = if report.undoable { Last::Restore(own) } else { Last::Nothing };
    }

    fn killed(&mut self, which: usize, only: Some3, change: usize, forward: bool) {
        let Some((known, aim, only)) = self.aim(which, only) else { return };
        if aim.iter().any(|which| !known.states.contains_key(which)) {
            return;
        }
        let before = self.states();
        let target = merged(&before, &known.states, &aim);
        let kill = Kill::at(change);
        let disk = Disk::watched(std::sync::Arc::clone(&kill) as _);
        let attempt = || -> Result<()> {
            let mut repository = Repository::open_to_write_on(&disk, &self.place, &Silent)?;
            let options = RestoreOptions { only, ..RestoreOptions::default() };
            restore(&mut repository, &known.id, &options, &Silent).map(|_| ())
        };
        let result = attempt();
        let way = if forward { Way::Forward } else { Way::Back };
        let mut repository = Repository::open_to_finish(&self.place, &Silent).unwrap();
        let finished = match finish(&mut repository, way, &Silent) {
            // Too late to go back.
            Err(_) if !forward => finish(&mut repository, Way::Forward, &Silent),
            finished => finished,
        };
        let finished = finished.unwrap();
        drop(repository);
        let now = self.states();
        assert!(now == before || now == target, "some of the databases were restored");
        assert!(kill.fired() || (result.is_ok() && now == target));
        let own = part(&before, &aim);
        self.take_in(&own);
        match finished {
            Some(finished) => {
                assert!(now == if finished.restored { target } else { before });
                if finished.restored {
                    self.last = Last::Restore(own);
                }
            }
            None if before == target => self.last = Last::Unknown,
            None if now == target => self.last = Last::Restore(own),
            None => {}
        }
    }

    fn undo(&mut self) {
        let before = self.states();
        let aim = match &self.last {
            Last::Unknown => return,
            Last::Nothing => {
                assert!(undo(&mut self.write(), &RestoreOptions::default(), &Silent).is_err());
                return;
            }
            Last::Restore(states) => states.clone(),
        };
        match undo(&mut self.write(), &RestoreOptions::default(), &Silent) {
            Ok(_) => {
                let has: Vec<usize> = aim.keys().copied().collect();
                assert!(self.states() == merged(&before, &aim, &has), "undo");
                let own = part(&before, &has);
                self.take_in(&own);
                self.last = Last::Restore(own);
            }
            Err(error) => {
                assert!(self.has_deleted && error.kind() == Kind::NotFound, "{error}");
                assert!(self.states() == before);
            }
        }
    }

    /// What a save of all has recorded is known afterwards.
    fn lose_catalog(&mut self) {
        let is_saved = |which: &usize| self.known.iter().any(|known| known.states.contains_key(which));
        if self.all_tracked().is_empty() || !(0..3).all(|which| self.tracked[which] || is_saved(&which)) {
            return;
        }
        self.save(0);
        fs::remove_file(self.place.root.join("catalog.db")).unwrap();
        repair(&self.place, &RepairOptions::default(), &Silent).unwrap();
    }

    /// What the repository says is what the model knows.
    fn agree(&self) {
        let repository = self.read();
        let found = list(&repository).unwrap();
        assert_eq!(found.len(), self.known.len());
        for known in &self.known {
            let info = found.iter().find(|info| info.id == known.id).unwrap();
            let has = sorted(info.databases.iter().map(|cut| cut.name.as_str()).collect());
            let expected: Vec<&str> = known.states.keys().map(|which| NAMES[*which]).collect();
            assert_eq!((info.partial, has), (known.partial, expected), "{}", known.id);
        }
        let newest = self.known.iter().rev().find(|known| known.made_by_save && !known.partial);
        let latest = show(&repository, "latest").ok().map(|details| details.info.id);
        assert_eq!(latest, newest.map(|known| known.id.clone()));
        let status = status(&repository, &Silent).unwrap();
        let tracked = sorted(status.databases.into_iter().map(|database| database.name).collect());
        let others = (0..3).filter(|which| !self.tracked[*which]).collect::<Vec<_>>();
        assert_eq!((tracked, sorted(status.untracked)), (names(&self.all_tracked()), names(&others)));
    }

    /// Every snapshot has what the model says, and nothing is damaged.
    fn holds(&self) {
        let repository = self.read();
        for known in &self.known {
            let to = self.folder.path().join(format!("copy-{}", known.id));
            copy_out(&repository, &known.id, &to, &Silent).unwrap();
            for (which, state) in &known.states {
                let path = to.join(NAMES[*which]).join(format!("{}.fs", NAMES[*which]));
                assert!(fs::read(&path).unwrap() == state.0, "{} of {}", NAMES[*which], known.id);
                let index = fs::read(index_path(&path)).ok();
                assert!(index == state.1, "the index of {} of {}", NAMES[*which], known.id);
            }
        }
        // Not the files: this writer gives the same ids again after a restore, which looks like damage.
        let options = CheckOptions { data: true, limit: None, databases: false };
        let report = check(&repository, &options, &Silent).unwrap();
        assert!(report.findings.is_empty(), "{:?}", report.findings);
    }
}

/// A catalog that was made anew may have them in another order.
fn sorted<T: Ord>(mut names: Vec<T>) -> Vec<T> {
    names.sort();
    names
}

fn chosen(only: Some3) -> Vec<usize> {
    (0..3).filter(|which| only & (1 << which) != 0).collect()
}

fn names(which: &[usize]) -> Vec<String> {
    which.iter().map(|which| NAMES[*which].to_string()).collect()
}

fn part(states: &BTreeMap<usize, State>, aim: &[usize]) -> BTreeMap<usize, State> {
    states.iter().filter(|(which, _)| aim.contains(which)).map(|(which, state)| (*which, state.clone())).collect()
}

/// The states with those of these databases replaced.
fn merged(states: &BTreeMap<usize, State>, by: &BTreeMap<usize, State>, aim: &[usize]) -> BTreeMap<usize, State> {
    let mut merged = states.clone();
    merged.extend(part(by, aim));
    merged
}

#[test]
fn p5_p6_three_databases_go_through_anything() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(60);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    runner
        .run(&steps(), |steps| {
            let mut world = World::new();
            for step in &steps {
                world.apply(step);
                world.agree();
            }
            world.holds();
            Ok(())
        })
        .unwrap();
}
